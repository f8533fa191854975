"""Workers live in other processes: what they run must be importable, so it is defined at the top."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from domains.errors import VfmError
from domains.prepare import pool


def work(task: str, beat: pool.Beat) -> str:
    if task == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if task.startswith("once "):  # killed at the first try: the file that it names is there at the second
        place = Path(task[5:])
        if not place.exists():
            place.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if task == "hang":
        time.sleep(60)
    if task == "slow":
        for _ in range(6):
            time.sleep(0.5)
            beat()
    return task.upper()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_dead_worker_costs_its_own_task_only(workers: int):
    results = dict(pool.run(work, ["a", "die", "b", "die", "c"], workers=workers))
    assert results == {0: "A", 1: "crashed", 2: "B", 3: "crashed", 4: "C"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_killed_from_outside_has_its_task_done_again(workers: int, tmp_path: Path):
    task = f"once {tmp_path / 'seen'}"
    results = dict(pool.run(work, ["a", task, "b"], workers=workers))
    assert results == {0: "A", 1: task.upper(), 2: "B"}


def test_a_task_at_which_workers_are_killed_again_and_again_is_given_up():
    assert dict(pool.run(work, ["a", "killed", "b"], workers=2)) == {0: "A", 1: "killed", 2: "B"}


def test_a_single_worker_answers_as_the_pool_does(tmp_path: Path):
    single = pool.Single(work, patience=1.8)
    once = f"once {tmp_path / 'seen'}"
    tasks = ["a", "die", "b", "hang", "killed", once]
    assert [single.do(task) for task in tasks] == ["A", "crashed", "B", "hung", "killed", once.upper()]
    single.end()
    assert not multiprocessing.active_children()


ENDLESS = """
import sys
from test_prepare_pool import pool, spin
if __name__ == "__main__":
    list(pool.run(spin, [sys.argv[1]], workers=1))
"""


def spin(task: str, beat: pool.Beat) -> str:
    """A decoder in an endless loop."""
    Path(task).write_text(str(os.getpid()))
    while True:
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_a_worker_does_not_outlive_who_started_it(tmp_path: Path):
    (tmp_path / "script.py").write_text(ENDLESS)
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    note = tmp_path / "pid"
    driver = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(note)], env={**os.environ, "PYTHONPATH": paths}
    )
    while driver.poll() is None and not (note.exists() and note.read_text()):
        time.sleep(0.02)
    worker = Path("/proc") / note.read_text()
    assert worker.exists()
    driver.kill()
    driver.wait()
    end = time.monotonic() + 10
    while worker.exists() and "\nState:\tZ" not in (worker / "status").read_text() and time.monotonic() < end:
        time.sleep(0.05)
    assert not worker.exists() or "\nState:\tZ" in (worker / "status").read_text()


def test_a_task_without_a_sign_of_life_is_given_up_and_a_slow_one_is_not():
    results = dict(pool.run(work, ["hang", "slow", "a"], workers=2, patience=1.8))
    assert results == {0: "hung", 1: "SLOW", 2: "A"}


class Unloadable:
    """Stands for a module that a worker cannot import: it can be sent and not be received."""

    __module__ = "test_prepare_pool"

    def __reduce__(self):
        return (int, ("not a number",))

    def __call__(self, task: str, beat: pool.Beat) -> str:
        return task


def test_a_worker_that_cannot_start_is_not_blamed_on_a_file():
    with pytest.raises(VfmError, match="worker process could not start"):
        list(pool.run(Unloadable(), ["a"], workers=1))


def test_leaving_early_ends_the_workers():
    results = pool.run(work, ["a", "hang"], workers=2)
    assert next(results) == (0, "A")
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 5
