"""A comparison as people read it: a table, a CSV for other programs, and a picture."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

from domains.errors import StorageError
from recipes.bench.outcome import Answer, Outcome
from recipes.evaluate.metrics import Metric
from recipes.evaluate.statistics import Difference, Interval
from recipes.training.run import replace

BETTER, WORSE, PLAIN, BASE = "#009e73", "#d55e00", "#0072b2", "#777777"  # Okabe and Ito's


HEAD = ["features", "steps", "device s"]


def table_of(outcome: Outcome, number: int) -> tuple[str, list[str], list[list[str]]]:
    """Title, headings and cells of one question: baselines, then recipes, best first over all questions.

    A * where the interval of the difference excludes 0.
    """
    question, metric = outcome.questions[number], outcome.headline[number]
    unit = "%" if metric.percent else question.unit if metric.has_unit else ""
    head = [*HEAD, f"{metric.title}{f' ({unit})' if unit else ''}", "against unadapted"]
    if question.fraction < 1:
        head.append("against unadapted with all labels")
    several = len(outcome.recipes) > 1
    if several:
        head.append(f"against {outcome.rows[outcome.recipes[0]]}")
    lines = []
    for name, title in outcome.rows.items():
        found = outcome.answers[name, number]
        line = [title, *_cost(outcome, name), written(found.figure, metric), _difference(found.difference, metric)]
        if question.fraction < 1:
            line.append("" if found.whole is None else _difference(found.whole, metric))
        if several:
            line.append("" if name not in outcome.trials else _difference(found.first, metric))
        lines.append(line)
    units, counted = outcome.units[number]
    return f"{question.title}: {units} {counted}, {outcome.patients[number]} {outcome.people}", head, lines


def wide(outcome: Outcome) -> list[list[str]]:
    """All questions beside each other, headings first."""
    head, lines = [*HEAD], [[title, *_cost(outcome, name)] for name, title in outcome.rows.items()]
    for number, question in enumerate(outcome.questions):
        _, names, cells = table_of(outcome, number)
        head += [f"{question.title}: {name}" for name in names[len(HEAD) :]]
        for line, cell in zip(lines, cells, strict=True):
            line += cell[len(HEAD) :]
    return [head, *lines]


def _cost(outcome: Outcome, name: str) -> list[str]:
    """Steps and seconds of a trial, the mean over the seeds; empty for baselines."""
    trials = [one for one in outcome.trials.get(name, ()) if not one.failed]
    if not trials:
        return ["", ""]
    return [
        f"{sum(values) / len(trials):.0f}"
        for values in zip(*((t.steps, t.device_seconds) for t in trials), strict=True)
    ]


def written(found: Interval, metric: Metric, *, signed: bool = False) -> str:
    """`5.21 [4.80, 5.66]`, in percent where the figure is a share."""
    scale, places = (100, 1) if metric.percent else (1, 2)
    values = [f"{scale * value:{'+' if signed else ''}.{places}f}" for value in (found.value, found.low, found.high)]
    return f"{values[0]} [{values[1]}, {values[2]}]" if math.isfinite(found.value) else "n/a"


def _difference(found: Difference | None, metric: Metric) -> str:
    if found is None:
        return "reference"
    star = "* better" if found.better else "* worse" if found.worse else ""
    return f"{written(found, metric, signed=True)} {star}".rstrip()


def write_outcome(outcome: Outcome, folder: Path) -> None:
    """results.json, results.csv and results.png in `folder`. Raises StorageError."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(wide(outcome))
    try:
        replace(folder / "results.json", json.dumps(_plain(outcome.to_dict()), indent=2) + "\n")
        replace(folder / "results.csv", buffer.getvalue())
        draw(outcome, folder / "results.png")
    except OSError as error:
        do = "Free some space; the same command draws it again"
        raise StorageError(f"cannot be written ({error.strerror})", where=folder, do=do) from None


def draw(outcome: Outcome, path: Path) -> None:
    """A PNG with one panel a question: each row's figure with its interval and its seeds; the unadapted encoder as a band."""
    from matplotlib.figure import Figure

    names = list(reversed(outcome.rows))
    panels = len(outcome.questions)
    figure = Figure(figsize=(2.2 + 3.4 * panels, 1.2 + 0.28 * len(names)), layout="constrained")
    for number, (question, metric) in enumerate(zip(outcome.questions, outcome.headline, strict=True)):
        axes = figure.add_subplot(1, panels, number + 1)
        scale = 100 if metric.percent else 1
        reference = outcome.answers["generic", number].figure
        axes.axvspan(scale * reference.low, scale * reference.high, color="#dddddd", zorder=0)
        axes.axvline(scale * reference.value, color=BASE, linewidth=1, zorder=1)
        for place, name in enumerate(names):
            found = outcome.answers[name, number]
            colour = _colour(found, recipe=name in outcome.trials)
            low, high = scale * found.figure.low, scale * found.figure.high
            axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(scale * found.figure.value, place, "o", color=colour, markersize=5)
            if len(set(found.seeds)) > 1:
                spots = [scale * one for one in found.seeds]
                axes.plot(spots, [place] * len(spots), "|", color="black", markersize=6, alpha=0.6)
        axes.set_yticks(range(len(names)), [outcome.rows[name] for name in names] if number == 0 else [])
        better = "higher" if metric.higher_is_better else "lower"
        unit = "%" if metric.percent else question.unit if metric.has_unit else ""
        axes.set_title(f"{question.title}\n{metric.title} {unit} ({better} is better)", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", alpha=0.25)
    figure.savefig(path, dpi=110, format="png")


def _colour(found: Answer, *, recipe: bool) -> str:
    if not recipe or found.difference is None:
        return BASE
    return BETTER if found.difference.better else WORSE if found.difference.worse else PLAIN


def _plain(value: object) -> object:
    """JSON knows no nan."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
