"""How sure a figure is: percentile intervals from a bootstrap over patients, and the paired difference between two
encoders.

Videos of one patient are alike, so patients are drawn, not videos. Two encoders are compared on the same draws of the
same patients: what is hard about a patient is hard for both and cancels, and "beats by more than the interval" means
that the interval of the difference excludes 0.

Predictions are held fixed while patients are drawn: the interval says what other patients would change, not what
another training set or another seed would. With few patients it is therefore somewhat too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recipes.evaluate.metrics import Array, Metric

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure and the percentile interval around it. `draws`: bootstrap draws in which the figure had a meaning."""

    value: float
    low: float
    high: float
    draws: int


@dataclass(frozen=True)
class Difference(Interval):
    """Figure of an encoder minus that of the reference. `better`: the interval lies on the better side of 0; `worse`:
    on the other.
    """

    better: bool
    worse: bool


def patient_weights(patients: Sequence[str], draws: int = DRAWS, seed: int = 0) -> Array:
    """(draws, n): how often each sample occurs in each draw of as many patients as there are, with replacement."""
    return next(patient_draws(patients, draws, seed))


def patient_draws(
    patients: Sequence[str], draws: int = DRAWS, seed: int = 0, *, most: int | None = None
) -> Iterator[Array]:
    """`patient_weights` some draws at a time, (part, n), of no more than `most` numbers; None: all at once. There are one or more."""
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    part = draws if most is None else max(1, most // len(member))
    for first in range(0, draws, part):
        yield counts[first : first + part, member].astype(np.float64)


def bootstrap(metric: Metric, truth: Array, prediction: Array, weights: Array, level: float = LEVEL) -> Interval:
    """The figure over all samples, and its percentile interval over `weights` (see `patient_weights`)."""
    value = metric.of(truth, prediction, np.ones((1, len(truth))))[0]
    return Interval(float(value), *percentiles(metric.of(truth, prediction, weights), level))


def paired(
    metric: Metric, truth: Array, prediction: Array, reference: Array, weights: Array, level: float = LEVEL
) -> Difference:
    """The figure of `prediction` minus that of `reference`, both on the same samples and the same draws."""
    ones = np.ones((1, len(truth)))
    value = metric.of(truth, prediction, ones)[0] - metric.of(truth, reference, ones)[0]
    drawn = metric.of(truth, prediction, weights) - metric.of(truth, reference, weights)
    return difference_of(metric, float(value), drawn, level)


def difference_of(metric: Metric, value: float, drawn: Array, level: float = LEVEL) -> Difference:
    """A difference of figures with its interval over bootstrap draws (R,), and whether 0 lies outside."""
    low, high, draws = percentiles(drawn, level)
    above, below = low > 0, high < 0
    better, worse = (above, below) if metric.higher_is_better else (below, above)
    return Difference(value, low, high, draws, better, worse)


def percentiles(drawn: Array, level: float) -> tuple[float, float, int]:
    """(low, high) that hold the middle `level` of the draws that have a meaning, and how many have."""
    usable = drawn[np.isfinite(drawn)]
    if not len(usable):
        return float("nan"), float("nan"), 0
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), len(usable)
