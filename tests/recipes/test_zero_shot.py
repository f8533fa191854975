"""Zero-shot: figures by hand, rows beside chance, prompts, and what cannot be asked."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from aligned_factory import fitted, towers, write_aligned
from store_factory import VIEWS, Made, as_data_set, make_prepared

from domains.errors import ConfigError, DataError, ModelError
from domains.prompts import prompts_of
from domains.store.moments import UNLABELLED
from domains.store.prepared import Prepared
from recipes.evaluate.compare import Labelled, Units
from recipes.evaluate.metrics import CLASSIFICATION
from recipes.evaluate.phases import PHASES
from recipes.evaluate.presence import components
from recipes.evaluate.towers import comparing
from recipes.evaluate.zero_shot import (
    classifier,
    presence_metrics,
    probabilities,
    score_phases,
    score_presence,
    score_recordings,
)
from recipes.jobs.zero_shot import Rules, zero_shot

TEXTS = {"A2C": "two chamber view", "A4C": "four chamber view", "PLAX": "long axis view of the heart"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_prepared(tmp_path_factory.mktemp("data") / "prepared", videos=18, patients=6, frames=30)


@pytest.fixture(scope="module")
def run(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    views = [line["view"] for line in csv.DictReader(made.labels.open())]
    aligned = fitted(made.prepared, {row: TEXTS[view] for row, view in enumerate(views)})
    return write_aligned(tmp_path_factory.mktemp("run") / "aligned", aligned)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.yaml"
    path.write_text(yaml.safe_dump({"A2C": TEXTS["A2C"], "A4C": [TEXTS["A4C"]], "PLAX": TEXTS["PLAX"], "other": "x"}))
    return path


def figure(scorer, metrics, name: str, n: int) -> float:
    (metric,) = [m for m in metrics if m.name == name]
    return float(scorer(metric, np.ones((1, n)))[0])


def test_a_class_is_the_mean_of_its_prompts() -> None:
    prompts = [np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.0, -1.0]])]
    assert classifier(prompts) == pytest.approx(np.array([[0.5**0.5, 0.5**0.5], [0.0, -1.0]]))
    shares = probabilities(np.array([0.10, 0.10, 0.09]))
    assert shares == pytest.approx(np.array([1, 1, np.exp(-1)]) / (2 + np.exp(-1)))


def test_recordings_beside_chance_and_the_most_common_class() -> None:
    truth = np.array([0.0, 0.0, 0.0, 1.0])
    who = tuple("abcd")
    labelled = Labelled("classification", truth, ("x", "y"), who, who, np.zeros(4, np.int64))
    right = np.array([[0.3, 0.2], [0.3, 0.2], [0.1, 0.2], [0.1, 0.2]])
    cosines = np.stack([right, right[:, ::-1], right], axis=1)  # the model's own, and two that were never trained
    found = score_recordings(Units.of(labelled), cosines, seed=0)
    assert list(found) == ["zero-shot", "unaligned", "chance", "common"]
    assert figure(found["zero-shot"], CLASSIFICATION, "accuracy", 4) == 0.75
    assert figure(found["zero-shot"], CLASSIFICATION, "macro_f1", 4) == pytest.approx((0.8 + 2 / 3) / 2)
    assert figure(found["unaligned"], CLASSIFICATION, "accuracy", 4) == 0.5  # the mean of 0.25 and 0.75
    assert figure(found["common"], CLASSIFICATION, "accuracy", 4) == 0.75
    assert figure(found["chance"], CLASSIFICATION, "accuracy", 4) == pytest.approx(0.5, abs=0.12)
    half = found["zero-shot"](CLASSIFICATION[0], np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.0]]))
    assert half.tolist() == [1.0, 0.5]


def test_phases_are_figures_of_each_procedure_and_then_their_mean() -> None:
    """The first: 3 of 4 labelled moments right; the second: 1 of 1. A phase that it has not, and that was called, counts 0 or not at all."""
    truths = [np.array([0, 0, UNLABELLED, 1, 1]), np.array([1])]
    cosines = [np.eye(3)[[0, 2, 1, 1]][:, None], np.eye(3)[[1]][:, None]]
    times = [np.arange(5.0), np.arange(1.0)]
    found = score_phases(truths, cosines, times, "called", 0.0, seed=0)
    assert figure(found["zero-shot"], PHASES, "accuracy", 2) == pytest.approx((3 / 4 + 1) / 2)
    assert figure(found["zero-shot"], PHASES, "macro_f1", 2) == pytest.approx(((2 / 3 + 1 + 0) / 3 + 1) / 2)
    dropped = score_phases(truths, cosines, times, "dropped", 0.0, seed=0)
    assert figure(dropped["zero-shot"], PHASES, "macro_f1", 2) == pytest.approx(((2 / 3 + 1) / 2 + 1) / 2)
    assert figure(found["common"], PHASES, "accuracy", 2) == pytest.approx((2 / 4 + 1) / 2)
    assert figure(found["chance"], PHASES, "accuracy", 2) == pytest.approx(1 / 3, abs=0.1)
    assert "unaligned" not in found


def test_phases_may_be_relaxed_at_changes() -> None:
    truth, said = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1])  # early by one moment
    cosines, times = [np.eye(2)[said][:, None]], [np.arange(6.0)]
    strict, relaxed = (
        figure(score_phases([truth], cosines, times, "called", seconds, seed=0)["zero-shot"], PHASES, "accuracy", 1)
        for seconds in (0.0, 2.0)
    )
    assert (strict, relaxed) == (pytest.approx(5 / 6), 1.0)


def test_presence_is_average_precision_and_masks_what_nobody_has() -> None:
    truth = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1]])
    cosines = np.array([[0.9, 0.5, 0.1], [0.8, 0.4, 0.2], [0.7, 0.3, 0.3], [0.1, 0.2, 0.0]])[:, None]
    parts = components(("hook", "clip", "bag"), (), ())
    found = score_presence([truth], [cosines], parts, seed=0)
    assert [m.name for m in presence_metrics(parts)] == ["map"]
    of_hook, of_bag = (1 + 2 / 3) / 2, 1 / 4  # nobody has a clip
    assert figure(found["zero-shot"], presence_metrics(parts), "map", 1) == pytest.approx((of_hook + of_bag) / 2)


def test_triplets_are_scored_by_their_parts_too() -> None:
    parts = components(("hook,cut", "clip,null"), ("instrument", "verb"), ("null",))
    assert [m.name for m in presence_metrics(parts)] == ["map_iv", "map_i", "map_v"]


def test_towers_say_what_the_model_says_and_what_fresh_projections_say() -> None:
    aligned = towers()
    aligned.train()
    clips = np.random.default_rng(0).integers(0, 255, (2, 4, 32, 32, 1), np.uint8)
    with comparing(aligned, fresh=2) as compared:
        seen, said = compared.clips(clips), compared.texts(["a view", "the heart"])
        assert seen.shape == said.shape == (2, 3, 8)
        assert np.linalg.norm(seen, axis=2) == pytest.approx(np.ones((2, 3)), abs=1e-6)
        assert said[:, 0] == pytest.approx(aligned.embed_texts(["a view", "the heart"]).detach().numpy(), abs=1e-6)
        assert abs(seen[:, 0] - seen[:, 1]).max() > 0.1 < abs(seen[:, 1] - seen[:, 2]).max()
    assert aligned.training
    with comparing(aligned, fresh=2) as again:
        assert np.array_equal(again.clips(clips), seen)


def test_recordings_are_called_by_their_prompts(made: Made, run: Path, prompts: Path, tmp_path: Path) -> None:
    seen = []
    found = zero_shot(
        run, made.prepared, made.labels, "view", Rules(draws=200), prompts=prompts, out=tmp_path, progress=lambda *p: seen.append(p)
    )  # fmt: skip
    assert [line.name for line in found.lines] == ["unaligned", "chance", "common", "zero-shot"]
    mine = found.line("zero-shot")
    assert mine.figures["accuracy"].value > 0.9
    assert mine.against == "unaligned (mean of 20 untrained projections)"
    assert mine.difference is not None
    assert mine.difference["accuracy"].better
    assert found.line("chance").figures["accuracy"].value == pytest.approx(1 / 3, abs=0.05)
    assert "zero-shot beats unaligned" in found.verdict()
    assert "18 recordings, counted per recording, 6 patients" in found.verdict()
    assert seen[-1] == (54, 54)
    assert "3 classes of one prompt each (prompts.yaml)" in found.how[0]
    said = json.loads((tmp_path / "evaluation.json").read_text())
    assert said["prompts"]["A4C"] == [TEXTS["A4C"]]
    assert said["how"] == list(found.how)
    lines = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert {line["video_id"] for line in lines} == set(made.prepared.column("video_id"))
    right = sum(line["truth"] == line["prediction"] for line in lines)
    assert right / 18 == mine.figures["accuracy"].value
    assert found.confusion is not None
    matrix, classes = found.confusion
    assert (matrix.sum(), matrix.trace(), classes) == (18, right, VIEWS)
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_the_domains_prompts_are_the_default_and_every_class_needs_one(made: Made, run: Path, tmp_path: Path) -> None:
    found = zero_shot(run, made.prepared, made.labels, "view", Rules(draws=50, baselines=()))
    assert [line.name for line in found.lines] == ["zero-shot"]
    assert found.line("zero-shot").difference is None
    assert "those of domain echo" in found.how[0]
    assert found.settings["prompts"]["PLAX"] == ["a parasternal long axis view of the heart"]
    short = tmp_path / "short.yaml"
    short.write_text("A2C: x\nA4c: y\nPLAX: z\n")
    with pytest.raises(ConfigError, match=r"no prompt for class 'A4C' of 'view'. Did you mean 'A4c'\?"):
        zero_shot(run, made.prepared, made.labels, "view", prompts=short)


def test_prompts_of_a_task_go_before_those_of_all(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("yes: a\nview:\n  normal: [b, c]\n")
    assert prompts_of(["normal"], "view", path, "echo") == [("b", "c")]
    path.write_text("normal: [1]\n")
    with pytest.raises(ConfigError, match="not a text"):
        prompts_of(["normal"], "view", path, "echo")
    with pytest.raises(ConfigError, match=r"domain 'echo'.*no prompt for class 'normal'.*--prompts"):
        prompts_of(["normal"], "view", None, "echo")


def spans_of(made: Made, folder: Path) -> Path:
    """A table in which each recording is of its view, but for its first half second, of which nothing is known."""
    views = list(csv.DictReader(made.labels.open()))
    lines = [f"{line['video_id']},0.5,1.2,{line['view']}" for line in views]
    path = folder / "spans.csv"
    path.write_text("\n".join(["video_id,start,end,stage", *lines]) + "\n")
    return path


def ours(folder: Path, kind: str) -> str:
    path = folder / "ours.yaml"
    tasks = {
        "stage": {"kind": kind, "column": "stage", "classes": list(VIEWS)},
        "ef": {"kind": "regression", "column": "ef"},
    }
    path.write_text(
        yaml.safe_dump({"name": "ours", "title": "Ours", "tasks": tasks, "prompts": {k: [t] for k, t in TEXTS.items()}})
    )
    return str(path)


def test_moments_are_called_and_scored_per_recording(made: Made, run: Path, tmp_path: Path) -> None:
    rules = Rules(every=0.2, draws=100)
    domain = ours(tmp_path, "phases")
    found = zero_shot(run, made.prepared, spans_of(made, tmp_path), "stage", rules, domain=domain, out=tmp_path / "out")
    assert [m.name for m in found.metrics][:2] == ["macro_f1", "accuracy"]
    assert found.line("zero-shot").figures["accuracy"].value > 0.8
    assert found.line("chance").figures["accuracy"].value == pytest.approx(1 / 3, abs=0.05)
    assert "54 moments of 18 recordings" in found.size  # 0.6, 0.8 and 1.0 s of each
    assert "scikit-learn's macro average" in found.how[2]
    assert "strict" in found.how[2]
    lines = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert [line["seconds"] for line in lines[:3]] == ["0.6", "0.8", "1"]
    assert found.confusion is not None
    assert found.confusion[0].sum() == 54
    relaxed = zero_shot(
        run,
        made.prepared,
        spans_of(made, tmp_path),
        "stage",
        Rules(every=0.2, draws=10, relaxed=0.5, absent="zero"),
        domain=domain,
    )
    assert "relaxed by 0.5 s" in relaxed.how[2]
    assert "counts 0 in it" in relaxed.how[2]


def test_presence_of_moments(made: Made, run: Path, tmp_path: Path) -> None:
    found = zero_shot(
        run, made.prepared, spans_of(made, tmp_path), "stage", Rules(every=0.2, draws=50), domain=ours(tmp_path, "presence")
    )  # fmt: skip
    assert [m.name for m in found.metrics] == ["map"]
    assert found.line("zero-shot").figures["map"].value > found.line("chance").figures["map"].value


def test_moments_whose_frame_is_withheld_are_not_asked(
    made: Made, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = int(0.8 * made.prepared.fps(0) + 1e-6)
    monkeypatch.setattr(Prepared, "outside", lambda self, row: np.array([[at, at + 1]]))
    table = spans_of(made, tmp_path)
    found = zero_shot(
        run, made.prepared, table, "stage", Rules(every=0.2, draws=10), domain=ours(tmp_path, "phases"), out=tmp_path / "out"
    )  # fmt: skip
    assert "36 moments of 18 recordings" in found.size
    assert "(18 whose frame is withheld are not asked)" in found.how[1]
    lines = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert [line["seconds"] for line in lines[:3]] == ["0.6", "1", "0.6"]
    presence = zero_shot(
        run, made.prepared, table, "stage", Rules(every=0.2, draws=10), domain=ours(tmp_path, "presence")
    )
    assert presence.settings["withheld"] == 18
    assert presence.settings["recordings"] == 18


def test_what_cannot_be_asked(made: Made, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'ef' is a number.*vfm evaluate linear"):
        zero_shot(run, made.prepared, made.labels, "ef")
    with pytest.raises(ConfigError, match=r"no baseline 'chanse'. Did you mean 'chance'\?"):
        zero_shot(run, made.prepared, made.labels, "view", Rules(baselines=("chanse",)))
    with pytest.raises(ModelError, match="not a run that aligned"):
        zero_shot(tmp_path, made.prepared, made.labels, "view")
    table = tmp_path / "late.csv"
    table.write_text(f"video_id,start,end,stage\n{made.prepared.video_id(0)},90,95,A4C\n")
    with pytest.raises(DataError, match="no moment of the recordings that are asked has a label"):
        zero_shot(run, made.prepared, table, "stage", domain=ours(tmp_path, "phases"))


def test_what_would_change_nothing_is_refused(made: Made, run: Path, tmp_path: Path) -> None:
    for rules in (Rules(every=1.0), Rules(absent="zero"), Rules(relaxed=0.0)):
        with pytest.raises(ConfigError, match=r"'view' is a task of kind classification, for which .* means nothing"):
            zero_shot(run, made.prepared, made.labels, "view", rules)
    with pytest.raises(ConfigError, match="kind phases, for which clips means nothing"):
        zero_shot(run, made.prepared, None, "stage", Rules(clips=2), domain=ours(tmp_path, "phases"))


def test_of_an_official_split_the_test_part_is_asked(run: Path, tmp_path: Path) -> None:
    data = as_data_set(make_prepared(tmp_path / "prepared", videos=18, patients=6, frames=30), test=3)
    found = zero_shot(run, data, None, "view", Rules(split="official", draws=20, clips=1))
    assert "9 recordings, counted per recording, 3 procedures" in found.size
    assert found.how[-1] == "the test part of the official split 'official' alone"
