"""Methods that take narrations of the same act for right answers: which narrations those are, and the losses by hand."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from objective_factory import build, listed, make_batch
from store_factory import make_prepared, write_events
from text_factory import write_narrations
from torch import Tensor
from torch.nn import functional as F

from domains.base import AugmentPolicies, ClipSettings
from domains.store.actions import PLACES, Act, Actions, parts_of_speech, read_act, stem
from domains.store.annotated import SPAN_SCHEMA, SPANS
from domains.store.prepared import Prepared
from domains.store.text_tables import read_texts
from domains.store.texts import Said, Texts, number_of
from domains.store.views import read_views
from recipes.objective import EXO, NOUNS, VERBS
from recipes.parts.alignment import both_ways, shared_nce, sharing_numbers
from recipes.pretrain.egoexonce import EgoExoNCE, crossed, view_weights
from recipes.pretrain.egonce import EgoNCE
from recipes.training.texts import TextData


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


@pytest.mark.parametrize(
    ("setting", "positives"), [("words", [{0}, {1}, {2, 3}, {2, 3}]), ("own", [{0}, {1}, {2}, {3}])]
)
def test_fewer_positives_for_comparison(setting: str, positives: list[set[int]]) -> None:
    """The batch of the test above; with none but a sample's own it is InfoNCE."""
    objective = build("egonce", temperature=0.5, positives=setting)
    assert isinstance(objective, EgoNCE)
    v, t = rows(4, 8), rows(4, 8, seed=1)
    embedded = {
        "clips": v, "texts": t, "words": torch.tensor([1, 2, 3, 3]),
        VERBS: listed(torch.tensor([1, 1, 1, -1]), 4), NOUNS: listed(torch.tensor([1, 1, 2, -1]), 8),
    }  # fmt: skip
    found = objective.compare(embedded)
    assert found["loss"].item() == pytest.approx(by_hand(v, t, positives, 0.5, [1.0] * 4), abs=1e-5)
    if setting == "own":
        assert found["loss"].item() == pytest.approx(both_ways(v, t, 0.5).item(), abs=1e-5)


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


@pytest.fixture(scope="module")
def narrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Texts]:
    """Four rings with narrations; the first moment of the first has tags of its data set, and one recording in four is of a standing camera."""
    root = tmp_path_factory.mktemp("narrated")
    made = make_prepared(root / "prepared", videos=4, patients=4, size=32, frames=40)
    folder = made.prepared.folder
    write_events(made, folder / "views.csv")
    first = made.prepared.video_id(0)
    lines = [
        (first, 0.0, 0.7, "verb", "beat", "a"),
        (first, 0.0, 0.7, "noun", "ring", "a"),
        (first, 0.0, 0.7, "noun", "view", "a"),
    ]
    pq.write_table(pa.table([list(column) for column in zip(*lines, strict=True)], schema=SPAN_SCHEMA), folder / SPANS)
    told = {
        "name": "n",
        "title": "N",
        "grouped_by": "patients",
        "tasks": {},
        "splits": {},
        "labels": {},
        "spans": {"verb": 1, "noun": 2},
    }
    info = json.loads((folder / "prepared.json").read_text())
    (folder / "prepared.json").write_text(json.dumps({**info, "layout": told}))
    prepared = Prepared.open(folder)
    return prepared, read_texts([write_narrations(made.labels, root / "narrations.csv")], prepared, None)


def test_tags_are_those_of_the_very_stretch(narrated: tuple[Prepared, Texts]) -> None:
    prepared, texts = narrated
    actions = Actions.of(prepared, texts)
    assert actions.tagged == 1  # and not the step that begins with it
    index = next(i for i in range(len(texts)) if texts.rows(i) == [0] and texts.starts[i] == 0 and texts.levels[i] == 0)
    assert actions[index] == Act((number_of("beat"),), (number_of("ring"), number_of("view")))
    other = next(i for i in range(len(texts)) if texts.rows(i) == [1])
    assert actions[other] == read_act(texts.words(other))


def test_a_sample_carries_its_act_and_its_kind_of_camera(narrated: tuple[Prepared, Texts]) -> None:
    prepared, texts = narrated
    objective = build("egoexonce")
    clip = ClipSettings(frames=4, size=32)
    assert objective.text is not None

    def data(actions: Actions | None) -> TextData:
        return TextData(
            prepared, range(4), objective.views, clip, AugmentPolicies(), texts=texts, asked=objective.texts, reader=objective.text.reader,  # type: ignore[union-attr]
            actions=actions,
        )  # fmt: skip

    actions = Actions.of(prepared, texts)
    stream = data(actions)
    standing = {row for row, view in read_views(prepared).by_row.items() if view.exo}
    assert len(standing) == 1
    seen = set()
    for position in range(len(stream)):
        epoch, where, draw = stream.place(position)
        targets = stream.read(stream.row(epoch, where, draw), epoch, where, draw)["targets"]
        act = actions[stream.anchors[where]]
        assert targets[VERBS].tolist() == [*act.verbs, *[-1] * (4 - len(act.verbs))]
        assert targets[NOUNS].tolist() == [*act.nouns, *[-1] * (8 - len(act.nouns))]
        assert bool(targets[EXO]) == (stream.row(epoch, where, draw) in standing)
        seen.add(bool(targets[EXO]))
    assert seen == {True, False}
    plain = data(None)
    assert VERBS not in plain.read(0, 0, 0, 0)["targets"]
    assert plain.fingerprint() != stream.fingerprint()
