"""Tube masks: what they hide, and that a sample's mask is its own."""

import pytest
import torch

from recipes.parts.masks import running_cells, tube_masks

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


def test_running_cells_take_the_same_number_of_hidden_places_in_every_frame() -> None:
    seeds = torch.tensor([3, 8, 2**62])
    hidden = tube_masks(seeds, GRID, 0.75).hidden[:, 0]
    wanted = running_cells(seeds, hidden, GRID, 0.4)
    assert wanted.shape == (3, 3 * 6)
    assert (wanted.diff(dim=-1) > 0).all()
    for row in range(3):
        assert set(wanted[row].tolist()) <= set(hidden[row].tolist())
        assert torch.bincount(wanted[row] // 20, minlength=3).tolist() == [6, 6, 6]
    assert torch.equal(running_cells(seeds[1:2], hidden[1:2], GRID, 0.4)[0], wanted[1])  # a sample's own
    assert torch.equal(running_cells(seeds, hidden, GRID, 1.0), hidden)


def test_running_cells_go_round() -> None:
    """Where everything is hidden, half of each cell is wanted, and all of it after two frames."""
    t, h, w = grid = (8, 4, 4)
    hidden = torch.arange(t * h * w).unsqueeze(0)
    wanted = torch.zeros(t * h * w).index_fill(0, running_cells(torch.tensor([5]), hidden, grid, 0.5)[0], 1.0)
    cells = wanted.view(t, 2, 2, 2, 2).permute(0, 1, 3, 2, 4).flatten(3)  # t, cells down, cells across, 4
    assert (cells.sum(dim=-1) == 2).all()
    assert (cells[0] == cells[0, 0, 0]).all()
    assert (cells[:-2] + cells[2:] == 1).all()
    assert not torch.equal(cells[0], cells[1])
    assert torch.equal(cells[:4], cells[4:])
