"""Masked methods whose target is not pixels: MME (how things move) and SMILE (features, of clips with made-up objects)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from objective_factory import build, make_batch, small_encoder
from pydantic import ValidationError
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

from domains.errors import ModelError
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.parts.hog import oriented_gradients
from recipes.parts.objects import paste_objects, smooth_paths
from recipes.pretrain.mme import MME
from recipes.pretrain.smile import SMILE, renormalise, tokens_of


def smooth(side: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.randn(1, 3, side // 4, side // 4, generator=draw), size=(side, side), mode="bicubic")[0]


def test_gradients_by_hand() -> None:
    """Edges across, down and askew: all of the histogram in the bin of their direction."""
    ramp = torch.arange(8.0)
    across, down = ramp.expand(8, 8), ramp.unsqueeze(1).expand(8, 8)
    frames = torch.stack([across, down, across + down, across - down, torch.ones(8, 8)]).unsqueeze(0)
    found = oriented_gradients(frames, 4)
    assert found.shape == (1, 5, 9, 2, 2)
    inner = found[0, :, :, 0, 0]
    assert inner[0].tolist() == [1.0, *[0.0] * 8]
    assert inner[1].argmax() == 4  # 90 of 180 degrees
    assert inner[2].argmax() == 2  # 45
    assert inner[3].argmax() == 6  # 135
    assert not inner[4].any()
    torch.testing.assert_close(inner[:4].norm(dim=1), torch.ones(4))
    torch.testing.assert_close(oriented_gradients(-3 * frames, 4), found, atol=1e-5, rtol=0)  # unsigned, of length one


def mme(**settings: object) -> MME:
    torch.manual_seed(0)
    encoder = fresh_videomae(
        Geometry(frames=4, size=48), seed=0, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, patch_size=8,
        tubelet_size=2,
    )  # fmt: skip
    return MME(encoder, MME.Settings(**{"decoder_width": 24, "decoder_heads": 2, "reach": 3, "steps": 3, **settings}))


def test_a_clip_that_moves_as_one_by_hand() -> None:
    """Two pixels right a frame: steps (2, 0) over a root mean square of sqrt(2), at every point, until the clip ends.

    The authors' script subtracts the mean of a patch's four points, which here would leave nothing.
    """
    objective = mme()
    still = smooth(48)
    dense = torch.stack([still.roll(2 * frame, dims=-1) for frame in range(8)]).unsqueeze(0)
    position, shape, moved = objective.targets(dense)
    assert position.shape == (1, 72, 4 * 3 * 2)
    assert shape.shape == (1, 72, 4 * 3 * 9)
    steps = position.view(2, 6, 6, 3, 2, 4).movedim(-1, 3)[
        :, 2:4, 2:4
    ]  # t, h, w, point, step, (x, y); away from the borders
    first = steps[0].flatten(0, 3)
    assert first[..., 0].std() < 0.15
    ratio = first[..., 0].mean()
    assert ratio == pytest.approx(2 / (moved.item() ** 2 + 0.01) ** 0.5, abs=0.1)
    assert first[..., 1].abs().mean() < 0.1
    assert moved.item() == pytest.approx(2**0.5, rel=0.25)  # less where the roll wraps, and past the end
    assert steps[1, ..., 2, :].abs().mean() > 0.5  # frames 4 to 7: three steps are there
    objective = mme(steps=4)
    last = objective.targets(dense)[0].view(2, 6, 6, 4, 2, 4)[1]
    assert not last[..., 3, :, :].any()  # the fourth is past the end: points stand


def test_shape_is_read_where_the_points_have_come_to() -> None:
    """A pattern that moves keeps its histograms along the way; read at fixed places they would change."""
    objective = mme()
    still = smooth(48, seed=1)
    dense = torch.stack([still.roll(2 * frame, dims=-1) for frame in range(8)]).unsqueeze(0)
    shape = objective.targets(dense)[1].view(2, 6, 6, 3, 9, 4)[0, 2:4, 2:4]
    followed = (shape[..., 2, :, :] - shape[..., 0, :, :]).norm(dim=-2).mean()
    still_read = oriented_gradients(dense.mean(dim=2), 4)[0, :, :, 4:8, 4:8] * 3
    fixed = (still_read[2] - still_read[0]).norm(dim=0).mean()
    assert followed < 0.6 * fixed
    assert shape.norm(dim=-2).max() <= 3.001


def test_still_clips_have_no_motion() -> None:
    position, _, moved = mme().targets(smooth(48).expand(1, 8, -1, -1, -1))
    assert position.abs().max() < 1e-3
    assert moved.item() < 1e-3


def test_mme_sees_every_other_frame_and_counts_hidden_tokens() -> None:
    objective = build("mme")
    assert objective.views["clip"].rate == 0.5
    batch = make_batch(objective)
    assert batch["clip"].shape[1] == 8
    seen = []
    encode = objective.encoder.forward
    objective.encoder.forward = lambda clip, visible: (seen.append((clip, visible)), encode(clip, visible))[1]
    torch.nn.init.zeros_(objective.decoder.leave.weight)
    torch.nn.init.zeros_(objective.decoder.leave.bias)
    found = objective(batch)
    clip, visible = seen[0]
    assert torch.equal(clip, batch["clip"][:, ::2])
    position, shape, _ = objective.targets(batch["clip"])
    hidden = torch.ones(6, 32, dtype=torch.bool).scatter(1, visible, False)
    assert found["loss_position"].item() == pytest.approx(position[hidden].square().mean().item(), rel=1e-5)
    assert found["loss_shape"].item() == pytest.approx(shape[hidden].square().mean().item(), rel=1e-5)
    expected = 0.5 * found["loss_position"] + 0.5 * found["loss_shape"]
    torch.testing.assert_close(found["loss"].detach(), expected)


def test_paths_are_smooth_and_stay_inside() -> None:
    paths = smooth_paths(torch.arange(60), 16, 0.05, name="x")
    assert paths.shape == (60, 16, 2)
    assert paths.min() >= 0
    assert paths.max() <= 1
    step = paths.diff(dim=1)
    assert step.square().sum(dim=2).mean().sqrt().item() == pytest.approx(0.05, rel=0.1)
    assert step.diff(dim=1).norm(dim=2).mean() < 0.5 * step.norm(dim=2).mean()


def test_objects_cover_and_move() -> None:
    seeds, clip = torch.tensor([1, 2, 3, 4]), 0.1 * torch.randn(4, 8, 3, 64, 64)
    shown, cover = paste_objects(clip, seeds, 1, (0.3, 0.4), 0.05)
    untouched = cover == 0
    assert torch.equal(shown.movedim(2, -1)[untouched], clip.movedim(2, -1)[untouched])
    inside = cover == 1
    assert shown.movedim(2, -1)[inside].std(dim=-1).max() < 1e-5  # grey: no clip left
    share = cover.mean(dim=(2, 3))
    assert share.max() < 0.4**2 * 1.05  # a rounded box of the largest size
    assert share.max() > 0.5 * torch.pi / 4 * 0.3**2 * 0.8
    assert (cover[:, 0] - cover[:, -1]).abs().sum(dim=(1, 2)).min() > 50
    alone, _ = paste_objects(clip[2:3], seeds[2:3], 1, (0.3, 0.4), 0.05)
    torch.testing.assert_close(alone[0], shown[2])
    nothing, none = paste_objects(clip, seeds, 0, (0.3, 0.4), 0.05)
    assert torch.equal(nothing, clip)
    assert not none.any()
    constant = torch.full((1, 4, 3, 32, 32), 2.0)
    assert torch.equal(
        paste_objects(constant, seeds[:1], 2, (0.3, 0.4), 0.05)[0], constant
    )  # in units of its own deviation


def test_objects_are_hidden_along_their_paths() -> None:
    objective = build("smile", mask_ratio=0.5, object_visible=0.0)
    covered = torch.zeros(3, 2, 16, dtype=torch.bool)
    covered[:, 0, :6] = covered[:, 1, 2:8] = True
    masks = objective.masks(torch.tensor([1, 2, 3]), covered)
    visible = masks.visible[:, 0]
    assert visible.shape == (3, 16)
    assert not covered.flatten(1).gather(1, visible).any()
    nothing = objective.masks(torch.tensor([1, 2, 3]), torch.zeros_like(covered)).visible[:, 0]
    assert torch.equal(nothing[:, 8:], nothing[:, :8] + 16)  # a tube mask
    crowded = torch.ones_like(covered)
    assert torch.equal(objective.masks(torch.tensor([1, 2, 3]), crowded).visible[:, 0], nothing)  # as many all the same
    objective.settings = SMILE.Settings(mask_ratio=0.5, object_visible=1.0)
    assert torch.equal(objective.masks(torch.tensor([1, 2, 3]), covered).visible[:, 0], nothing)


def test_smile_predicts_the_frozen_start_by_hand() -> None:
    objective = build("smile")
    batch = make_batch(objective)
    clip, _ = paste_objects(batch["clip"], batch.seeds, 2, (0.3, 0.6), 0.05)
    expected = F.layer_norm(small_encoder().eval()(clip), (24,))
    torch.testing.assert_close(objective.features(clip), expected)
    torch.nn.init.zeros_(objective.decoder.leave.weight)
    torch.nn.init.zeros_(objective.decoder.leave.bias)
    assert objective(batch)["loss"].item() == pytest.approx(1.0, abs=1e-3)  # features have deviation 1
    objective(batch)["loss"].backward()
    assert all(parameter.grad is None for parameter in objective.target.parameters())
    assert not objective.train().target.training


def test_any_encoder_may_be_the_target(tmp_path: Path) -> None:
    """Another width, patch and normalisation: its tokens are read on this encoder's grid."""
    other = fresh_videomae(
        Geometry(frames=4, size=32, mean=(0.5,) * 3, std=(0.5,) * 3), seed=3, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, patch_size=16, tubelet_size=2,
    )  # fmt: skip
    other.save(tmp_path / "other")
    objective = build("smile", target=str(tmp_path / "other"))
    clip = make_batch(objective)["clip"]
    found = objective.features(clip)
    assert found.shape == (6, 32, 16)
    tokens = other.eval()(renormalise(clip, objective.encoder.geometry, other.geometry)).detach()
    corner = F.layer_norm(tokens[:, 0], (16,))  # beyond the middle of the first patch its value is held
    torch.testing.assert_close(found[:, 0], corner)
    objective(make_batch(objective))["loss"].backward()
    with pytest.raises(ModelError, match="no such encoder folder"):
        build("smile", target=str(tmp_path / "nowhere"))
    with pytest.raises(ValidationError, match="smaller first"):
        SMILE.Settings(object_sizes=(0.5, 0.1))


def test_an_image_encoder_may_be_the_target(tmp_path: Path) -> None:
    """The paper's: of every frame by itself. A tubelet's target is the mean of its frames' tokens."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    CLIPVisionModel(CLIPVisionConfig(image_size=32, patch_size=8, **sizes)).save_pretrained(tmp_path / "clip")
    objective = build("smile", target=str(tmp_path / "clip"))
    assert objective.target.grid == (4, 4, 4)
    clip = make_batch(objective)["clip"]
    shown = renormalise(clip, objective.encoder.geometry, objective.target.geometry)
    tokens = objective.target(shown).unflatten(1, (2, 2, 16)).mean(dim=2).flatten(1, 2)
    torch.testing.assert_close(objective.features(clip), F.layer_norm(tokens, (16,)))
    objective(make_batch(objective))["loss"].backward()


def test_pixels_in_another_encoders_statistics() -> None:
    seen = Geometry(frames=2, size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    wanted = Geometry(frames=2, size=8, mean=(0.0, 0.25, 0.5), std=(1.0, 0.25, 0.5))
    clip = torch.zeros(1, 1, 3, 1, 1)  # half of full scale
    assert renormalise(clip, seen, wanted).flatten().tolist() == [0.5, 1.0, 0.0]
    assert renormalise(clip, seen, seen) is clip


def test_cover_of_tokens() -> None:
    cover = torch.zeros(1, 2, 4, 4)
    cover[0, 1, :2, 2:] = 1
    assert tokens_of(cover, (2, 2)).tolist() == [[[0.0, 0.5, 0.0, 0.0]]]
