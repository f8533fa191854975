"""The generic encoder's training: what it is told is what the scenes know, and the loop takes it as it takes recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from objective_factory import small_encoder
from safetensors.torch import load_file
from torch.nn import functional as F

from domains.base import ClipSettings
from domains.generic.samples import draw_sample
from recipes.encoders import open_encoder
from recipes.generic.data import SCENES, SHOWN, SceneData, scene_of
from recipes.generic.objective import (
    SIDE,
    Beside,
    Generic,
    cells_of,
    change_of,
    coarse_pictures,
    course_of,
    missed,
    off_diagonal,
    unlike,
)
from recipes.generic.train import looked_at, main
from recipes.objective import Batch
from recipes.runs.metrics import read_metrics
from recipes.training.data import collate, to_batch

CLIP = ClipSettings(frames=4, size=32, stride=1)


class Nothing:
    """Where nothing is looked at."""

    def __len__(self) -> int:
        return 0


def data(seed: int = 0) -> SceneData:
    return SceneData(Nothing(), CLIP, (2, 8), seed=seed)  # type: ignore[arg-type]


def batch(count: int = 4) -> Batch:
    return to_batch(collate([data()[number] for number in range(count)]), small_encoder().geometry, torch.device("cpu"))


def build(**settings: object) -> Generic:
    torch.manual_seed(0)
    return Generic(small_encoder(), Generic.Settings(head_hidden=16, head_outputs=8, **settings)).train()


def test_targets_are_the_scenes_own() -> None:
    found, truth = batch(3), draw_sample(0, 2, 4, 32, (2, 8))
    assert found["first"].shape == (3, 4, 3, 32, 32)
    assert found.targets["flow_second"].shape == (3, 2 * 4 * 4, 2)
    np.testing.assert_allclose(
        found.targets["flow_second"][2].numpy(), np.clip(truth.truths[1].flow.reshape(-1, 2) / 2, -4, 4), rtol=1e-6
    )
    assert found.targets["pace"][2] == truth.pace
    assert found.targets["backwards"][2] == truth.backwards
    assert found.targets["swapped"][2] == truth.swapped
    speed = truth.truths[0].facts[0]
    assert found.targets["facts_first"][2, 0].item() == pytest.approx(np.log1p(speed), rel=1e-5)


def test_every_scene_is_shown_twice_before_new_ones_come() -> None:
    shown = [scene_of(position) for position in range(3 * SCENES * SHOWN)]
    assert shown[:SCENES] == shown[SCENES : 2 * SCENES] == list(range(SCENES))
    assert sorted(shown) == sorted(list(range(3 * SCENES)) * SHOWN)
    first, again = data()[1], data()[1 + SCENES]
    assert (first["views"]["first"].frames == again["views"]["first"].frames).all()
    assert first["seed"] != again["seed"]  # masks are drawn from it


def test_what_tokens_tell_by_hand() -> None:
    """Two tokens. Told (0, 0) and logit 0 of (0.1, 0) behind and (2, 0) in front: Huber with beta 0.25, and ln 2 a quarter."""
    objective = build()
    torch.nn.init.zeros_(objective.local.weight)
    torch.nn.init.zeros_(objective.local.bias)
    targets = {
        "flow_first": torch.tensor([[[9.0, 9.0], [0.1, 0.0], [2.0, 0.0]]]), "front_first": torch.tensor([[1.0, 0.0, 1.0]]),
    }  # fmt: skip
    clip, visible = torch.randn(1, 4, 3, 32, 32), torch.tensor([[1, 2]])
    told = objective.of_tokens(torch.randn(1, 2, 24), visible, Batch({"first": clip}, torch.zeros(1), targets), "first")
    huber = (0.5 * 0.1**2 / 0.25 + (2 - 0.125)) / 4
    assert told["flow"].item() == pytest.approx(huber + 0.25 * np.log(2), abs=1e-6)
    wanted = change_of(cells_of(clip), (2, 4, 4))[:, 1:3]
    assert told["change"].item() == pytest.approx(float(wanted.square().mean() / wanted.var(correction=0)), rel=1e-5)


def test_facts_are_read_as_a_probe_reads_them() -> None:
    """By linear layers from features standardised over the batch: their scale and offset do not matter."""
    objective, found, read = build(), batch(4), torch.randn(4, 48)
    even = (read - read.mean(0)) / (read.var(0, correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(objective.even(7 * read + 3), even, rtol=1e-3, atol=1e-4)
    expected = F.smooth_l1_loss(objective.facts(even), found.targets["facts_first"].float())
    for name in ("pace", "backwards", "swapped", "texture"):
        expected = expected + 0.25 * F.cross_entropy(objective.kinds[name](even), found.targets[name])
    torch.testing.assert_close(objective.facts_loss(even, found.targets, "first"), expected)


def test_pictures_and_changes_by_hand() -> None:
    """Left half 1, 2, 3, 6 over time in one channel and three times that in another, right half black: brightness 2, 4, 6, 12."""
    clip = torch.zeros(1, 4, 2, 32, 32)
    clip[0, :, 0, :, :16] = torch.tensor([1.0, 2.0, 3.0, 6.0])[:, None, None]
    clip[0, :, 1] = 3 * clip[0, :, 0]
    cells = cells_of(clip)
    maps = coarse_pictures(cells)[0].unflatten(1, (SIDE, SIDE))
    for found, expected in zip(maps, (6.0, 14**0.5, 9.0 - 3.0, (2 + 2 + 6) / 3), strict=True):
        torch.testing.assert_close(found[:, : SIDE // 2], torch.full((SIDE, SIDE // 2), expected))
        assert (found[:, SIDE // 2 :] == 0).all()
    torch.testing.assert_close(course_of(cells), torch.tensor([[1.01, 1.01, 3.01]]).div(0.1).log())
    # Two tubelets of two frames: from the frame before each, 0 (there is none) and 2; 2 and 6. A quarter of the picture each.
    change = change_of(cells, (2, 2, 2)).view(2, 2, 2)
    torch.testing.assert_close(change[:, :, 0], torch.tensor([[1.01, 1.01], [4.01, 4.01]]).div(0.1).log())
    torch.testing.assert_close(change[:, :, 1], torch.full((2, 2), 0.1).log())


def test_what_is_missed_is_one_where_the_mean_is_said_and_nothing_where_all_is() -> None:
    wanted = torch.randn(4, 3, 7) * torch.tensor([1.0, 10.0, 0.1])[:, None] + 5
    mean = wanted.mean(dim=(0, 2), keepdim=True).expand_as(wanted)
    assert missed(mean, wanted).item() == pytest.approx(1, rel=1e-4)
    assert missed(wanted, wanted) == 0
    half = wanted.clone()
    half[:, 1:] = mean[:, 1:]  # one map of three is told
    assert missed(half, wanted).item() == pytest.approx(2 / 3, rel=1e-4)


def test_gradients_reach_everything_and_the_loss_is_its_parts() -> None:
    weights = {"contrast": 2.0, "flow": 3.0, "facts": 0.5, "told": 0.25, "alike": 0.75}
    objective, found = build(**{f"weight_{name}": weight for name, weight in weights.items()}), batch(4)
    for layer in (objective.pictures, objective.course):
        torch.nn.init.normal_(layer.weight)
    losses = objective(found)
    losses["loss"].backward()
    told = weights.pop("told")
    parts = [
        (name, weights.get(name, told))
        for name in ("contrast", "flow", "facts", "pictures", "course", "change", "alike")
    ]
    torch.testing.assert_close(losses["loss"].detach(), sum(weight * losses[f"loss_{name}"] for name, weight in parts))
    assert not [name for name, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert build().encoder.random_start


def test_unlike_by_hand() -> None:
    """Three clips. Wanted: 0, 1 and 5 of one kind, centred -2, -1 and 3, of cosines 1, -1 and -1 (one number has nothing but its sign)."""
    wanted = [torch.tensor([[0.0], [1.0], [5.0]])]
    near = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])  # the first two are near each other, as they shall be
    assert unlike(near, wanted).item() == pytest.approx(
        1 - (1 + 1 + 0) / 3, abs=1e-5
    )  # of the third, both are as far: nothing follows
    assert unlike(near[[0, 2, 1]], wanted).item() == pytest.approx(1 - (-1 + 0 - 1) / 3, abs=1e-5)


def test_what_is_wanted_of_each_kind_counts_the_same() -> None:
    """One kind says that the clips a and b are alike, another a and c; in a thousand values or in one, in thousandths or in thousands."""
    pairs = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]), torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    read = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    for wanted in (pairs, [1e-3 * pairs[0], 1e3 * pairs[1].expand(-1, 1000)]):
        assert unlike(read, list(wanted)).item() == pytest.approx(0, abs=1e-4)


def test_the_diagonal_is_left_out() -> None:
    square = torch.arange(9.0).view(3, 3)
    assert off_diagonal(square).tolist() == [[1, 2], [3, 5], [6, 7]]


def test_encoders_that_learn_beside_each_other_learn_as_if_alone() -> None:
    """The same gradients as on its own, of the first and of the other: only the sum of their losses is of both."""
    found = batch(4)
    alone = build(weight_contrast=2.0), build(weight_alike=1.0)
    losses = [one(found) for one in alone]
    for one in losses:
        one["loss"].backward()
    first, other = build(weight_contrast=2.0), build(weight_alike=1.0)
    beside = Beside(first.encoder, first.settings, {"other": other})
    beside.load_state_dict(first.state_dict(), strict=False)
    both = beside(found)
    both["loss"].backward()
    torch.testing.assert_close(both["loss"], losses[0]["loss"] + losses[1]["loss"])
    torch.testing.assert_close(both["loss_flow"], losses[0]["loss_flow"])
    torch.testing.assert_close(both["other_loss_alike"], losses[1]["loss_alike"])
    for expected, name in ((alone[0], ""), (alone[1], "others.other.")):
        got = dict(beside.named_parameters())
        for key, parameter in expected.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(got[name + key].grad, parameter.grad)


def test_a_run_learns_motion_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.generic.train.LOOKED", 6)
    words = [
        "generic", "--out", str(tmp_path), "--size", "32", "train.batch_size=8", "train.log_every=1", "train.monitor_every=4", "data.workers=0",
        "train.precision=fp32", "train.save_every=2", "monitor.clips=6",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", [*words, "train.steps=3"])
    main()
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[-1]["loss_flow"] != rows[0]["loss_flow"]
    assert "rankme" in rows[-1]
    encoder = open_encoder(tmp_path / "run")
    assert encoder.geometry.size == 32
    assert len(looked_at(tmp_path / "looked")) == 6
    monkeypatch.setattr("sys.argv", [*words, "train.steps=3"])
    main()  # finished: nothing more
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2, 3]
    assert len({data(seed).fingerprint() for seed in (0, 1)}) == 2

    # Another size goes on from there, heads included, and what it learns is shipped.
    more = [word if word != str(tmp_path) else str(tmp_path / "more") for word in words]
    more[more.index("32")] = "64"
    monkeypatch.setattr("sys.argv", [*more, "--from", str(tmp_path / "run"), "train.steps=1", "optim.lr=1e-12"])
    main()
    before, after = (
        load_file(next(run.glob("run/checkpoints/step*/objective.safetensors")))
        for run in (tmp_path, tmp_path / "more")
    )
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    monkeypatch.setattr("sys.argv", ["generic", "--out", str(tmp_path / "more"), "--ship", str(tmp_path / "shipped")])
    main()
    assert {weight.dtype for weight in load_file(tmp_path / "shipped/model.safetensors").values()} == {torch.float16}
    shipped = open_encoder(tmp_path / "shipped")
    assert shipped.geometry.size == 64
    torch.testing.assert_close(
        shipped.projection.weight,
        after["encoder.model.embeddings.patch_embeddings.projection.weight"],
        rtol=1e-3,
        atol=1e-6,
    )


def test_encoders_beside_each_other_ship_one_by_one_or_as_a_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipes.generic.train.LOOKED", 6)

    def call(out: str, *words: str) -> None:
        monkeypatch.setattr("sys.argv", ["generic", "--out", str(tmp_path / out), *words])
        main()

    learn = [
        "--size", "32", "--shown", "1", "--also", "plain objective.weight_contrast=0 objective.weight_alike=1", "--also",
        "small encoder.name=vfm-small-random", "train.batch_size=4", "train.log_every=1", "data.workers=0", "train.precision=fp32", "train.steps=1",
        "monitor.clips=6", "optim.warmup=0",
    ]  # fmt: skip
    call("one", *learn)
    assert {"loss_alike", "plain_loss_alike", "small_loss_flow"} <= read_metrics(tmp_path / "one/run")[0].keys()
    opened = {name: open_encoder(tmp_path / "one/run" / name) for name in ("encoder", "encoder-plain", "encoder-small")}
    assert [one.width for one in opened.values()] == [192, 192, 256]
    weight = "encoder.layer.0.output.dense.weight"
    first, plain, _ = (one.model.state_dict()[weight] for one in opened.values())
    assert not torch.equal(first, plain)
    call("two", *learn, "--from", str(tmp_path / "one/run"), "train.seed=1")
    call("one", "--ship", str(tmp_path / "mean"), "--which", "plain", "--mean", str(tmp_path / "two/run/encoder-plain"))
    other = open_encoder(tmp_path / "two/run/encoder-plain").model.state_dict()[weight]
    assert not torch.equal(other, plain)
    mean = open_encoder(tmp_path / "mean").model.state_dict()[weight]
    torch.testing.assert_close(mean, ((plain + other) / 2).half().float())
