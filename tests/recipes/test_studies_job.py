"""`jobs.finetune` at the level of studies: from the clips of a study to one answer, and what each clip counts in it."""

from __future__ import annotations

import csv
import json
from collections import defaultdict

import cv2
import numpy as np
import pytest
from interrupt_factory import Killed, dies_at
from safetensors.torch import load_file
from store_factory import make_prepared

from domains.errors import ConfigError, DataError
from domains.store.manifest import frame_file
from recipes.config import Layer, resolve
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.finetune import defaults
from recipes.jobs.finetune import finetune
from recipes.jobs.predict import predict
from recipes.runs.run import Run
from recipes.training.reporter import SilentReporter

SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 16, "tubelet_size": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("studies")
    prepared, labels = make_prepared(root / "prepared", videos=45, patients=20, frames=20, size=32)
    fresh_videomae(Geometry(frames=4, size=32, rate=6.25), seed=0, hidden_size=16, **SMALL).save(root / "encoder")
    return root, prepared, labels


def settings(root, labels, **over):
    values = {
        "encoder": {"name": str(root / "encoder")},
        "data": {"path": str(root / "prepared")},
        "clip": {"frames": 4, "size": 32, "rate": 6.25},
        "task": {"name": "ef", "labels": str(labels), "folds": 5, "clips_per_video": 2, "study": {"width": 8}},
        "train": {"epochs": 12, "batch_size": 4, "log_every": 3, "save_every": 10},
    }
    for key, value in over.items():
        place = values
        *path, name = key.split("__")
        for part in path:
            place = place.setdefault(part, {})
        place[name] = value
    return resolve([defaults(of_studies=True), Layer("test", values)])


@pytest.fixture(scope="module")
def finished(made):
    root, _, labels = made
    reporter = SilentReporter()
    return finetune(settings(root, labels), root / "runs" / "ef", reporter=reporter), reporter


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_studies_are_counted_and_measured_against_single_clips(finished):
    run, reporter = finished
    found = json.loads((run / "evaluation.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["constant", "single", "mean", "views", "study"]
    assert (found["reference"], found["counted_per"]) == ("single", "study")
    assert (found["patients"], found["studies"]) == (4, 4)
    assert found["videos"] > 4
    assert "attention over all clips" in found["verdict"]
    assert "4 studies of" in found["verdict"]
    assert any(note.startswith("Against the mean of the clips' answers (one probe): ") for note in found["notes"])
    said = "ef: training 12 studies of 12 patients, validation 4 studies of 4 patients, test 4 studies of 4 patients"
    assert any(
        note.startswith(said) and note.endswith("2 to 3 clips a study, views by a probe") for note in reporter.notes
    )


def test_figures_are_those_of_the_written_predictions(finished):
    run, _ = finished
    figures = {row["name"]: row["figures"] for row in json.loads((run / "evaluation.json").read_text())["rows"]}
    errors = defaultdict(list)
    for line in table(run / "predictions.csv"):
        assert "video_id" not in line
        errors[line["encoder"]].append(abs(float(line["truth"]) - float(line["prediction"])))
    for name, found in errors.items():
        assert len(found) == 4
        assert figures[name]["mae"]["value"] == pytest.approx(np.mean(found), abs=1e-3)


def test_attention_adds_up_and_what_clips_say_alone_adds_up_to_the_answer(made, finished):
    run, prepared = finished[0], made[1]
    said = {line["study"]: line["prediction"] for line in table(run / "predictions.csv") if line["encoder"] == "study"}
    studies = defaultdict(list)
    for line in table(run / "attention.csv"):
        studies[line["study"]].append(line)
        assert line["view"] in {"A2C", "A4C", "PLAX"}
    assert set(studies) == set(said)
    members = prepared.column("study")
    for study, lines in studies.items():
        assert len(lines) == members.count(study)
        weights = np.array([float(line["attention"]) for line in lines])
        assert weights.sum() == pytest.approx(1, abs=2e-4)
        alone = np.array([float(line["alone"]) for line in lines])
        assert (weights * alone).sum() == pytest.approx(float(said[study]), abs=0.05)
        assert lines[0]["prediction"] == said[study]
        picture = cv2.imread(str(run / "studies" / f"{study}.png"))
        assert picture.shape[1] == len(lines) * (32 + 6) + 6


def test_the_page_shows_every_test_study_and_needs_nothing_else(finished):
    run, _ = finished
    page = (run / "report.html").read_text()
    assert page.count('<img src="data:image/webp;base64,') == 4
    assert "attention over all clips" in page
    assert "http" not in page.replace("http-equiv", "")
    for line in table(run / "attention.csv"):
        assert f"study {line['study']}" in page


def test_the_run_is_one_like_others(made, finished):
    run = Run(finished[0])
    assert run.state == ("finished", "")
    assert run.record["patients"] == {"train": 12, "validation": 4, "test": 4}
    assert run.record["views"] == "probe"
    best = [row["val_mae"] for row in run.rows if "val_mae" in row]
    assert run.record["best"]["score"] == pytest.approx(min(best), abs=1e-6)
    seen = json.loads((run.path / "seen.json").read_text())
    assert (seen["task"], len(seen["patients"])) == ("ef", 16)
    head = json.loads((run.path / "head.json").read_text())
    assert (head["level"], head["views"], head["view_names"]) == ("study", "probe", ["A2C", "A4C", "PLAX"])
    assert len(list((made[0] / "runs" / "features").iterdir())) == 1


def test_the_run_alone_says_the_same_of_the_same_studies(made, finished, tmp_path):
    run, prepared = finished[0], made[1]
    found = predict(run, prepared, tmp_path / "said", reporter=SilentReporter())
    assert (found.task, found.recordings, found.failed) == ("ef", len(prepared), ())
    assert len(table(found.where)) == len(set(prepared.column("study")))
    with pytest.raises(ConfigError, match="this run is of whole studies"):
        predict(run, prepared, tmp_path / "other", clips=2, reporter=SilentReporter())
    now = {line["study"]: float(line["prediction"]) for line in table(tmp_path / "said" / "predictions.csv")}
    for line in table(run / "predictions.csv"):
        if line["encoder"] == "study":
            assert now[line["study"]] == pytest.approx(float(line["prediction"]), rel=1e-4)
    before = table(run / "attention.csv")
    again = {line["video_id"]: line for line in table(tmp_path / "said" / "attention.csv")}
    assert all(
        float(line["attention"]) == pytest.approx(float(again[line["video_id"]]["attention"]), abs=2e-4)
        for line in before
    )


def test_interrupted_and_resumed_ends_as_the_uninterrupted_run(made, finished, monkeypatch):
    root, _, labels = made
    dies_at(monkeypatch, 17)
    again = root / "runs" / "again"
    with pytest.raises(Killed):
        finetune(settings(root, labels), again, reporter=SilentReporter())
    finetune(settings(root, labels), again, resume=True, reporter=SilentReporter())
    one, two = load_file(finished[0] / "head.safetensors"), load_file(again / "head.safetensors")
    assert all((one[name] == two[name]).all() for name in one)
    for name in ("evaluation.json", "predictions.csv", "attention.csv"):
        assert (finished[0] / name).read_text() == (again / name).read_text()


def test_classes_of_studies_views_by_labels_and_a_damaged_recording(made, tmp_path):
    root = made[0]
    prepared, labels = make_prepared(tmp_path / "prepared", videos=30, patients=15, frames=12, size=32, seed=3)
    lines = table(labels)
    labels.write_text(
        "video_id,poor,view\n"
        + "".join(
            f"{line['video_id']},{'yes' if float(line['ef']) < 47 else 'no'},{'' if n % 7 == 0 else line['view']}\n"
            for n, line in enumerate(lines)
        )
    )
    (tmp_path / "ours.yaml").write_text(
        "name: ours\ntitle: Ours\ntasks:\n  poor: {kind: classification, column: poor}\n"
        "  view: {kind: classification, column: view}\n"
    )
    lost = prepared.video_id(0)
    frame_file(prepared.folder, lost).write_bytes(b"")
    reporter = SilentReporter()
    resolved = settings(
        root, labels, data__path=str(prepared.folder), domain=str(tmp_path / "ours.yaml"), task__name="poor", task__study__views="labels",
        task__balance=True, train__epochs=2,
    )  # fmt: skip
    run = finetune(resolved, tmp_path / "runs" / "poor", reporter=reporter)
    assert any(lost in warning for warning in reporter.warnings)
    found = json.loads((run / "evaluation.json").read_text())
    assert (found["headline"], found["classes"]) == ("accuracy", ["no", "yes"])
    seen = table(run / "attention.csv")
    assert lost not in {line["video_id"] for line in seen}
    assert {line["alone"] for line in seen} <= {"no", "yes"}
    assert (run / "confusion.png").is_file()
    head = json.loads((run / "head.json").read_text())
    assert head["views"] == "labels"
    assert len(head["class_weights"]) == 2


@pytest.mark.parametrize(
    ("over", "kind", "said"),
    [
        ({"task__name": "view"}, DataError, "have different labels"),
        ({"encoder__mode": "last_k", "encoder__last_k": 3}, ConfigError, "last_k is 3, the encoder has 1 blocks"),
        (
            {"train__piece": 2},
            ConfigError,
            "clips that an encoder learns from at once, and encoder.mode is frozen.*--mode lora",
        ),
        (
            {"task__lr_head": 0.1},
            ConfigError,
            "'task.lr_head' is not used by a head over studies whose encoder is frozen",
        ),
        ({"task__temporal__head": "offline"}, ConfigError, "for tasks of moments"),
        ({"task__study__views": "labels", "task__study__view_task": "esv"}, DataError, "no labels of 'esv'"),
        ({"task__study__views": "probe", "task__study__view_task": "vew"}, ConfigError, "no task 'vew'"),
        ({"task__level": "recording"}, ConfigError, "'task.study' is for tasks of whole studies"),
    ],
)
def test_what_cannot_be_is_one_line(made, tmp_path, over, kind, said):
    root, _, labels = made
    with pytest.raises(kind, match=said):
        finetune(settings(root, labels, **over), tmp_path / "run", reporter=SilentReporter())
