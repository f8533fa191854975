"""`vfm finetune --level study`, and the issue's own `--task study`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from store_factory import make_prepared

from vfm_cli.console import run_guarded
from vfm_cli.main import cli


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_prepared(tmp_path_factory.mktemp("studies") / "prepared", videos=4, patients=2).prepared.folder)


def settings(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, object]]:
    assert run_guarded(cli, ["finetune", *words, "--dry-run", "--json"]) == 0
    found: dict[str, dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_both_spellings_ask_the_same(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    short = settings(capsys, "--data", data, "--task", "study", "optim.lr=0.5")
    long = settings(capsys, "--data", data, "--task", "ef", "--level", "study", "optim.lr=0.5")
    assert {key: one["value"] for key, one in short.items()} == {key: one["value"] for key, one in long.items()}
    assert short["task.name"] == {"value": "ef", "from": "--task study"}
    assert short["task.level"]["value"] == "study"
    assert short["encoder.mode"] == {"value": "frozen", "from": "study.yaml"}
    assert short["optim.lr"]["value"] == 0.5
    assert settings(capsys, "--data", data, "--task", "ef")["task.level"]["value"] == "recording"


def test_an_encoder_that_learns_starts_from_settings_of_its_own(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lora = settings(capsys, "--data", data, "--task", "study", "--mode", "lora")
    assert lora["encoder.mode"] == {"value": "lora", "from": "command line"}
    assert lora["train.piece"] == {"value": 8, "from": "study_clips.yaml"}
    assert lora["task.level"]["value"] == "study"
    (tmp_path / "ours.yaml").write_text("encoder: {mode: full}\ntask: {name: ef, level: study}\n")
    ours = settings(capsys, "--data", data, "--config", str(tmp_path / "ours.yaml"))
    assert ours["train.piece"]["from"] == "study_clips.yaml"
    frozen = settings(capsys, "--data", data, "--task", "study", "--mode", "frozen")
    assert frozen["train.piece"]["value"] is None
    assert frozen["optim.lr"]["from"] == "study.yaml"


def test_a_domain_that_does_not_say_what_a_study_is_asked(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = tmp_path / "ours.yaml"
    ours.write_text("name: ours\ntitle: Ours\ntasks:\n  grade: {kind: classification, column: grade}\n")
    words = ["finetune", "--data", data, "--domain", str(ours), "--task", "study", "--dry-run"]
    assert run_guarded(cli, words) == 2
    assert "does not say which task a study is asked" in capsys.readouterr().err
    ours.write_text(ours.read_text() + "study_task: grades\n")
    assert run_guarded(cli, words) == 2
    assert "'grades' is no task of whole recordings" in capsys.readouterr().err
    ours.write_text("name: ours\ntitle: Ours\ntasks:\n  study: {kind: classification, column: study_grade}\n")
    found = settings(capsys, "--data", data, "--domain", str(ours), "--task", "study")
    assert (found["task.name"]["value"], found["task.level"]["value"]) == ("study", "recording")
    moments = [
        "finetune",
        "--data",
        data,
        "--domain",
        "surgical",
        "--task",
        "phase",
        "--level",
        "study",
        "--out",
        str(tmp_path / "run"),
    ]
    assert run_guarded(cli, moments) == 2
    assert "is a task of moments, and a study has one answer" in capsys.readouterr().err
