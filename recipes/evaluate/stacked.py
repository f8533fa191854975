"""What linear probes say of single clips, as a head over studies begins with it: one probe of all training clips, and for these clips themselves
probes that saw none of their patients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domains.store.splits import patient_folds
from domains.store.studies import Studies
from recipes.evaluate.described import Described
from recipes.evaluate.linear import INNER_FOLDS, linear_classifier, linear_regressor
from recipes.evaluate.metrics import Array
from recipes.evaluate.studies import TAUGHT

RARE = -10.0  # logit of a class that the probe never saw
Even = Callable[[NDArray[np.float32]], Array]


@dataclass(frozen=True)
class First:
    """weight (outputs, D), bias (outputs,): the probe, of even features. said (recordings, outputs): of training clips, by row of the manifest."""

    weight: Array
    bias: Array
    said: NDArray[np.float32]


def first_answers(described: Described, train: Studies, values: Array, even: Even, classes: int) -> First:
    """values (n,): what training studies are to be told, numbers about 0 or class numbers (`classes` > 0). even: descriptions -> features of mean 0
    and deviation 1. Probes learn from at most TAUGHT clips; their strength is chosen once, by patients (`recipes.evaluate.linear`)."""
    rows = np.array([row for own in train.rows for row in own])
    truth = np.repeat(values, [len(own) for own in train.rows])
    patients = np.repeat(np.array(train.patients), [len(own) for own in train.rows])

    def probe(part: NDArray[np.int64], strength: float | None) -> tuple[Array, Array, float | None]:
        part = part[np.unique(np.linspace(0, len(part) - 1, TAUGHT).round().astype(int))]
        features = even(described.read(rows[part].tolist()))
        return _fit(features, truth[part], patients[part].tolist(), classes, strength)

    everyone = np.arange(len(rows))
    weight, bias, strength = probe(everyone, None)
    said = np.zeros((len(described.prepared), len(bias)), np.float32)
    people = len(set(train.patients))
    fold = patient_folds(patients.tolist(), min(INNER_FOLDS, people), 0) if people > 1 else np.zeros(len(rows), int)
    for number in np.unique(fold):
        held = everyone[fold == number]
        others = everyone[fold != number] if people > 1 else everyone
        own, offset, _ = probe(others, strength)
        start = 0
        for piece in described.pieces(rows[held].tolist()):
            logits = even(piece) @ own.T + offset
            if classes:
                logits = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            said[rows[held[start : start + len(piece)]]] = logits
            start += len(piece)
    return First(weight, bias, said)


def _fit(
    features: Array, truth: Array, patients: list[str], classes: int, strength: float | None
) -> tuple[Array, Array, float | None]:
    """Weights (outputs, D), biases (outputs,) and the strength; where there is nothing to tell apart, the mean or the frequencies."""
    present = np.unique(truth)
    outputs = classes or 1
    if len(present) < 2:
        count = np.bincount(truth.astype(int), minlength=classes) if classes else np.zeros(1)
        bias = np.log((count + 1) / (len(truth) + classes)) if classes else truth[:1]
        return np.zeros((outputs, features.shape[1])), bias, strength
    if not classes:
        return linear_regressor(features, truth, patients, strength)
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, RARE)
    at = present.astype(int)
    weight[at], bias[at], strength = linear_classifier(
        features, np.searchsorted(present, truth).astype(np.float64), patients, len(at), strength
    )
    return weight, bias, strength
