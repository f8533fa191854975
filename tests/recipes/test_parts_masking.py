"""The mask parameter: as many tokens for every sample, from its own seed, and what each kind says it does."""

import pytest
import torch
from pydantic import ValidationError

from recipes.parts.masking import MaskSettings, draw_masks, share_of
from recipes.parts.masks import motion_masks, noise_masks, random_masks, ranked, tube_masks
from recipes.parts.noise import coloured_noise
from recipes.parts.pixels import normalise_patches_

GRID, PATCH = (4, 6, 6), (2, 8)
SEEDS = torch.tensor([3, 8, 2**62])


def moving(shift: int, seed: int = 0, count: int = 3) -> torch.Tensor:
    """(count, 8, 3, 48, 48): patterns that move right by `shift` pixels from a tubelet to the next."""
    draw = torch.Generator().manual_seed(seed)
    still = torch.nn.functional.interpolate(
        torch.randn(count, 3, 16, 16, generator=draw), size=(48, 48), mode="bicubic"
    )
    return torch.stack([still.roll(shift * (frame // 2), dims=-1) for frame in range(8)], dim=1)


@pytest.mark.parametrize("kind", ["tube", "random", "noise", "motion"])
def test_every_kind_keeps_as_many_and_its_own(kind: str) -> None:
    settings, clip = MaskSettings(mask=kind, mask_ratio=0.75), moving(3)
    masks = draw_masks(settings, SEEDS, clip, GRID, PATCH)
    assert masks.visible.shape == (3, 1, 36)
    both = torch.cat([masks.visible, masks.hidden], dim=-1)
    assert torch.equal(both.sort(dim=-1).values, torch.arange(144).expand(3, 1, -1))
    assert (masks.visible.diff(dim=-1) > 0).all()
    assert (masks.hidden.diff(dim=-1) > 0).all()
    alone = draw_masks(settings, SEEDS[1:2], clip[1:2], GRID, PATCH)
    assert torch.equal(alone.visible[0], masks.visible[1])
    assert len({tuple(row.tolist()) for row in masks.visible[:, 0]}) == 3
    other = draw_masks(settings, SEEDS, clip, GRID, PATCH, name="other")
    assert not torch.equal(other.visible, masks.visible)
    wanted = share_of(settings, SEEDS, masks.hidden[:, 0], GRID, 0.5)
    assert wanted.shape == (3, 54 if kind in ("random", "noise") else 4 * round(27 * 0.5))
    assert all(set(wanted[row].tolist()) <= set(masks.hidden[row, 0].tolist()) for row in range(3))
    assert (wanted.diff(dim=-1) > 0).all()


def test_ranked_by_hand() -> None:
    scores = torch.tensor([[[[0.0, 3.0, 1.0], [5.0, 4.0, 4.0]]]])
    masks = ranked(scores, 1 / 3)
    assert masks.visible.tolist() == [[[1, 2, 3, 4]]]  # of equals the first
    assert masks.hidden.tolist() == [[[0, 5]]]


def test_random_masks_know_no_frames() -> None:
    visible = random_masks(torch.arange(400), (2, 3, 3), 0.5).visible[:, 0]
    in_first = (visible < 9).sum(dim=1)
    assert in_first.unique().numel() > 4
    assert torch.bincount(visible.flatten(), minlength=18).sub(200).abs().max() < 5 * 10


def test_still_clips_have_tube_masks_and_moving_ones_masks_that_move() -> None:
    still = motion_masks(SEEDS, moving(0), GRID, PATCH, 0.75, reach=8).visible
    assert torch.equal(still, tube_masks(SEEDS, GRID, 0.75).visible)
    clip = moving(8)  # one patch from each tubelet to the next
    visible = motion_masks(SEEDS, clip, GRID, PATCH, 0.75, reach=8).visible
    assert torch.bincount(visible.flatten() // 36, minlength=4).tolist() == [27] * 4
    seen = torch.zeros(3, 144).scatter(1, visible[:, 0], 1.0).view(3, 4, 6, 6)
    base = torch.zeros(3, 144).scatter(1, tube_masks(SEEDS, GRID, 0.75).visible[:, 0], 1.0).view(3, 4, 6, 6)[:, 0]
    assert torch.equal(seen[:, 2], base)  # the middle tubelet's are drawn
    followed = [seen[:, 2 + step, :, 2:4] == base[:, :, 2 - step : 4 - step] for step in (-2, -1, 1)]
    assert torch.stack(followed).float().mean() > 0.9
    fixed = [seen[:, 2 + step, :, 2:4] == base[:, :, 2:4] for step in (-2, -1, 1)]
    assert torch.stack(fixed).float().mean() < 0.8


def test_colours_of_noise() -> None:
    noise = {colour: coloured_noise(SEEDS, (8, 8, 8), colour, (0.75, 1.5)) for colour in ("red", "green", "blue")}
    alike = {name: (one * one.roll(1, dims=-1)).mean().item() for name, one in noise.items()}
    for one in noise.values():
        torch.testing.assert_close(one.square().mean(dim=(1, 2, 3)), torch.ones(3))
        assert one.mean(dim=(1, 2, 3)).abs().max() < 1e-5
    assert alike["red"] > alike["green"] + 0.2
    assert alike["green"] > alike["blue"] + 0.2
    spectrum = torch.fft.fftn(noise["green"][0]).abs()
    assert spectrum[1:3, 0, 0].mean() > 5 * spectrum[4, 4, 4]  # high frequencies are gone
    with pytest.raises(ValidationError, match="smaller first"):
        MaskSettings(noise_sigmas=(1.0, 1.0))


def test_noise_masks_are_patches_over_space_and_time() -> None:
    def neighbours(visible: torch.Tensor) -> float:
        seen = torch.zeros(40, 512).scatter(1, visible[:, 0], 1.0).view(40, 8, 8, 8)
        return sum((seen * seen.roll(1, dims=axis)).sum().item() for axis in (1, 2, 3)) / (3 * seen.sum().item())

    seeds, grid = torch.arange(40), (8, 8, 8)
    noisy = neighbours(noise_masks(seeds, grid, 0.75, "green", (0.75, 1.5)).visible)
    assert neighbours(random_masks(seeds, grid, 0.75).visible) == pytest.approx(0.25, abs=0.03)
    assert noisy > 0.45


def test_a_patch_normalised_as_one_by_hand() -> None:
    """MAE-ST's convention: all channels together, unbiased variance, epsilon under the root."""
    patch = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]])
    expected = torch.tensor([[[0.0, 1.0, 2.0], [-1.0, -1.0, -1.0]]]) / (1.6 + 1e-6) ** 0.5
    torch.testing.assert_close(normalise_patches_(patch, "patch"), expected)
    flat = normalise_patches_(torch.full((1, 3, 4), 7.0), "patch")
    assert not flat.any()
