"""Figures of a method that was trained several times: intervals over patients and over seeds at once.

A run of another seed learns another encoder. A figure is the mean over the seeds; each bootstrap draw takes as many patients as there are and as many
seeds as there are, both with replacement, so that the interval says what other patients and other seeds would change. Three seeds are few: their
spread is drawn from three numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recipes.evaluate.metrics import Array, Metric
from recipes.evaluate.statistics import LEVEL, Difference, Interval, difference_of, percentiles


def seed_draws(seeds: int, draws: int, seed: int = 0) -> NDArray[np.int64]:
    """(draws, seeds): which seeds each draw takes."""
    return np.random.default_rng([seed, seeds]).integers(seeds, size=(draws, seeds))


def over_seeds(
    metric: Metric, truth: Array, predictions: Sequence[Array], weights: Array, taken: NDArray[np.int64]
) -> Interval:
    """The mean figure of predictions (one for each seed) of the same samples, with its percentile interval.

    weights (R, n): `statistics.patient_weights`; taken (R, seeds): `seed_draws`.
    """
    value, drawn = _figures(metric, truth, predictions, weights, taken)
    return Interval(value, *percentiles(drawn, LEVEL))


def paired_over_seeds(
    metric: Metric,
    truth: Array,
    predictions: Sequence[Array],
    references: Sequence[Array],
    weights: Array,
    taken: NDArray[np.int64],
) -> Difference:
    """Mean figure of `predictions` minus that of `references`, seed by seed, on the same draws of patients and seeds."""
    value, drawn = _figures(metric, truth, predictions, weights, taken)
    other, other_drawn = _figures(metric, truth, references, weights, taken)
    return difference_of(metric, value - other, drawn - other_drawn)


def _figures(
    metric: Metric, truth: Array, predictions: Sequence[Array], weights: Array, taken: NDArray[np.int64]
) -> tuple[float, Array]:
    ones = np.ones((1, len(truth)))
    value = float(np.mean([metric.of(truth, one, ones)[0] for one in predictions]))
    drawn = np.stack([metric.of(truth, one, weights) for one in predictions], axis=1)  # (R, seeds)
    return value, np.take_along_axis(drawn, taken, axis=1).mean(axis=1)
