"""How well phases are told: the figures of each procedure by itself, then their mean over procedures.

A phase that a procedure has not has no recall there. What then counts is one of three conventions, between which published figures of the same
predictions differ by more than most methods do; so it is said with every figure:

    dropped    the phase is left out of that procedure's mean, also where it was called (Evaluate.m of Cholec80, and what followed it)
    called     it counts 0 where it was called, and is left out where it was not (scikit-learn's macro average)
    zero       every phase of the task counts, one that the procedure has not counts 0

A phase that the procedure has and that was never called has precision 0, in all three.

Figures are strict unless `relax` has gone over the predictions before. Moments without a label (UNLABELLED) are in no figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from domains.store.moments import UNLABELLED
from recipes.evaluate.metrics import Array, Metric

Absent = Literal["dropped", "called", "zero"]
CONVENTIONS: tuple[Absent, ...] = get_args(Absent)
Moments = NDArray[np.int64]
CLOSE = 1e-6  # seconds, for the rounding of times


def mean_over_videos(_: Array, values: Array, weights: Array) -> Array:
    """Mean over videos -> (R,), weights (R, V). values (V,); or (V, C), whose columns are averaged first and then their means. Not-a-numbers are
    left out: a figure that a video has not, a class that no video of the draw has."""
    table = values.reshape(len(values), -1)
    known = np.isfinite(table)
    total = weights @ known.astype(float)
    sums = weights @ np.where(known, table, 0.0)
    means = np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0)
    has = np.isfinite(means)
    count = has.sum(axis=1)
    summed = np.where(has, means, 0.0).sum(axis=1)
    return np.divide(summed, count, out=np.full(len(count), np.nan), where=count > 0)


def _of_videos(name: str, title: str) -> Metric:
    return Metric(name, title, mean_over_videos, higher_is_better=True, percent=True)


# The headline first. Of a `Metric` here, `truth` is not asked and `prediction` is the figure of every video.
PHASES = (
    _of_videos("macro_f1", "macro F1"),
    _of_videos("accuracy", "accuracy"),
    _of_videos("precision", "precision"),
    _of_videos("recall", "recall"),
    _of_videos("jaccard", "Jaccard"),
)


@dataclass(frozen=True)
class PhaseFigures:
    """Of one procedure. precision, recall, f1, jaccard: (C,), not a number for a phase that its convention leaves out. accuracy: of all labelled
    moments."""

    accuracy: float
    precision: Array
    recall: Array
    f1: Array
    jaccard: Array

    def means(self) -> dict[str, float]:
        """The figures of PHASES: means over the phases that count."""
        names = {"macro_f1": self.f1, "precision": self.precision, "recall": self.recall, "jaccard": self.jaccard}
        return {"accuracy": self.accuracy, **{name: _mean(values) for name, values in names.items()}}


def phase_figures(truth: Moments, prediction: Moments, classes: int, absent: Absent = "dropped") -> PhaseFigures:
    """truth (T,) class numbers or UNLABELLED, prediction (T,) class numbers. Nothing labelled: all not a number."""
    labelled = truth != UNLABELLED
    matrix = confusion_counts(truth, prediction, classes).astype(float)
    hits, true, called = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    counts: dict[Absent, NDArray[np.bool_]] = {
        "dropped": true > 0, "called": true + called > 0, "zero": np.ones(classes, bool),
    }  # fmt: skip
    counted = counts[absent] if labelled.any() else np.zeros(classes, bool)

    def share(above: Array, below: Array) -> Array:
        found = np.divide(above, below, out=np.zeros(classes), where=below > 0)
        return np.where(counted, found, np.nan)

    accuracy = float(hits.sum() / labelled.sum()) if labelled.any() else float("nan")
    return PhaseFigures(
        accuracy=accuracy,
        precision=share(hits, called),
        recall=share(hits, true),
        f1=share(2 * hits, true + called),
        jaccard=share(hits, true + called - hits),
    )


def confusion_counts(truth: Moments, prediction: Moments, classes: int) -> Moments:
    """(C, C): labelled moments of class i (rows) that are called j (columns)."""
    labelled = truth != UNLABELLED
    cells = truth[labelled] * classes + prediction[labelled]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def relax(truth: Moments, prediction: Moments, times: Array, seconds: float) -> Moments:
    """Predictions (T,) in which what is forgiven is right: within `seconds` of a true change of phase, the neighbouring phase may be called.

    After the change the phase before it (a late change), before it the phase that follows (an early one). times (T,), in seconds: windows are of
    time, whatever the rate. A forgiven moment becomes one of its true phase and of no other, so that every share stays below 1. (Evaluate.m
    marks early changes at the wrong end of a segment, takes the numbers of phases for their order, and counts a forgiven moment as right for both
    phases, which lets precision pass 100 %.)
    """
    found = prediction.copy()
    changes = np.flatnonzero((truth[1:] != truth[:-1]) & (truth[1:] != UNLABELLED) & (truth[:-1] != UNLABELLED)) + 1
    bounds = np.flatnonzero(np.r_[True, truth[1:] != truth[:-1], True])  # where segments begin, and the end
    for change in changes.tolist():
        place = int(np.searchsorted(bounds, change))
        before, after = slice(int(bounds[place - 1]), change), slice(change, int(bounds[place + 1]))
        early = times[change] - times[before] <= seconds + CLOSE
        late = times[after] - times[change] < seconds - CLOSE
        for part, near, called in ((before, early, truth[change]), (after, late, truth[change - 1])):
            found[part] = np.where(near & (prediction[part] == called), truth[part], found[part])
    return found


def table_of_videos(
    truths: list[Moments], predictions: list[Moments], classes: int, absent: Absent
) -> tuple[dict[str, Array], dict[str, Array]]:
    """(figure -> (V,), figure -> (V, C)) of every procedure: means over phases, and of each phase."""
    figures = [phase_figures(t, p, classes, absent) for t, p in zip(truths, predictions, strict=True)]
    means = [one.means() for one in figures]
    whole = {metric.name: np.array([one[metric.name] for one in means]) for metric in PHASES}
    shares = ("precision", "recall", "f1", "jaccard")
    parts: dict[str, Array] = {name: np.stack([getattr(one, name) for one in figures]) for name in shares}
    return whole, parts


def figures_of_videos(
    truths: Sequence[Moments],
    called: Sequence[Moments],
    times: Sequence[Array],
    classes: int,
    absent: Absent,
    seconds: float = 0.0,
) -> dict[str, Array]:
    """Figure of PHASES -> (V,), as every protocol scores phases. seconds: about a change, in which the neighbouring phase may be called; 0: strict.

    truths, called, times: of each procedure (T,), see `phase_figures` and `relax`.
    """
    each = zip(truths, called, times, strict=True)
    forgiven = [relax(truth, said, when, seconds) if seconds else said for truth, said, when in each]
    return table_of_videos(list(truths), forgiven, classes, absent)[0]


def _mean(values: Array) -> float:
    known = np.isfinite(values)
    return float(values[known].mean()) if known.any() else float("nan")
