"""Methods that take narrations of the same act for right answers: which narrations those are, and the losses by hand."""

from __future__ import annotations

import math

import pytest
import torch
from objective_factory import build, listed, make_batch
from torch import Tensor
from torch.nn import functional as F

from domains.store.actions import PLACES, Actions, parts_of_speech, read_act, stem
from domains.store.texts import Said, Texts
from recipes.objective import EXO, NOUNS, VERBS
from recipes.parts.alignment import shared_nce, sharing_numbers
from recipes.pretrain.egoexonce import EgoExoNCE, crossed, view_weights
from recipes.pretrain.egonce import EgoNCE


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("words", "verb", "nouns"),
    [
        ("put down plate", "put", ["plat"]),
        ("turn-on tap", "turn-on", ["tap"]),
        ("#C C turns the tap on", "turn-on", ["tap"]),
        ("turn off the tap", "turn-off", ["tap"]),
        ("#C C opens the drawer with his left hand", "open", ["drawer"]),
        ("#O man X is cutting two onions", "cut", ["onion"]),
        ("he washed his hands", "wash", ["hand"]),
        ("We pick up the scissors.", "tak", ["scissor"]),
        ("the", "", []),
        ("", "", []),
    ],
)
def test_the_rule(words: str, verb: str, nouns: list[str]) -> None:
    assert parts_of_speech(words) == (verb, nouns)


def test_tense_and_number_are_no_difference_and_opposites_are() -> None:
    assert {stem(word) for word in ("close", "closes", "closed", "closing")} == {"clos"}
    assert {stem(word) for word in ("cut", "cuts", "cutting")} == {"cut"}
    assert stem("press") == stem("presses") == stem("pressing")
    assert read_act("opens the door") == read_act("#C C opened a door")
    assert read_act("open the door").verbs != read_act("close the door").verbs
    assert read_act("turn the light on").verbs != read_act("turn the light off").verbs


def test_tags_come_before_words_and_places_are_filled() -> None:
    said = [
        Said((0,), start, start + 1.0, words, "n", "clip")
        for start, words in ((0.0, "cut onion"), (2.0, "cut onion and leek"))
    ]
    texts = Texts(said)
    actions = Actions(texts, {1: read_act("peel carrot")})
    assert actions[1] == read_act("peel carrot")
    assert actions[0] == read_act("cut onion")
    verbs, nouns = actions.places(0)
    assert (len(verbs), len(nouns)) == PLACES
    assert verbs[1:] == [-1] * 3
    assert "1 texts as the data set tags them, 1 by" in actions.said()
    assert len(read_act("mix " + " ".join(f"thing{letter}" for letter in "abcdefghijk")).nouns) == PLACES[1]


def test_samples_share_a_number_of_every_list() -> None:
    verbs = torch.tensor([[1, 2], [2, -1], [3, -1], [-1, -1]])
    nouns = torch.tensor([[5, -1], [5, 6], [5, -1], [5, -1]])
    assert sharing_numbers(verbs, nouns).tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, False, False],  # nothing is shared by two who have nothing
    ]


def by_hand(v: Tensor, t: Tensor, positives: list[set[int]], tau: float, weights: list[float]) -> float:
    scores, total = (F.normalize(v, dim=-1) @ F.normalize(t, dim=-1).T / tau).tolist(), 0.0
    for i, named in enumerate(positives):
        there = sum(math.exp(scores[i][k]) for k in named) / sum(math.exp(one) for one in scores[i])
        back = sum(math.exp(scores[k][i]) for k in named) / sum(math.exp(row[i]) for row in scores)
        total -= weights[i] * (math.log(there) + math.log(back)) / 2
    return total / len(positives)


def test_egonce_by_hand() -> None:
    """0 and 1 do the same to the same thing; 2 does it to another; 3 has the words of 2 and no tags."""
    objective = build("egonce", temperature=0.5)
    assert isinstance(objective, EgoNCE)
    v, t = rows(4, 8), rows(4, 8, seed=1)
    embedded = {
        "clips": v, "texts": t, "words": torch.tensor([1, 2, 3, 3]),
        VERBS: listed(torch.tensor([1, 1, 1, -1]), 4), NOUNS: listed(torch.tensor([1, 1, 2, -1]), 8),
    }  # fmt: skip
    found = objective.compare(embedded)
    expected = by_hand(v, t, [{0, 1}, {0, 1}, {2, 3}, {2, 3}], 0.5, [1.0] * 4)
    assert found["loss"].item() == pytest.approx(expected, abs=1e-5)
    assert found["positives"].item() == 2
    assert build("egonce").alignment.log_scale.exp().item() == pytest.approx(20)  # type: ignore[union-attr]


def test_scores_beyond_the_range_of_exp_are_no_trouble() -> None:
    v = rows(3, 8).requires_grad_()
    loss = shared_nce(v, rows(3, 8, seed=1), 1e-4, torch.zeros(3, 3, dtype=torch.bool))
    loss.backward()
    assert loss.isfinite()
    assert v.grad is not None
    assert v.grad.isfinite().all()


def test_egoexonce_counts_both_views_alike() -> None:
    objective = build("egoexonce", temperature=0.5)
    assert isinstance(objective, EgoExoNCE)
    v, t, exo = rows(4, 8), rows(4, 8, seed=1), torch.tensor([False, False, False, True])
    embedded = {
        "clips": v, "texts": t, "words": torch.arange(4), EXO: exo,
        VERBS: listed(torch.tensor([1, 2, 3, 1]), 4), NOUNS: listed(torch.tensor([1, 1, 1, 1]), 8),
    }  # fmt: skip
    found = objective.compare(embedded)
    weights = [2 / 3, 2 / 3, 2 / 3, 2.0]  # a mean over three and a mean over one, half each
    assert found["loss"].item() == pytest.approx(by_hand(v, t, [{0, 3}, {1}, {2}, {0, 3}], 0.5, weights), abs=1e-5)
    assert found["exo"].item() == 0.25
    assert view_weights(torch.zeros(3, dtype=torch.bool)).tolist() == [1, 1, 1]


def test_egoexonce_watches_whether_the_other_view_is_found() -> None:
    clips = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.9, 0.2]])
    exo = torch.tensor([False, False, True, True])
    same = torch.eye(4, dtype=torch.bool)
    same[0, 2] = same[2, 0] = same[1, 3] = same[3, 1] = True
    # 0 finds 2 and 2 finds 0; 1's nearest of the others is 3; 3's is 0, of another act
    assert crossed(clips, same, exo).item() == pytest.approx(3 / 4)
    assert crossed(clips, torch.eye(4, dtype=torch.bool), exo).item() == 0


def test_gradients_reach_both_towers() -> None:
    objective = build("egonce")
    objective(make_batch(objective))["loss"].backward()
    for tower in (objective.encoder, objective.text):
        assert tower is not None
        assert any(p.grad is not None and bool(p.grad.any()) for p in tower.parameters())
