"""The adapter that tells which way a clip goes: what its make promises, its loss by hand, and that an evaluation reads it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from objective_factory import build, make_batch, small_encoder
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.encoders.loading import open_encoder
from recipes.encoders.tokens import average_at
from recipes.encoders.trajectory import Trajectory, TrajectorySettings
from recipes.pretrain.chirality import Chirality


def adapter(features: int = 6) -> Trajectory:
    torch.manual_seed(0)
    made = Trajectory(TrajectorySettings(features=features, width=8, depth=1, heads=2)).eval()
    made.spread.fill_(0.5)
    return made


def test_of_a_clip_backwards_it_says_the_opposite() -> None:
    frames = torch.randn(3, 5, 6)
    stays, goes = adapter()(frames).chunk(2, dim=1)
    stays_back, goes_back = adapter()(frames.flip(1)).chunk(2, dim=1)
    torch.testing.assert_close(stays, stays_back)
    torch.testing.assert_close(goes, -goes_back)
    assert goes.abs().mean() > 0.01


def test_a_clip_that_stands_still_goes_nowhere() -> None:
    made = adapter()
    still = torch.randn(3, 1, 6).expand(3, 5, 6)
    assert made(still)[:, 8:].eq(0).all()
    single = made(torch.randn(3, 1, 6))
    assert single.isfinite().all()
    assert single[:, 8:].eq(0).all()


def test_goes_is_the_slope_of_the_least_squares_line() -> None:
    made = adapter(8)
    made.blocks = torch.nn.ModuleList()
    for layer in (made.enter, made.leave):
        layer.weight.data.copy_(torch.eye(8))
        layer.bias.data.zero_()
    made.norm = torch.nn.Identity()  # type: ignore[assignment]
    slope = torch.randn(2, 8)
    line = torch.linspace(-1, 1, 5).view(1, 5, 1) * slope.unsqueeze(1)
    torch.testing.assert_close(made(line)[:, 8:], slope / 0.5)


def chirality(**settings: object) -> Chirality:
    objective = build("chirality", **settings)
    assert isinstance(objective, Chirality)
    return objective


def test_the_loss_by_hand() -> None:
    objective = chirality(weight_reversal=0.5, temperature=0.2)
    batch = make_batch(objective, count=3)
    losses = objective(batch)
    trajectory = objective.encoder.trajectory
    assert trajectory is not None
    with torch.no_grad():
        frames = objective.encoder.over_places(objective.encoder(torch.cat([batch["a"], batch["b"]])))
        apart = frames - frames.mean(dim=1, keepdim=True)
        spread = apart.square().mean(dim=(0, 1)).sqrt()
        torch.testing.assert_close(trajectory.spread, spread)
        changes = apart / spread
        stays, goes = trajectory.halves(changes)
        told = torch.stack([objective.decoder(stays + u * goes) for u in (-1.0, 1.0)], dim=1)  # of two tubelets
    reconstruction = (told - changes).square().mean().item()
    g = torch.nn.functional.normalize(goes, dim=1)
    a, b = g.chunk(2)
    contrast = 0.0
    for i in range(3):
        scores = [*(a[i] @ b.T / 0.2).tolist(), (-(a[i] @ b[i]) / 0.2).item()]
        contrast -= math.log(math.exp(scores[i]) / sum(math.exp(one) for one in scores)) / 3
    assert losses["loss_reconstruction"].item() == pytest.approx(reconstruction, rel=1e-4)
    assert losses["loss_reversal"].item() == pytest.approx(contrast, rel=1e-4)
    assert losses["loss"].item() == pytest.approx(reconstruction + 0.5 * contrast, rel=1e-4)
    assert losses["straight"].item() == pytest.approx(1 - reconstruction, rel=1e-3)


def test_usual_change_is_learned_in_training_alone() -> None:
    objective = chirality()
    objective(make_batch(objective))
    assert objective.encoder.trajectory is not None
    first = objective.encoder.trajectory.spread.clone()
    assert (first > 0).all()
    objective(make_batch(objective, seed=1))
    second = objective.encoder.trajectory.spread.clone()
    assert not second.equal(first)
    assert (second - first).abs().max() < 0.1 * first.max()  # a running mean
    objective.eval()
    objective(make_batch(objective, seed=2))
    assert objective.encoder.trajectory.spread.equal(second)


def described(encoder: VideoEncoder, clips: Tensor) -> Tensor:
    with torch.no_grad():
        return encoder.eval().describe(clips)


def test_evaluation_reads_it_beside_what_it_read_anyway(tmp_path: Path) -> None:
    objective = chirality()
    batch = make_batch(objective)
    objective(batch)
    clips = batch["a"]
    plain, encoder = small_encoder(), objective.final_encoder()
    found = described(encoder, clips)
    assert encoder.description == plain.description + 16 == found.shape[1]
    torch.testing.assert_close(found[:, : plain.description], described(plain, clips))
    encoder.save(tmp_path / "encoder")
    assert (tmp_path / "encoder" / "trajectory.safetensors").is_file()
    again = open_encoder(str(tmp_path / "encoder"))
    torch.testing.assert_close(described(again, clips), found)
    with torch.no_grad():
        torch.testing.assert_close(again.describe_recording(clips), found.mean(dim=0))
        torch.testing.assert_close(again.embed(clips), found[:, plain.description :])


def test_it_reads_the_tokens_that_are_kept() -> None:
    tokens, where = torch.randn(2, 4, 3), torch.tensor([[0, 0, 1, 3], [0, 1, 2, 3]])
    found = average_at(tokens, where, 4)
    torch.testing.assert_close(found[0, 0], tokens[0, :2].mean(dim=0))
    torch.testing.assert_close(found[0, 2], tokens[0].mean(dim=0))  # nothing is seen of the third time
    torch.testing.assert_close(found[1], tokens[1])
    encoder = small_encoder()
    clips = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        whole = encoder(clips)
        everywhere = torch.arange(encoder.tokens).expand(2, -1)
        torch.testing.assert_close(encoder.over_places(whole, everywhere), encoder.over_places(whole))


def test_a_linear_probe_tells_opposite_motions_by_where_they_go_alone() -> None:
    """Blobs that grow or shrink: half of what an adapter says that never saw a label is enough."""
    draw = torch.Generator().manual_seed(0)
    grid = torch.stack(torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij"))

    def grown(count: int) -> tuple[Tensor, Tensor]:
        centre = 8 + 16 * torch.rand(count, 2, generator=draw)
        away = (grid.unsqueeze(0) - centre.view(count, 2, 1, 1)).norm(dim=1)
        radius = torch.linspace(3, 9, 4).view(1, 4, 1, 1) + torch.rand(count, 1, 1, 1, generator=draw)
        clips = torch.sigmoid(radius - away.unsqueeze(1)).unsqueeze(2).expand(-1, -1, 3, -1, -1) * 2 - 1
        back = torch.arange(count) % 2 == 1
        return torch.where(back.view(-1, 1, 1, 1, 1), clips.flip(1), clips), back.float()

    objective = chirality(width=16)
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=3e-3)
    for step in range(60):
        clips, _ = grown(16)
        batch = make_batch(objective, count=16, seed=step)
        batch.clips = {"a": clips, "b": clips + 0.05 * torch.randn(clips.shape, generator=draw)}
        objective(batch)["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
    (clips, truth), (others, wanted) = grown(64), grown(64)

    def right(first: slice) -> float:
        x, y = (described(objective.encoder, one)[:, first] for one in (clips, others))
        x, y = (x - x.mean(dim=0)) / x.std(dim=0), (y - x.mean(dim=0)) / x.std(dim=0)
        weights = torch.linalg.solve(x.T @ x + 10 * torch.eye(x.shape[1]), x.T @ (2 * truth - 1))
        return ((y @ weights > 0).float() == wanted).float().mean().item()

    assert right(slice(64, None)) > 0.95
