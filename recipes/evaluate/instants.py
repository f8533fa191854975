"""Frozen features of clips and what holds at their moment: several answers at once (rooms of teammates), one of many (actions), or one of two.

A figure is a scorer (`recipes.evaluate.scored.Scorer`) of predictions for units, each a clip of a moment; intervals are over groups of recordings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recipes.evaluate.knn import NEIGHBOURS, TEMPERATURE, nearest
from recipes.evaluate.linear import INVERSE_STRENGTHS, fit_logistic, inner_folds, spanned, standardised
from recipes.evaluate.metrics import Array, Metric, accuracy, average, balanced_accuracy
from recipes.evaluate.threads import one_thread

THRESHOLD = 0.5  # probability from which a class is called
TOP = 5


def weighted_average_precision(truth: NDArray[np.bool_], score: Array, weights: Array) -> Array:
    """`presence.average_precision` of truth (n,) and score (n,) under weights (R, n) -> (R,); not a number in a draw without a positive."""
    order = np.argsort(-score, kind="stable")
    drawn = weights[:, order]
    hits, total = np.cumsum(drawn * truth[order], axis=1), np.cumsum(drawn, axis=1)
    last = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])  # of each run of equal scores
    hits, total, positives = hits[:, last], total[:, last], hits[:, -1:]
    precision = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
    gained = np.diff(hits, axis=1, prepend=0.0)
    found = (gained * precision).sum(axis=1, keepdims=True)
    return np.divide(found, positives, out=np.full_like(found, np.nan), where=positives > 0)[:, 0]


def average_precisions(truth: Array, prediction: Array, weights: Array) -> Array:
    """(R, C): of every class, from truth and scores (n, C)."""
    columns = range(truth.shape[1])
    return np.stack([weighted_average_precision(truth[:, c] > 0, prediction[:, c], weights) for c in columns], axis=1)


def f1_scores(truth: Array, prediction: Array, weights: Array) -> Array:
    """(R, C): F1 of every class, called from THRESHOLD on; not a number where it neither is nor is called."""
    called, true = (prediction >= THRESHOLD).astype(float), (truth > 0).astype(float)
    size = weights @ called + weights @ true
    return np.divide(2 * (weights @ (called * true)), size, out=np.full_like(size, np.nan), where=size > 0)


def mean_average_precision(truth: Array, prediction: Array, weights: Array) -> Array:
    """Over the classes that occur (in the draw)."""
    return mean_known(average_precisions(truth, prediction, weights))


def macro_f1(truth: Array, prediction: Array, weights: Array) -> Array:
    """Over the classes that occur or are called."""
    return mean_known(f1_scores(truth, prediction, weights))


def mean_known(values: Array) -> Array:
    """Mean over the last axis of what is a number; not a number where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def in_top(truth: Array, prediction: Array) -> Array:
    """(n,) 0 or 1: whether the true class is among the TOP likeliest; of equals the earlier class comes first."""
    order = np.argsort(-prediction, axis=1, kind="stable")[:, :TOP]
    return (order == truth.astype(int)[:, None]).any(axis=1).astype(float)


def top_accuracy(truth: Array, prediction: Array, weights: Array) -> Array:
    """Share of samples whose class is among the TOP likeliest."""
    return average(in_top(truth, prediction), weights)


def mean_top_recall(truth: Array, prediction: Array, weights: Array) -> Array:
    """The same of each class that occurs, averaged over classes (EPIC-KITCHENS' anticipation)."""
    hit, classes = in_top(truth, prediction), np.eye(prediction.shape[1])[truth.astype(int)]
    support = weights @ classes
    return mean_known(
        np.divide(weights @ (classes * hit[:, None]), support, out=np.full_like(support, np.nan), where=support > 0)
    )


SEVERAL = (
    Metric("map", "mAP", mean_average_precision, higher_is_better=True, percent=True),
    Metric("macro_f1", "macro F1", macro_f1, higher_is_better=True, percent=True),
)
ACTIONS = (
    Metric("top1", "top-1", accuracy, higher_is_better=True, percent=True),
    Metric("mean_class_accuracy", "mean class accuracy", balanced_accuracy, higher_is_better=True, percent=True),
)
OF_MANY = (
    Metric("top5", "top-5", top_accuracy, higher_is_better=True, percent=True),
    Metric("mean_top5_recall", "mean top-5 recall", mean_top_recall, higher_is_better=True, percent=True),
)


def metrics_of_actions(classes: int, *, ahead: bool) -> tuple[Metric, ...]:
    """EPIC-KITCHENS' figures: of recognition top-1 first, of anticipation mean top-5 recall; of the five likeliest only where there are more."""
    found = (*ACTIONS, *OF_MANY) if classes > TOP else ACTIONS
    return (found[-1], *found[:-1]) if ahead and classes > TOP else found


@one_thread()
def probe_several(protocol: str, train: Array, truth: Array, patients: list[str], query: Array) -> Array:
    """(m, C): probabilities of each class for `query`, from train (n, D) and truth (n, C) of 0 and 1.

    linear: a logistic regression a class, of one strength for all, the one with the least loss on people held out of the training part. knn: the
    neighbours' share.
    """
    if protocol == "knn":
        neighbours, similarity = nearest(train, query, min(NEIGHBOURS, len(train)))
        votes = np.exp((similarity - similarity[:, :1]) / TEMPERATURE)
        return np.einsum("mk,mkc->mc", votes / votes.sum(axis=1, keepdims=True), truth[neighbours])
    train, query = standardised(train, query)
    folds, strength = inner_folds(patients), 1.0
    if folds is not None:
        held = folds == 0
        known, asked = spanned(train[~held], train[held])
        losses = []
        for one in INVERSE_STRENGTHS:
            chances = _each(known, truth[~held], asked, float(one))
            of_truth = np.where(truth[held] > 0, chances, 1 - chances)
            losses.append(-np.log(np.maximum(of_truth, 1e-6)).sum())
        strength = float(INVERSE_STRENGTHS[int(np.argmin(losses))])
    train, query = spanned(train, query)
    return _each(train, truth, query, strength)


def _each(train: Array, truth: Array, query: Array, strength: float) -> Array:
    columns = range(truth.shape[1])
    return np.stack(
        [fit_logistic(train, (truth[:, c] > 0).astype(float), 2, strength)(query)[:, 1] for c in columns], 1
    )


def pairs_of_classes(
    truth: Array, classes: Sequence[str], opposites: Sequence[tuple[str, str]]
) -> list[tuple[int, int]]:
    """Numbers of the opposites that both occur in `truth`."""
    numbers = [(classes.index(one), classes.index(other)) for one, other in opposites if {one, other} <= set(classes)]
    there = set(truth.astype(int).tolist())
    return [pair for pair in numbers if set(pair) <= there]
