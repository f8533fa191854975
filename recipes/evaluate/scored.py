"""Figures of a protocol that trains nothing (zero-shot, retrieval): rows, intervals, what they rest on, in words and as JSON."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.errors import StorageError
from recipes.evaluate.evaluation import compared, intervals, said_with
from recipes.evaluate.features import Failure
from recipes.evaluate.metrics import Array, Metric
from recipes.evaluate.outputs import FIGURES, PREDICTIONS, as_png, draw_confusion
from recipes.evaluate.statistics import LEVEL, Difference, Interval, difference_of, patient_draws, percentiles

CONFUSION, DRAWN = "confusion.png", "figures.png"
HELD = 4_000_000  # weights held at once: 32 MB
# The figure of a row under weights (R, n) of its units -> (R,).
Scorer = Callable[[Metric, Array], Array]


@dataclass(frozen=True)
class Line:
    """One row of the table. difference: against `against`, on the same draws; both None for what others are compared with."""

    name: str
    title: str
    figures: dict[str, Interval]
    difference: dict[str, Difference] | None = None
    against: str | None = None


def lines_of(
    scorers: Mapping[str, tuple[str, Scorer]],
    metrics: Sequence[Metric],
    patients: Sequence[str],
    reference: str,
    *,
    draws: int,
    seed: int,
) -> tuple[Line, ...]:
    """name -> (title, scorer) of the same units, as rows with intervals over patients (n,), and paired differences against `reference`."""
    ones = np.ones((1, len(patients)))
    values = {name: {m.name: float(of(m, ones)[0]) for m in metrics} for name, (_, of) in scorers.items()}
    parts: dict[tuple[str, str], list[Array]] = {(name, m.name): [] for name in scorers for m in metrics}
    for weights in patient_draws(patients, draws, seed, most=HELD):
        for name, (_, of) in scorers.items():
            for m in metrics:
                parts[name, m.name].append(of(m, weights))
    drawn = {name: {m.name: np.concatenate(parts[name, m.name]) for m in metrics} for name in scorers}
    lines = []
    for name, (title, _) in scorers.items():
        figures = {m.name: Interval(values[name][m.name], *percentiles(drawn[name][m.name], LEVEL)) for m in metrics}
        if name == reference:
            lines.append(Line(name, title, figures))
            continue
        differences = {
            m.name: difference_of(
                m, values[name][m.name] - values[reference][m.name], drawn[name][m.name] - drawn[reference][m.name]
            )
            for m in metrics
        }
        lines.append(Line(name, title, figures, differences, scorers[reference][0]))
    return tuple(lines)


@dataclass(frozen=True)
class Scored:
    """The outcome of one protocol on one task.

    Attributes
        protocol, task: "zero-shot" or "retrieval", and of what.
        metrics: the figures of the table, the headline first.
        lines: the rows; those that are no baseline are `asked`.
        how: what was done, in sentences: figures of another protocol cannot be compared.
        size: what the figures rest on, in words. units, patients: their numbers.
        settings: the same for a program. excluded: recordings that could not be read. notes: what a reader must know.
        predictions: head and lines of predictions.csv. confusion: (C, C) counts, true classes in rows, and their names; None where there are none.
        drawn: names of the figures that are also drawn, each row with its interval. filed: what the file alone says, and no terminal: words of texts.
    """

    protocol: str
    task: str
    metrics: tuple[Metric, ...]
    lines: tuple[Line, ...]
    asked: tuple[str, ...]
    how: tuple[str, ...]
    size: str
    settings: dict[str, Any]
    predictions: tuple[list[str], list[list[str]]]
    excluded: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    confusion: tuple[NDArray[np.int64], tuple[str, ...]] | None = None
    drawn: tuple[str, ...] = ()
    filed: dict[str, Any] = field(default_factory=dict)

    @property
    def headline(self) -> Metric:
        """The figure that the verdict is about."""
        return self.metrics[0]

    def line(self, name: str) -> Line:
        """A row by name; raises KeyError."""
        for line in self.lines:
            if line.name == name:
                return line
        raise KeyError(name)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells, ready to print."""
        head = [
            "",
            *(f"{m.title} (%)" if m.percent else m.title for m in self.metrics),
            f"{self.headline.title}: difference",
        ]
        cells = []
        for line in self.lines:
            figures = [said_with(line.figures[m.name], m) for m in self.metrics]
            cells.append([line.title, *figures, self._difference(line)])
        return head, cells

    def _difference(self, line: Line) -> str:
        if line.difference is None:
            return "reference"
        found = line.difference[self.headline.name]
        word = "better" if found.better else "worse" if found.worse else "no clear difference"
        return f"{said_with(found, self.headline, signed=True)} {word}"

    def verdict(self) -> str:
        """One sentence for each row that is no baseline: whether it beats the reference by more than the interval."""
        said = []
        for name in self.asked:
            line, metric = self.line(name), self.headline
            figure = f"{self.task} {metric.title} {said_with(line.figures[metric.name], metric)}"
            if line.difference is None:
                said.append(f"{line.title}: {figure}.")
                continue
            found = line.difference[metric.name]
            paired = said_with(found, metric, signed=True)
            said.append(f"{line.title} {compared(found)} {line.against}: {figure}, paired difference {paired}.")
        return f"{' '.join(said)} ({self.size})"

    def to_dict(self) -> dict[str, Any]:
        """Everything but the predictions and what is filed, JSON-ready; a figure without meaning is null."""
        rows = [
            {
                "name": line.name,
                "title": line.title,
                "figures": intervals(line.figures),
                "difference": None if line.difference is None else intervals(line.difference),
                "against": line.against,
            }
            for line in self.lines
        ]
        return {
            "protocol": self.protocol,
            "task": self.task,
            "how": list(self.how),
            "headline": self.headline.name,
            **self.settings,
            "rows": rows,
            "verdict": self.verdict(),
            "excluded": [dataclasses.asdict(failure) for failure in self.excluded],
            "notes": list(self.notes),
        }


def write_scored(scored: Scored, folder: Path) -> None:
    """predictions.csv, evaluation.json and the pictures (confusion.png of classes, figures.png of what is `drawn`) in `folder`, made if absent.
    Raises StorageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / PREDICTIONS).open("w", newline="", encoding="utf-8") as handle:
            head, lines = scored.predictions
            csv.writer(handle).writerows([head, *lines])
        text = json.dumps({**scored.to_dict(), **scored.filed}, indent=2, ensure_ascii=False)
        (folder / FIGURES).write_text(text + "\n", encoding="utf-8")
        if scored.confusion is not None:
            (folder / CONFUSION).write_bytes(_picture(*scored.confusion, f"{scored.protocol} {scored.task}"))
        if scored.drawn:
            (folder / DRAWN).write_bytes(_figures(scored))
    except OSError as error:
        raise StorageError(f"{error.strerror}", where=folder, do="Run it again once there is room") from None


def _picture(matrix: NDArray[np.int64], classes: tuple[str, ...], title: str) -> bytes:
    from matplotlib.figure import Figure

    side = max(4.4, 1.6 + 0.45 * len(classes))
    figure = Figure(figsize=(side + 0.2, side), layout="constrained")
    axes = figure.add_subplot()
    draw_confusion(axes, matrix, classes)
    axes.set_title(title, fontsize=9)
    return as_png(figure)


def _figures(scored: Scored) -> bytes:
    """A panel for each figure that is drawn, a line in it for each row: value and interval."""
    from matplotlib.figure import Figure

    shown = [metric for metric in scored.metrics if metric.name in scored.drawn]
    figure = Figure(figsize=(2.4 + 2.6 * len(shown), 1.3 + 0.4 * len(scored.lines)), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    places = np.arange(len(scored.lines))[::-1]
    for axes, metric in zip(panels, shown, strict=True):
        factor = 100 if metric.percent else 1
        for place, line in zip(places, scored.lines, strict=True):
            found, colour = line.figures[metric.name], "#2a6f97" if line.name in scored.asked else "0.45"
            axes.plot([factor * found.low, factor * found.high], [place, place], color=colour, linewidth=2)
            axes.plot([factor * found.value], [place], "o", color=colour, markersize=5)
        axes.set_title(f"{metric.title}{' (%)' if metric.percent else ''}", fontsize=9)
        axes.grid(axis="x", color="0.9")
        axes.tick_params(labelsize=8)
        axes.set_yticks(places, [line.title for line in scored.lines])
        axes.set_ylim(-0.6, len(scored.lines) - 0.4)
    return as_png(figure)
