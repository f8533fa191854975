"""Masked autoencoders that also contrast: ViC-MAE and CrossVideoMAE."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from objective_factory import build, make_batch

from recipes.encoders.tokens import patches
from recipes.parts.contrast import nt_xent
from recipes.parts.frames import take
from recipes.parts.masks import tube_masks


def given(objective: Any, decoder: str = "decoder") -> list[tuple[torch.Tensor, ...]]:
    """What a decoder is asked for, call by call."""
    asked: list[tuple[torch.Tensor, ...]] = []
    module = getattr(objective, decoder)
    forward = module.forward
    module.forward = lambda *inputs: (asked.append(inputs), forward(*inputs))[1]
    return asked


def silent(decoder: torch.nn.Module) -> None:
    """It predicts zeros from now on: a loss is the mean square of its target."""
    torch.nn.init.zeros_(decoder.leave.weight)
    torch.nn.init.zeros_(decoder.leave.bias)


def embedded(**reconstruction: float) -> dict[str, torch.Tensor]:
    first, second = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    names = {name.replace("_", " "): torch.full((2,), value) for name, value in reconstruction.items()}
    return {"first": first, "second": second, "clip": first, "other": second, "frame": second, **names}


def test_vicmae_by_hand() -> None:
    """Partners at cosine 1, strangers at 0, tau 1: each row costs log(e + 2) - 1."""
    objective = build("vicmae", temperature=1.0, weight_reconstruction=2.0, weight_contrast=3.0)
    contrast = torch.log(torch.tensor(torch.e + 2)).item() - 1
    found = objective.compare(embedded(first_reconstruction=1.0, second_reconstruction=3.0))
    assert found["loss"].item() == pytest.approx(2 * 2 + 3 * contrast, abs=1e-5)
    assert found["loss_contrast"].item() == pytest.approx(contrast, abs=1e-5)
    assert found["agreement"].item() == pytest.approx(1.0)


def test_vicmae_reconstructs_one_moment_at_any_time() -> None:
    objective = build("vicmae")
    batch = make_batch(objective, count=12)
    assert batch["first"].shape == (12, 2, 3, 32, 32)  # one tubelet
    asked, seen = given(objective), []
    encode = objective.encoder.forward
    objective.encoder.forward = lambda clip, visible: (seen.append((clip, visible)), encode(clip, visible))[1]
    silent(objective.decoder)
    found = objective.embed(batch)
    for name, (_, visible, hidden), (clip, at) in zip(("first", "second"), asked, seen, strict=True):
        masks = tube_masks(batch.seeds, (1, 4, 4), 0.5, name=name)
        assert torch.equal(visible, masks.visible[:, 0])
        assert torch.equal(hidden, masks.hidden[:, 0])
        assert torch.equal(at % 16, visible)
        assert set((at // 16)[:, 0].tolist()) == {0, 1}  # both times of the grid, by sample
        assert torch.equal(clip[:, 2:4], batch[name])
        target = patches(batch[name], 2, 8, hidden)
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        expected = ((target - mean) / (variance + 1e-6).sqrt()).square().mean()
        torch.testing.assert_close(found[f"{name} reconstruction"], expected.expand(12))


def test_crossvideomae_by_hand() -> None:
    objective = build("crossvideomae", temperature=1.0, weight_intra=0.5, weight_cross=2.0)
    parts = embedded(clip_reconstruction=1.0, other_reconstruction=3.0, frame_reconstruction=5.0)
    parts["frame"] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # of the other clip, as it were
    found = objective.compare(parts)
    contrast = torch.log(torch.tensor(torch.e + 2)).item() - 1
    crossed = torch.log(torch.tensor(torch.e + 2)).item()  # the partner at 0, one stranger at 1
    assert found["loss"].item() == pytest.approx(2 + 5 + 0.5 * contrast + 2 * crossed, abs=1e-5)
    assert found["agreement_cross"].item() == pytest.approx(0.0, abs=1e-6)
    both = (parts["clip"] + parts["other"]) / 2
    assert found["loss_cross"].item() == pytest.approx(nt_xent(both, parts["frame"], 1.0).item())


def test_crossvideomae_reads_a_frame_of_the_clip() -> None:
    objective = build("crossvideomae")
    batch = make_batch(objective, count=12)
    frames = []
    encode = objective.frame_encoder.forward
    objective.frame_encoder.forward = lambda clip, visible: (frames.append(clip), encode(clip, visible))[1]
    asked = given(objective, "frame_decoder")
    silent(objective.frame_decoder)
    found = objective.embed(batch)
    same = (batch["clip"] == frames[0]).flatten(2).all(dim=2)
    assert same.any(dim=1).all()
    assert len(set(same.long().argmax(dim=1).tolist())) > 1
    assert torch.equal(take(batch["clip"], same.long().argmax(dim=1, keepdim=True)), frames[0])
    assert asked[0][2].shape == (12, 8)
    assert found["frame reconstruction"][0].item() == pytest.approx(63 / 64, abs=1e-4)  # n - 1 of n


def test_crossvideomae_contrast_reaches_both_encoders() -> None:
    objective = build("crossvideomae")
    objective.embed(make_batch(objective))["frame"].sum().backward()
    assert all(parameter.grad is None for parameter in objective.encoder.parameters())
    assert any(parameter.grad is not None for parameter in objective.frame_encoder.parameters())
    objective.zero_grad(set_to_none=True)
    losses = objective(make_batch(objective))
    losses["loss"].backward()
    assert all(parameter.grad is not None for parameter in objective.encoder.parameters() if parameter.requires_grad)
