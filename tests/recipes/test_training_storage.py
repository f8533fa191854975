"""What the disk, other runs and the system's killer do to a run: one line, the last good checkpoint whole, and --resume."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from kill_factory import Ended, Job, run
from safetensors.torch import load_file
from store_factory import make_prepared

from domains.errors import ConfigError
from recipes.runs.status import LOCK
from recipes.training.checkpoint import find_damage
from recipes.training.lock import FolderLock

FINE_TUNING = ("train.accumulate=1", "train.batch_size=3")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    make_prepared(folder, videos=10, patients=10, size=40, frames=20)
    return folder


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run(Job(out, data, "videomae")).codes == [0]
    return out


def same_end(out: Path, whole: Path) -> None:
    files = [folder / "checkpoints" / "step_00000006" / "objective.safetensors" for folder in (out, whole)]
    one, two = (load_file(file) for file in files)
    assert [name for name in two if not torch.equal(one[name], two[name])] == []
    logs = [
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (out, whole)
    ]
    assert logs[0] == logs[1]
    assert not list(out.rglob("*.tmp"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB, five times what a run takes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode:
        pytest.skip("no small disk can be mounted here: needs root, and a container that allows it")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def refused(ended: Ended, out: Path) -> None:
    """One line of the disk's, and the checkpoint of step 2 is whole."""
    assert ended.codes == [5], ended.lines
    assert len(ended.lines) == 1
    assert "cannot be written" in ended.lines[0]
    assert "Free some space, then continue with --resume" in ended.lines[0]
    assert (out / "checkpoints" / "latest").read_text() == "step_00000002\n"
    assert find_damage(out / "checkpoints" / "step_00000002") is None
    assert not list((out / "checkpoints").glob("*.tmp")), "a draft would keep the disk full"


@pytest.mark.parametrize("free", [0, 20_000, 150_000])
def test_a_full_disk_ends_in_one_line_and_the_run_goes_on_once_there_is_space(
    free: int, data: Path, whole: Path, small_disk: Path
) -> None:
    """Nothing left for the log; too little for the weights; too little for the optimiser's state."""
    out, filler = small_disk / "run", small_disk / "filler"
    refused(run(Job(out, data, "videomae", patch=f"fill:3:{filler}:{free}")), out)
    still = run(Job(out, data, "videomae", resume=True))
    assert still.codes == [5], "as long as the disk is full"
    assert find_damage(out / "checkpoints" / "step_00000002") is None
    filler.unlink()
    again = run(Job(out, data, "videomae", resume=True))
    assert again.codes == [0], again.lines
    same_end(out, whole)


def test_fine_tuning_on_a_full_disk(data: Path, small_disk: Path) -> None:
    out, filler = small_disk / "run", small_disk / "filler"
    ended = run(Job(out, data, "finetune", settings=FINE_TUNING, patch=f"fill:4:{filler}:8000"))
    assert ended.codes == [5], ended.lines
    assert "cannot be written" in ended.lines[0]
    filler.unlink()
    assert run(Job(out, data, "finetune", resume=True, settings=FINE_TUNING)).codes == [0]


def test_a_quota_on_the_size_of_files(data: Path, whole: Path, tmp_path: Path) -> None:
    """The same where nothing can be mounted: the checkpoint's file is cut off in its middle."""
    out = tmp_path / "run"
    refused(run(Job(out, data, "videomae", patch="limit:3:30000")), out)
    assert run(Job(out, data, "videomae", resume=True)).codes == [0]
    same_end(out, whole)


def test_a_loader_process_that_is_killed(data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = run(Job(out, data, "videomae", settings=("data.workers=1",), patch="kill-loader:4"))
    assert ended.codes == [6], ended.lines
    assert "a loader process was killed from outside. Free memory or use fewer data.workers" in ended.lines[0]
    assert "--resume" in ended.lines[0]
    assert run(Job(out, data, "videomae", resume=True)).codes == [0]
    same_end(out, whole)


def test_loader_processes_leave_sigterm_to_the_run(data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(Job(out, data, "videomae", settings=("data.workers=2",), patch="term-loader:3")).codes == [0]
    same_end(out, whole)


@pytest.mark.parametrize(("name", "code"), [("term", 143), ("int", 130), ("hup", 143)])
def test_a_signal_to_the_whole_group_saves_with_the_loader_alive(
    name: str, code: int, data: Path, whole: Path, tmp_path: Path
) -> None:
    """As schedulers send SIGTERM, and terminals the others."""
    out = tmp_path / "run"
    ended = run(Job(out, data, "videomae", settings=("data.workers=1",), patch=f"{name}-all:3"))
    assert ended.codes == [code], ended.lines
    assert "stopped at step 3; everything up to it is saved" in ended.lines[0]
    assert (out / "checkpoints" / "latest").read_text() == "step_00000003\n"
    assert run(Job(out, data, "videomae", resume=True)).codes == [0]
    same_end(out, whole)


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_lives(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    out, go = tmp_path / "run", tmp_path / "go"
    job = Job(out, data, "videomae", settings=("data.workers=1",), patch=f"wait:4:{go}")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(run, job)
        while not (out / "metrics.jsonl").exists() and not first.done():
            time.sleep(0.02)
        seconds = [run(Job(out, data, "videomae", resume=resume)) for resume in (False, True)]
        go.touch()
        assert first.result(60).codes == [0]
    for second in seconds:
        assert second.codes == [2], second.lines
        assert "another run is going on in this folder (process " in second.lines[0]
        assert "Wait for it, stop it, or choose another --out" in second.lines[0]
    same_end(out, whole)
    assert run(Job(out, data, "videomae", resume=True)).codes == [0]


def test_a_lock_ends_with_its_process_and_belongs_to_the_file_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).write_text("1 another start of a machine\n")  # left behind by a run that was killed
    one = FolderLock(tmp_path)
    one.take()
    assert (tmp_path / LOCK).read_text().split()[0] == str(os.getpid())
    one.release()
    assert not (tmp_path / LOCK).exists()

    real, calls = fcntl.lockf, []

    def late(file: object, how: int) -> None:
        """Between opening the file and locking it, its holder left and took it away."""
        if not calls:
            (tmp_path / LOCK).unlink()
        calls.append(how)
        real(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "lockf", late)
    two = FolderLock(tmp_path)
    two.take()
    assert len(calls) == 2
    assert (tmp_path / LOCK).exists()
    two.release()


def test_who_holds_it_is_said_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(file: object, how: int) -> None:
        raise BlockingIOError(errno.EAGAIN, "held")

    monkeypatch.setattr(fcntl, "lockf", held)
    for left, told in (("77 some-other-start\n", "on another machine"), ("", "it has just begun")):
        (tmp_path / LOCK).write_text(left)
        with pytest.raises(ConfigError, match=told):
            FolderLock(tmp_path).take()
        assert (tmp_path / LOCK).read_text() == left


def test_a_file_system_without_locks_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    lock = FolderLock(tmp_path)
    lock.take()
    assert not lock.enforced
    lock.release()
