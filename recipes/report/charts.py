"""Charts as inline SVG. Colours are the page's own variables, so one drawing serves light, dark and print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from recipes.report.scale import number, ticks

Array = NDArray[np.float64]
PALETTE = 8  # page.css defines --c0 to --c7
FEW_POINTS = 30  # a curve of so few shows each of them


@dataclass(frozen=True)
class Whisker:
    """A figure with its interval, one line of an interval chart. `tone`: "plain", "reference" or "accent"."""

    label: str
    value: float
    low: float
    high: float
    text: str
    tone: str = "plain"


@dataclass(frozen=True)
class Axis:
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def svg(width: float, height: float, parts: Sequence[str], title: str, kind: str = "") -> str:
    """An SVG element that scales with the page and tells a screen reader what it shows."""
    return (
        f'<svg class="chart {kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}" '
        f'style="max-width:{width:g}px">{"".join(parts)}</svg>'
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A label."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x0: float, y0: float, x1: float, y1: float, kind: str) -> str:
    """A straight line."""
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" class="{kind}"/>'


def dot(x: float, y: float, radius: float, kind: str, words: str = "", more: str = "") -> str:
    """A point; a pointer over it shows `words`."""
    said = f"<title>{escape(words)}</title>" if words else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{kind}"{more}>{said}</circle>'


def smooth(values: Array, share: float = 0.05) -> Array:
    """A centred running mean over `share` of the points; short series stay as they are."""
    width = int(len(values) * share) // 2 * 2 + 1
    if width < 3:
        return values
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")


def curve(title: str, steps: Sequence[float], values: Sequence[float], width: float = 320, height: float = 150) -> str:
    """One logged figure over training: raw faint, smoothed on top, the last value written out."""
    x, y = np.asarray(steps, float), np.asarray(values, float)
    keep = np.isfinite(y)
    x, y = x[keep], y[keep]
    if not len(y):
        return ""
    low, high = float(y.min()), float(y.max())
    if high - low < 1e-12:
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    last = max(float(x.max()), float(x.min()) + 1)
    across, up = Axis(float(x.min()), last, 42, width - 8), Axis(low, high, height - 22, 30)
    parts = [text(8, 16, title, "name"), text(width - 8, 16, number(float(y[-1])), "last", "end")]
    for value in ticks(low, high, 3):
        parts += [
            line(42, up.at(value), width - 8, up.at(value), "grid"),
            text(37, up.at(value) + 3.5, number(value), "tick", "end"),
        ]
    parts += [text(across.at(v), height - 6, number(v), "tick", "middle") for v in ticks(float(x.min()), last, 4)]
    for series, kind in ((y, "raw"), (smooth(y), "smooth")):
        points = " ".join(f"{across.at(a):.1f},{up.at(b):.1f}" for a, b in zip(x, series, strict=True))
        parts.append(f'<polyline points="{points}" class="{kind}"/>')
    if len(x) <= FEW_POINTS:
        marks = zip(x, y, strict=True)
        parts += [dot(across.at(a), up.at(b), 2.2, "mark") for a, b in marks]
    return svg(width, height, parts, f"{title} over training steps, last {number(float(y[-1]))}", "curve")


def whiskers(title: str, rows: Sequence[Whisker], zero: float | None = None, width: float = 520) -> str:
    """Figures with intervals, one a line. `zero`: where to draw a line that an interval may or may not exclude."""
    known = [row for row in rows if math.isfinite(row.value)]
    if not known:
        return ""
    ends = [v for row in known for v in (row.low, row.high, row.value) if math.isfinite(v)]
    ends += [] if zero is None else [zero]
    low, high = min(ends), max(ends)
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1
    left, right, top, step = 170.0, width - 12, 34.0, 34.0
    bottom = top + step * len(known)
    across = Axis(low - margin, high + margin, left, right)
    parts = [text(8, 16, title, "name")]
    for value in ticks(low - margin, high + margin, 5):
        parts += [
            line(across.at(value), top - 6, across.at(value), bottom, "grid"),
            text(across.at(value), bottom + 14, number(value), "tick", "middle"),
        ]
    if zero is not None:
        parts.append(line(across.at(zero), top - 8, across.at(zero), bottom, "zero"))
    for place, row in enumerate(known):
        y = top + step * (place + 0.5)
        parts.append(text(left - 12, y + 4, row.label, f"label {row.tone}", "end"))
        if math.isfinite(row.low) and math.isfinite(row.high):
            parts.append(line(across.at(row.low), y, across.at(row.high), y, f"whisker {row.tone}"))
        parts.append(dot(across.at(row.value), y, 5, f"dot {row.tone}", row.text))
    return svg(
        width, bottom + 22, parts, f"{title}: " + "; ".join(f"{row.label} {row.text}" for row in known), "whiskers"
    )


def ramp(share: float) -> str:
    """A colour from violet (0) over teal to yellow (1): ordered, and told apart by colour-blind readers."""
    stops = [(96, 66, 158), (62, 98, 158), (33, 145, 140), (94, 190, 100), (236, 208, 50)]
    place = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    index = min(int(place), len(stops) - 2)
    mixed = [round(a + (b - a) * (place - index)) for a, b in zip(stops[index], stops[index + 1], strict=True)]
    return f"rgb({mixed[0]},{mixed[1]},{mixed[2]})"


def cloud(title: str, points: Array, colours: Sequence[str], names: Sequence[str], size: float = 400) -> str:
    """(n, 2) points of a map; `colours` are CSS colours, `names` what a pointer over a point shows."""
    low, high = points.min(axis=0), points.max(axis=0)
    span = float(max(high - low)) or 1.0
    middle = (low + high) / 2
    scaled = (points - middle) / span * (size - 44) + [size / 2, size / 2 + 10]
    parts = [
        f'<rect x="1" y="25" width="{size - 2:g}" height="{size - 8:g}" rx="8" class="frame"/>',
        text(8, 16, title, "name"),
    ]
    parts += [
        dot(x, y + 2, 3.6, "point", name, f' style="fill:{colour}"')
        for (x, y), colour, name in zip(scaled, colours, names, strict=True)
    ]
    return svg(size, size + 20, parts, title, "cloud")


def agreement(title: str, truth: Array, found: Array, unit: str, task: str, size: float = 400) -> str:
    """Predicted against true values; on the diagonal they agree."""
    low, high = float(min(truth.min(), found.min())), float(max(truth.max(), found.max()))
    margin = 0.05 * (high - low) or 1
    across, up = Axis(low - margin, high + margin, 48, size - 8), Axis(low - margin, high + margin, size - 34, 30)
    parts = [text(8, 16, title, "name")]
    for value in ticks(low, high, 4):
        parts += [
            line(48, up.at(value), size - 8, up.at(value), "grid"),
            line(across.at(value), 30, across.at(value), size - 34, "grid"),
        ]
        parts += [
            text(43, up.at(value) + 3.5, number(value), "tick", "end"),
            text(across.at(value), size - 20, number(value), "tick", "middle"),
        ]
    parts.append(line(across.at(low), up.at(low), across.at(high), up.at(high), "zero"))
    parts += [dot(across.at(t), up.at(p), 3.4, "point accent") for t, p in zip(truth, found, strict=True)]
    said = f" ({unit})" if unit else ""
    parts += [text((48 + size - 8) / 2, size - 4, f"true {task}{said}", "tick", "middle")]
    middle = (30 + size - 34) / 2
    place = f'transform="translate(12 {middle:.0f}) rotate(-90)"'
    parts.append(f'<text {place} class="tick" text-anchor="middle">predicted{escape(said)}</text>')
    return svg(size, size, parts, f"{title}: predicted against true {task}", "agreement")
