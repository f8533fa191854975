"""Curves as text: braille where the terminal can show it, plain ASCII elsewhere; colours only where they are wanted."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from recipes.report.scale import number, ticks

Points = Sequence[tuple[float, float]]
LETTERS = "abcdefgh"
ANSI = (34, 31, 32, 35, 33, 36, 90, 92)  # blue first, as in the pictures
BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # dot of (row, column) within a cell
NARROW, AXIS = 34, 9  # columns of the smallest chart, and of the numbers beside it


@dataclass(frozen=True)
class Style:
    """What a terminal can show: its columns, characters beyond ASCII, colours."""

    width: int
    unicode: bool
    colour: bool

    @classmethod
    def of_stdout(cls, *, ascii_only: bool = False) -> Style:
        """As stdout is: NO_COLOR and TERM=dumb turn colours off, and so does everything that is no terminal."""
        width = shutil.get_terminal_size((100, 40)).columns
        try:
            "⣿│└─".encode(sys.stdout.encoding or "ascii")
            can = not ascii_only
        except (UnicodeEncodeError, LookupError):
            can = False
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        return cls(max(NARROW, width), can, sys.stdout.isatty() and not plain)


def paint(text: str, number: int, style: Style) -> str:
    """A text in the colour of series `number`."""
    return f"\033[{ANSI[number % len(ANSI)]}m{text}\033[0m" if style.colour else text


def legend(titles: Sequence[str], style: Style) -> list[str]:
    """What the letters and colours of an overlaid chart stand for."""
    return [paint(f"{LETTERS[place % len(LETTERS)]} {title}", place, style) for place, title in enumerate(titles)]


def chart(title: str, series: Sequence[Points], style: Style, width: int, height: int = 7) -> list[str]:
    """One figure over the steps, `height` lines of curve: the title and last values above, numbers beside and below. Values that are not finite
    are left out. No lines where nothing is left."""
    finite = [[(x, y) for x, y in points if math.isfinite(y)] for points in series]
    everything = [point for points in finite for point in points]
    if not everything:
        return []
    steps, values = [x for x, _ in everything], [y for _, y in everything]
    low, high = min(values), max(values)
    if high - low < 1e-12:
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    first, last = min(steps), max(max(steps), min(steps) + 1)
    across = width - AXIS - 1
    area = Area(across, height, (first, last), (low, high), style, letters=len(series) > 1)
    for place, points in enumerate(finite):
        area.draw(points, place)
    bar, corner, dash, tick = ("│", "└", "─", "┤") if style.unicode else ("|", "+", "-", "+")
    marks = {min(height - 1, int((high - value) / (high - low) * height)): value for value in ticks(low, high, 3)}
    now = "  ".join(paint(number(points[-1][1]), place, style) for place, points in enumerate(finite) if points)
    shown = "  ".join(number(points[-1][1]) for points in finite if points)
    name = title[: max(4, width - len(shown) - 2)]
    lines = [name + " " * max(2, width - len(name) - len(shown)) + now]
    for row in range(height):
        beside = number(marks[row]) if row in marks else ""
        lines.append(f"{beside:>{AXIS - 1}} {tick if row in marks else bar}{area.line(row)}")
    lines.append(" " * AXIS + corner + dash * across)
    left, right = number(first), number(last)
    lines.append(" " * AXIS + f" {left}{right:>{max(1, across - len(left))}}")
    return lines


class Area:
    """Cells of a chart; braille divides each into 2 by 4 dots."""

    def __init__(
        self, width: int, height: int, x: tuple[float, float], y: tuple[float, float], style: Style, *, letters: bool
    ) -> None:
        self.style, self.x, self.y = style, x, y
        # Without colours, series laid over one another are told apart by letters alone.
        self.letters = letters and not (style.colour and style.unicode)
        self.fine = style.unicode and not self.letters
        self.across, self.down = (2 * width, 4 * height) if self.fine else (width, height)
        self.dots = [[0] * width for _ in range(height)]
        self.owner = [[0] * width for _ in range(height)]

    def draw(self, points: Points, place: int) -> None:
        """A curve: the mean of the values in each column, joined by lines."""
        columns: dict[int, list[float]] = {}
        for x, y in points:
            share = (x - self.x[0]) / (self.x[1] - self.x[0])
            columns.setdefault(round(share * (self.across - 1)), []).append(y)
        heights = {column: self.height(sum(found) / len(found)) for column, found in columns.items()}
        before: tuple[int, int] | None = None
        for column in sorted(heights):
            here = (column, heights[column])
            for dot in line(before or here, here):
                self.mark(*dot, place)
            before = here

    def height(self, value: float) -> int:
        """The row of a value, from the top."""
        return round((self.y[1] - value) / (self.y[1] - self.y[0]) * (self.down - 1))

    def mark(self, column: int, row: int, place: int) -> None:
        """One dot of series `place`; the later series is in front."""
        if self.fine:
            self.dots[row // 4][column // 2] |= BRAILLE[row % 4][column % 2]
            self.owner[row // 4][column // 2] = place
        else:
            self.dots[row][column] = ord(LETTERS[place % len(LETTERS)]) if self.letters else ord("*")
            self.owner[row][column] = place

    def line(self, row: int) -> str:
        """A line of text."""
        cells = []
        for dots, place in zip(self.dots[row], self.owner[row], strict=True):
            sign = " " if not dots else chr(0x2800 + dots) if self.fine else chr(dots)
            cells.append(paint(sign, place, self.style) if dots else sign)
        return "".join(cells)


def line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Dots of a straight line, ends included."""
    count = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    return [
        (round(start[0] + (end[0] - start[0]) * n / count), round(start[1] + (end[1] - start[1]) * n / count))
        for n in range(count + 1)
    ]


def side_by_side(charts: Sequence[Sequence[str]], widths: int, gap: int = 3) -> list[str]:
    """Charts of `widths` columns each, in rows of as many as `columns_of` said; each row as high as its highest chart."""
    height = max((len(one) for one in charts), default=0)
    return [
        (" " * gap).join(padded(one[row] if row < len(one) else "", widths) for one in charts).rstrip()
        for row in range(height)
    ]


def padded(text: str, width: int) -> str:
    """A text with spaces up to `width` columns; colours take none."""
    return text + " " * max(0, width - len(plain(text)))


def plain(text: str) -> str:
    """A text without its colours."""
    parts = text.split("\033[")
    return parts[0] + "".join(part.partition("m")[2] for part in parts[1:])


def grid(figures: Sequence[tuple[str, Sequence[Points]]], style: Style, height: int = 7) -> list[str]:
    """Charts of several figures, as many beside one another as the terminal is wide."""
    columns = max(1, min(3, style.width // (NARROW + 10)))
    width = (style.width - 3 * (columns - 1)) // columns
    drawn = [one for title, series in figures if (one := chart(title.replace("_", " "), series, style, width, height))]
    lines: list[str] = []
    for start in range(0, len(drawn), columns):
        lines += [*side_by_side(drawn[start : start + columns], width), ""]
    return lines
