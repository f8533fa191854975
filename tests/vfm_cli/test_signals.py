"""Two processes: a signal to the command reaches every rank once, and a rank that dies ends the others in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from interrupt_factory import heard
from store_factory import make_prepared

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

REPO = Path(__file__).resolve().parents[2]
WORDS = [sys.executable, "-m", "vfm_cli", "pretrain", "--recipe", "videomae", "--data", "prepared", "--out", "run", "--processes", "2",
         "objective.decoder_width=24", "objective.decoder_depth=1", "objective.decoder_heads=2", "clip.frames=4", "clip.size=32",
         "clip.stride=2", "train.steps=5000", "train.batch_size=2", "train.log_every=1", "data.workers=1"]  # fmt: skip


@contextmanager
def started(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Two ranks that have done a step."""
    make_prepared(folder / "prepared", videos=6, patients=6, size=40, frames=16)
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        WORDS, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heard
    )
    try:
        while not (folder / "run" / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.02)
        yield process
    finally:
        for pid in ranks(folder):
            os.kill(pid, signal.SIGKILL)
        process.kill()


def ranks(folder: Path) -> list[int]:
    """Process ids of the ranks that work in `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"LOCAL_RANK=" in (entry / "environ").read_bytes() and (entry / "cwd").resolve() == folder.resolve():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def gone(folder: Path, seconds: float = 20.0) -> bool:
    """Whether no rank and no loader of theirs is left behind."""
    end = time.monotonic() + seconds
    while ranks(folder) and time.monotonic() < end:
        time.sleep(0.05)
    return not ranks(folder)


def to_command(process: subprocess.Popen[str], number: int) -> None:
    """As `kill` or a scheduler's first word."""
    process.send_signal(number)


def to_group(process: subprocess.Popen[str], number: int) -> None:
    """As a terminal does it."""
    os.killpg(process.pid, number)


@pytest.mark.parametrize(
    ("number", "send", "code"),
    [
        (signal.SIGTERM, to_command, 143),
        (signal.SIGINT, to_group, 130),
        (signal.SIGHUP, to_command, 143),
        (signal.SIGUSR1, to_command, 138),
    ],
)
def test_a_signal_saves_on_every_rank_and_leaves_with_its_code(
    number: int, send: Callable[[subprocess.Popen[str], int], None], code: int, tmp_path: Path
) -> None:
    with started(tmp_path) as process:
        send(process, number)
        _, errors = process.communicate(timeout=400)
        assert process.returncode == code, errors
        said = [line for line in errors.splitlines() if line.startswith("vfm:")]
        assert len(said) == 1
        assert "everything up to it is saved" in said[0]
        assert "Traceback" not in errors
        assert (tmp_path / "run" / "checkpoints" / "latest").exists()
        assert gone(tmp_path)


def test_a_second_command_is_refused_on_all_its_ranks_and_a_rank_that_is_killed_ends_the_first(tmp_path: Path) -> None:
    """Each in one line. The first stands still while the second starts: it would only take its time."""
    with started(tmp_path) as process:
        first = ranks(tmp_path)
        for pid in first:
            os.kill(pid, signal.SIGSTOP)
        environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-m", "vfm_cli", "pretrain", "--resume", "--out", "run", "--processes", "2"]
        second = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False
        )
        for pid in first:
            os.kill(pid, signal.SIGCONT)
        assert second.returncode == 2, second.stderr
        said = [line for line in second.stderr.splitlines() if line.startswith("vfm:")]
        assert len(said) == 1
        assert "another run is going on in this folder (process " in said[0]
        assert "Traceback" not in second.stderr
        logged = lines(tmp_path)
        while lines(tmp_path) == logged and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, "the first goes on"

        rank_one = [
            pid
            for pid in ranks(tmp_path)
            if b"\0RANK=1\0" in b"\0" + (Path("/proc") / str(pid) / "environ").read_bytes()
            and b"vfm_cli" in (Path("/proc") / str(pid) / "cmdline").read_bytes()
        ]
        os.kill(min(rank_one), signal.SIGKILL)  # the lowest number is the rank, later ones its loaders
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 6, errors
        said = [line for line in errors.splitlines() if line.startswith("vfm:")]
        assert len(said) == 1
        assert "was killed from outside" in said[0]
        assert "--resume" in said[0]
        assert gone(tmp_path)


def lines(folder: Path) -> int:
    """Steps that the run in `folder` has logged."""
    return len((folder / "run" / "metrics.jsonl").read_text().splitlines())
