"""AdViSe: clips at their speeds, its loss by hand, and an image model that stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from objective_factory import SMALL, build, make_batch, small_encoder
from pydantic import ValidationError
from torch.nn import functional as F
from transformers import ViTConfig, ViTModel

from recipes.encoders import open_encoder
from recipes.encoders.base import quiet
from recipes.encoders.temporal import TemporalModule, TemporalSettings
from recipes.objective import Batch
from recipes.parts.draws import integers
from recipes.parts.frames import mirrored
from recipes.pretrain.advise import ADVISE, at_speed


def advise(**settings: object) -> ADVISE:
    objective = build("advise", **settings)
    assert isinstance(objective, ADVISE)
    return objective


def test_frames_at_a_speed_from_any_start() -> None:
    speeds = torch.tensor([1, 2, 3] * 100)
    order = at_speed(torch.arange(300), speeds, 4, 12)
    assert torch.equal(order.diff(dim=1), speeds.unsqueeze(1).expand(-1, 3))
    assert order.min() == 0
    assert order.max() == 11
    starts = [set(order[speeds == speed, 0].tolist()) for speed in (1, 2, 3)]
    assert starts == [set(range(9)), set(range(6)), set(range(3))]  # the clip fits, and is not told by where it ends
    assert torch.equal(at_speed(torch.tensor([7]), torch.tensor([2]), 4, 12)[0], order[7:8][0]) == (speeds[7] == 2)


@torch.no_grad()
def test_advise_by_its_equation() -> None:
    objective = advise(speeds=(1, 3))
    for parameter in objective.head.parameters():
        parameter.mul_(20)
    batch = make_batch(objective)
    assert batch["clip"].shape[1] == 12
    losses = objective(batch)
    truth = integers(batch.seeds, 2, name="speed")
    assert 0 < truth.sum() < 6  # both speeds are among them
    order = at_speed(batch.seeds, torch.tensor([1, 3])[truth], 4, 12)
    shown = torch.stack([clip[frames] for clip, frames in zip(batch["clip"], order, strict=True)])
    read = objective.encoder.describe(shown)
    read = (read - read.mean(dim=0)) / (read.var(dim=0, correction=0) + 1e-6).sqrt()
    probabilities = objective.head(read).softmax(dim=-1)
    expected = -probabilities[torch.arange(6), truth].log().mean()
    torch.testing.assert_close(losses["loss"], expected, rtol=1e-3, atol=1e-4)
    assert losses["accuracy"] == (probabilities.argmax(dim=-1) == truth).float().mean()


@torch.no_grad()
def test_a_short_recording_is_mirrored_and_not_held() -> None:
    """Three frames and their like to the last pixel behind them: what is shown never stands still."""
    objective = advise(speeds=(1, 3))
    seen: list[torch.Tensor] = []
    objective.encoder.measure = lambda clips: seen.append(clips) or torch.randn(len(clips), 48)  # type: ignore[method-assign,assignment]
    clip = torch.randn(6, 3, 3, 32, 32)
    held = torch.cat([clip, clip[:, -1:].expand(-1, 9, -1, -1, -1)], dim=1)
    batch = Batch({"clip": held}, torch.arange(6))
    objective(batch)
    truth = integers(batch.seeds, 2, name="speed")
    order = mirrored(at_speed(batch.seeds, torch.tensor([1, 3])[truth], 4, 12), torch.full((6,), 3))
    assert order.max() == 2
    assert (order.diff(dim=1) != 0).all()
    expected = torch.stack([one[frames] for one, frames in zip(clip, order, strict=True)])
    assert torch.equal(seen[0], expected)


def test_an_image_model_gets_a_sense_of_time_and_stays_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 32,
        "patch_size": 16,
    }
    with quiet():
        ViTModel(ViTConfig(**shape)).save_pretrained(tmp_path / "vit")
    encoder = open_encoder(tmp_path / "vit", frames=4)
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    objective = ADVISE(encoder, ADVISE.Settings(**SMALL["advise"])).train()
    assert not any(module.training for module in encoder.model.modules())
    optimiser = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.5)
    batch = make_batch(objective)
    for _ in range(2):  # a block that begins as the identity lets its inner layers learn from the second step on
        optimiser.zero_grad()
        objective(batch)["loss"].backward()
        optimiser.step()
    assert encoder.temporal is not None
    assert all(bool(p.grad is not None and p.grad.any()) for p in encoder.temporal.parameters() if p.ndim > 1)
    assert all(torch.equal(value, before[name]) for name, value in encoder.model.state_dict().items())
    objective.final_encoder().save(tmp_path / "run")
    again = open_encoder(tmp_path / "run")
    clip = batch["clip"][:, :4]
    with torch.no_grad():
        torch.testing.assert_close(again.describe(clip), objective.final_encoder().describe(clip))
        assert not torch.allclose(again.describe(clip), open_encoder(tmp_path / "vit", frames=4).describe(clip))


def test_a_temporal_module_that_there_is_goes_on() -> None:
    encoder = small_encoder()
    encoder.temporal = module = TemporalModule(TemporalSettings(width=24, depth=3, heads=2))
    assert ADVISE(encoder, ADVISE.Settings(**SMALL["advise"])).encoder.temporal is module
    plain = small_encoder()
    x = torch.randn(1, 4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(x), F.layer_norm(plain.eval()(x), (24,)), rtol=1e-4, atol=1e-5)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValidationError, match="no two speeds may be alike"):
        ADVISE.Settings(speeds=(1, 2, 2))
    with pytest.raises(ValidationError, match="at least 2 items"):
        ADVISE.Settings(speeds=(2,))
