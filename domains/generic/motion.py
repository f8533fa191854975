"""How a number changes over time: the one thing that all motion here is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# name -> how often it is drawn. The first four say which way time goes, the rest do not.
COURSES = {
    "brake": 1.0, "burst": 0.5, "damped": 1.0, "bounce": 0.7, "linear": 3.0, "accelerate": 1.0, "sine": 3.0, "beat": 1.5, "wander": 1.5, "step": 0.7,
}  # fmt: skip
PERIODIC = ("sine", "beat", "bounce")
_NAMES = tuple(COURSES)
_CHANCE = np.cumsum(np.array(list(COURSES.values())) / sum(COURSES.values()))


@dataclass(frozen=True)
class Course:
    """A number over time, in frames: `rest` plus `size` times a course of about unit size.

    size: of the excursion (periodic courses), or of the change within `period` frames (the others). period: in frames. phase: in turns.
    """

    kind: str = "still"
    rest: float = 0.0
    size: float = 0.0
    period: float = 16.0
    phase: float = 0.0

    @property
    def periodic(self) -> bool:
        """Whether it comes back after every period."""
        return self.kind in PERIODIC

    def at(self, times: Array) -> Array:
        """Values at `times` (in frames), of the same shape."""
        if self.kind == "still":
            return np.full(times.shape, self.rest)
        turns = times / self.period + self.phase
        return self.rest + self.size * _SHAPES[self.kind](turns, self.phase)


def draw_course(rng: np.random.Generator, rest: float, size: float, *, still: float = 0.0) -> Course:
    """A course about `rest` whose size is up to `size`, either way; `still`: the probability that nothing happens."""
    chance, kind, share, sign, period, phase = rng.random(6)
    if chance < still:
        return Course(rest=rest)
    name = _NAMES[min(int(np.searchsorted(_CHANCE, kind)), len(_NAMES) - 1)]
    signed = (0.15 + 0.85 * share) * (size if sign < 0.5 else -size)
    return Course(name, rest, signed, float(5 * 8**period), float(phase))


def _sine(turns: Array, phase: float) -> Array:
    return np.sin(2 * np.pi * turns)


def _beat(turns: Array, phase: float) -> Array:
    """Out quickly, back slowly: a triangle whose corners are round and whose top comes at a third of the period."""
    part = np.mod(turns, 1.0)
    top = 0.2 + 0.25 * np.mod(phase * 7, 1.0)
    rise = np.where(part < top, part / top, (1 - part) / (1 - top))
    return 1 - 2 * rise * rise * (3 - 2 * rise)


def _bounce(turns: Array, phase: float) -> Array:
    return 2 * np.abs(np.sin(np.pi * turns)) - 1


def _linear(turns: Array, phase: float) -> Array:
    return turns - phase


def _accelerate(turns: Array, phase: float) -> Array:
    since = turns - phase
    return 0.4 * since + 0.6 * np.sign(phase - 0.5) * since**2


def _brake(turns: Array, phase: float) -> Array:
    """Friction: fast at first, ever slower."""
    return 2 * (1 - np.exp(-(turns - phase + 0.6)))


def _burst(turns: Array, phase: float) -> Array:
    """Rest, then away: growth without end."""
    return np.minimum(np.exp(1.5 * (turns - phase)), 6.0)


def _damped(turns: Array, phase: float) -> Array:
    since = turns - phase
    return np.exp(-0.7 * np.maximum(since + 0.5, 0)) * np.sin(2 * np.pi * turns) * 1.3


def _wander(turns: Array, phase: float) -> Array:
    """Three sines whose periods share no multiple: it never comes back."""
    p = 2 * np.pi * turns
    return 0.5 * np.sin(0.61 * p) + 0.35 * np.sin(1.37 * p + 9 * phase) + 0.25 * np.sin(2.23 * p + 17 * phase)


def _step(turns: Array, phase: float) -> Array:
    """Moves from one place to another, and rests there."""
    return np.tanh(4 * (turns - phase))


_SHAPES = {
    "brake": _brake, "burst": _burst, "damped": _damped, "bounce": _bounce, "linear": _linear, "accelerate": _accelerate, "sine": _sine,
    "beat": _beat, "wander": _wander, "step": _step,
}  # fmt: skip
