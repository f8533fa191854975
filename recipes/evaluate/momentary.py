"""What a temporal head is measured against: the same answer at every moment, and a linear probe that sees one moment at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from domains.store.moments import UNLABELLED
from recipes.evaluate.linear import INVERSE_STRENGTHS, STRENGTHS, fit_logistic
from recipes.evaluate.metrics import Array
from recipes.evaluate.written import Written
from recipes.finetune.temporal import PIECE

TAUGHT, ASKED = (
    4000,
    2000,
)  # moments that a probe learns from, and that its strength is chosen by; spread over all procedures
Truths = Mapping[int, NDArray[np.int64]]
Probe = Callable[[Array], Array]


def frequencies(truths: Sequence[NDArray[np.int64]], classes: int) -> Array:
    """(C,): how often each class is there among labelled moments; the likeliest is the majority's answer."""
    whole = np.concatenate(list(truths))
    if whole.ndim == 1:
        count = np.bincount(whole[whole != UNLABELLED], minlength=classes)
        return count / count.sum()
    share: Array = (whole == 1).sum(axis=0) / max(1, (whole != UNLABELLED).all(axis=1).sum())
    return share


def linear_probe(written: Written, taught: Truths, asked: Truths, classes: int) -> Probe:
    """Descriptions (T, D) -> (T, C): logistic regression of phases, ridge regression of presence, on standardised descriptions.

    taught: training procedures, of which TAUGHT moments are used; its strength is the best on `asked`, the validation procedures.
    """
    train, truth = sample(written, taught, TAUGHT)
    held, wanted = sample(written, asked, ASKED)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scale = np.where(deviation > 1e-6 * (1 + np.abs(mean)), deviation, np.inf)
    low, high = ((edge - mean) / scale for edge in (train.min(axis=0), train.max(axis=0)))

    def even(descriptions: Array) -> Array:  # held at the range seen in training, as `recipes.evaluate.linear` does
        return np.clip((descriptions.astype(np.float64) - mean) / scale, low, high)

    known, held = even(train), even(held)
    if truth.ndim == 1:
        fits = [fit_logistic(known, truth.astype(np.float64), classes, float(c)) for c in INVERSE_STRENGTHS]
        likely = [np.maximum(fit(held)[np.arange(len(wanted)), wanted], 1e-6) for fit in fits]
        best = fits[int(np.argmax([np.log(one).mean() for one in likely]))]
        return lambda descriptions: best(even(descriptions))
    offset = truth.mean(axis=0)
    values, directions = np.linalg.eigh(known.T @ known)
    against = directions.T @ (known.T @ (truth - offset))

    def weights(strength: float) -> Array:
        found: Array = directions @ (against / (values + strength)[:, None])
        return found

    errors = [((offset + held @ weights(float(strength)) - wanted) ** 2).mean() for strength in STRENGTHS]
    chosen = weights(float(STRENGTHS[int(np.argmin(errors))]))
    return lambda descriptions: offset + even(descriptions) @ chosen


def probed(probe: Probe, descriptions: NDArray[np.float32]) -> Array:
    """(T, C) of a whole procedure, read piece by piece."""
    cuts = range(0, len(descriptions), PIECE)
    return np.concatenate([probe(np.asarray(descriptions[first : first + PIECE], np.float64)) for first in cuts])


def sample(written: Written, truths: Truths, most: int) -> tuple[Array, NDArray[np.int64]]:
    """(descriptions (n, D), truth (n,) or (n, C)) of at most `most` labelled moments, evenly spread over the procedures."""
    places = []
    for row, truth in sorted(truths.items()):
        labelled = truth != UNLABELLED if truth.ndim == 1 else (truth != UNLABELLED).all(axis=1)
        places += [(row, moment) for moment in np.flatnonzero(labelled).tolist()]
    chosen = [places[number] for number in np.unique(np.linspace(0, len(places) - 1, most).round().astype(int))]
    found, said = [], []
    for row in dict.fromkeys(row for row, _ in chosen):
        at = np.array([moment for other, moment in chosen if other == row])
        found.append(np.asarray(written.read(row)[at], np.float64))
        said.append(truths[row][at])
    return np.concatenate(found), np.concatenate(said)
