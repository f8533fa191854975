"""Where the time of a step goes: waiting for data, transfer, forward, backward, optimiser."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

PHASES = ("data", "transfer", "forward", "backward", "optimiser")
MARK = "vfm."  # phases stand under this name in a profiler's trace


class Phases:
    """Adds up the time of each phase until it is asked for.

    On a GPU times are taken on the GPU's own clock, by events that it passes: nothing waits for it, and a phase is long where the GPU
    had to wait for it, not where the CPU had. Waiting for data while the GPU still computes costs nothing and counts nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """The block belongs to `phase`."""
        with torch.profiler.record_function(MARK + phase):
            if self.on_gpu:
                first = torch.cuda.Event(enable_timing=True)
                first.record()
                yield
                last = torch.cuda.Event(enable_timing=True)
                last.record()
                self._events.append((phase, first, last))
            else:
                began = time.perf_counter()
                yield
                self._seconds[phase] += time.perf_counter() - began

    def shares(self) -> dict[str, float]:
        """Phase -> share of the time since the last call; what is missing to 1 is logging, monitors, checkpoints. Starts anew.

        Waits for the GPU to come to the last phase's end.
        """
        if self._events:
            self._events[-1][2].synchronize()
        for phase, first, last in self._events:
            self._seconds[phase] += first.elapsed_time(last) / 1000
        now = time.perf_counter()
        whole = max(1e-9, now - self._since)
        shares = {phase: min(1.0, seconds / whole) for phase, seconds in self._seconds.items()}
        self._seconds, self._events, self._since = dict.fromkeys(PHASES, 0.0), [], now
        return shares
