"""Methods that learn from what was recorded beside the video, inertial signals and poses, and from the order of narrations: losses by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from objective_factory import build, make_batch
from torch import Tensor
from torch.nn import functional as F

from domains.errors import ConfigError
from domains.store.texts import Asked, Said, Texts, pick
from recipes.objective import CAMERA, IMU, MOMENT, POSE
from recipes.parts.alignment import both_ways, paired_nce
from recipes.parts.poses import PoseTower
from recipes.parts.prototypes import sinkhorn
from recipes.parts.signals import SignalTower
from recipes.pretrain.imu import IMUVideo
from recipes.pretrain.previps import PreViPS, geometry
from recipes.pretrain.procedure import Procedure

NAN = math.nan


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def imu(**settings: object) -> IMUVideo:
    objective = build("imu", **settings)
    assert isinstance(objective, IMUVideo)
    return objective


def test_imu_is_clip_of_those_that_were_measured() -> None:
    v, u, scale = rows(5, 8), rows(5, 8, seed=1), torch.full((5,), 3.0)
    present = torch.tensor([True, False, True, True, False])
    objective = imu()
    found = objective.compare({"v": v, "u": u, "scale": scale, "present": present})
    expected = both_ways(v[present], u[present], 1 / 3.0)
    assert found["loss"].item() == pytest.approx(expected.item(), abs=1e-5)
    assert found["measured"].item() == pytest.approx(0.6)
    nobody = objective.compare({"v": v, "u": u, "scale": scale, "present": torch.zeros(5, dtype=torch.bool)})
    assert nobody["loss"].item() == 0
    assert objective.log_scale.exp().item() == pytest.approx(1 / 0.07)


def test_imu_says_nothing_of_what_was_not_measured() -> None:
    objective = imu()
    batch = make_batch(objective)
    found = objective.embed(batch)
    assert found["present"].tolist() == [False, *[True] * 5]
    batch.targets[IMU][3, :2] = 7.0  # was not measured there
    assert not objective.embed(batch)["u"][3].equal(found["u"][3])
    batch.targets[IMU] = batch.targets[IMU][..., :2]
    with pytest.raises(ConfigError, match=r"the signal has 2 channels.*objective.channels=2"):
        objective(batch)


def test_a_signal_of_any_length_is_read_and_its_size_counts() -> None:
    torch.manual_seed(0)
    tower = SignalTower(2, 4)
    for length in (1, 7, 200):
        assert tower(torch.zeros(3, length, 2)).shape == (3, 8)
    signal = rows(1, 50, 2)
    assert not torch.allclose(tower(signal), tower(5 * signal), atol=1e-2)  # a strong gesture is no weak one
    assert tower(torch.full((1, 5, 2), NAN)).isfinite().all()


def pose_tower() -> PoseTower:
    torch.manual_seed(0)
    return PoseTower(joints=2, steps=2, bins=4, width=8, depth=1, heads=2)


def test_a_pose_token_is_the_cell_that_a_joint_is_in() -> None:
    pose = torch.tensor(
        [[[[0.1, 0.1], [0.9, 0.6]], [[0.5, 0.5], [0.5, 0.5]], [[NAN, NAN], [1.7, -0.2]]]]
    )  # 3 times, 2 joints
    assert pose_tower().tokens(pose).tolist() == [
        [[0, 2 * 4 + 3], [16, 3]]
    ]  # of the first and the last time; beyond: at the edge


def test_hidden_joints_are_those_that_are_seen_and_their_cells_are_not_told() -> None:
    tower = pose_tower()
    tokens = torch.randint(0, 16, (40, 2, 2))
    tokens[:, 0, 0] = tower.unseen
    shown, hidden = tower.hide(tokens, torch.arange(40), 0.5)
    assert not hidden[:, 0, 0].any()
    assert 40 < hidden.sum() < 80  # half of 120
    assert shown[hidden].eq(tower.masked).all()
    assert shown[~hidden].equal(tokens[~hidden])
    other = torch.where(hidden, (tokens + 5) % 16, tokens)
    assert tower(tower.hide(other, torch.arange(40), 0.5)[0])[1].equal(tower(shown)[1])
    made = tower(shown)[1]
    costs = F.cross_entropy(tower.guess(made)[hidden], tokens[hidden], reduction="sum")
    torch.testing.assert_close(tower.guesses(made, tokens, hidden).sum(), costs)


def test_geometry_by_hand() -> None:
    v, p = F.normalize(rows(3, 4), dim=1), F.normalize(rows(3, 4, seed=1), dim=1)
    counted = torch.tensor([[True, True, False], [True, True, False], [False, False, False]])
    expected = sum(
        (v[i] @ p[k] - p[i] @ v[k]).item() ** 2 + (v[i] @ v[k] - p[i] @ p[k]).item() ** 2
        for i in (0, 1)
        for k in (0, 1)
    )
    assert geometry(v, p, counted).item() == pytest.approx(expected / 4, abs=1e-6)
    assert geometry(v, v, counted).item() == 0


def test_previps_is_the_sum_of_its_terms() -> None:
    objective = build("previps", weight_geometry=0.5, weight_masked=0.25, temperature=0.5)
    assert isinstance(objective, PreViPS)
    v, p = rows(5, 8), rows(5, 8, seed=1)
    moment, camera = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 2, 0, 1])
    present = torch.tensor([True, True, False, True, True])
    embedded = {
        "v": v, "p": p, "present": present, MOMENT: moment, CAMERA: camera, "guesses": torch.tensor([2.0, 1.0, 0.0, 3.0, 0.0]),
        "hidden": torch.tensor([1, 1, 0, 2, 0]),
    }  # fmt: skip
    found = objective.compare(embedded)
    same = moment.unsqueeze(1) == moment
    itself = torch.eye(5, dtype=torch.bool)
    both = present.unsqueeze(1) & present
    views = paired_nce(v, v, 0.5, same & ~itself, ~same)
    poses, there, back = (
        paired_nce(x, y, 0.5, same & ~itself & both, ~same & both) for x, y in ((p, p), (v, p), (p, v))
    )
    assert found["loss_cross_view"].item() == pytest.approx(((views + poses + (there + back) / 2) / 3).item(), abs=1e-5)
    scores, inside = (F.normalize(v, dim=1) @ F.normalize(p, dim=1).T / 0.5).tolist(), 0.0
    for i in (0, 1, 3, 4):
        others = [j for j in (0, 1, 3, 4) if moment[j] != moment[i]]  # poses of the same moment are no strangers
        inside -= math.log(math.exp(scores[i][i]) / sum(math.exp(scores[i][j]) for j in (i, *others))) / 8
        inside -= math.log(math.exp(scores[i][i]) / sum(math.exp(scores[j][i]) for j in (i, *others))) / 8
    assert found["loss_in_view"].item() == pytest.approx(inside, abs=1e-5)
    assert found["loss_masked"].item() == pytest.approx(6 / 4)
    total = found["loss_in_view"] + found["loss_cross_view"] + 0.5 * found["loss_geometry"] + 0.25 * 1.5
    assert found["loss"].item() == pytest.approx(total.item(), abs=1e-5)


def test_previps_without_any_pose_still_learns_from_the_cameras() -> None:
    objective = build("previps")
    batch = make_batch(objective)
    batch.targets[POSE].fill_(NAN)
    losses = objective(batch)
    assert losses["loss_in_view"].item() == losses["loss_geometry"].item() == losses["loss_masked"].item() == 0
    assert losses["loss"].item() > 0
    losses["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())
    batch.targets[POSE] = torch.zeros(6, 3, 7, 2)
    with pytest.raises(ConfigError, match=r"poses have 7 joints.*objective.joints=7"):
        objective(batch)


def test_the_next_narrations_are_those_of_the_same_level_and_source_in_order() -> None:
    told = [
        (0.0, "one", "clip"),
        (4.0, "one", "clip"),
        (2.0, "one", "clip"),
        (1.0, "two", "clip"),
        (3.0, "one", "keystep"),
        (6.0, "one", "clip"),
    ]
    texts = Texts(Said((0,), start, start + 1, f"said at {start:g}", source, level) for start, source, level in told)
    allowed, random = np.ones(len(texts), bool), np.random.default_rng(0)
    named = {texts.words(index): index for index in range(len(texts))}

    def after(start: float, count: int) -> list[str]:
        found = pick(texts, named[f"said at {start:g}"], 0, Asked("after", count=count), allowed, random)
        return [texts.words(index) for index in found]

    assert after(0.0, 2) == ["said at 2", "said at 4"]
    assert after(2.0, 5) == ["said at 4", "said at 6"]
    assert after(6.0, 2) == []


def procedure(**settings: object) -> Procedure:
    objective = build("procedure", **settings)
    assert isinstance(objective, Procedure)
    return objective


def test_procedure_by_hand() -> None:
    objective = procedure(weight_order=0.5, temperature=0.2)
    clips, texts, guessed = (rows(4, 6, seed=seed).tanh() for seed in range(3))
    several = torch.tensor([True, True, False, True])
    found = objective.compare({"clips": clips, "texts": texts, "guessed": guessed, "several": several})

    def costs(q: Tensor, scores: Tensor) -> list[float]:
        return (-(q * (scores / 0.2).log_softmax(dim=1)).sum(dim=1)).tolist()  # type: ignore[no-any-return]

    named, shown = sinkhorn(texts), sinkhorn(clips)
    match = (sum(costs(named, clips)) + sum(costs(shown, texts))) / 8
    order = sum(cost for cost, counts in zip(costs(named, guessed), several.tolist(), strict=True) if counts) / 3
    assert found["loss_match"].item() == pytest.approx(match, abs=1e-5)
    assert found["loss_order"].item() == pytest.approx(order, abs=1e-5)
    assert found["loss"].item() == pytest.approx(match + 0.5 * order, abs=1e-5)


def test_the_hidden_step_is_guessed_from_the_others_and_their_order_alone() -> None:
    objective = procedure()
    clips, place = rows(2, 3, 8), torch.tensor([1, 0])
    present = torch.tensor([[True, True, True], [True, True, False]])
    found = objective.guess(clips, present, place)
    other = clips.clone()
    other[0, 1], other[1, 0] = 9.0, 9.0  # the hidden ones
    other[1, 2] = -9.0  # one that is not there
    torch.testing.assert_close(objective.guess(other, present, place), found)
    assert not torch.allclose(objective.guess(clips[:1, [2, 1, 0]], present[:1], place[:1]), found[:1], atol=1e-3)


def test_a_narration_that_nothing_follows_has_no_order() -> None:
    objective = procedure()
    batch = make_batch(objective)
    batch.texts["after"].tokens.fill_(-1)
    batch.texts["after"].numbers.fill_(-1)
    losses = objective(batch)
    assert losses["loss_order"].item() == 0
    losses["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())
    assert any(bool(p.grad.any()) for p in objective.encoder.parameters() if p.grad is not None)
