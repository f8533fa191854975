"""Several trials at a time, each in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from domains.errors import TrainingError, VfmError
from domains.prepare.pool import Beat, run
from domains.store.prepared import Prepared
from recipes.bench.kept import Wanted
from recipes.bench.trial import keep_features, make_trial
from recipes.config import Layer
from recipes.training.reporter import Reporter, SilentReporter, StepInfo

PATIENCE = 3600.0  # seconds in which a trial takes a step, a recording or clip is looked at, or a probe is fitted


@dataclass(frozen=True)
class Job:
    """A trial for a worker: what `make_trial` takes; prepared recordings, and what features of them are wanted; threads to use."""

    folder: Path
    recipe: str
    seed: int
    layers: list[Layer]
    budget: float
    data: str
    wanted: Wanted
    threads: int
    key: bytes | None
    online: bool


class Beating(SilentReporter):
    """Tells the pool that a trial goes on."""

    def __init__(self, beat: Beat) -> None:
        super().__init__()
        self.beat = beat

    def step(self, info: StepInfo) -> None:
        """See Reporter."""
        self.beat()


def work(job: Job, beat: Beat) -> tuple[str, list[str]] | VfmError:
    """Of one job: why the trial failed ("" where it did not) and its warnings; an error that ends everything is returned."""
    torch.set_num_threads(job.threads)
    reporter = Beating(beat)
    # A worker of the pool has no processes below it, so it reads its samples itself; that time is not of the device.
    layers = [*job.layers, Layer("vfm bench --workers", {"data": {"workers": 0}})]
    try:
        trial = make_trial(
            job.folder, job.recipe, job.seed, layers, job.budget, key=job.key, online=job.online, reporter=reporter
        )
        if not trial.failed:
            keep_features(job.folder, trial, Prepared.open(job.data), job.wanted, lambda *_: beat())
    except VfmError as error:
        return error
    return trial.failed, reporter.warnings


def make_trials(jobs: Sequence[Job], workers: int, reporter: Reporter) -> None:
    """Make all of them, `workers` at a time. Raises what ended one and would end the others too (a full disk)."""
    done = 0
    for number, result in run(work, jobs, workers, PATIENCE):
        job, done = jobs[number], done + 1
        name = f"{Path(job.recipe).stem}, seed {job.seed}"
        if isinstance(result, VfmError):
            raise result
        if isinstance(result, str):
            what = f"the process of {name} {result if result != 'hung' else 'did nothing for an hour'}"
            raise TrainingError(what, where=job.folder, do="The same command goes on; fewer --workers need less memory")
        failed, warnings = result
        for warning in warnings:
            reporter.warn(warning)
        if not failed:
            reporter.note(f"trial {done} of {len(jobs)} is there: {name}")


def threads_of(workers: int) -> int:
    """Threads of each worker."""
    return max(1, (os.cpu_count() or 1) // workers)
