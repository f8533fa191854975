"""Curves of one or several runs as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from recipes.runs.metrics import Points, ordered

COLUMNS, WIDE, HIGH = 4, 3.2, 2.2  # panels a line, inches of one
# Inches around panels and between them, for titles and labels of ticks. matplotlib's own layouts measure every text first: twice the time.
LEFT, RIGHT, ABOVE, BELOW, ACROSS, DOWN = 0.62, 0.1, 0.25, 0.3, 0.65, 0.5
# Okabe and Ito's, told apart by colour-blind readers; the first is what a single run has.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933")


def draw_curves(runs: Mapping[str, Mapping[str, Points]], path: Path, marks: Sequence[float] = ()) -> None:
    """A PNG with one panel a figure against the step; `runs`: title -> figure -> points, laid over one another. marks: steps of
    alarms."""
    from matplotlib.figure import Figure

    names = ordered(list(dict.fromkeys(name for series in runs.values() for name in series)))
    lines = max(1, -(-len(names) // COLUMNS))
    legend = 0.3 * math.ceil(len(runs) / 4) if len(runs) > 1 else 0.0
    width, height = WIDE * COLUMNS, HIGH * lines + legend
    panel = ((width - LEFT - RIGHT + ACROSS) / COLUMNS - ACROSS, (HIGH * lines - ABOVE - BELOW + DOWN) / lines - DOWN)
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        LEFT / width,
        (BELOW + legend) / height,
        1 - RIGHT / width,
        1 - ABOVE / height,
        ACROSS / panel[0],
        DOWN / panel[1],
    )
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(lines, COLUMNS, place)
        for number, (title, series) in enumerate(runs.items()):
            points = [point for point in series.get(name, ()) if math.isfinite(point[1])]
            if points:
                steps, values = zip(*points, strict=True)
                dots = "o" if len(points) < 3 else ""
                colour = COLOURS[number % len(COLOURS)]
                axes.plot(steps, values, linewidth=1.2, marker=dots, markersize=3, color=colour, label=title)
        for step in marks:
            axes.axvline(step, color="#c0392b", linewidth=0.8, linestyle=":")
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.locator_params(nbins=5)
        axes.grid(alpha=0.25)
    if len(runs) > 1 and names:
        shown = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(shown.values(), shown.keys(), loc="lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110, format="png")
