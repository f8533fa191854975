"""What an evaluation leaves behind: predictions per video, the figures, and one picture. Pseudonyms only."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.errors import StorageError
from recipes.evaluate.compare import Row, per_study
from recipes.evaluate.evaluation import Evaluation
from recipes.evaluate.metrics import confusion

PREDICTIONS, FIGURES = "predictions.csv", "evaluation.json"


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write predictions.csv, evaluation.json, and scatter.png or confusion.png into `folder` (made if absent). Returns
    the paths.
    """
    picture = "scatter.png" if evaluation.kind == "regression" else "confusion.png"
    paths = [folder / PREDICTIONS, folder / FIGURES, folder / picture]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with paths[0].open("w", newline="", encoding="utf-8") as handle:
            head, lines = evaluation.predictions()
            csv.writer(handle).writerows([head, *lines])
        paths[1].write_text(json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        paths[2].write_bytes(picture_png(evaluation))
    except OSError as error:
        raise StorageError(
            f"{error.strerror}", where=folder, do="Nothing else is lost; run it again once there is room"
        ) from None
    return paths


def picture_png(evaluation: Evaluation) -> bytes:
    """The last row's predictions: against the truth for regression, as a confusion matrix for classification."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    row = evaluation.rows[-1]
    (_scatter if evaluation.kind == "regression" else _confusion)(axes, evaluation, row)
    return as_png(figure)


def _scatter(axes: Any, evaluation: Evaluation, row: Row) -> None:
    labelled = evaluation.labelled
    truth, prediction = labelled.truth, row.prediction
    if labelled.by_study:
        truth, prediction, _ = per_study(labelled, prediction)
    low, high = float(min(truth.min(), prediction.min())), float(max(truth.max(), prediction.max()))
    axes.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=1)
    axes.scatter(truth, prediction, s=18, alpha=0.7, color="#2a6f97", edgecolors="none", zorder=2)
    unit = f" ({evaluation.unit})" if evaluation.unit else ""
    axes.set(xlabel=f"true {evaluation.task}{unit}", ylabel=f"predicted{unit}", aspect="equal")
    metric = evaluation.headline
    figure = evaluation.interval(row.figures[metric.name], metric)
    axes.set_title(f"{evaluation.protocol}, one point a {evaluation.counted}\n{metric.title} {figure}", fontsize=9)


def _confusion(axes: Any, evaluation: Evaluation, row: Row) -> None:
    labelled = evaluation.labelled
    matrix = confusion(labelled.truth, row.prediction, np.ones((1, len(labelled))))[0]
    metric = evaluation.headline
    figure = evaluation.interval(row.per_video[metric.name], metric)
    draw_confusion(axes, matrix, labelled.classes)
    counted = "studies" if evaluation.of_studies else "videos"
    axes.set_title(f"{evaluation.protocol} {evaluation.task}, {counted}\n{metric.title} {figure}", fontsize=9)


def draw_confusion(axes: Any, matrix: NDArray[Any], classes: Sequence[str]) -> None:
    """(C, C) counts, true classes in rows; shades are shares of a row."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(*matrix.shape):
        colour = "white" if share[i, j] > 0.55 else "0.2"
        axes.text(j, i, f"{int(matrix[i, j])}", ha="center", va="center", color=colour, fontsize=9)
    places = range(len(classes))
    axes.set_xticks(places, classes, rotation=45, ha="right")
    axes.set_yticks(places, classes)
    axes.set(xlabel="predicted", ylabel="true")


def as_png(figure: Any) -> bytes:
    """The same bytes for the same picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140, metadata={"Software": None})
    return buffer.getvalue()
