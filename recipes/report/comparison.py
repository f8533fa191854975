"""The comparison: verdicts in words, tables, and pictures with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from recipes.evaluate.compare import Row, per_study
from recipes.evaluate.evaluation import Evaluation
from recipes.evaluate.metrics import confusion
from recipes.evaluate.statistics import LEVEL, Difference, Interval
from recipes.report.charts import Whisker, agreement, whiskers
from recipes.report.html import card, count, minus, section, table, task_name

PROTOCOLS = {
    "knn": "k nearest neighbours",
    "linear": "linear probe",
    "finetune": "fine-tuned",
    "study": "whole studies",
}


def heading(evaluation: Evaluation) -> str:
    """`EF, linear probe`."""
    name = task_name(evaluation.task)
    return f"{name[0].upper()}{name[1:]}, {PROTOCOLS.get(evaluation.protocol, evaluation.protocol)}"


def word(found: Difference) -> tuple[str, str]:
    """(class, word) of what a difference shows."""
    return ("good", "better") if found.better else ("bad", "worse") if found.worse else ("none", "no clear difference")


def short(row: Row) -> str:
    """A row's title without what stands in brackets."""
    return row.title.split(" (")[0]


def verdicts(evaluations: Sequence[Evaluation]) -> str:
    """One box each: what the encoder in question reaches, and whether it beats the reference by more than the
    interval. Where pixel statistics do better than the encoder, the box says that too.
    """
    boxes = []
    for evaluation in evaluations:
        last, metric = evaluation.rows[-1], evaluation.headline
        kind, tag, lines = "none", "", []
        if last.difference is not None and evaluation.reference is not None:
            found = last.difference[metric.name]
            kind, said = word(found)
            tag = f' <span class="word {kind}">{said}</span>'
            reference = evaluation.row(evaluation.reference)
            other = evaluation.number(reference.figures[metric.name].value, metric)
            difference = minus(evaluation.interval(found, metric, signed=True))
            lines.append(f"{escape(reference.title)}: {minus(other)}. Paired difference {difference}.")
        if evaluation.beaten_by_pixels:
            pixels = evaluation.number(evaluation.row("pixels").figures[metric.name].value, metric)
            lines.append(f"Pixel statistics alone reach {minus(pixels)}.")
        lines.append(f"{evaluation.size()}.")
        figure = minus(evaluation.interval(last.figures[metric.name], metric))
        title = f"{escape(heading(evaluation))}: {escape(evaluation.column(metric))} <strong>{figure}</strong>{tag}"
        said = f"<strong>{escape(short(last))}</strong> · {title}<p>{' '.join(lines)}</p>"
        boxes.append(f'<div class="verdict {kind}">{said}</div>')
    return f'<div class="verdicts">{"".join(boxes)}</div>' if boxes else ""


def comparison(evaluations: Sequence[Evaluation]) -> str:
    """A table, interval charts and a picture of the predictions for every evaluation."""
    if not evaluations:
        return ""
    lead = (
        "Every video is predicted by a model that saw no video of its patient. The baselines show what is trivial: "
        "pixel statistics (16 × 16 mean and deviation over time), and the same architecture without the adaptation. "
        f"Brackets are {LEVEL:.0%} intervals from a bootstrap over patients."
    )
    return section("comparison", "Comparison", lead, *(compared_in(evaluation) for evaluation in evaluations))


def compared_in(evaluation: Evaluation) -> str:
    """One evaluation: its table, its charts, its predictions."""
    last, metric = evaluation.rows[-1], evaluation.headline
    unit, also = "video", ""
    if evaluation.of_studies:
        unit = "study"
    elif evaluation.counted == "study":
        unit = "study (the mean over its videos' predictions)"
        figure = minus(evaluation.interval(last.per_video[metric.name], metric))
        also = f" Counted per video instead, {escape(short(last))} has {figure}."
    number = len(evaluation.video_ids)
    videos = count(number, "study", "studies") if evaluation.of_studies else count(number, "video")
    patients = count(evaluation.patients, "patient")
    notes = "".join(f"<p class='lead'>{escape(note)}.</p>" for note in evaluation.notes)
    charts = f"<div>{_figures(evaluation)}{_differences(evaluation)}</div>"
    return card(
        f"<h3>{escape(heading(evaluation))}</h3>",
        f'<p class="lead">{videos}, {patients}; one count a {unit}.{also}</p>',
        _table(evaluation),
        notes,
        f'<div class="two pictures">{charts}{_predictions(evaluation)}</div>',
    )


def _table(evaluation: Evaluation) -> str:
    head = ["features", *(escape(evaluation.column(metric)) for metric in evaluation.metrics)]
    if evaluation.reference is not None:
        head.append("against " + escape(short(evaluation.row(evaluation.reference))))
    rows = []
    for row in evaluation.rows:
        size = f"<small>{row.dimension} features</small>" if row.dimension else ""
        cells = [f"{escape(row.title)}{size}"]
        for metric in evaluation.metrics:
            value, interval = evaluation.interval(row.figures[metric.name], metric).split(" ", 1)
            cells.append(f"{minus(value)}<small>{minus(interval)}</small>")
        if evaluation.reference is not None:
            cells.append(_against(evaluation, row))
        rows.append(cells)
    return table(head, rows, [""] * (len(rows) - 1) + ["accent"])


def _against(evaluation: Evaluation, row: Row) -> str:
    if row.difference is None:
        return '<span class="word none">reference</span>'
    found = row.difference[evaluation.headline.name]
    kind, said = word(found)
    value, interval = evaluation.interval(found, evaluation.headline, signed=True).split(" ", 1)
    return f'{minus(value)} <span class="word {kind}">{said}</span><small>{minus(interval)}</small>'


def _whisker(evaluation: Evaluation, row: Row, found: Interval, signed: bool) -> Whisker:
    """A line of a chart, in the units that the table is written in."""
    scale = 100.0 if evaluation.headline.percent else 1.0
    tone = "reference" if row.name == evaluation.reference else "accent" if row is evaluation.rows[-1] else "plain"
    words = evaluation.interval(found, evaluation.headline, signed=signed)
    return Whisker(short(row), found.value * scale, found.low * scale, found.high * scale, words, tone)


def _figures(evaluation: Evaluation) -> str:
    metric = evaluation.headline
    drawn = [_whisker(evaluation, row, row.figures[metric.name], False) for row in evaluation.rows]
    better = "higher" if metric.higher_is_better else "lower"
    return whiskers(f"{evaluation.column(metric)}, {better} is better", drawn)


def _differences(evaluation: Evaluation) -> str:
    if evaluation.reference is None:
        return ""
    name = evaluation.headline.name
    compared = [(row, row.difference[name]) for row in evaluation.rows if row.difference is not None]
    drawn = [_whisker(evaluation, row, found, True) for row, found in compared]
    return whiskers(f"difference from {short(evaluation.row(evaluation.reference))}, same patients", drawn, zero=0.0)


def _predictions(evaluation: Evaluation) -> str:
    row, labelled = evaluation.rows[-1], evaluation.labelled
    if evaluation.kind == "regression":
        truth, found = labelled.truth, row.prediction
        if labelled.by_study:
            truth, found, _ = per_study(labelled, found)
        title = f"{short(row)}, one point a {evaluation.counted}"
        return f"<div>{agreement(title, truth, found, evaluation.unit, task_name(evaluation.task))}</div>"
    matrix = confusion(labelled.truth, row.prediction, np.ones((1, len(labelled))))[0]
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    top = "".join(f"<th>{escape(name)}</th>" for name in labelled.classes)
    body = ""
    for i, name in enumerate(labelled.classes):
        cells = ""
        for j in range(len(labelled.classes)):
            tint = f"color-mix(in srgb, var(--accent) {65 * share[i, j]:.0f}%, transparent)"
            cells += f'<td style="background:{tint}">{int(matrix[i, j])}</td>'
        body += f"<tr><th>{escape(name)}</th>{cells}</tr>"
    title = f"{escape(short(row))}: true class in rows, predicted in columns"
    shown = f'<div class="scroll"><table class="matrix"><tr><th></th>{top}</tr>{body}</table></div>'
    return f'<div><p class="caption">{title}</p>{shown}</div>'
