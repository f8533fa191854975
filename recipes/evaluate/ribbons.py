"""What an evaluation of moments leaves behind: its figures, a table and a ribbon of every procedure, a confusion matrix. Pseudonyms only."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.errors import StorageError
from domains.store.moments import UNLABELLED
from recipes.evaluate.outputs import FIGURES, as_png, draw_confusion
from recipes.evaluate.phases import confusion_counts
from recipes.evaluate.timeline import MomentEvaluation, Timeline, called_by

PREDICTIONS, RIBBONS, CONFUSION = "predictions", "ribbons", "confusion.png"
GREY = (0.92, 0.92, 0.92)  # where nothing is known


def write_moments(evaluation: MomentEvaluation, folder: Path) -> None:
    """Write evaluation.json, predictions/VIDEO.csv, ribbons/VIDEO.png, and of phases confusion.png into `folder`. Raises StorageError."""
    name, phases = evaluation.rows[-1].name, evaluation.settings.kind == "phases"
    try:
        for part in (PREDICTIONS, RIBBONS):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for one in evaluation.timelines:
            write_table(one, name, evaluation.classes, folder / PREDICTIONS / f"{one.video_id}.csv")
            (folder / RIBBONS / f"{one.video_id}.png").write_bytes(ribbon_png(one, name, evaluation.classes))
        if phases:
            (folder / CONFUSION).write_bytes(confusion_png(evaluation))
        text = json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) + "\n"
        (folder / FIGURES).write_text(text, encoding="utf-8")
    except OSError as error:
        do = "Nothing else is lost; run it again once there is room"
        raise StorageError(f"{error.strerror}", where=folder, do=do) from None


def write_table(one: Timeline, name: str, classes: Sequence[str], path: Path) -> None:
    """A line a moment: time (s), truth and what was said, each class with its probability. Of presence, truth is one column a class; empty where
    nothing is known. Raises OSError."""
    said, phases = one.said[name], one.truth.ndim == 1
    columns = ["truth", "prediction"] if phases else [f"truth_{name}" for name in classes]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["time", *columns, *(f"p_{name}" for name in classes)])
        for place, time in enumerate(one.times.tolist()):
            if phases:
                truth = int(one.truth[place])
                cells = ["" if truth == UNLABELLED else classes[truth], classes[int(said[place].argmax())]]
            else:
                cells = ["" if value == UNLABELLED else str(value) for value in one.truth[place].tolist()]
            writer.writerow([f"{time:.6g}", *cells, *(f"{p:.4f}" for p in said[place])])


def colours(count: int) -> NDArray[np.float64]:
    """(count, 3) colours, one a class, that stay apart as far as so many can."""
    from matplotlib import colormaps

    if count <= 20:  # palettes of separate colours; a whole number is an entry, a share is a place on a scale
        return np.array(colormaps["tab10" if count <= 10 else "tab20"](np.arange(count)))[:, :3]
    return np.array(colormaps["turbo"](np.linspace(0.05, 0.95, count)))[:, :3]


def ribbon_png(one: Timeline, name: str, classes: Sequence[str]) -> bytes:
    """Truth over prediction along a procedure: of phases a colour each, and where they differ; of presence a line a class that is there or was
    thought to be."""
    from matplotlib.figure import Figure

    minutes = one.times[-1] / 60 if len(one.times) > 1 else 1 / 60
    phases = one.truth.ndim == 1
    shown = [] if phases else [c for c in range(len(classes)) if (one.truth[:, c] > 0).any() or one.said[name][:, c].max() >= 0.5]  # fmt: skip
    figure = Figure(figsize=(9, 2.2 if phases else 1.0 + 0.32 * max(1, len(shown))), layout="constrained")
    axes = figure.add_subplot()
    (_phases if phases else _presence)(axes, one, name, classes, minutes, shown)
    axes.set(xlabel="minutes", xlim=(0, minutes), title=f"video {one.video_id}")
    axes.title.set_fontsize(9)
    return as_png(figure)


def _phases(axes: Any, one: Timeline, name: str, classes: Sequence[str], minutes: float, _: Sequence[int]) -> None:
    from matplotlib.patches import Patch

    palette = np.vstack([colours(len(classes)), GREY])  # UNLABELLED, -1, is the last
    (called,) = called_by([one], name)
    wrong = (one.truth != UNLABELLED) & (called != one.truth)
    mistakes = np.where(wrong[:, None], 0.0, 1.0) * np.ones(3)
    lines = (("truth", palette[one.truth]), ("prediction", palette[called]), ("mistakes", mistakes))
    for place, (_name, line) in enumerate(lines):
        axes.imshow(line[None], aspect="auto", interpolation="nearest", extent=(0, minutes, place + 0.9, place + 0.1))
    axes.set_ylim(len(lines), 0)
    axes.set_yticks([place + 0.5 for place in range(len(lines))], [title for title, _line in lines])
    used = sorted({*one.truth.tolist(), *called.tolist()} - {UNLABELLED})
    patches = [Patch(color=palette[number], label=classes[number]) for number in used]
    if (one.truth == UNLABELLED).any():
        patches.append(Patch(color=GREY, label="unlabelled"))
    axes.figure.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def _presence(
    axes: Any, one: Timeline, name: str, classes: Sequence[str], minutes: float, shown: Sequence[int]
) -> None:
    palette = colours(len(classes))
    for place, number in enumerate(shown):
        for offset, strength in ((0.08, one.truth[:, number].clip(0)), (0.5, one.said[name][:, number])):
            line = 1 - strength[:, None] * (1 - palette[number])
            axes.imshow(
                line[None], aspect="auto", interpolation="nearest", extent=(0, minutes, place + offset + 0.4, place + offset)
            )  # fmt: skip
    axes.set_ylim(max(1, len(shown)), 0)
    axes.set_yticks([place + 0.5 for place in range(len(shown))], [classes[number] for number in shown])
    axes.set_ylabel("truth above, said below", fontsize=8)


def confusion_png(evaluation: MomentEvaluation) -> bytes:
    """Labelled moments of all procedures, true phases in rows."""
    from matplotlib.figure import Figure

    classes, last = evaluation.classes, evaluation.rows[-1]
    called = called_by(evaluation.timelines, last.name)
    pairs = zip(evaluation.timelines, called, strict=True)
    matrix = sum(confusion_counts(one.truth, calls, len(classes)) for one, calls in pairs)
    side = 2.4 + 0.55 * len(classes)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    draw_confusion(axes, np.asarray(matrix), classes)
    axes.set_title(f"{last.title}: {evaluation.task}, moments of all procedures", fontsize=9)
    return as_png(figure)
