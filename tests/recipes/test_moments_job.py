"""`jobs.finetune` of phases, tools and triplets: from spans to a run folder; and what time adds to single moments."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest
from interrupt_factory import Killed, dies_at
from procedure_factory import PHASES, TOOLS, make_procedures
from safetensors.torch import load_file

import recipes.jobs.moments as moments_job
from domains.errors import ConfigError, DataError
from domains.store.manifest import frame_file
from recipes.config import Layer, resolve
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.evaluate.phases import phase_figures
from recipes.finetune import defaults
from recipes.finetune.head import load_temporal_head
from recipes.jobs.finetune import finetune
from recipes.jobs.moments import predict_moments
from recipes.jobs.predict import predict
from recipes.runs.run import Run
from recipes.training.reporter import SilentReporter

SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 16, "tubelet_size": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("moments")
    prepared = make_procedures(root / "prepared", videos=10)
    fresh_videomae(Geometry(frames=4, size=32, rate=4.0), seed=0, hidden_size=16, **SMALL).save(root / "encoder")
    return root, prepared


def settings(root, **over):
    values = {
        "encoder": {"name": str(root / "encoder")},
        "data": {"path": str(root / "prepared")},
        "clip": {"frames": 4, "size": 32, "rate": 4.0},
        "task": {"name": "phase", "folds": 5, "temporal": {"layers": 5, "width": 12}},
        "train": {"epochs": 25, "batch_size": 3, "log_every": 10, "save_every": 25},
        "optim": {"lr": 0.005},
    }
    for key, value in over.items():
        place = values
        *path, name = key.split("__")
        for part in path:
            place = place.setdefault(part, {})
        place[name] = value
    return resolve([defaults(of_moments=True), Layer("test", values)])


@pytest.fixture(scope="module")
def finished(made):
    root, _ = made
    reporter = SilentReporter()
    return finetune(settings(root, task__temporal__relaxed=2.0), root / "runs" / "phase", reporter=reporter), reporter


def test_what_was_before_tells_apart_what_looks_alike(finished):
    """Opening and closing are the same picture: a probe of single moments cannot tell them apart, a causal head can."""
    run, reporter = finished
    found = json.loads((run / "evaluation.json").read_text())
    f1 = {row["name"]: row["figures"]["macro_f1"]["value"] for row in found["rows"]}
    assert f1["majority"] < 0.3
    assert f1["linear"] < 0.8
    assert f1["head"] > 0.9
    assert found["rows"][2]["difference"]["macro_f1"]["better"]
    assert "the causal head beats a linear probe of single moments: phase macro F1" in found["verdict"]
    parts = (
        "phase: training 6 videos of 6 procedures, validation 2 videos of 2 procedures, test 2 videos of 2 procedures"
    )
    assert any(note.startswith(parts) for note in reporter.notes)
    assert found["headline"] == "macro_f1"
    relaxed = found["rows"][2]["figures"]["relaxed_macro_f1"]["value"]
    assert 1 >= relaxed >= f1["head"]
    assert found["relaxed_seconds"] == 2
    assert found["macro_f1_by_convention"]["dropped"] == pytest.approx(f1["head"])
    each = found["of_each_video"]
    for row in found["rows"]:
        shares = [one[row["name"]]["macro_f1"] for one in each.values()]
        assert sum(shares) / len(shares) == pytest.approx(row["figures"]["macro_f1"]["value"])
    assert set(found["of_each_class"]) == set(PHASES)


def test_figures_are_those_of_the_written_predictions(made, finished):
    run, _ = finished
    tables = sorted((run / "predictions").glob("*.csv"))
    assert len(tables) == 2
    means = []
    for path in tables:
        with path.open() as file:
            lines = list(csv.DictReader(file))
        assert [float(line["time"]) for line in lines] == list(range(len(lines)))
        row = made[1].index_of(path.stem)
        assert len(lines) == -(-made[1].length(row) // 4)
        truth, called = (np.array([PHASES.index(line[name]) for line in lines]) for name in ("truth", "prediction"))
        likeliest = [max(PHASES, key=lambda name: float(line[f"p_{name}"])) for line in lines]
        assert [PHASES[number] for number in called] == likeliest
        means.append(phase_figures(truth, called, 3).means()["jaccard"])
    found = json.loads((run / "evaluation.json").read_text())
    assert found["rows"][2]["figures"]["jaccard"]["value"] == pytest.approx(np.mean(means))


def test_pictures_show_the_phases_in_their_colours(finished):
    run, _ = finished
    pictures = sorted((run / "ribbons").glob("*.png"))
    assert [path.stem for path in pictures] == sorted(path.stem for path in (run / "predictions").glob("*.csv"))
    picture = cv2.imread(str(pictures[0]))[..., ::-1].reshape(-1, 3)
    for colour in ((31, 119, 180), (255, 127, 14), (44, 160, 44)):  # tab10's first three
        assert (np.abs(picture.astype(int) - colour).max(axis=1) <= 2).sum() > 1000
    assert cv2.imread(str(run / "confusion.png")) is not None


def test_the_run_is_one_like_others_and_its_descriptions_lie_beside_it(made, finished):
    run = Run(finished[0])
    assert run.state == ("finished", "")
    assert run.recipe == "finetune phase"
    assert run.record["patients"] == {"train": 6, "validation": 2, "test": 2}
    assert run.record["head"] == "causal"
    best = [row["val_macro_f1"] for row in run.rows if "val_macro_f1" in row]
    assert run.record["best"]["score"] == pytest.approx(1 - max(best), abs=1e-6)
    assert "rankme" not in run.rows[-1]
    seen = json.loads((run.path / "seen.json").read_text())
    assert (seen["task"], len(seen["patients"])) == ("phase", 8)
    (folder,) = (made[0] / "runs" / "features").iterdir()
    assert len(list(folder.glob("*.npy"))) == 10
    head = json.loads((run.path / "head.json").read_text())
    assert (head["rate"], head["channels"], head["classes"]) == (1.0, 32, list(PHASES))


def test_a_new_recording_is_predicted_by_the_run_alone(made, finished, tmp_path):
    run, _ = finished
    other = make_procedures(tmp_path / "other", videos=2, seed=5)
    task, failed = predict_moments(run, other, [0, 1], tmp_path / "said", SilentReporter())
    assert (task, failed) == ("phase", ())
    with (tmp_path / "said" / f"{other.video_id(1)}.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["truth"] for line in lines} == {""}
    said = [line["prediction"] for line in lines]
    assert said[0] == "opening"
    assert said[-1] == "closing"
    model = load_temporal_head(run)
    assert model.settings.head == "causal"
    found = predict(run, other, tmp_path / "verb", reporter=SilentReporter())
    assert (found.task, found.recordings, found.where) == ("phase", 2, tmp_path / "verb")
    table = f"{other.video_id(1)}.csv"
    assert (found.where / table).read_text() == (tmp_path / "said" / table).read_text()
    with pytest.raises(ConfigError, match="--clips is for tasks of single recordings, and this run is of moments"):
        predict(run, other, tmp_path / "other", clips=2, reporter=SilentReporter())


def test_predictions_that_were_stopped_are_gone_on_with(made, finished, tmp_path, monkeypatch):
    run, out, real, tables = finished[0], tmp_path / "said", moments_job.write_table, []

    def write_table(line, name, classes, path):
        tables.append(path)
        if len(tables) == 2:
            path.write_text("half a li")
            raise KeyboardInterrupt
        real(line, name, classes, path)

    monkeypatch.setattr(moments_job, "write_table", write_table)
    with pytest.raises(KeyboardInterrupt):
        predict(run, made[1], out, reporter=SilentReporter())
    assert predict(run, made[1], out, reporter=SilentReporter()).recordings == 10
    assert sorted(path.name for path in out.iterdir()) == sorted(["features", *(path.name for path in tables[2:])])
    assert "half a li" not in tables[1].read_text()
    with pytest.raises(ConfigError, match="holds predictions already"):
        predict(run, made[1], out, reporter=SilentReporter())


def test_interrupted_and_resumed_ends_as_the_uninterrupted_run(made, finished, monkeypatch):
    root, _ = made
    dies_at(monkeypatch, 37)
    resolved = settings(root, task__temporal__relaxed=2.0)
    with pytest.raises(Killed):
        finetune(resolved, root / "runs" / "again", reporter=SilentReporter())
    finetune(resolved, root / "runs" / "again", resume=True, reporter=SilentReporter())
    one, two = load_file(finished[0] / "head.safetensors"), load_file(root / "runs" / "again" / "head.safetensors")
    assert all((one[name] == two[name]).all() for name in one)
    for name in ("evaluation.json", *(f"predictions/{path.name}" for path in (finished[0] / "predictions").iterdir())):
        assert (finished[0] / name).read_text() == (root / "runs" / "again" / name).read_text()


def test_tools_by_average_precision(made):
    root, _ = made
    run = finetune(
        settings(root, task__name="tool", train__epochs=20), root / "runs" / "tool", reporter=SilentReporter()
    )
    found = json.loads((run / "evaluation.json").read_text())
    figures = {row["name"]: row["figures"]["map"]["value"] for row in found["rows"]}
    assert found["headline"] == "map"
    assert figures["head"] > figures["majority"] + 0.3
    assert found["of_each_class"]["hook"]["ap"] > 0.75
    assert 0 < found["map_over_all"] <= 1
    assert not (run / "confusion.png").exists()
    with next((run / "predictions").glob("*.csv")).open() as file:
        header = next(csv.reader(file))
    assert header == ["time", *(f"truth_{name}" for name in TOOLS), *(f"p_{name}" for name in TOOLS)]


def test_triplets_by_their_components_null_apart(made):
    root, _ = made
    resolved = settings(root, task__name="triplet", train__epochs=3, task__temporal__head="offline")
    run = finetune(resolved, root / "runs" / "triplet", reporter=SilentReporter())
    found = json.loads((run / "evaluation.json").read_text())
    names = list(found["rows"][-1]["figures"])
    assert names[0] == "map_ivt"
    assert {"map_i", "map_v", "map_t", "map_iv", "map_it", "map_ivt_null", "map_v_null"} <= set(names)
    assert "map_i_null" not in names
    assert found["of_each_class"]["hook,null_verb,null_target"]["null"]
    assert "offline" in found["verdict"]


def test_a_table_of_ones_own_and_a_damaged_recording(tmp_path, made):
    prepared = make_procedures(tmp_path / "prepared", videos=8, seed=1)
    lines = ["recording,start,end,value"]
    for row in range(8):
        seconds = prepared.length(row) / 4
        lines += [
            f"{prepared.video_id(row)},0,{seconds / 2},first",
            f"{prepared.video_id(row)},{seconds / 2},{seconds},second",
        ]
    (tmp_path / "spans.csv").write_text("\n".join([*lines, "nobody,0,1,first"]) + "\n")
    (tmp_path / "ours.yaml").write_text(
        "name: ours\ntitle: Ours\ntasks:\n  half: {kind: phases, column: half, classes: [first, second, third]}\n"
    )
    frame_file(prepared.folder, prepared.video_id(3)).write_bytes(b"")
    resolved = settings(
        made[0], data__path=str(prepared.folder), domain=str(tmp_path / "ours.yaml"), task__name="half",
        task__labels=str(tmp_path / "spans.csv"), train__epochs=2,
    )  # fmt: skip
    reporter = SilentReporter()
    run = finetune(resolved, tmp_path / "run", reporter=reporter)
    assert any(prepared.video_id(3) in warning for warning in reporter.warnings)
    assert "1 label rows match no recording" in reporter.warnings
    assert "no training moment of third: it will never be predicted" in reporter.warnings
    assert json.loads((run / "evaluation.json").read_text())["classes"] == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"encoder__mode": "lora"}, "encoder.mode is lora: a temporal head reads what a frozen encoder has said"),
        ({"task__loss": "l1"}, "'task.loss' is for tasks of whole recordings"),
        ({"task__lr_head": 0.1}, "'task.lr_head' is for tasks of whole recordings"),
        ({"monitor__knn__task": "phase"}, "'monitor.knn' is for pretraining"),
    ],
)
def test_settings_that_would_not_be_used_are_refused(made, tmp_path, over, said):
    with pytest.raises(ConfigError, match=said):
        finetune(settings(made[0], **over), tmp_path / "run", reporter=SilentReporter())
    assert not (tmp_path / "run").exists()


def test_too_few_procedures_and_parts_without_labels(made, tmp_path):
    root, prepared = made
    one = prepared.video_id(0)
    (tmp_path / "spans.csv").write_text(f"video_id,start,end,phase\n{one},0,5,opening\n")
    with pytest.raises(DataError, match="1 "):
        finetune(settings(root, task__labels=str(tmp_path / "spans.csv")), tmp_path / "run", reporter=SilentReporter())
    lines = [f"{prepared.video_id(row)},9000,9001,opening" for row in range(10)]
    (tmp_path / "late.csv").write_text("\n".join(["video_id,start,end,phase", *lines]) + "\n")
    with pytest.raises(DataError, match="no training procedure has a labelled moment"):
        finetune(settings(root, task__labels=str(tmp_path / "late.csv")), tmp_path / "late", reporter=SilentReporter())
