"""What a run tells whoever watches it. The terminal's reporter is in vfm_cli; recipes know none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class StepInfo:
    """One look at a run.

    step, total: optimiser steps; epoch: passes over the data so far; losses: means since the last look; lr: learning rate;
    clips_per_second: over all processes; eta_seconds: to the end; data_wait: share of the time spent waiting for the loader.
    """

    step: int
    total: int
    epoch: float
    losses: Mapping[str, float]
    lr: float
    clips_per_second: float
    eta_seconds: float
    data_wait: float


class Reporter(Protocol):
    """Receives what happens; must not raise."""

    def start(self, total_steps: int, first_step: int) -> None:
        """A run begins (or goes on) at `first_step`."""

    def step(self, info: StepInfo) -> None:
        """Some steps later."""

    def note(self, text: str) -> None:
        """Worth knowing."""

    def warn(self, text: str) -> None:
        """Worth acting on."""

    def finish(self) -> None:
        """No more steps."""


class SilentReporter:
    """Says nothing; keeps notes and warnings for whoever asks."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def start(self, total_steps: int, first_step: int) -> None:
        """See Reporter."""

    def step(self, info: StepInfo) -> None:
        """See Reporter."""

    def note(self, text: str) -> None:
        """See Reporter."""
        self.notes.append(text)

    def warn(self, text: str) -> None:
        """See Reporter."""
        self.warnings.append(text)

    def finish(self) -> None:
        """See Reporter."""
