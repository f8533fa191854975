"""The linear probe: one linear map on frozen features, its strength of regularisation chosen inside the training
patients.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from domains.store.splits import patient_folds
from recipes.evaluate.metrics import Array

STRENGTHS = np.logspace(-3, 5, 17)  # ridge: lambda against the squared singular values of standardised features
INVERSE_STRENGTHS = np.logspace(-4, 2, 7)  # logistic regression: scikit-learn's C
INNER_FOLDS = 5


def linear(train: Array, truth: Array, patients: list[str], query: Array, classes: int) -> Array:
    """Predictions for `query` (m, D) from labelled `train` (n, D).

    truth (n,): values, or class numbers where `classes` > 0. Features are standardised with the training rows' mean
    and deviation. Ridge regression or multinomial logistic regression; the strength is the one with the least error in
    a cross-validation whose folds share no patient. Returns (m,) values or (m, classes) probabilities.
    """
    train, query = standardised(train, query)
    folds = inner_folds(patients)
    return _logistic(train, truth, query, classes, folds) if classes else _ridge(train, truth, query, folds)


def standardised(train: Array, query: Array) -> tuple[Array, Array]:
    """Both (n, D) and (m, D) with the mean and deviation of the first."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    # A feature that never changes in training says nothing; dividing by its deviation would only blow up rounding.
    scale = np.where(deviation > 1e-8 * (1 + np.abs(mean)), deviation, np.inf)
    train, query = (train - mean) / scale, (query - mean) / scale
    # Held at the range seen in training: a corner of the picture that was black in every training video but one has a
    # tiny deviation, and a single bright query would be predicted hundreds of deviations away.
    return train, np.clip(query, train.min(axis=0), train.max(axis=0))


def inner_folds(patients: list[str]) -> NDArray[np.int64] | None:
    """(n,) fold numbers; None where there is only one patient and nothing can be held out."""
    people = len(set(patients))
    return patient_folds(patients, min(INNER_FOLDS, people), 0) if people > 1 else None


def ridge_path(train: Array, truth: Array, query: Array, strengths: Array = STRENGTHS) -> Array:
    """(len(strengths), m): ridge predictions for every strength from one singular value decomposition; the intercept
    is not shrunk.
    """
    centre, offset = train.mean(axis=0), truth.mean()
    left, singular, right = np.linalg.svd(train - centre, full_matrices=False)
    shrink = singular / (singular**2 + strengths[:, None])  # (A, r)
    return offset + (shrink * (left.T @ (truth - offset))) @ (right @ (query - centre).T)


def _ridge(train: Array, truth: Array, query: Array, folds: NDArray[np.int64] | None) -> Array:
    if folds is None:
        return ridge_path(train, truth, query, np.array([float(len(train))]))[0]
    error = np.zeros(len(STRENGTHS))
    for fold in np.unique(folds):
        held = folds == fold
        error += ((ridge_path(train[~held], truth[~held], train[held]) - truth[held]) ** 2).sum(axis=1)
    best = int(np.argmin(error))
    return ridge_path(train, truth, query, STRENGTHS[best : best + 1])[0]


def _logistic(train: Array, truth: Array, query: Array, classes: int, folds: NDArray[np.int64] | None) -> Array:
    return logistic(train, truth, query, classes, _inverse_strength(train, truth, classes, folds))


def _inverse_strength(train: Array, truth: Array, classes: int, folds: NDArray[np.int64] | None) -> float:
    if folds is None:
        return 1.0
    loss = np.zeros(len(INVERSE_STRENGTHS))
    for fold in np.unique(folds):
        held = folds == fold
        for place, strength in enumerate(INVERSE_STRENGTHS):
            probability = logistic(train[~held], truth[~held], train[held], classes, float(strength))
            of_truth = probability[np.arange(held.sum()), truth[held].astype(int)]
            loss[place] -= np.log(
                np.maximum(of_truth, 1e-6)
            ).sum()  # a class that the inner training part lacks costs, finitely
    return float(INVERSE_STRENGTHS[int(np.argmin(loss))])


def linear_classifier(train: Array, truth: Array, patients: list[str], classes: int) -> tuple[Array, Array]:
    """The classifier of `linear` as weights (C, D) and biases (C,) of its logits, of features (n, D) that are standardised already; every class must
    occur in `truth`."""
    from sklearn.linear_model import LogisticRegression

    strength = _inverse_strength(train, truth, classes, inner_folds(patients))
    model = LogisticRegression(C=strength, max_iter=1000, tol=1e-4).fit(train, truth.astype(int))
    if classes == 2:  # one line: the logit of the second against the first
        return np.concatenate([-model.coef_, model.coef_]) / 2, np.concatenate(
            [-model.intercept_, model.intercept_]
        ) / 2
    return model.coef_, model.intercept_


def logistic(train: Array, truth: Array, query: Array, classes: int, inverse_strength: float) -> Array:
    """(m, classes) probabilities of L2-regularised logistic regression; a class that `truth` lacks gets 0."""
    return fit_logistic(train, truth, classes, inverse_strength)(query)


def fit_logistic(train: Array, truth: Array, classes: int, inverse_strength: float) -> Callable[[Array], Array]:
    """`logistic`, fitted once: queries (m, D) -> (m, classes)."""
    from sklearn.linear_model import LogisticRegression

    present = np.unique(truth.astype(int))
    if len(present) == 1:
        return lambda query: np.tile((np.arange(classes) == present[0]).astype(np.float64), (len(query), 1))
    # The solution lies in the span of the rows: with fewer rows than features, solving there is the same and faster.
    rotation = None
    if train.shape[1] > train.shape[0]:
        _, _, right = np.linalg.svd(train, full_matrices=False)
        rotation, train = right.T, train @ right.T
    model = LogisticRegression(C=inverse_strength, max_iter=1000, tol=1e-4)
    model.fit(train, truth.astype(int))

    def predict(query: Array) -> Array:
        probability = np.zeros((len(query), classes))
        probability[:, model.classes_] = model.predict_proba(query if rotation is None else query @ rotation)
        return probability

    return predict
