"""Values that change over a run, as functions of the share of it that is done."""

from __future__ import annotations

import math


def cosine(start: float, end: float, fraction: float) -> float:
    """From `start` to `end` along half a cosine; fraction in [0, 1]."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, max(0.0, fraction)))) / 2


def ramp(start: float, end: float, fraction: float, until: float) -> float:
    """From `start` to `end` in a straight line over the first `until` of a run, then `end`."""
    return end if until <= 0 else start + (end - start) * min(1.0, max(0.0, fraction) / until)
