"""InfoNCE, queues, draws and cut clips, held against cases of few numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from recipes.parts import draws
from recipes.parts.contrast import info_nce, nt_xent
from recipes.parts.frames import take
from recipes.parts.heads import mlp
from recipes.parts.queue import Queue


def test_infonce_by_hand() -> None:
    """Two samples on the axes: the key at cosine 1, a stranger at 0, one in the queue at -1 or 0, one of its own at 0.6 or 0.8."""
    queries, keys = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    queue, own = torch.tensor([[-2.0, 0.0]]), torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]]])

    def expected(*strangers: float) -> float:
        return -math.log(math.exp(2) / (math.exp(2) + sum(math.exp(2 * one) for one in strangers)))

    assert info_nce(queries, keys, 0.5).item() == pytest.approx(expected(0), abs=1e-6)
    assert info_nce(queries, keys, 0.5, queue=queue).item() == pytest.approx(
        (expected(0, -1) + expected(0, 0)) / 2, abs=1e-6
    )
    assert info_nce(queries, keys, 0.5, own=own).item() == pytest.approx(
        (expected(0, 0.6) + expected(0, 0.8)) / 2, abs=1e-6
    )


def test_cosines_are_not_rounded_in_a_bf16_run() -> None:
    """Near each other, as clips of one kind are: bf16 would tell cosines near 1 apart by 1/256 only."""
    first, second = (1 + 0.05 * torch.randn(6, 8, generator=torch.Generator().manual_seed(k)) for k in range(2))
    queue, own = second.flip(0) + 0.01, first.unsqueeze(1) + 0.02

    def losses() -> list[float]:
        with_strangers = info_nce(first, second, 0.05, queue=queue, own=own)
        return [nt_xent(first, second, 0.05).item(), with_strangers.item()]

    exact = losses()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert losses() == exact


def test_infonce_leads_gradients_to_queries_keys_and_ones_own() -> None:
    queries, keys, own = (torch.randn(shape, requires_grad=True) for shape in ((4, 3), (4, 3), (4, 2, 3)))
    info_nce(queries, keys, 0.1, own=own).backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in (queries, keys, own))


def test_a_queue_keeps_the_newest_in_order() -> None:
    queue = Queue(4, 2).train()
    angles = torch.arange(7) * 0.7
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    queue.push(5 * rows[:3])
    assert torch.allclose(queue.rows[:3], rows[:3])
    queue.push(rows[3:5])
    assert torch.allclose(queue.rows, rows[[4, 1, 2, 3]])
    queue.push(rows)  # more than it holds: the last four
    assert torch.allclose(queue.rows[[1, 2, 3, 0]], rows[3:])
    queue.eval().push(-rows)
    assert torch.allclose(queue.rows[[1, 2, 3, 0]], rows[3:])


def test_draws_follow_from_a_samples_seed_and_a_name() -> None:
    seeds = torch.tensor([5, 9, 5])
    drawn = draws.uniform(seeds, (4,), name="a")
    assert drawn.shape == (3, 4)
    assert drawn[0].equal(drawn[2])
    assert not drawn[0].equal(drawn[1])
    assert draws.uniform(seeds[1:2], (4,), name="a")[0].equal(drawn[1])
    assert not draws.uniform(seeds, (4,), name="b").equal(drawn)
    orders = draws.permutations(torch.arange(200), 3, name="order")
    assert orders.sort(dim=-1).values.equal(torch.arange(3).expand(200, 3))
    assert len({tuple(order) for order in orders.tolist()}) == 6
    numbers = draws.integers(torch.arange(300), 5, (2,), name="n")
    assert sorted(set(numbers.flatten().tolist())) == [0, 1, 2, 3, 4]


def test_frames_are_taken_from_each_sample() -> None:
    clip = torch.arange(12.0).view(2, 6, 1)
    assert take(clip, torch.tensor([[5, 0], [1, 1]])).squeeze(-1).tolist() == [[5, 0], [7, 7]]


def test_a_standardised_head_sees_every_channel_at_one_scale() -> None:
    head = mlp(3, 4, 2, standardise=True)
    x = torch.randn(8, 3)
    wider = mlp(3, 4, 2, standardise=True)
    wider.load_state_dict(head.state_dict())
    with torch.no_grad():
        first = wider[0]
        assert isinstance(first, torch.nn.Linear)
        first.weight.mul_(100)
        first.bias.add_(7)
    torch.testing.assert_close(head(x), wider(x), rtol=1e-3, atol=1e-3)
    plain = mlp(3, 4, 2, layers=3)
    expected = plain[4](F.gelu(plain[2](F.gelu(plain[0](x)))))
    assert len(plain) == 5
    torch.testing.assert_close(plain(x), expected)
