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
from recipes.evaluate.statistics import Interval
from recipes.training.run import replace

BETTER, WORSE, PLAIN, BASE = "#009e73", "#d55e00", "#0072b2", "#777777"  # Okabe and Ito's


def head_of(outcome: Outcome) -> list[str]:
    """Headings of the table."""
    head = ["features", "steps", "device s"]
    for question, metric in zip(outcome.questions, outcome.headline, strict=True):
        unit = "%" if metric.percent else question.unit if metric.has_unit else ""
        head += [f"{question.title}: {metric.title}{f' ({unit})' if unit else ''}", "against unadapted"]
        if question.fraction < 1:
            head.append("against unadapted with all labels")
    return head


def lines_of(outcome: Outcome) -> list[list[str]]:
    """Cells of the table: baselines, then recipes, best first; a * where the interval of the difference excludes 0."""
    lines = []
    for name, title in outcome.rows.items():
        trials = [one for one in outcome.trials.get(name, ()) if not one.failed]
        steps = f"{sum(one.steps for one in trials) / len(trials):.0f}" if trials else ""
        spent = f"{sum(one.device_seconds for one in trials) / len(trials):.0f}" if trials else ""
        line = [title, steps, spent]
        for number, (question, metric) in enumerate(zip(outcome.questions, outcome.headline, strict=True)):
            found = outcome.answers[name, number]
            line += [written(found.figure, metric), _difference(found, metric)]
            if question.fraction < 1:
                line.append("" if found.whole is None else written(found.whole, metric, signed=True))
        lines.append(line)
    return lines


def written(found: Interval, metric: Metric, *, signed: bool = False) -> str:
    """`5.21 [4.80, 5.66]`, in percent where the figure is a share."""
    scale, places = (100, 1) if metric.percent else (1, 2)
    values = [f"{scale * value:{'+' if signed else ''}.{places}f}" for value in (found.value, found.low, found.high)]
    return f"{values[0]} [{values[1]}, {values[2]}]" if math.isfinite(found.value) else "n/a"


def _difference(found: Answer, metric: Metric) -> str:
    if found.difference is None:
        return "reference"
    star = "* better" if found.difference.better else "* worse" if found.difference.worse else ""
    return f"{written(found.difference, metric, signed=True)} {star}".rstrip()


def write_outcome(outcome: Outcome, folder: Path) -> None:
    """results.json, results.csv and results.png in `folder`. Raises StorageError."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([head_of(outcome), *lines_of(outcome)])
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
    wide = len(outcome.questions)
    figure = Figure(figsize=(2.2 + 3.4 * wide, 1.2 + 0.28 * len(names)), layout="constrained")
    for number, (question, metric) in enumerate(zip(outcome.questions, outcome.headline, strict=True)):
        axes = figure.add_subplot(1, wide, number + 1)
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
