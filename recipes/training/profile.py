"""`--profile`: a trace of a few steps, and a page of text that says what they wait for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from domains.errors import StorageError
from recipes.training.phases import MARK, PHASES

FOLDER, TRACE, SUMMARY = "profile", "trace.json.gz", "summary.json"
SKIPPED, WARMED = 2, 1  # steps before the profiled ones: memory is being reserved, kernels are being chosen
TOP = 8
DATA_BOUND, LAUNCH_BOUND = 0.15, 0.10  # shares of the time from which on waiting is the first thing to mend


@dataclass(frozen=True)
class Summary:
    """What a few steps did.

    seconds: of a step. phases: phase -> share of the profiled time. idle: share of the time in which the GPU ran no kernel, None on a CPU.
    operations: name -> share of the busy time, the largest first. workers: loader processes.
    """

    steps: int
    seconds: float
    phases: dict[str, float]
    idle: float | None
    operations: dict[str, float]
    workers: int

    @property
    def bottleneck(self) -> str:
        """The first thing to mend, in a sentence."""
        if self.phases["data"] >= DATA_BOUND:
            return f"{self.phases['data']:.0%} of the time waits for data: raise data.workers (now {self.workers}), or store smaller frames"
        if self.idle is not None and self.idle >= LAUNCH_BOUND:
            return f"the GPU is idle for {self.idle:.0%} of the time, between kernels: raise train.batch_size"
        name, share = next(iter(self.operations.items()), ("nothing", 0.0))
        slowest = max(("forward", "backward", "optimiser", "transfer"), key=lambda phase: self.phases[phase])
        return f"computing: {self.phases[slowest]:.0%} of the time is {slowest}; the dearest operation is {name} ({share:.0%})"

    def to_dict(self) -> dict[str, Any]:
        """For summary.json."""
        return {**vars(self), "bottleneck": self.bottleneck}

    def lines(self) -> list[str]:
        """For people."""
        rows = [f"{self.steps} steps of {self.seconds * 1000:.0f} ms each", f"bottleneck: {self.bottleneck}", ""]
        rows += [f"{phase:12s} {share:6.1%}" for phase, share in self.phases.items()]
        rows += [] if self.idle is None else [f"{'GPU idle':12s} {self.idle:6.1%}"]
        return [*rows, "", *(f"{share:6.1%}  {name}" for name, share in self.operations.items())]


class Profiler:
    """Profiles `steps` steps of a run from its fourth on, fewer where it ends before; none where `steps` is 0. `say` gets the outcome, a sentence."""

    def __init__(self, run: Path, steps: int, workers: int, say: Callable[[str], None]) -> None:
        self._folder, self._steps, self._workers, self._say = run / FOLDER, steps, workers, say
        self._profile: Any = None
        self._ticks = 0
        self.summary: Summary | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The steps happen within. Raises StorageError."""
        if not self._steps:
            yield
            return
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        plan = schedule(wait=SKIPPED, warmup=WARMED, active=self._steps, repeat=1)
        with profile(activities=activities, schedule=plan, on_trace_ready=self._ready) as self._profile:
            yield
        self._profile = None
        if self.summary is None:
            self._say(f"no profile: the run ended within its first {SKIPPED + WARMED} steps, which are not looked at")

    def tick(self) -> None:
        """A step has ended. Raises StorageError."""
        if self._profile is not None and self.summary is None:
            self._ticks += 1
            self._profile.step()

    def _ready(self, done: Any) -> None:
        steps = self._ticks - SKIPPED - WARMED
        if steps < 1:
            return
        self.summary = summarise(done.events(), steps, self._workers)
        try:
            self._folder.mkdir(exist_ok=True)
            done.export_chrome_trace(str(self._folder / TRACE))
            (self._folder / SUMMARY).write_text(json.dumps(self.summary.to_dict(), indent=2) + "\n", encoding="utf-8")
            (self._folder / "summary.txt").write_text("\n".join(self.summary.lines()) + "\n", encoding="utf-8")
        except OSError as error:
            raise StorageError(f"the profile cannot be written ({error.strerror})", where=self._folder) from None
        self._say(f"profile: {self.summary.bottleneck} ({self._folder}/)")


def summarise(events: Any, steps: int, workers: int) -> Summary:
    """From the events of torch's profiler.

    On a GPU the kernels of a backward pass are started by a thread of autograd's, and stand in no phase's range there: what runs outside of the other
    phases is the backward pass.
    """
    phases = dict.fromkeys(PHASES, 0.0)
    ranges: list[tuple[float, float]] = []
    kernels: list[tuple[float, float]] = []
    spent: dict[str, float] = {}
    first, last = float("inf"), 0.0
    on_gpu = any(event.device_type == torch.autograd.DeviceType.CUDA for event in events)
    for event in events:
        start, end = event.time_range.start, event.time_range.end
        gpu = event.device_type == torch.autograd.DeviceType.CUDA
        if event.name.startswith(MARK):
            first, last = min(first, start), max(last, end)
            if gpu == on_gpu and event.name.removeprefix(MARK) in phases:
                phases[event.name.removeprefix(MARK)] += end - start
                if on_gpu and not event.name.endswith("backward"):
                    ranges.append((start, end))
        elif gpu:
            kernels.append((start, end))
            spent[event.name] = spent.get(event.name, 0.0) + end - start
        elif not on_gpu and event.name.startswith("aten::"):
            spent[event.name] = spent.get(event.name, 0.0) + event.self_cpu_time_total
    whole = max(1e-9, last - first)
    if on_gpu:
        phases["backward"] = _covered([span for span in kernels if not _within(span[0], ranges)])
    busy = sum(spent.values()) or 1.0
    top = sorted(spent.items(), key=lambda item: -item[1])[:TOP]
    return Summary(
        steps=steps,
        seconds=whole / steps / 1e6,
        phases={phase: time / whole for phase, time in phases.items()},
        idle=max(0.0, 1 - _covered(kernels) / whole) if on_gpu else None,
        operations={name: time / busy for name, time in top},
        workers=workers,
    )


def _within(moment: float, ranges: list[tuple[float, float]]) -> bool:
    return any(start <= moment < end for start, end in ranges)


def _covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of spans."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
