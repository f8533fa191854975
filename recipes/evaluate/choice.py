"""Multiple choice (EgoMCQ, EgoVLP, Lin et al., NeurIPS 2022): which of five clips a text is about.

Inter: the others are from other recordings. Intra: they are those of the same recording that are nearest in time; what is told apart is then what is
done, not where. A clip of the same words, or that shares half of the right one's time, is never among the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recipes.evaluate.metrics import Array, Metric
from recipes.evaluate.retrieval import ROUNDED, Pairs, mean_of_queries
from recipes.evaluate.scored import Scorer

CHOICES = 5
Kind = Literal["inter", "intra"]
METRICS = (Metric("accuracy", "accuracy", mean_of_queries, higher_is_better=True, percent=True),)


@dataclass(frozen=True)
class Questions:
    """texts (Q,): which text is asked; clips (Q, CHOICES): moments, the right one first."""

    texts: NDArray[np.int64]
    clips: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    def accuracy(self, shown: Array, words: Array) -> Array:
        """(Q,): whether the right clip scores best; among equals the share of the right one. Vectors (M, D) and (K, D) of length one."""
        scores = np.round(np.einsum("qd,qcd->qc", words[self.texts], shown[self.clips]), ROUNDED)
        best = scores.max(axis=1, keepdims=True)
        equal = scores == best
        return equal[:, 0] / equal.sum(axis=1)


def questions_of(pairs: Pairs, kind: Kind, seed: int) -> Questions:
    """A question for every pair that was given, where there are enough other clips."""
    rows = np.array([row for row, _, _ in pairs.moments])
    middles = np.array([start + (end - start) / 2 if np.isfinite(end) else start for _, start, end in pairs.moments])
    rng = np.random.default_rng([seed, len(pairs.said)])
    texts, clips = [], []
    for moment, text in pairs.said.tolist():
        allowed = np.ones(len(rows), bool)
        allowed[pairs.moments_of[text]] = False
        allowed[moment] = False
        others = np.flatnonzero(allowed & ((rows == rows[moment]) == (kind == "intra")))
        if len(others) < CHOICES - 1:
            continue
        if kind == "inter":
            chosen = rng.choice(others, CHOICES - 1, replace=False)
        else:
            chosen = others[np.argsort(np.abs(middles[others] - middles[moment]), kind="stable")[: CHOICES - 1]]
        texts.append(text)
        clips.append([moment, *chosen.tolist()])
    return Questions(np.array(texts, np.int64), np.array(clips, np.int64).reshape(-1, CHOICES))


def scorer_of(values: Array) -> Scorer:
    """Of what each question scored (Q,)."""
    return lambda metric, weights: metric.of(values, values, weights)
