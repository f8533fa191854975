"""Figures of a method that was trained several times: intervals over patients and over seeds at once.

A run of another seed learns another encoder. A figure is the mean over the seeds; each bootstrap draw takes as many patients as there are and as many
seeds as there are, both with replacement, so that the interval says what other patients and other seeds would change. Three seeds are few: their
spread is drawn from three numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.evaluate.metrics import Array, Metric
from recipes.evaluate.scored import HELD, Scorer
from recipes.evaluate.statistics import DRAWS, LEVEL, Difference, Interval, difference_of, patient_draws, percentiles


def seed_draws(seeds: int, draws: int, seed: int = 0) -> NDArray[np.int64]:
    """(draws, seeds): which seeds each draw takes."""
    return np.random.default_rng([seed, seeds]).integers(seeds, size=(draws, seeds))


@dataclass(frozen=True)
class Drawn:
    """A figure of a method that was trained several times: each (S,) of every seed; drawn (R, S): in each draw of patients."""

    metric: Metric
    each: tuple[float, ...]
    drawn: Array

    @classmethod
    def of(
        cls, metric: Metric, scorers: Sequence[Scorer], patients: Sequence[str], draws: int = DRAWS, seed: int = 0
    ) -> Drawn:
        """scorers: of every seed, of the same units, which are of `patients` (n,). One that stands for several seeds is asked once."""
        different = list(dict.fromkeys(scorers))
        ones = np.ones((1, len(patients)))
        plain = {one: float(one(metric, ones)[0]) for one in different}
        parts: dict[Scorer, list[Array]] = {one: [] for one in different}
        for weights in patient_draws(patients, draws, seed, most=HELD):
            for one in different:
                parts[one].append(one(metric, weights))
        drawn = {one: np.concatenate(found) for one, found in parts.items()}
        return cls(metric, tuple(plain[one] for one in scorers), np.stack([drawn[one] for one in scorers], axis=1))

    def over_seeds(self, taken: NDArray[np.int64]) -> Interval:
        """The mean over the seeds with its percentile interval. taken (R, S): `seed_draws`."""
        return Interval(float(np.mean(self.each)), *percentiles(self._mean(taken), LEVEL))

    def against(self, other: Drawn, taken: NDArray[np.int64]) -> Difference:
        """This figure minus another's, seed by seed, on the same draws of patients and seeds. taken (R, S) of as many seeds as both have, or
        fewer: of either the first S are taken."""
        ours, theirs = self._first(taken.shape[1]), other._first(taken.shape[1])
        value = float(np.mean(ours.each) - np.mean(theirs.each))
        return difference_of(self.metric, value, ours._mean(taken) - theirs._mean(taken))

    def _first(self, seeds: int) -> Drawn:
        return Drawn(self.metric, self.each[:seeds], self.drawn[:, :seeds])

    def _mean(self, taken: NDArray[np.int64]) -> Array:
        found: Array = np.take_along_axis(self.drawn, taken, axis=1).mean(axis=1)
        return found
