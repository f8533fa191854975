"""Multi-instance retrieval and multiple choice: figures by hand, and both jobs on recordings with reports."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from aligned_factory import fitted, write_aligned
from store_factory import Made, make_prepared

from domains.errors import DataError
from domains.store.actions import Act
from recipes.evaluate.choice import questions_of
from recipes.evaluate.relevance import graded_by_chance, graded_figures, relevance
from recipes.evaluate.retrieval import pairs_of
from recipes.jobs.choice import choice
from recipes.jobs.retrieval import retrieval

WORDS = {"A2C": "opens the drawer", "A4C": "closes the drawer", "PLAX": "cuts the long bread"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_prepared(tmp_path_factory.mktemp("data") / "prepared", videos=12, patients=6, frames=30)


@pytest.fixture(scope="module")
def run(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    views = [line["view"] for line in csv.DictReader(made.labels.open())]
    aligned = fitted(made.prepared, {row: WORDS[view] for row, view in enumerate(views)})
    folder = tmp_path_factory.mktemp("run")
    lines = [f'{made.prepared.video_id(row)},"{WORDS[view]}"' for row, view in enumerate(views)]
    (folder / "said.csv").write_text("\n".join(["video_id,text", *lines]) + "\n")
    return write_aligned(folder / "aligned", aligned)


def test_relevance_is_the_mean_share_of_verbs_and_of_nouns() -> None:
    opens, closes, both = Act((1,), (7,)), Act((2,), (7,)), Act((1, 2), (7, 8))
    found = relevance([opens, both], [opens, closes, both, Act((), ())])
    assert found.tolist() == [[1.0, 0.5, 0.5, 0.0], [0.5, 0.5, 1.0, 0.0]]


def test_figures_of_graded_relevance_by_hand() -> None:
    """Order 2, 0, 1, 3 of relevance 1, 0.5, 1, 0: right ones at places 1 and 2; three are of any relevance."""
    gallery = np.eye(4)
    query = np.array([[0.5, 0.3, 0.8, 0.1]])
    found = graded_figures(query, gallery, np.array([[1.0, 0.5, 0.0, 0.0]]))
    assert found["map"][0] == pytest.approx(1 / 2)  # the only right one is second
    best = 1.0 + 0.5 / math.log2(3)
    assert found["ndcg"][0] == pytest.approx(
        (1 / math.log2(3)) / best
    )  # the third place does not count: two are relevant
    perfect = graded_figures(query, gallery, np.array([[0.5, 0.0, 1.0, 0.0]]))
    assert (perfect["map"][0], perfect["ndcg"][0]) == (1.0, 1.0)
    dull = graded_figures(np.ones((1, 1)), np.ones((4, 1)), np.array([[1.0, 0.0, 0.0, 0.0]]))
    assert dull["map"][0] == 0.25  # the same of everything: last among equals
    chance = graded_by_chance(np.tile([1.0, 0.0, 0.0, 0.0], (2000, 1)), 0)
    assert chance["map"].mean() == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, abs=0.02)


def test_questions_have_neighbours_or_strangers_and_never_the_same_words() -> None:
    moments = [(row, float(t), t + 1.0) for row in (0, 1) for t in range(0, 16, 2)]  # eight a recording
    texts = [number % 7 for number in range(16)]  # words 0 and 1 come thrice
    pairs = pairs_of(moments, texts)
    intra, inter = (questions_of(pairs, kind, 0) for kind in ("intra", "inter"))  # type: ignore[arg-type]
    assert len(intra) == len(inter) == 16
    for questions, same in ((intra, True), (inter, False)):
        for text, clips in zip(questions.texts, questions.clips, strict=True):
            own, *others = clips.tolist()
            assert texts[own] == text
            assert len(set(clips.tolist())) == 5
            assert all((moments[other][0] == moments[own][0]) is same for other in others)
            assert all(texts[other] != text for other in others)
    assert sorted(intra.clips[3].tolist()) == [1, 2, 3, 4, 5]  # the nearest in time
    shown = np.eye(7)[texts]
    assert intra.accuracy(shown, np.eye(7)).tolist() == [1.0] * 16
    assert inter.accuracy(np.ones((16, 7)), np.eye(7)).tolist() == [0.2] * 16
    assert not len(questions_of(pairs_of(moments[:4], texts[:4]), "intra", 0))


def test_an_aligned_run_finds_acts(made: Made, run: Path, tmp_path: Path) -> None:
    said = [run.parent / "said.csv"]
    found = retrieval(run, made.prepared, texts=said, acts=True, clips=1, draws=20, out=tmp_path)
    assert [metric.name for metric in found.metrics][:3] == ["map", "ndcg", "recall_1"]
    for way in ("clip_to_text", "text_to_clip"):
        own, chance = found.line(way).figures, found.line(f"{way}_chance").figures
        assert own["map"].value > chance["map"].value
        assert chance["ndcg"].value < own["ndcg"].value <= 1
    assert json.loads((tmp_path / "evaluation.json").read_text())["acts"] is True


def test_an_aligned_run_chooses(made: Made, run: Path, tmp_path: Path) -> None:
    found = choice(run, made.prepared, texts=[run.parent / "said.csv"], draws=20, out=tmp_path)
    assert found.asked == ("inter",)  # a recording has one text: nothing to choose within
    assert found.line("inter").figures["accuracy"].value > 0.9
    assert found.line("inter_chance").figures["accuracy"].value == pytest.approx(0.2)
    lines = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert len(lines) == 12
    few = tmp_path / "few.csv"
    few.write_text(f"video_id,text\n{made.prepared.video_id(0)},opens it\n{made.prepared.video_id(1)},shuts it\n")
    with pytest.raises(DataError, match="4 other clips to choose from"):
        choice(run, made.prepared, texts=[few])
