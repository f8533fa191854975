"""Workers live in other processes: what they run must be importable, so it is defined at the top."""

import os
import time

import pytest

from domains.errors import VfmError
from domains.prepare import pool


def work(task: str, beat: pool.Beat) -> str:
    if task == "die":
        os.kill(os.getpid(), 9)
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
