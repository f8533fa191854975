"""Every way in which a command can end, and what a person sees on the way."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from domains.errors import DataError, ModelError, StorageError, TrainingError
from recipes.training.reporter import StepInfo
from vfm_cli.console import Counter, TerminalReporter, duration, end_with, run_guarded, table


def ending(error: BaseException) -> click.Command:
    """A command that ends with `error`."""

    @click.command()
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("no videos", where="folder", do="Look elsewhere"), 3, "vfm: folder: no videos. Look elsewhere"),
        (ModelError("no weights", where="encoder"), 4, "vfm: encoder: no weights"),
        (TrainingError("the loss is\nnot finite"), 6, "vfm: the loss is not finite"),
        (click.UsageError("no such option"), 2, "vfm: no such option"),
        (OSError(errno.ENOSPC, "No space left on device", "out/file"), 5, "vfm: out/file: No space left on device. Free some space and try again"),
        (OSError(errno.EACCES, "Permission denied", "out/file"), 5, "vfm: out/file: Permission denied"),
    ],
)  # fmt: skip
def test_one_line_and_a_code(error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(ending(error), []) == code
    out, err = capsys.readouterr()
    assert err == said + "\n"
    assert out == ""


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(ending(KeyboardInterrupt()), []) == 130
    assert "--resume" in capsys.readouterr().err


def test_a_reader_that_went_away_is_no_error() -> None:
    code = "from vfm_cli.main import main; main(['recipes', 'show', 'discovr'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()  # as `| head` does
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 0


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    code = "from vfm_cli.main import main; main(['recipes', 'show', 'discovr'])"
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 5
    assert done.stderr.startswith("vfm: No space left on device")
    assert len(done.stderr.splitlines()) == 1


def test_the_exit_code_travels_through_torchrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VFM_EXIT_FILE", str(tmp_path / "code"))
    assert run_guarded(ending(StorageError("full")), []) == 5
    assert (tmp_path / "code").read_text() == "5"
    assert end_with(1, "the other process is gone") == 1
    assert (tmp_path / "code").read_text() == "5", "the first failure is the cause; those after it follow from it"
    assert capsys.readouterr().err == "vfm: full\n"


def test_table_is_plain_and_whole_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    table(["name", "value"], [["[bold]long[/bold]", "x" * 100], ["short", 3]])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[bold]long[/bold]" in out, "what a table holds is data, not markup"
    assert "x" * 100 in out


def test_a_table_without_headings_begins_with_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    table(["", ""], [["first", 1]])
    assert capsys.readouterr().out.startswith("first")


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 59, 61, 3600, 7384)] == [
        "0 s",
        "59 s",
        "1 min 01 s",
        "1 h 00 min",
        "2 h 03 min",
    ]


def test_counter_speaks_in_lines_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    count = Counter("preparing", "files")
    for done in range(1, 101):
        count(done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("preparing: 100 of 100 files")
    assert len(lines) == 1, "no line per file where stderr is no terminal"


def test_reporter_says_rate_estimate_and_data_wait(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = TerminalReporter()
    reporter.start(10, 0)
    losses = {"loss": 1.5, "rankme": 12.3}
    reporter.step(StepInfo(5, 10, 0.5, losses, 1e-4, 20.0, 65, 0.25))
    reporter.warn("the features have collapsed")
    reporter.step(StepInfo(10, 10, 1.0, losses, 1e-4, 20.0, 0, 0.25))
    reporter.finish()
    out, err = capsys.readouterr()
    assert out == ""
    assert "10 steps" in err
    assert "step 5/10  epoch 0.5  loss 1.5  rankme 12.3  20.0 clips/s  waiting for data 25%  1 min 05 s left" in err
    assert "warning: the features have collapsed" in err
    assert err.splitlines()[-1].endswith("done")


def test_reporter_draws_one_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            return 2

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((60, 20)))
    reporter = TerminalReporter()
    for number in range(1, 4):
        reporter.step(StepInfo(number, 3, 1.0, {"loss": 1.0}, 1e-4, 20.0, 1, 0.0))
    text = screen.getvalue()
    assert text.count("\n") == 1, "the line is replaced until the last step"
    assert text.count("\r") == 3
    assert max(len(line) for line in text.replace("\033[K", "").split("\r")) <= 60


def test_quiet_ranks_say_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = TerminalReporter(quiet=True)
    reporter.start(3, 0)
    reporter.note("nothing")
    reporter.step(StepInfo(3, 3, 1.0, {"loss": 1.0}, 1e-4, 1.0, 0, 0.0))
    reporter.warn("something")
    assert capsys.readouterr().err == "warning: something\n"


def test_debug_shows_the_trace(capsys: pytest.CaptureFixture[str]) -> None:
    group = click.Group("vfm", params=[click.Option(["--debug"], is_flag=True)])
    group.add_command(ending(DataError("no videos")), "go")
    assert run_guarded(group, ["--debug", "go"]) == 3
    assert "Traceback" in capsys.readouterr().err
    assert run_guarded(group, ["go"]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_json_is_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    from vfm_cli.main import cli

    assert run_guarded(cli, ["domains", "ls", "--json"]) == 0
    out, err = capsys.readouterr()
    assert any(one["name"] == "echo" for one in json.loads(out))
    assert err == ""


def test_a_pipe_that_breaks_elsewhere_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    from vfm_cli.console import reader_may_leave

    with pytest.raises(RuntimeError, match="between processes"), reader_may_leave():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
