"""Zero-shot: classes that are described in words, and no label learned from (CLIP, Radford et al., ICML 2021; SurgVLP, Yuan et al., 2023).

A class is the mean of its prompts' vectors, brought to length one. What follows takes the cosines (n, F, C) of n clips with C classes in F ways: the
first is the model's own, the others are those of projections that were never trained, whose figures are averaged, draw by draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from domains.store.moments import UNLABELLED
from recipes.evaluate.compare import Units
from recipes.evaluate.knn import unit
from recipes.evaluate.metrics import Array, Metric
from recipes.evaluate.phases import Absent, Moments, figures_of_videos, mean_over_videos
from recipes.evaluate.presence import Component, ap_table
from recipes.evaluate.scored import Scorer

SHARPNESS = 100.0
GUESSES = 50  # random guesses that the chance level is the mean of


def classifier(prompts: Sequence[Array]) -> Array:
    """The vectors (K_c, D) of each class's prompts, of length one -> (C, D): their mean, of length one."""
    return unit(np.stack([vectors.mean(axis=0) for vectors in prompts]))


def probabilities(cosines: Array) -> Array:
    """(..., C) -> the softmax of 100 times as much."""
    weights = np.exp(SHARPNESS * (cosines - cosines.max(axis=-1, keepdims=True)))
    shares: Array = weights / weights.sum(axis=-1, keepdims=True)
    return shares


def score_recordings(units: Units, cosines: Array, seed: int) -> dict[str, Scorer]:
    """cosines (n, F, C) of labelled recordings -> rows of `metrics.CLASSIFICATION`, counted per unit."""
    shares, truth, classes = probabilities(cosines), units.truth, cosines.shape[2]

    def one(prediction: Array) -> Scorer:
        return lambda metric, weights: metric.of(truth, prediction, weights)

    random = _guesses(len(truth), classes, seed)
    return {
        **_ways([one(units.predicted(shares[:, way])) for way in range(shares.shape[1])]),
        "chance": mean_of([one(np.eye(classes)[numbers]) for numbers in random]),
        "common": one(np.eye(classes)[np.full(len(truth), _most_common(truth.astype(np.int64), classes))]),
    }


def score_phases(
    truths: Sequence[Moments],
    cosines: Sequence[Array],
    times: Sequence[Array],
    absent: Absent,
    relaxed: float,
    seed: int,
) -> dict[str, Scorer]:
    """Of each procedure: truth (T,), which may be UNLABELLED, times (T,) in seconds, cosines (labelled moments, F, C) -> rows of `phases.PHASES`.

    relaxed: seconds about a change of phase in which its neighbour may be called.
    """
    ways, classes = cosines[0].shape[1:]

    def one(predictions: Sequence[Moments]) -> Scorer:
        whole = []
        for truth, said in zip(truths, predictions, strict=True):
            called = np.zeros(len(truth), np.int64)
            called[truth != UNLABELLED] = said
            whole.append(called)
        return _over_videos(figures_of_videos(truths, whole, times, classes, absent, relaxed))

    counts = np.cumsum([len(said) for said in cosines])
    common = _most_common(np.concatenate(list(truths)), classes)
    return {
        **_ways([one([said[:, way].argmax(axis=1) for said in cosines]) for way in range(ways)]),
        "chance": mean_of([one(np.split(drawn, counts[:-1])) for drawn in _guesses(int(counts[-1]), classes, seed)]),
        "common": one([np.full(len(said), common) for said in cosines]),
    }


def presence_metrics(parts: Sequence[Component]) -> tuple[Metric, ...]:
    """One mean average precision for each component, that of whole classes first."""
    return tuple(
        Metric(f"map_{part.name}".rstrip("_"), f"mAP {part.name}".rstrip(), mean_over_videos, True, percent=True)
        for part in (parts[-1], *parts[:-1])
    )


def score_presence(
    truths: Sequence[NDArray[np.int64]], cosines: Sequence[Array], parts: Sequence[Component], seed: int
) -> dict[str, Scorer]:
    """Of each recording: truth (T, C) of 0 and 1, cosines (T, F, C) -> rows of `presence_metrics`: average precision of every class in every
    recording that has it, averaged over recordings, then over classes that stand for something."""

    def one(scores: Sequence[Array]) -> Scorer:
        values = {}
        for part, metric in zip((parts[-1], *parts[:-1]), presence_metrics(parts), strict=True):
            true = [part.of(truth.astype(float)) > 0 for truth in truths]
            values[metric.name] = ap_table(true, [part.of(score) for score in scores])[:, ~part.null]
        return _over_videos(values)

    random = np.random.default_rng([seed, cosines[0].shape[2]])
    return {
        **_ways([one([said[:, way] for said in cosines]) for way in range(cosines[0].shape[1])]),
        "chance": one([random.random(truth.shape) for truth in truths]),
    }


def _ways(scorers: Sequence[Scorer]) -> dict[str, Scorer]:
    own, *fresh = scorers
    return {"zero-shot": own, **({"unaligned": mean_of(fresh)} if fresh else {})}


def mean_of(scorers: Sequence[Scorer]) -> Scorer:
    """The mean figure of several predictions of the same units, draw by draw."""
    return lambda metric, weights: np.mean([score(metric, weights) for score in scorers], axis=0)


def _over_videos(values: dict[str, Array]) -> Scorer:
    """Metric name -> (V,) or (V, C) figures of each video; their means."""
    return lambda metric, weights: metric.of(values[metric.name], values[metric.name], weights)


def _guesses(count: int, classes: int, seed: int) -> NDArray[np.int64]:
    """(GUESSES, count) class numbers, each class as likely."""
    return np.random.default_rng([seed, classes]).integers(classes, size=(GUESSES, count))


def _most_common(truth: NDArray[np.int64], classes: int) -> int:
    """The class that occurs most often; the first of several."""
    return int(np.bincount(truth[truth != UNLABELLED], minlength=classes).argmax())
