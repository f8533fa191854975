"""`vfm runs`: what is printed of run folders, also while they are written."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from interrupt_factory import heard
from run_folder_factory import LINES, write_checkpoint, write_run

from vfm_cli.console import run_guarded
from vfm_cli.main import cli

REPO = Path(__file__).resolve().parents[2]
WRITER = """
import json, os, sys, time
from pathlib import Path
from recipes.runs.status import recorded
from recipes.training.run import RunFolder
from domains.errors import AlarmError
folder, ending = Path(sys.argv[1]), sys.argv[2]
run = RunFolder(folder)
run.lock.take()
with recorded(folder):
    print("held", flush=True)
    for step in range(1, 6):
        run.append_metrics({"step": step, "loss": 4.0 / step})
        time.sleep(0.15)
    if ending == "kill":
        os.kill(os.getpid(), 9)
    if ending == "alarm":
        raise AlarmError("rankme fell")
    (folder / "record.json").write_text(json.dumps({"steps": 5}))
"""


@pytest.fixture
def vfm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*words: object) -> SimpleNamespace:
        capsys.readouterr()
        code = run_guarded(cli, ["runs", *(str(word) for word in words)])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return call


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPO), "COLUMNS": "100", **more}


def writing(run: Path, ending: str) -> subprocess.Popen[str]:
    """A process that writes five lines in under a second and ends in some way."""
    words = [sys.executable, "-c", WRITER, str(run), ending]
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_ls_lists_every_run_in_whatever_state(vfm, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "done", finished=True)
    killed = write_run(tmp_path / "runs" / "more" / "killed", lines=LINES[:7], tail='{"st')
    (killed / "alarms.jsonl").write_text('{"step": 5, "monitor": "rankme"}\n')
    write_run(
        tmp_path / "runs" / "wrong", lines=[], status={"state": "error", "why": "the disk is full", "exit_code": 5}
    )
    write_run(
        tmp_path / "runs" / "task",
        settings={"task.name": "ef", "encoder.init_from": "runs/done", "encoder.name": "/a/b/vit"},
    )
    found = {row["run"]: row for row in json.loads(vfm("ls", "--json").out)}
    assert list(found) == ["done", "more/killed", "task", "wrong"]
    assert (found["done"]["state"], found["done"]["step"], found["done"]["steps"], found["done"]["loss"]) == (
        "finished",
        20,
        20,
        0.2,
    )
    assert (found["more/killed"]["state"], found["more/killed"]["step"], found["more/killed"]["alarms"]) == (
        "interrupted",
        7,
        1,
    )
    assert (found["task"]["recipe"], found["task"]["encoder"]) == ("finetune ef", "vit from done")
    assert (found["wrong"]["state"], found["wrong"]["why"], found["wrong"]["loss"]) == (
        "error",
        "the disk is full",
        None,
    )
    assert found["done"]["bytes"] == sum(path.stat().st_size for path in (tmp_path / "runs" / "done").iterdir())
    lines = vfm("ls", "runs").out.splitlines()
    assert lines[0].split() == ["run", "recipe", "encoder", "state", "step", "loss", "age", "size"]
    assert lines[2].split()[:7] == ["more/killed", "videomae", "vfm-tiny", "interrupted,", "1", "alarm", "7/20"]
    assert vfm("ls", "nowhere").code == 2
    (tmp_path / "empty").mkdir()
    assert "no runs under empty" in vfm("ls", "empty").err


def test_show_tells_settings_curves_alarms_checkpoints_and_time(vfm, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", settings={"optim.lr": 0.5}, finished=True)
    write_checkpoint(run, 20, latest=True)
    write_checkpoint(run, 10, whole=False)
    (run / "alarms.jsonl").write_text(
        '{"step": 5, "monitor": "rankme", "text": "rankme fell", "action": "stop"}\n{"ste'
    )
    found = vfm("show", "run", "--png", "run.png")
    assert found.code == 0, found.err
    assert "finished, step 20 of 20 after 40 s, loss 0.2" in found.out
    assert "settings that differ from recipe videomae, domain echo" in found.out
    row = next(line for line in found.out.splitlines() if line.startswith("optim.lr"))
    assert row.split() == ["optim.lr", "0.5", "0.001", "command", "line"]
    assert "12 recordings of 1 patient, domain echo, EchoNet" in found.out
    assert "alarms: step 5: rankme fell (stopped the run)" in found.out
    assert "step_00000010, " in found.out
    assert "NOT WHOLE" in found.out
    assert "time: 40 s: training 75.0%, waiting for data 25.0%, monitors 0.0%; 8.0 clips/s at the end" in found.out
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    values = json.loads(vfm("show", "run", "--json").out)
    assert values["curves"]["loss"][1] == [2.0, 2.0]
    assert values["settings"]["optim.lr"] == {"value": 0.5, "default": 0.001, "from": "command line"}
    assert values["checkpoints"][1] == {
        "name": "step_00000020",
        "step": 20,
        "bytes": values["checkpoints"][1]["bytes"],
        "whole": True,
        "marks": ["latest"],
    }
    assert vfm("show", "run", "--png", "nowhere/run.png").code == 5


def test_show_of_a_bare_folder_and_of_none(vfm, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.resolved.yaml").write_text("")
    found = vfm("show", "bare")
    assert found.code == 0, found.err
    assert "interrupted, step 0" in found.out
    for name in ("nowhere", "."):
        missing = vfm("show", name)
        assert (missing.code, len(missing.err.strip().splitlines())) == (2, 1)
    write_run(tmp_path / "run")
    assert "Did you mean 'rankme'?" in vfm("show", "run", "--curve", "rankm").err


def test_compare_names_what_differs_and_lays_curves_over_one_another(vfm, tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", finished=True)
    write_run(tmp_path / "two", settings={"optim.lr": 0.5}, lines=[{**line, "loss": 8.0} for line in LINES])
    evaluation = {
        "protocol": "knn", "task": "ef", "headline": "mae", "unit": "%", "patients": 9,
        "rows": [{"figures": {"mae": {"value": 9.0, "low": 8.0, "high": 9.5}}}, {"figures": {"mae": {"value": 6.25, "low": 5.0, "high": 7.0}}}],
    }  # fmt: skip
    (one / "evaluation.json").write_text(json.dumps(evaluation))
    found = vfm("compare", "one", "two", "--curve", "loss", "--ascii", "--png", "both.png")
    assert found.code == 0, found.err
    assert found.out.isascii()
    lines = found.out.splitlines()
    assert next(line for line in lines if line.startswith("optim.lr")).split() == ["optim.lr", "0.001", "0.5"]
    assert "environments that differ: none" in lines
    assert [line for line in lines if line in ("a one", "b two")] == ["a one", "b two"]
    top = next(line for line in lines if line.startswith(" ") and "b" in line)
    assert set(top.split("+")[-1].split("|")[-1].strip()) == {"b"}, "the flat curve of 8 is on top"
    assert next(line for line in lines if line.startswith("one") and "knn" in line).split() == [
        "one",
        "knn",
        "ef",
        "mae",
        "6.25",
        "[5,",
        "7]",
        "%",
        "9",
    ]
    assert (tmp_path / "both.png").stat().st_size > 5000
    values = json.loads(vfm("compare", "one", "two", "--json").out)
    assert values["settings"] == {"optim.lr": {"one": 0.001, "two": 0.5}}
    assert values["runs"]["one"]["evaluations"][0]["value"] == 6.25
    assert vfm("compare", "one").code == 2


def test_runs_of_one_name_are_told_apart(vfm, tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "echo")
    write_run(tmp_path / "b" / "echo")
    assert list(json.loads(vfm("compare", "a/echo", "b/echo", "--json").out)["runs"]) == ["a/echo", "b/echo"]
    assert list(json.loads(vfm("compare", "a/echo", "a/echo", "--json").out)["runs"]) == ["a/echo (1)", "a/echo (2)"]


@pytest.mark.parametrize(
    ("ending", "code", "state"),
    [("end", 0, "finished"), ("alarm", 7, "stopped by an alarm"), ("kill", 6, "interrupted")],
)
def test_watch_follows_a_live_run_and_ends_with_its_code(
    ending: str, code: int, state: str, vfm, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", lines=[], status={"total": 5})
    process = writing(run, ending)
    found = vfm("watch", "run", "--every", "0.05", "--json")
    process.wait()
    assert found.code == code, found.err
    *rows, last = [json.loads(line) for line in found.out.splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5], "each line once, the last included"
    assert (last["state"], last["exit_code"]) == (state, code)


def test_watch_of_a_run_that_has_ended_says_so_at_once(vfm, tmp_path: Path) -> None:
    write_run(tmp_path / "run", finished=True)
    found = vfm("watch", "run")
    assert found.code == 0
    assert "step 20/20" in found.out.splitlines()[-1]
    assert "run finished at step 20" in found.err


def test_ctrl_c_ends_the_watching_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", lines=[])
    process = writing(run, "end")
    watcher = subprocess.Popen(
        [sys.executable, "-m", "vfm_cli", "runs", "watch", "run", "--every", "0.05"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard,
    )  # fmt: skip
    assert watcher.stdout is not None
    watcher.stdout.readline()
    watcher.send_signal(signal.SIGINT)
    _, errors = watcher.communicate(timeout=20)
    assert watcher.returncode == 0
    assert "run goes on" in errors
    assert "Traceback" not in errors
    assert process.wait(timeout=20) == 0


def test_watch_draws_over_itself_on_a_terminal(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", lines=LINES[:2])
    process = writing(run, "end")
    terminal, inner = pty.openpty()
    words = [sys.executable, "-m", "vfm_cli", "runs", "watch", "run", "--every", "0.05"]
    watcher = subprocess.Popen(
        words,
        cwd=tmp_path,
        env=environment(TERM="xterm", LINES="30", LC_ALL="C.UTF-8", NO_COLOR="1"),
        stdout=inner,
        stderr=inner,
    )
    os.close(inner)
    text = b""
    try:
        while chunk := os.read(terminal, 4096):
            text += chunk
    except OSError:
        pass  # the other side was closed
    assert watcher.wait(timeout=20) == 0
    process.wait(timeout=20)
    shown = text.decode()
    assert "\033[J" in shown, "drawn over what was there"
    assert "\033[34m" not in shown, "NO_COLOR"
    assert "⠉" in shown or "⡀" in shown or "⠒" in shown
    assert shown.rstrip().endswith("run finished at step 5")


def test_no_verb_of_runs_imports_torch_or_what_is_slow(tmp_path: Path) -> None:
    write_run(tmp_path / "one", finished=True)
    write_run(tmp_path / "two", finished=True)
    for words in (["ls", "."], ["show", "one"], ["compare", "one", "two"], ["watch", "one"]):
        code = f"""
import sys
from vfm_cli.main import main
try:
    main({["runs", *words]!r})
except SystemExit as leave:
    assert leave.code == 0, leave.code
slow = {{"torch", "transformers", "matplotlib", "numpy", "pyarrow", "cv2", "sklearn", "scipy"}} & set(sys.modules)
assert not slow, slow
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment(), check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_a_thousand_lines_a_second_are_no_burden(vfm, tmp_path: Path) -> None:
    """A run of a million steps is drawn in a moment: columns are averaged before they are drawn."""
    lines = [{"step": step, "loss": 1 / step, "seconds": step / 100} for step in range(1, 30001)]
    write_run(tmp_path / "run", lines=lines)
    began = time.process_time()
    assert vfm("show", "run").code == 0
    assert time.process_time() - began < 3


def test_json_has_no_numbers_that_json_does_not_know(vfm, tmp_path: Path) -> None:
    write_run(
        tmp_path / "run", lines=[{"step": 1, "loss": float("nan")}, {"step": 2, "loss": float("inf"), "rankme": 2.0}]
    )

    def strict(text: str) -> object:
        def refuse(word: str) -> None:
            raise AssertionError(word)

        return json.loads(text, parse_constant=refuse)

    assert strict(vfm("ls", "run", "--json").out)[0]["loss"] is None  # type: ignore[index]
    assert strict(vfm("show", "run", "--json").out)["curves"]["loss"] == [[1.0, None], [2.0, None]]  # type: ignore[index]
    strict(vfm("compare", "run", "run", "--json").out)
    for line in vfm("watch", "run", "--json").out.splitlines():
        strict(line)
    assert vfm("ls", "run").code == vfm("show", "run").code == 0


def test_what_a_terminal_would_act_on_is_not_passed_on(vfm, tmp_path: Path) -> None:
    evil = "\x1b[2Jgone\x07"
    run = write_run(
        tmp_path / "run",
        settings={"encoder.name": evil},
        lines=[{"step": s, evil: float(s)} for s in (1, 2)],
        status={"state": "error", "why": evil},
    )
    (run / "alarms.jsonl").write_text(json.dumps({"step": 1, "text": evil}) + "\n")
    for words in (
        ["ls", "run"],
        ["show", "run"],
        ["show", "run", "--all"],
        ["compare", "run", "run"],
        ["watch", "run"],
    ):
        found = vfm(*words)
        assert found.code in (0, 6), found.err
        assert "\x1b" not in found.out + found.err
        assert "\x07" not in found.out + found.err
        assert "gone" in found.out


def test_a_run_that_says_nothing_for_long_is_marked(vfm, tmp_path: Path) -> None:
    from recipes.runs.run import Run
    from vfm_cli.run_pages import cells_of, row_of

    write_run(tmp_path / "run")
    row = {**row_of(Run(tmp_path / "run"), "run"), "state": "running"}
    assert cells_of(row)[3] == "running"
    assert cells_of({**row, "silent_seconds": 7200})[3] == "running, silent for 2 h"


def test_a_figure_is_drawn_if_any_run_has_a_curve_of_it(vfm, tmp_path: Path) -> None:
    write_run(tmp_path / "short", lines=LINES[:1])
    write_run(tmp_path / "long")
    assert "rankme" in vfm("compare", "short", "long").out
