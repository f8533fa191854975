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
    assert objective.names == ("text", "clip", "motion", "second", "camera", "beside", "below")
    batch = make_batch(objective)
    assert batch["clip"].shape[1] == 5  # one frame more than the encoder sees, for the differences
    batch.texts["beside"].tokens[2], batch.texts["beside"].numbers[2] = -1, -1
    embedded = objective.embed(batch)
    assert embedded["modalities"].shape == (6, 7, 8)
    assert embedded["present"][:, :4].all()
    assert embedded["present"][:, 4].tolist() == [True, False, True, True, False, True]
    assert embedded["present"][:, 5].tolist() == [True, True, False, True, True, True]
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
    lacking = build("symile", modalities=("motion", "beside"))
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


def test_gram_of_a_text_a_clip_and_another_camera_by_hand() -> None:
    """Two samples whose texts are their clips. The first has another camera, at right angles to all; the second has none."""
    objective = build("gram", modalities=("camera",), smoothing=0.0, weight_pair=0.0)
    assert isinstance(objective, GRAM)
    found = torch.stack([AXES[:2], AXES[:2], AXES[2:4]], dim=1)
    present = torch.tensor([[True, True, True], [True, True, False]])
    # of text i with set j: t = v spans nothing; another text with (v, camera) three axes, with v alone two: a volume of 1
    losses = objective.compare(told(found, present, scale=2.0))
    assert losses["loss"].item() == pytest.approx(math.log(1 + math.exp(-2)), abs=5e-3)
    half = found.clone()
    half[0, 2] = (AXES[0] + AXES[1]) / math.sqrt(2)  # the camera shows half of what the other text says
    # sets: with its own text 0; the other text, the clip and the camera lie in one plane: 0 as well. Texts, of the set of sample 2: 0 and 1
    losses = objective.compare(told(half, present, scale=2.0))
    even, sure = math.log(2), math.log(1 + math.exp(-2))
    # text 1 among sets: (0, 1); text 2 among sets: (0, 0); set 1 among texts: (0, 0); set 2 among texts: (1, 0)
    assert losses["loss"].item() == pytest.approx((2 * sure + 2 * even) / 4, abs=5e-3)


@pytest.mark.parametrize("name", ["gram", "symile", "mcn"])
def test_what_stands_in_for_another_camera_is_never_looked_at(name: str) -> None:
    objective = build(name, modalities=("second", "camera"))
    batch = make_batch(objective)
    assert batch.targets["camera_missing"].tolist() == [False, True, False, False, True, False]
    expected = objective.eval()(batch)["loss"]
    other = make_batch(objective)
    other.clips["camera"][batch.targets["camera_missing"]] = 100 * torch.randn(2, *batch["camera"].shape[1:])
    torch.testing.assert_close(objective(other)["loss"], expected)
    other.clips["camera"][0] += torch.randn(batch["camera"].shape[1:])  # and one that is there, is
    assert objective(other)["loss"].item() != pytest.approx(expected.item(), abs=1e-5)
    batch.targets["camera_missing"][:] = True
    loss = objective(batch)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())


def test_gram_without_any_other_camera_is_gram_without_the_modality() -> None:
    with_it, without = build("gram", modalities=("second", "camera")), build("gram", modalities=("second",))
    batch = make_batch(with_it)
    batch.targets["camera_missing"][:] = True
    found, expected = with_it(batch), without(batch)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)
    found["loss"].backward()
    expected["loss"].backward()
    for (name, one), other in zip(with_it.named_parameters(), without.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_symile_has_a_word_for_the_camera_that_is_missing() -> None:
    objective = build("symile", modalities=("camera",), strangers="all", weight_pair=0.0)
    assert isinstance(objective, Symile)
    assert set(objective.placeholders) == {"camera"}
    batch = make_batch(objective)
    third = objective.embed(batch)["modalities"][:, 2]
    torch.testing.assert_close(third[1], third[4])  # the same stands in for both
    assert not third[0].allclose(third[2])


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
