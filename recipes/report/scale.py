"""Numbers beside an axis, whether it is drawn or written."""

from __future__ import annotations

import math


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values that cover [low, high], about `count` of them."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / count))
    step *= next((factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= count), 10)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Short and plain: 1200, 0.25, 3e-05."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
