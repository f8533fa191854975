"""A run's curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BOOKKEEPING = {"step", "epoch", "seconds"}


def draw_curves(metrics: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Every logged figure against the step, one panel each, as a PNG."""
    from matplotlib.figure import Figure

    names = [name for name in dict.fromkeys(key for row in metrics for key in row) if name not in BOOKKEEPING]
    columns = 4
    lines = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(3.2 * columns, 2.2 * lines), layout="constrained")
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(lines, columns, place)
        points = [(row["step"], row[name]) for row in metrics if name in row]
        axes.plot(*zip(*points, strict=True), linewidth=1.2)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=110)
