"""The figures of merit, each written once and for weighted samples, so that a bootstrap draw is a row of weights and
nothing else.

Every function takes `weights` (R, n), one row per draw, and returns (R,). A draw in which a figure has no meaning (a
constant truth has no R2) gives NaN there, which the intervals leave out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One figure: its name, how a person reads it, and which direction is better.

    `of(truth, prediction, weights)` -> (R,): truth (n,); prediction (n,) for regression, (n, C) probabilities for
    classification; weights (R, n), not negative.
    """

    name: str
    title: str
    of: Callable[[Array, Array, Array], Array]
    higher_is_better: bool
    percent: bool = False
    has_unit: bool = False


def average(values: Array, weights: Array) -> Array:
    """Weighted mean of (n,) or (R, n) values under (R, n) weights -> (R,)."""
    total = weights.sum(axis=1)
    summed = weights @ values if values.ndim == 1 else (weights * values).sum(axis=1)
    return np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0)


def mean_absolute_error(truth: Array, prediction: Array, weights: Array) -> Array:
    """mean |y - p|, in the unit of the target."""
    return average(np.abs(truth - prediction), weights)


def root_mean_squared_error(truth: Array, prediction: Array, weights: Array) -> Array:
    """sqrt(mean (y - p)^2), in the unit of the target."""
    return np.sqrt(average((truth - prediction) ** 2, weights))


def r_squared(truth: Array, prediction: Array, weights: Array) -> Array:
    """1 - SS_res / SS_tot; 0 is as good as always saying the mean, below 0 is worse."""
    residual = average((truth - prediction) ** 2, weights)
    centred = truth[None, :] - average(truth, weights)[:, None]
    return 1 - _ratio(residual, average(centred**2, weights))


def pearson(truth: Array, prediction: Array, weights: Array) -> Array:
    """Pearson's r; NaN where either side is constant."""
    x = truth[None, :] - average(truth, weights)[:, None]
    y = prediction[None, :] - average(prediction, weights)[:, None]
    return _ratio(average(x * y, weights), np.sqrt(average(x**2, weights) * average(y**2, weights)))


def _ratio(above: Array, below: Array) -> Array:
    """above / below, NaN where `below` is nothing but rounding."""
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 1e-12)


def confusion(truth: Array, prediction: Array, weights: Array) -> Array:
    """(R, C, C): weight of the samples of true class i (rows) that are called j (columns)."""
    n, classes = prediction.shape
    cells = np.zeros((n, classes * classes))
    cells[np.arange(n), truth.astype(int) * classes + prediction.argmax(axis=1)] = 1
    return (weights @ cells).reshape(-1, classes, classes)


def accuracy(truth: Array, prediction: Array, weights: Array) -> Array:
    """Share of samples whose most likely class is the true one."""
    return average((truth.astype(int) == prediction.argmax(axis=1)).astype(float), weights)


def balanced_accuracy(truth: Array, prediction: Array, weights: Array) -> Array:
    """Mean recall over the classes that occur in the truth (of the draw): a class without samples has no recall."""
    matrix = confusion(truth, prediction, weights)
    support = matrix.sum(axis=2)
    recall = np.divide(np.diagonal(matrix, axis1=1, axis2=2), support, out=np.zeros_like(support), where=support > 0)
    return average(recall, (support > 0).astype(float))


def macro_f1(truth: Array, prediction: Array, weights: Array) -> Array:
    """Mean F1 over the classes that occur in truth or prediction (of the draw), as scikit-learn counts them."""
    matrix = confusion(truth, prediction, weights)
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    size = matrix.sum(axis=1) + matrix.sum(axis=2)  # called so + truly so = 2 TP + FP + FN
    f1 = np.divide(2 * hits, size, out=np.zeros_like(size), where=size > 0)
    return average(f1, (size > 0).astype(float))


# The first of each list is the headline.
REGRESSION = (
    Metric("mae", "MAE", mean_absolute_error, higher_is_better=False, has_unit=True),
    Metric("rmse", "RMSE", root_mean_squared_error, higher_is_better=False, has_unit=True),
    Metric("r2", "R²", r_squared, higher_is_better=True),
    Metric("pearson", "Pearson r", pearson, higher_is_better=True),
)
CLASSIFICATION = (
    Metric("accuracy", "accuracy", accuracy, higher_is_better=True, percent=True),
    Metric("balanced_accuracy", "balanced accuracy", balanced_accuracy, higher_is_better=True, percent=True),
    Metric("macro_f1", "macro F1", macro_f1, higher_is_better=True, percent=True),
)


def metrics_of(kind: str) -> tuple[Metric, ...]:
    """The figures of a `regression` or `classification` task, the headline first."""
    return {"regression": REGRESSION, "classification": CLASSIFICATION}[kind]
