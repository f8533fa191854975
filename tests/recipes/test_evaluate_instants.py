"""A probe of moments: figures by hand, which clips are asked, and the job on recordings whose grey says which second it is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score
from views_factory import Camera, add_spans, make_views

from domains.base import ClipSettings, TaskSettings
from domains.errors import ConfigError
from domains.store.moments import read_moments
from domains.store.prepared import Prepared
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.evaluate.instants import (
    average_precisions,
    f1_scores,
    mean_average_precision,
    mean_top_recall,
    metrics_of_actions,
    probe_several,
    top_accuracy,
)
from recipes.evaluate.questions import Asking, units_of
from recipes.jobs.instants import evaluate_moments

CLIP = ClipSettings(frames=4, size=16, rate=4)  # 1 s
ROOMS = ("cellar", "attic")
VERBS = ("open", "close", "cut")
TASKS = {
    "mates": {"kind": "presence", "column": "mates", "classes": list(ROOMS)},
    "verb": {"kind": "phases", "column": "verb", "classes": list(VERBS), "opposites": [["open", "close"]]},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Six events of two cameras, 24 s each. Mates are in the cellar until 12 s (dark), in the attic from 10 s on. Opening is early (3 s), closing
    late (18 s), cutting in between."""
    folder = tmp_path_factory.mktemp("instants") / "prepared"
    made = make_views(folder, events=6, cameras=(Camera("a", end=24.0), Camera("b", end=24.0, fps=8.0)))
    spans = []
    for row in range(len(made)):
        spans += [
            (made.video_id(row), 0.0, 12.0, "mates", "cellar", ""),
            (made.video_id(row), 10.0, 24.0, "mates", "attic", ""),
        ]
        for verb, start in zip(VERBS, (3.0, 18.0, 11.0), strict=True):
            spans.append((made.video_id(row), start, start + 2.0, "verb", verb, f"{row} {verb}"))
        spans.append((made.video_id(row), 0.2, 0.9, "verb", "cut", f"{row} first"))
    return add_spans(folder, spans, TASKS, [*["train"] * 6, *["val"] * 2, *["test"] * 4])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "patch_size": 8,
    }
    fresh_videomae(Geometry(frames=4, size=16, rate=4), seed=0, tubelet_size=2, **small).save(folder)
    return folder


def test_figures_of_several_answers_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth, score = (rng.random((40, 3)) < 0.3).astype(float), rng.random((40, 3)).round(1)  # with ties
    weights = rng.integers(0, 4, (5, 40)).astype(float)
    ap, f1 = average_precisions(truth, score, weights), f1_scores(truth, score, weights)
    for draw in range(5):
        for number in range(3):
            expected = average_precision_score(truth[:, number], score[:, number], sample_weight=weights[draw])
            assert ap[draw, number] == pytest.approx(expected)
            expected = f1_score(truth[:, number], score[:, number] >= 0.5, sample_weight=weights[draw])
            assert f1[draw, number] == pytest.approx(expected)
    truth[:, 1] = 0  # nobody is ever there: no precision, and no part in the mean
    alone = average_precisions(truth, score, weights)
    assert np.isnan(alone[:, 1]).all()
    assert mean_average_precision(truth, score, weights) == pytest.approx(alone[:, [0, 2]].mean(1))


def test_the_five_likeliest_by_hand() -> None:
    prediction = np.tile(np.arange(8.0), (4, 1))  # 7, 6, 5, 4, 3 are the likeliest
    truth, ones = np.array([7.0, 3.0, 2.0, 2.0]), np.ones((1, 4))
    assert top_accuracy(truth, prediction, ones)[0] == 0.5
    assert mean_top_recall(truth, prediction, ones)[0] == pytest.approx(2 / 3)  # classes 7 and 3, not 2
    assert [metric.name for metric in metrics_of_actions(97, ahead=True)] == [
        "mean_top5_recall",
        "top1",
        "mean_class_accuracy",
        "top5",
    ]
    assert [metric.name for metric in metrics_of_actions(4, ahead=True)] == ["top1", "mean_class_accuracy"]


def test_each_class_is_probed_for_itself() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(80, 5))
    truth = (features[:, :3] + 0.1 * rng.normal(size=(80, 3)) > 0).astype(float)
    people = [f"{n % 8}" for n in range(60)]
    for protocol, least in (("linear", 0.9), ("knn", 0.7)):
        said = probe_several(protocol, features[:60], truth[:60], people, features[60:])
        assert ((said >= 0.5) == truth[60:]).mean() > least


def test_clips_are_asked_where_they_should_be(prepared: Prepared) -> None:
    folds = dict.fromkeys(range(2), 0)

    def asked(task: str, **how: float) -> list[tuple[int, float, float]]:
        labels = read_moments(prepared, TaskSettings.model_validate(TASKS[task]), None, None)
        units, _ = units_of(prepared, labels, CLIP, Asking(**how), folds)  # type: ignore[arg-type]
        return [(unit.row, unit.starts[0] / (prepared.fps(unit.row) or 1), unit.truth.tolist()) for unit in units]

    actions = [unit for unit in asked("verb") if unit[0] == 0]
    assert [truth for _, _, truth in actions] == [2, 0, 2, 1]  # in order of time
    assert [start for _, start, _ in actions][1:] == pytest.approx(
        [4 - 0.375, 12 - 0.375, 19 - 0.375], abs=0.01
    )  # about the middle
    before = [unit for unit in asked("verb", ahead=1.0) if unit[0] == 0]
    assert [start + 0.75 for _, start, _ in before] == pytest.approx(
        [2.0, 10.0, 17.0]
    )  # ends a second before; the first action is too early
    moments = [unit for unit in asked("mates", every=3.0) if unit[0] == 0]
    assert [start for _, start, _ in moments] == pytest.approx(np.arange(0, 24, 3.0))
    assert [truth for _, _, truth in moments] == [[1, 0]] * 4 + [[0, 1]] * 4
    later = [unit for unit in asked("mates", every=3.0, ahead=5.0) if unit[0] == 0]
    assert [truth for _, _, truth in later] == [[1, 0], [1, 0], [1, 1], [0, 1], [0, 1], [0, 1], [0, 1]]


def test_moments_that_the_data_set_names_are_asked_once(tmp_path: Path) -> None:
    made = make_views(tmp_path / "named", events=1, cameras=(Camera("a", end=24.0),))
    spans = [(made.video_id(0), 2.0, 7.0, "enemies", "3", "m0"), (made.video_id(0), 2.0, 7.0, "enemies", "5", "m0")]
    spans += [(made.video_id(0), 10.0, 15.0, "enemies", "", "m1"), (made.video_id(0), 30.0, 35.0, "enemies", "3", "m2")]
    task = {"kind": "presence", "column": "enemies"}
    prepared = add_spans(made.folder, spans, {"enemies": task})
    labels = read_moments(prepared, TaskSettings.model_validate(task), None, None)
    units, said = units_of(prepared, labels, CLIP, Asking(), {0: 0})
    assert [(unit.second, unit.truth.tolist()) for unit in units] == [
        (2.0, [1, 1]),
        (10.0, [0, 0]),
    ]  # nobody is known, too
    assert units[0].starts[0] / 10 == pytest.approx(4.5 - 0.375, abs=0.01)
    assert said == ("1 moments are not asked: too close to the beginning or end, or withheld",)
    with pytest.raises(ConfigError, match="those that the data set names"):
        units_of(prepared, labels, CLIP, Asking(every=1.0), {0: 0})


def test_where_mates_are_is_told_from_what_is_seen(prepared: Prepared, encoder: Path, tmp_path: Path) -> None:
    found = evaluate_moments(
        "linear",
        encoder,
        prepared,
        None,
        "mates",
        Asking(every=1.0),
        split="official",
        baselines=("pixels",),
        draws=50,
        out=tmp_path,
    )
    assert [line.name for line in found.lines] == ["prior", "pixels", "generic"]
    figures = {line.name: line.figures["map"].value for line in found.lines}
    assert figures["pixels"] > 0.95 > figures["prior"]
    told = json.loads((tmp_path / "evaluation.json").read_text())
    assert told["kind"] == "presence"
    assert set(told["of_each_class"]) == set(ROOMS)
    assert told["of_each_class"]["attic"]["share"] == pytest.approx(14 / 24, abs=0.03)
    lines = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    tested = {prepared.video_id(row) for row in range(8, 12)}
    assert {line["video_id"] for line in lines} == tested
    assert {line["truth"] for line in lines} == {"cellar", "attic", "cellar+attic"}


def test_actions_opposites_and_what_comes_next(prepared: Prepared, encoder: Path, tmp_path: Path) -> None:
    asked = {"baselines": ("pixels",), "draws": 50, "folds": 3}
    actions = evaluate_moments("knn", encoder, prepared, None, "verb", Asking(clips=2), **asked)  # type: ignore[arg-type]
    assert actions.line("pixels").figures["top1"].value > 0.95
    assert actions.line("prior").figures["mean_class_accuracy"].value == pytest.approx(1 / 3)
    pairs = evaluate_moments("linear", encoder, prepared, None, "verb", Asking(opposites=True), out=tmp_path, **asked)  # type: ignore[arg-type]
    assert [metric.title for metric in pairs.metrics] == ["opposites", "open / close"]
    assert pairs.line("pixels").figures["opposites"].value == 1.0
    assert pairs.line("prior").figures["opposites"].value == 0.5
    called = {
        line["prediction"] for line in csv.DictReader((tmp_path / "predictions.csv").open()) if line["truth"] == "cut"
    }
    assert called == {""}  # it has no opposite
    ahead = evaluate_moments("linear", encoder, prepared, None, "verb", Asking(ahead=1.0), **asked)  # type: ignore[arg-type]
    assert ahead.line("pixels").figures["top1"].value > 0.95
    assert any("too close to the beginning" in note for note in ahead.notes)


def test_what_does_not_go_together_is_one_line(prepared: Prepared, encoder: Path) -> None:
    for task, asking, what in (
        ("verb", Asking(every=1.0), "--every is of moments"),
        ("mates", Asking(clips=3), "single clips"),
        ("mates", Asking(opposites=True), "names no opposites"),
        ("verb", Asking(clips=3, ahead=1.0), "one clip that ends before"),
    ):
        with pytest.raises(ConfigError, match=what):
            evaluate_moments("linear", encoder, prepared, None, task, asking)
