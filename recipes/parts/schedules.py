"""Numbers that change over a run."""

from __future__ import annotations

import math


def cosine(start: float, end: float, fraction: float) -> float:
    """From `start` at 0 to `end` at 1 along half a cosine."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0.0, fraction))))


def ramp(start: float, end: float, fraction: float, over: float) -> float:
    """From `start` at 0 to `end` at `over`, straight; `end` afterwards."""
    return end if over <= 0 or fraction >= over else start + (end - start) * fraction / over
