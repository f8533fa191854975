"""Methods that learn from several cameras at one moment, each against its equation on vectors of a few numbers."""

from __future__ import annotations

import math

import pytest
import torch
from objective_factory import build, make_batch
from torch import Tensor
from torch.nn import functional as F

from recipes.objective import CAMERA, MOMENT, TEAM
from recipes.parts.moments import cameras, met_figures, teammates
from recipes.pretrain.cecl import CECL
from recipes.pretrain.cmc import CMC

MOMENTS, TEAMS = torch.tensor([4, 4, 4, 4, 9, 9, 7]), torch.tensor([0, 0, 1, 0, 0, -1, 0])


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosines(first: Tensor, second: Tensor) -> list[list[float]]:
    found: list[list[float]] = (F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).T).tolist()
    return found


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_teammates_are_of_one_team_and_one_moment() -> None:
    met = teammates(MOMENTS, TEAMS)
    partners = {(i, j) for i in range(7) for j in range(7) if met.partners[i, j]}
    assert partners == {(i, j) for i in (0, 1, 3) for j in (0, 1, 3) if i != j}
    # of moment 9 one team is not known: nobody says whether they belong together
    assert {(i, j) for i in range(7) for j in range(7) if met.apart[i, j]} == {(i, i) for i in range(7)} | {
        (4, 5),
        (5, 4),
    }
    assert met.strangers[0, 2]  # an opponent at the same moment
    assert met.strangers[0, 4]  # the same team at another


def test_cecl_by_hand() -> None:
    """Teams of three, one and one: every pair by itself, nobody with itself, nothing padded."""
    objective = build("cecl", head_outputs=4)
    assert isinstance(objective, CECL)
    e, scale, bias = rows(7, 4), 3.0, -1.5
    found = objective.compare(
        {"e": e, "scale": torch.full((7,), scale), "bias": torch.full((7,), bias), MOMENT: MOMENTS, TEAM: TEAMS}
    )
    scores, expected = cosines(e, e), 0.0
    for i in range(7):
        for j in range(7):
            if i == j or {i, j} == {4, 5}:
                continue
            sign = 1 if MOMENTS[i] == MOMENTS[j] and TEAMS[i] == TEAMS[j] else -1
            expected += softplus(-sign * (scale * scores[i][j] + bias)) / 7
    assert found["loss"].item() == pytest.approx(expected, abs=1e-5)
    assert found["partners"].item() == pytest.approx(6 / 7)


def test_cecl_begins_as_its_paper_does_and_learns_scale_and_bias() -> None:
    objective = build("cecl")
    assert isinstance(objective, CECL)
    losses = objective(make_batch(objective))
    assert (losses["scale"].item(), losses["bias"].item()) == (pytest.approx(10), -3)
    losses["loss"].backward()
    assert objective.log_scale.grad is not None
    assert objective.bias.grad is not None
    assert objective.log_scale.grad.abs() > 0
    assert objective.bias.grad.abs() > 0
    objective.log_scale.data.fill_(9.0)
    objective.after_step(None)  # type: ignore[arg-type]
    assert objective.log_scale.exp().item() == pytest.approx(100, rel=1e-5)


def test_what_all_clips_share_is_taken_away_first() -> None:
    objective, e = build("cecl", head_outputs=4, standardise=True), rows(7, 4)
    assert isinstance(objective, CECL)
    beside = {"scale": torch.full((7,), 3.0), "bias": torch.full((7,), -1.5), MOMENT: MOMENTS, TEAM: TEAMS}
    found = objective.compare({"e": e, **beside})["loss"].item()
    assert objective.compare({"e": 3 * e + 100, **beside})["loss"].item() == pytest.approx(found, rel=1e-3)
    plain = build("cecl", head_outputs=4)
    assert isinstance(plain, CECL)
    alone = (e - e.mean(dim=0)) / e.std(dim=0, correction=0)
    assert plain.compare({"e": alone, **beside})["loss"].item() == pytest.approx(found, rel=1e-4)


def test_cecl_without_teammates_still_has_a_finite_loss() -> None:
    objective = build("cecl")
    batch = make_batch(objective)
    batch.targets[TEAM].fill_(-1)
    batch.targets[MOMENT].fill_(3)  # and nobody's team is known: no pair is left
    losses = objective(batch)
    assert losses["loss"].item() == 0
    assert losses["accuracy"].item() == 0
    losses["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())


def test_cecl_never_looks_at_hidden_tubes() -> None:
    objective = build("cecl", mask_ratio=0.5)
    batch = make_batch(objective)
    assert objective.embed(batch)["e"].shape == (6, 8)
    clip = batch["clip"].clone().requires_grad_()
    batch.clips["clip"] = clip
    objective(batch)["loss"].backward()
    assert clip.grad is not None
    seen = (
        clip.grad.abs().sum(dim=(1, 2)).unflatten(1, (4, 8)).unflatten(3, (4, 8)).sum(dim=(2, 4)) > 0
    )  # of 4 x 4 patches
    assert seen.flatten(1).sum(dim=1).tolist() == [8] * 6
    assert not seen[0].equal(seen[1])
    whole = build("cecl", mask_ratio=0.0)
    batch.clips["clip"] = clip.detach()
    assert whole.embed(batch)["e"].equal(whole.head(whole.encoder.embed(batch["clip"])))


def test_cameras_of_a_moment_are_partners_whatever_their_team() -> None:
    met = cameras(torch.tensor([1, 1, 1, 2]), torch.tensor([0, 1, 0, 1]))
    assert met.partners.tolist()[0] == [False, True, False, False]
    assert met.apart.tolist()[0] == [True, False, True, False]  # the same camera: itself, or nearly
    assert met.strangers.tolist()[0] == [False, False, False, True]


def test_cmc_by_hand() -> None:
    """Three cameras at one moment, two at another: eight pairs, each against the samples of the other moment."""
    objective = build("cmc", head_outputs=4, temperature=0.5)
    assert isinstance(objective, CMC)
    z, moments, numbers = rows(5, 4), [0, 0, 0, 1, 1], [0, 1, 2, 0, 1]
    found = objective.compare({"z": z, MOMENT: torch.tensor(moments), CAMERA: torch.tensor(numbers)})
    scores, each = cosines(z, z), []
    for i in range(5):
        against = sum(math.exp(scores[i][n] / 0.5) for n in range(5) if moments[n] != moments[i])
        for p in range(5):
            if p != i and moments[p] == moments[i]:
                own = math.exp(scores[i][p] / 0.5)
                each.append(-math.log(own / (own + against)))
    assert len(each) == 8
    assert found["loss"].item() == pytest.approx(sum(each) / 8, abs=1e-5)


def test_cmc_of_one_moment_or_one_camera_costs_nothing() -> None:
    objective = build("cmc")
    for moment, camera in ((torch.zeros(6), torch.arange(6)), (torch.arange(6), torch.zeros(6))):
        z = rows(6, 8).requires_grad_()
        losses = objective.compare({"z": z, MOMENT: moment.long(), CAMERA: camera.long()})  # type: ignore[operator]
        assert losses["loss"].item() == 0
        losses["loss"].backward()
        assert z.grad is not None
        assert z.grad.eq(0).all()


def test_what_a_person_watches() -> None:
    e = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.2]])
    figures = met_figures(e, teammates(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 0])))
    assert figures["partners"].item() == 1
    assert figures["accuracy"].item() == pytest.approx(2 / 4)  # the last two are nearer to others than to each other
    scores = cosines(e, e)
    near = (scores[0][1] + scores[2][3]) / 2
    far = sum(scores[i][j] for i in (0, 1) for j in (2, 3)) / 4
    assert figures["agreement"].item() == pytest.approx(near - far, abs=1e-6)
