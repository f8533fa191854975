"""Curves of one or several runs as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from recipes.runs.metrics import Points, ordered

COLUMNS = 4
# Okabe and Ito's, told apart by colour-blind readers; the first is what a single run has.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933")


def draw_curves(runs: Mapping[str, Mapping[str, Points]], path: Path, marks: Sequence[float] = ()) -> None:
    """A PNG with one panel a figure against the step; `runs`: title -> figure -> points, laid over one another. marks: steps of
    alarms."""
    from matplotlib.figure import Figure

    names = ordered(list(dict.fromkeys(name for series in runs.values() for name in series)))
    lines = max(1, -(-len(names) // COLUMNS))
    legend = 0.3 * math.ceil(len(runs) / 4) if len(runs) > 1 else 0.0
    figure = Figure(figsize=(3.2 * COLUMNS, 2.2 * lines + legend), layout="constrained")
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
        axes.grid(alpha=0.25)
    if len(runs) > 1 and names:
        shown = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110, format="png")
