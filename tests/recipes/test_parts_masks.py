"""Tube masks: what they hide, and that a sample's mask is its own."""

import pytest
import torch

from recipes.parts.masks import tube_masks

GRID = (3, 4, 5)


def test_every_frame_hides_the_same_places() -> None:
    masks = tube_masks(torch.tensor([3, 8]), GRID, 0.75, views=2)
    assert masks.visible.shape == (2, 2, 3 * 5)
    assert masks.hidden.shape == (2, 2, 3 * 15)
    places = masks.visible.view(2, 2, 3, 5) - 20 * torch.arange(3).view(1, 1, 3, 1)
    assert torch.equal(places[..., 0, :], places[..., 1, :])
    assert torch.equal(places[..., 0, :], places[..., 2, :])


def test_visible_and_hidden_are_all_tokens_once_and_rising() -> None:
    masks = tube_masks(torch.arange(6), GRID, 0.9, views=4)
    assert masks.visible.shape[-1] == 3 * 2
    both = torch.cat([masks.visible, masks.hidden], dim=-1)
    assert torch.equal(both.sort(dim=-1).values, torch.arange(60).expand(6, 4, -1))
    assert (masks.visible.diff(dim=-1) > 0).all()
    assert (masks.hidden.diff(dim=-1) > 0).all()


def test_a_mask_follows_from_its_own_seed_alone() -> None:
    alone = tube_masks(torch.tensor([7]), GRID, 0.5, views=2).visible[0]
    in_a_batch = tube_masks(torch.tensor([1, 7, 2]), GRID, 0.5, views=2).visible
    assert torch.equal(in_a_batch[1], alone)
    assert not torch.equal(in_a_batch[0], alone)
    torch.rand(3)  # no generator of the process is drawn from
    assert torch.equal(tube_masks(torch.tensor([7]), GRID, 0.5, views=2).visible[0], alone)
    assert not torch.equal(tube_masks(torch.tensor([7]), GRID, 0.5, views=2, name="other").visible[0], alone)
    assert not torch.equal(alone[0], alone[1])


def test_large_seeds_differ() -> None:
    masks = tube_masks(torch.tensor([2**62, 2**62 + 1]), (1, 7, 7), 0.5).visible
    assert not torch.equal(masks[0], masks[1])


def test_places_are_hidden_equally_often() -> None:
    visible = tube_masks(torch.arange(2000), (1, 4, 4), 0.75).visible
    counts = torch.bincount(visible.flatten(), minlength=16).double()
    assert counts.sum() == 2000 * 4
    assert (counts - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize(("ratio", "kept"), [(0.0, 49), (0.9, 5), (0.99, 1), (0.999, 1)])
def test_the_share(ratio: float, kept: int) -> None:
    assert tube_masks(torch.tensor([0]), (2, 7, 7), ratio).visible.shape == (1, 1, 2 * kept)
