"""A run that dies at a step, within the process of the test; signals for those in processes of their own."""

from __future__ import annotations

import signal

import pytest

import recipes.training.loop as loop


class Killed(Exception):
    """What a run dies of."""


def dies_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """The next run dies as it begins step `number`, and those after it do not. Returns the steps at which one did."""
    real, steps = loop._Loop.step, []

    def step(self, at, *rest):
        if at == number and not steps:
            steps.append(at)
            raise Killed
        return real(self, at, *rest)

    monkeypatch.setattr(loop._Loop, "step", step)
    return steps


def heard() -> None:
    """Signals that whoever runs the tests ignores (nohup, a job in the background) would be ignored by what they start."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
