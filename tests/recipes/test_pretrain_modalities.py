"""Methods that take two to n modalities together, each against its equation on vectors of a few numbers."""

from __future__ import annotations

import math

import pytest
import torch
from alignment_factory import rows
from objective_factory import build, make_batch
from torch import Tensor
from torch.nn import functional as F

from recipes.objective import Progress
from recipes.parts.alignment import both_ways
from recipes.parts.modalities import Modalities
from recipes.pretrain.gram import GRAM
from recipes.pretrain.mcn import MCN
from recipes.pretrain.symile import Symile

AXES = torch.eye(8)


def told(modalities: Tensor, present: Tensor | None = None, scale: float = 2.0) -> dict[str, Tensor]:
    """What `compare` is given of samples who all say something else."""
    count = len(modalities)
    present = torch.ones(modalities.shape[:2], dtype=torch.bool) if present is None else present
    facts = {"words": torch.arange(count), "recordings": torch.arange(count), "seeds": torch.arange(count) + 5}
    return {"modalities": modalities, "present": present, "scale": torch.full((count,), scale), **facts}


def test_what_is_embedded_is_what_there_is_of_each_sample() -> None:
    objective = build("gram")
    assert isinstance(objective, Modalities)
    assert objective.names == ("text", "clip", "motion", "second", "beside", "below")
    batch = make_batch(objective)
    assert batch["clip"].shape[1] == 5  # one frame more than the encoder sees, for the differences
    batch.texts["beside"].tokens[2], batch.texts["beside"].numbers[2] = -1, -1
    embedded = objective.embed(batch)
    assert embedded["modalities"].shape == (6, 6, 8)
    assert embedded["present"][:, :4].all()
    assert embedded["present"][:, 4].tolist() == [True, True, False, True, True, True]
    still = batch["clip"][:, :1].expand(-1, 5, -1, -1, -1).clone()
    batch.clips["clip"] = still
    moved = objective.embed(batch)["modalities"]
    assert not moved[:, 2].allclose(embedded["modalities"][:, 2])
    assert moved[0, 2].allclose(moved[1, 2])  # where nothing moves there is nothing to tell them apart
    assert not moved[0, 1].allclose(moved[1, 1])


def test_two_modalities_are_what_clip_learns_from() -> None:
    """Symile of a text and a clip alone is CLIP's loss."""
    objective = build("symile", modalities=(), weight_pair=0.0)
    assert isinstance(objective, Symile)
    assert not objective.placeholders
    assert objective.motion is None
    found = rows(5, 2, 8)
    loss = objective.compare(told(found))["loss"].item()
    assert loss == pytest.approx(both_ways(found[:, 0], found[:, 1], 0.5).item(), abs=1e-5)


def test_gram_by_hand() -> None:
    """Two samples whose texts are their clips and whose motion is something else: volume 0 with the own, 1 with the other; cosines 1 and 0."""
    objective = build("gram", modalities=("motion",), smoothing=0.0, weight_pair=0.5)
    assert isinstance(objective, GRAM)
    found = torch.stack([AXES[:2], AXES[:2], AXES[2:4]], dim=1)
    losses = objective.compare(told(found, scale=2.0))
    volume, pair = math.log(1 + math.exp(-2)), math.log(1 + math.exp(-2))
    assert losses["loss_volume"].item() == pytest.approx(volume, abs=5e-3)  # eps under the root: 1e-3 of volume
    assert losses["loss_pair"].item() == pytest.approx(pair, abs=1e-5)
    assert losses["loss"].item() == pytest.approx(volume + 0.5 * pair, abs=5e-3)
    assert losses["volume"].item() == pytest.approx(1e-3, rel=1e-2)


def test_a_volume_does_not_know_a_vector_from_its_opposite_and_the_pair_does() -> None:
    """Why CLIP's loss is added: what search compares would be the opposite of what was learned."""
    objective = build("gram", modalities=())
    assert isinstance(objective, GRAM)
    same, opposite = (objective.compare(told(torch.stack([AXES[:3], sign * AXES[:3]], dim=1))) for sign in (1.0, -1.0))
    assert same["loss_volume"].item() == pytest.approx(opposite["loss_volume"].item(), abs=1e-6)
    assert same["accuracy"].item() == 1
    assert opposite["accuracy"].item() == 0
    assert opposite["loss_pair"] > same["loss_pair"] + 1


def test_symile_by_hand_with_a_modality_that_is_missing() -> None:
    objective = build("symile", modalities=("motion",), strangers="all", weight_pair=0.0)
    assert isinstance(objective, Symile)
    found = F.normalize(rows(2, 3, 8), dim=-1)
    total = 0.0
    for a in range(3):
        left, right = (found[:, m] for m in range(3) if m != a)
        for i in range(2):
            scores = {(j, k): 2 * (found[i, a] * left[j] * right[k]).sum().item() for j in range(2) for k in range(2)}
            total += -scores[i, i] + math.log(sum(math.exp(score) for score in scores.values()))
    assert objective.compare(told(found))["loss_product"].item() == pytest.approx(total / 6, abs=1e-5)
    lacking = build("symile")
    assert isinstance(lacking, Symile)
    assert set(lacking.placeholders) == {"beside"}
    batch = make_batch(lacking)
    batch.texts["beside"].tokens[:2], batch.texts["beside"].numbers[:2] = -1, -1
    third = lacking.embed(batch)["modalities"][:, 3]
    torch.testing.assert_close(third[0], third[1])  # the same stands in for both
    lacking(batch)["loss"].backward()
    stand_in = lacking.placeholders["beside"].stand_in
    assert isinstance(stand_in, torch.nn.Parameter)
    assert stand_in.grad is not None
    assert stand_in.grad.abs().sum() > 0


def test_mcn_by_hand_before_and_after_there_are_centroids() -> None:
    objective = build("mcn", clusters=2, memory=4, modalities=("motion",), temperature=0.5, temperature_cluster=0.25)
    assert isinstance(objective, MCN)
    found = AXES[[0, 0, 1, 1]].unsqueeze(1) + 0.2 * rows(4, 3, 8)
    present = torch.ones(4, 3, dtype=torch.bool)
    present[0, 2] = False
    embedded = told(found, present)
    before = objective.compare(embedded)
    text, clip, moved = found.unbind(1)
    three = [
        both_ways(text, clip, 0.5),
        *(both_ways(one[1:], moved[1:], 0.5) * 3 / 4 for one in (text, clip)),  # who lacks it is no stranger either
    ]
    assert before["loss_own"].item() == pytest.approx(sum(three).item() / 3, abs=1e-5)  # type: ignore[union-attr]
    assert before["loss_cluster"].item() == 0
    for early in (10, 37):
        objective.after_step(Progress(early, 100, 0.0))
        assert not objective.centroids.fitted  # not yet, and not the step for it
    objective.after_step(Progress(40, 100, 0.0))
    assert objective.centroids.fitted
    centroids, cosines = objective.centroids.rows, F.normalize(found, dim=-1) @ objective.centroids.rows.T
    own = (F.normalize(found.sum(dim=1), dim=-1) @ centroids.T).argmax(dim=1)
    assert own[0] == own[1] != own[2] == own[3]
    each = -(cosines / 0.25).log_softmax(dim=-1)[torch.arange(4), :, own]
    after = objective.compare(embedded)
    assert after["loss_cluster"].item() == pytest.approx(each[present].mean().item(), abs=1e-5)
    assert after["loss"].item() == pytest.approx(after["loss_own"].item() + after["loss_cluster"].item(), abs=1e-5)


def test_no_modality_twice() -> None:
    with pytest.raises(ValueError, match="no two modalities may be alike"):
        build("gram", modalities=("motion", "motion"))
