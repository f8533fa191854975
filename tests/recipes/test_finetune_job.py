"""`jobs.finetune` from labels to a run folder that works alone, with peft, and after an interruption."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from interrupt_factory import Killed, dies_at
from safetensors.torch import load_file
from store_factory import make_prepared

from domains.errors import ConfigError, DataError
from domains.store.manifest import frame_file
from recipes.config import Layer, resolve
from recipes.encoders.base import Geometry
from recipes.encoders.loading import SHIPPED
from recipes.encoders.videomae import fresh_videomae
from recipes.evaluate.predict import predict
from recipes.finetune import defaults
from recipes.finetune.material import read_material
from recipes.jobs.finetune import build_task, finetune, load_model
from recipes.training.reporter import SilentReporter
from vfm_cli.console import run_guarded
from vfm_cli.main import cli

SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 16, "tubelet_size": 2}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("finetune")
    prepared, labels = make_prepared(root / "prepared", videos=36, patients=12)
    fresh_videomae(Geometry(frames=4, size=32, rate=12.5), seed=0, hidden_size=32, **SMALL).save(root / "encoder")
    return root, prepared, labels


def settings(root, labels, **over):
    values = {
        "encoder": {"name": str(root / "encoder")},
        "data": {"path": str(root / "prepared"), "workers": 0},
        "clip": {"frames": 4, "size": 32, "rate": 12.5},
        "task": {"name": "view", "labels": str(labels), "folds": 4, "clips_per_video": 2},
        "train": {"epochs": 4, "batch_size": 6, "log_every": 1, "precision": "fp32", "save_every": 3},
    }
    for key, value in over.items():
        section, name = key.split("__")
        values.setdefault(section, {})[name] = value
    return resolve([defaults(), Layer("test", values)])


@pytest.fixture(scope="module")
def finished(made):
    root, _, labels = made
    reporter = SilentReporter()
    return finetune(settings(root, labels), root / "run", reporter=reporter), reporter


def test_only_test_patients_are_predicted_once_the_run_is_over(made, finished):
    root, prepared, labels = made
    run, reporter = finished
    with (run / "predictions.csv").open() as handle:
        lines = list(csv.DictReader(handle))
    material = read_material(settings(root, labels).config, None)
    test = {prepared.video_id(int(row)) for row in material.rows(material.split.test)}
    assert {line["video_id"] for line in lines} == test
    assert {line["encoder"] for line in lines} == {"constant", "finetuned"}
    figures = json.loads((run / "evaluation.json").read_text())
    assert figures["patients"] == 3
    assert figures["bootstrap"]["over"] == "patients"
    right = np.mean([line["truth"] == line["prediction"] for line in lines if line["encoder"] == "finetuned"])
    assert figures["rows"][1]["figures"]["accuracy"]["value"] == pytest.approx(right)
    assert "view: training 18 videos of 6 patients, validation 9 videos of 3 patients" in reporter.notes[0]
    record = json.loads((run / "record.json").read_text())
    assert record["patients"] == {"train": 6, "validation": 3, "test": 3, "unused": 0}
    assert 0 < record["trained_parameters"] < 0.5 * record["parameters"]


def test_a_finished_run_predicts_every_recording_without_a_label(made, finished, tmp_path, capsys):
    """Of the test recordings it says what it said when it was tested."""
    _, prepared, _ = made
    run, _ = finished
    words = [
        "predict",
        "--model",
        str(run),
        "--data",
        str(prepared.folder),
        "--out",
        str(tmp_path / "said"),
        "--clips",
        "2",
    ]
    assert run_guarded(cli, [*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["task"], told["recordings"], told["left_out"]) == ("view", 36, [])
    with Path(told["predictions"]).open() as handle:
        said = {line["video_id"]: line for line in csv.DictReader(handle)}
    assert list(said) == prepared.column("video_id")
    with (run / "predictions.csv").open() as handle:
        tested = [line for line in csv.DictReader(handle) if line["encoder"] == "finetuned"]
    for line in tested:
        assert said[line["video_id"]] == {name: line[name] for name in said[line["video_id"]]}
    assert run_guarded(cli, words) == 2
    assert "holds predictions already. Replace them with --overwrite" in capsys.readouterr().err
    assert run_guarded(cli, [*words, "--overwrite"]) == 0
    assert (
        run_guarded(cli, ["predict", "--model", str(prepared.folder), *words[3:5], "--out", str(tmp_path / "x")]) != 0
    )
    assert "Give the folder of a finished 'vfm finetune' run" in capsys.readouterr().err


def test_validation_is_logged_each_epoch_and_the_best_epoch_is_what_is_saved(made, finished):
    run, _ = finished
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["val_log_loss"] for row in rows if row["step"] % 3 == 0]
    assert len(losses) == 4
    best = json.loads((run / "best/best.json").read_text())
    assert best["score"] == pytest.approx(min(losses))
    assert best["step"] == 3 * (1 + int(np.argmin(losses)))
    kept = load_file(run / "best" / best["weights"])
    torch.testing.assert_close(load_file(run / "head.safetensors")["bias"], kept["head.bias"], rtol=0, atol=0)


def test_fine_tuning_is_watched_as_pretraining_is(made, finished):
    from recipes.runs.run import Run

    run = Run(finished[0])
    figures = {
        "rankme",
        "rankme_centred",
        "feature_entropy",
        "deviation",
        "grad_norm",
        "grad_norm_max",
        "monitor_seconds",
    }
    assert figures <= run.rows[-1].keys()
    assert run.state == ("finished", "")
    assert run.record["monitors"]["rankme"] == run.rows[-1]["rankme"]
    assert run.record["alarms"] == run.alarms


def test_the_run_is_usable_alone(made, finished):
    run, _ = finished
    prepared = made[1]
    model = load_model(run)
    with (run / "predictions.csv").open() as handle:
        lines = [line for line in csv.DictReader(handle) if line["encoder"] == "finetuned"]
    rows = [prepared.index_of(line["video_id"]) for line in lines]
    found = predict(model, prepared, rows, 2, CPU).values
    written = np.array([[float(line[f"p_{name}"]) for name in ("A2C", "A4C", "PLAX")] for line in lines])
    np.testing.assert_allclose(found, written, atol=1e-4)


def test_the_adapter_loads_with_plain_peft_and_gives_the_merged_encoder(made, finished):
    from peft import PeftModel
    from transformers import AutoModel

    run, _ = finished
    noted = json.loads((run / "adapter/adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(noted) == made[0] / "encoder"
    base = AutoModel.from_pretrained(noted)
    clips = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = base(clips).last_hidden_state
        adapted = PeftModel.from_pretrained(base, run / "adapter").eval()(clips).last_hidden_state
        merged = AutoModel.from_pretrained(run / "encoder").eval()(clips).last_hidden_state
    torch.testing.assert_close(adapted, merged, atol=2e-5, rtol=1e-4)
    assert (adapted - plain).abs().max() > 1e-3


def test_interrupted_and_resumed_ends_as_the_uninterrupted_run(made, finished, monkeypatch):
    root, _, labels = made
    steps = dies_at(monkeypatch, 7)
    with pytest.raises(Killed):
        finetune(settings(root, labels), root / "again", reporter=SilentReporter())
    finetune(settings(root, labels), root / "again", resume=True, reporter=SilentReporter())
    assert steps == [7]
    run, _ = finished
    for name in ("encoder/model.safetensors", "adapter/adapter_model.safetensors", "head.safetensors"):
        one, two = load_file(run / name), load_file(root / "again" / name)
        assert all(torch.equal(one[key], two[key]) for key in one), name
    assert (run / "predictions.csv").read_text() == (root / "again/predictions.csv").read_text()


def test_regression_of_a_study_label(made, tmp_path):
    root, _, labels = made
    resolved = settings(root, labels, task__name="ef", encoder__mode="full", train__epochs=1)
    run = finetune(resolved, tmp_path / "ef", reporter=SilentReporter())
    figures = json.loads((run / "evaluation.json").read_text())
    assert figures["counted_per"] == "study"
    head = json.loads((run / "head.json").read_text())
    material = read_material(resolved.config, None)
    assert head["mean"] == pytest.approx(material.truth(material.split.train).mean())
    assert not (run / "adapter").exists()
    assert (run / "scatter.png").is_file()
    with (run / "predictions.csv").open() as handle:
        constant = {line["prediction"] for line in csv.DictReader(handle) if line["encoder"] == "constant"}
    assert len(constant) == 1
    assert float(constant.pop()) == pytest.approx(np.median(material.truth(material.split.train)), rel=1e-4)


def test_the_built_in_start_leaves_its_base_beside_the_adapter(made, tmp_path):
    root, _, labels = made
    resolved = settings(root, labels, encoder__name="vfm-tiny", train__steps=1)
    reporter = SilentReporter()
    run = finetune(resolved, tmp_path / "run", reporter=reporter)
    assert not any("random weights" in note for note in reporter.notes)
    base, shipped = load_file(run / "base/model.safetensors"), load_file(SHIPPED["vfm-tiny"] / "model.safetensors")
    assert base.keys() == shipped.keys()
    assert all(torch.equal(base[name], shipped[name].float()) for name in base)
    noted = json.loads((run / "adapter/adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(noted) == run / "base"


@pytest.mark.parametrize(("mode", "changed"), [("frozen", set()), ("last_k", {"encoder.layer.1", "layernorm"})])
def test_modes_change_what_they_say_of_the_encoder(made, tmp_path, mode, changed):
    root, _, labels = made
    resolved = settings(root, labels, encoder__mode=mode, encoder__last_k=1, train__steps=3)
    run = finetune(resolved, tmp_path / "run", reporter=SilentReporter())
    before = load_file(root / "encoder/model.safetensors")
    after = load_file(run / "encoder/model.safetensors")
    differ = {name for name in before if not torch.equal(before[name], after[name])}
    assert {re.match(r"(encoder\.layer\.\d+|\w+)", name)[1] for name in differ} == changed
    assert load_file(run / "head.safetensors")["weight"].shape == (3, 2 * 32)


def test_a_damaged_test_video_is_named_and_in_no_figure(tmp_path, made):
    prepared, labels = make_prepared(tmp_path / "prepared", videos=12, patients=4)
    resolved = settings(made[0], labels, data__path=str(prepared.folder), train__steps=1)
    material = read_material(resolved.config, None)
    victim = prepared.video_id(int(material.rows(material.split.test)[0]))
    frame_file(prepared.folder, victim).write_bytes(b"")
    reporter = SilentReporter()
    run = finetune(resolved, tmp_path / "run", reporter=reporter)
    assert victim not in (run / "predictions.csv").read_text()
    assert json.loads((run / "evaluation.json").read_text())["excluded"][0]["video_id"] == victim
    assert any(victim in warning for warning in reporter.warnings)


def test_new_weights_follow_from_the_seed(made):
    root, _, labels = made
    config = settings(root, labels, train__seed=4).config
    material = read_material(config, None)
    torch.manual_seed(1)
    one = build_task(config, material).state_dict()
    torch.manual_seed(2)
    two = build_task(config, material).state_dict()
    assert any("lora_A" in name for name in one)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_is_missing_is_said(made, tmp_path):
    root, _, labels = made
    with pytest.raises(ConfigError, match=r"'task\.name' is not set"):
        finetune(settings(root, labels, task__name=""), tmp_path / "a", reporter=SilentReporter())
    with pytest.raises(ConfigError, match=r"no task 'views'\. Did you mean 'view'"):
        finetune(settings(root, labels, task__name="views"), tmp_path / "b", reporter=SilentReporter())
    with pytest.raises(DataError, match="12 patients cannot be split into 13 folds"):
        finetune(settings(root, labels, task__folds=13), tmp_path / "c", reporter=SilentReporter())
    assert not any((tmp_path / name).exists() for name in "abc")
