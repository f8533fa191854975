"""HBI against its equations on games of few players."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from alignment_factory import rows
from objective_factory import build, make_batch
from text_factory import small_text
from torch import Tensor
from torch.nn import functional as F

from recipes.parts.alignment import both_ways
from recipes.parts.players import LOWEST, Predictor, banzhaf, fit, interaction_loss, merge, worth
from recipes.pretrain.hbi import HBI

AXES = torch.eye(4)


def test_words_of_a_text_are_what_its_tower_pools() -> None:
    tower = small_text().eval()
    tokens = torch.full((2, 1, 2, 5), -1)
    tokens[0, 0, 0, :4], tokens[0, 0, 1, :2], tokens[1, 0, 0, :3] = (
        torch.tensor([2, 5, 6, 3]),
        7,
        torch.tensor([2, 8, 3]),
    )
    said, present = tower.words(tokens[:, 0])
    assert said.shape == (2, 10, 16)
    assert present.sum(dim=1).tolist() == [6, 3]
    torch.testing.assert_close(said[1, :3].mean(dim=0), tower(tokens[1, 0]))
    by_section = torch.stack([said[0, :4].mean(dim=0), said[0, 5:7].mean(dim=0)]).mean(dim=0)
    torch.testing.assert_close(by_section, tower(tokens[0, 0]))


def test_tokens_that_are_alike_become_one() -> None:
    near = torch.tensor([[1.0, 0.1, 0, 0], [0, 0, 1.0, 0.1]])
    tokens = torch.stack([AXES[0], AXES[2], near[0], near[1], 9 * AXES[3]]).unsqueeze(0).requires_grad_()
    present = torch.tensor([[True, True, True, True, False]])
    weights = torch.tensor([[0.0, 1.0, math.log(3), 1.0, 50.0]]).requires_grad_()
    merged, there = merge(tokens, present, weights, 2)
    assert there.tolist() == [[True, True]]
    found = sorted(merged[0].tolist(), reverse=True)
    torch.testing.assert_close(torch.tensor(found[0]), AXES[0] / 4 + near[0] * 3 / 4)  # by the softmax of their weights
    torch.testing.assert_close(torch.tensor(found[1]), AXES[2] / 2 + near[1] / 2)
    merged.square().sum().backward()
    assert tokens.grad is not None
    assert weights.grad is not None
    assert tokens.grad[0, 4].eq(0).all()  # was not there
    assert weights.grad[0, :4].abs().sum() > 0
    few, some = merge(tokens, torch.tensor([[False, True, False, False, False]]), weights, 3)
    assert int(some.sum()) == 1
    torch.testing.assert_close(few[some], AXES[[2]])


def test_fit_by_hand() -> None:
    """Two words and two frames; the second word is not there in the second text."""
    said = torch.stack([AXES[:2], torch.stack([AXES[0], 7 * AXES[1]])])
    seen = torch.stack([AXES[0], 0.6 * AXES[1] + 0.8 * AXES[2]]).unsqueeze(0)
    weight_said = torch.tensor([[0.0, math.log(3)], [0.0, LOWEST]])
    weight_seen = torch.tensor([[math.log(4), 0.0]])
    found = fit(said, seen, weight_said, weight_seen)
    first = (0.25 * 1 + 0.75 * 0.6 + 0.8 * 1 + 0.2 * 0.6) / 2
    second = (1 + 0.8 * 1 + 0.2 * 0) / 2
    assert found.flatten().tolist() == pytest.approx([first, second], abs=1e-6)


def by_walking(cosines: Tensor, a: Tensor, b: Tensor, words: tuple[int, ...], frames: tuple[int, ...]) -> float:
    """What a coalition is worth, from its members."""
    if not words or not frames:
        return 0.0
    wa, wb = a[list(words)].softmax(dim=0), b[list(frames)].softmax(dim=0)
    part = cosines[list(words)][:, list(frames)]
    return (((part.amax(dim=1) * wa).sum() + (part.amax(dim=0) * wb).sum()) / 2).item()


def test_banzhaf_is_the_mean_over_all_coalitions() -> None:
    """Against all coalitions of two words and two frames, walked one by one; and what is drawn comes near it."""
    cosines, a, b = rows(1, 2, 2).tanh(), rows(1, 2, seed=1), rows(1, 2, seed=2)
    for kept in product([False, True], repeat=4):
        words = tuple(i for i in range(2) if kept[i])
        frames = tuple(i for i in range(2) if kept[2 + i])
        one, other = (torch.tensor([[kept[:2]]]), torch.tensor([[kept[2:]]]))
        found = worth(cosines, a, b, one, other).item()
        assert found == pytest.approx(by_walking(cosines[0], a[0], b[0], words, frames), abs=1e-6)
    expected = torch.zeros(2, 2)
    for t, v in product(range(2), repeat=2):
        for word, frame in product([False, True], repeat=2):  # the other word and the other frame, in it or not
            w, f = (1 - t,) * word, (1 - v,) * frame
            gain = 0.0
            for sign, own, other in ((1, (t,), (v,)), (-1, (t,), ()), (-1, (), (v,)), (1, (), ())):
                gain += sign * by_walking(cosines[0], a[0], b[0], (*w, *own), (*f, *other))
            expected[t, v] += gain / 4
    found = banzhaf(cosines, a, b, torch.tensor([3]), 4000, name="x")
    torch.testing.assert_close(found[0], expected, atol=0.03, rtol=0)
    again, other = (banzhaf(cosines, a, b, torch.tensor([seed]), 3, name="x") for seed in (3, 4))
    assert again.equal(banzhaf(cosines, a, b, torch.tensor([3]), 3, name="x"))
    assert not again.equal(other)
    gone = banzhaf(cosines, a.masked_fill(torch.tensor([[False, True]]), LOWEST), b, torch.tensor([3]), 50, name="x")
    assert gone[0, 1].eq(0).all()


def test_interactions_are_compared_as_shares_by_hand() -> None:
    """One word and two frames: shares 1/2 and 1/2 in truth, told as 3/4 and 1/4; of one word, shares over words are all alike."""
    told, true = torch.tensor([[[math.log(3), 0.0, 5.0]]]), torch.tensor([[[0.2, 0.2, 9.0]]])
    words, frames = torch.tensor([[True]]), torch.tensor([[True, True, False]])
    divergence = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    found = interaction_loss(told, true, words, frames, 1.0)
    assert found.tolist() == pytest.approx([divergence / 2], abs=1e-6)
    assert interaction_loss(true, true, words, frames, 0.1).tolist() == pytest.approx([0.0], abs=1e-6)
    predictor = Predictor(8, 4)
    told = predictor(rows(2, 3, 5))
    assert told.shape == (2, 3, 5)
    interaction_loss(told, rows(2, 3, 5, seed=1), torch.ones(2, 3) > 0, torch.ones(2, 5) > 0, 0.1).sum().backward()
    assert all(p.grad is not None for p in predictor.parameters())


def test_hbi_is_the_sum_of_its_terms() -> None:
    objective = build("hbi", weight_interaction=2.0, weight_distillation=3.0, weight_plain=0.5)
    assert isinstance(objective, HBI)
    embedded = objective.embed(make_batch(objective))
    embedded = {name: value for name, value in embedded.items() if name not in ("row", "about", "span")}
    embedded["words"], scale = torch.arange(6), embedded["scale"].mean()
    found = objective.compare(embedded)
    place, own, logs = torch.arange(6), [], {}
    for level in ("entity", "action", "event"):
        names = (f"words {level}", f"frames {level}", f"words {level} weight", f"frames {level} weight")
        scores = scale * fit(*(embedded[name] for name in names))
        own += [F.cross_entropy(one, place) for one in (scores, scores.T)]
        logs[level] = [one.log_softmax(dim=1) for one in (scores, scores.T)]
    pupils = [
        F.kl_div(pupil, teacher, log_target=True, reduction="batchmean")
        for level in ("action", "event")
        for teacher, pupil in zip(logs["entity"], logs[level], strict=True)
    ]
    expected = {
        "loss_own": sum(own).item() / 6,  # type: ignore[union-attr]
        "loss_distillation": sum(pupils).item() / 4,  # type: ignore[union-attr]
        "loss_interaction": embedded["interaction"].mean().item(),
        "loss_plain": both_ways(embedded["clips"], embedded["texts"], 1 / scale).item(),
    }
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, abs=1e-5), name
    total = expected["loss_own"] + 2 * expected["loss_interaction"] + 3 * expected["loss_distillation"]
    assert found["loss"].item() == pytest.approx(total + 0.5 * expected["loss_plain"], abs=1e-4)
    assert not any(name.startswith("predictors.entity") for name, _ in objective.named_parameters())
