"""`vfm finetune` of tasks of moments: what it starts from follows from the task's kind, not from its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from procedure_factory import make_procedures

from vfm_cli.commands.finetune import is_of_moments
from vfm_cli.console import run_guarded
from vfm_cli.main import cli


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_procedures(tmp_path_factory.mktemp("procedures") / "prepared", videos=3).folder)


def settings(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, object]]:
    assert run_guarded(cli, ["finetune", *words, "--dry-run", "--json"]) == 0
    found: dict[str, dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_the_kind_of_the_task_chooses_what_a_run_starts_from(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    phase = settings(capsys, "--data", data, "--task", "phase", "--head", "offline")
    assert phase["encoder.mode"] == {"value": "frozen", "from": "temporal.yaml"}
    assert phase["task.temporal.head"] == {"value": "offline", "from": "command line"}
    ef = settings(capsys, "--data", data, "--task", "ef")
    assert ef["encoder.mode"] == {"value": "lora", "from": "finetune.yaml"}
    assert is_of_moments(data, "echo", "triplet")
    assert not is_of_moments(data, "echo", "nothing")
    assert not is_of_moments(None, "echo", "phase")


def test_a_head_over_time_is_refused_for_whole_recordings(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--data",
        data,
        "--task",
        "ef",
        "--head",
        "offline",
        "--encoder",
        "vfm-tiny",
        "--out",
        str(tmp_path / "run"),
    ]
    assert run_guarded(cli, ["finetune", *words]) == 2
    assert (
        "'task.temporal' (--head) is for tasks of moments, and 'ef' is one of whole recordings"
        in capsys.readouterr().err
    )
    assert (
        run_guarded(
            cli, ["finetune", "--data", data, "--task", "phase", "--mode", "lora", "--out", str(tmp_path / "run")]
        )
        == 2
    )
    assert "a temporal head reads what a frozen encoder has said" in capsys.readouterr().err
