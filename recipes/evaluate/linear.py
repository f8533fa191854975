"""The linear probe: one linear map on frozen features, its strength of regularisation chosen inside the training
patients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.store.splits import patient_folds
from recipes.evaluate.metrics import Array
from recipes.evaluate.threads import one_thread

STRENGTHS = np.logspace(-3, 5, 17)  # ridge: lambda against the squared singular values of standardised features
INVERSE_STRENGTHS = np.logspace(-4, 2, 7)  # logistic regression: scikit-learn's C
INNER_FOLDS = 5


@one_thread()
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
    return ridge_path(train, truth, query, np.array([_strength(train, truth, folds)]))[0]


def _strength(train: Array, truth: Array, folds: NDArray[np.int64]) -> float:
    error = np.zeros(len(STRENGTHS))
    for fold in np.unique(folds):
        held = folds == fold
        error += ((ridge_path(train[~held], truth[~held], train[held]) - truth[held]) ** 2).sum(axis=1)
    return float(STRENGTHS[int(np.argmin(error))])


def _logistic(train: Array, truth: Array, query: Array, classes: int, folds: NDArray[np.int64] | None) -> Array:
    return logistic(train, truth, query, classes, _inverse_strength(train, truth, classes, folds))


def _inverse_strength(train: Array, truth: Array, classes: int, folds: NDArray[np.int64] | None) -> float:
    if folds is None:
        return 1.0
    loss = np.zeros(len(INVERSE_STRENGTHS))
    for fold in np.unique(folds):
        held = folds == fold
        known, asked = spanned(train[~held], train[held])
        for place, strength in enumerate(INVERSE_STRENGTHS):
            probability = logistic(known, truth[~held], asked, classes, float(strength))
            of_truth = probability[np.arange(held.sum()), truth[held].astype(int)]
            loss[place] -= np.log(
                np.maximum(of_truth, 1e-6)
            ).sum()  # a class that the inner training part lacks costs, finitely
    return float(INVERSE_STRENGTHS[int(np.argmin(loss))])


@one_thread()
def linear_classifier(
    train: Array, truth: Array, patients: list[str], classes: int, strength: float | None = None
) -> tuple[Array, Array, float]:
    """The classifier of `linear` as weights (C, D), biases (C,) of its logits, and the inverse strength, chosen as there where it is None; of
    features (n, D) that are standardised already. Every class must occur in `truth`."""
    inverse = _inverse_strength(train, truth, classes, inner_folds(patients)) if strength is None else strength
    model = _regression(train, truth, inverse)
    if classes == 2:  # one line: the logit of the second against the first
        half = model.coef_ / 2, model.intercept_ / 2
        return np.concatenate([-half[0], half[0]]), np.concatenate([-half[1], half[1]]), inverse
    return model.coef_, model.intercept_, inverse


@one_thread()
def linear_regressor(
    train: Array, truth: Array, patients: list[str], strength: float | None = None
) -> tuple[Array, Array, float]:
    """The regression of `linear` as weights (1, D), bias (1,) and the strength, chosen as there where it is None; features as in
    `linear_classifier`."""
    if strength is None:
        folds = inner_folds(patients)
        strength = float(len(train)) if folds is None else _strength(train, truth, folds)
    centre, offset = train.mean(axis=0), truth.mean()
    left, singular, right = np.linalg.svd(train - centre, full_matrices=False)
    weight = (singular / (singular**2 + strength) * (left.T @ (truth - offset))) @ right
    return weight[None], np.array([offset - centre @ weight]), strength


def logistic(train: Array, truth: Array, query: Array, classes: int, inverse_strength: float) -> Array:
    """(m, classes) probabilities of L2-regularised logistic regression; a class that `truth` lacks gets 0."""
    return fit_logistic(train, truth, classes, inverse_strength)(query)


@one_thread()
def fit_logistic(train: Array, truth: Array, classes: int, inverse_strength: float) -> Callable[[Array], Array]:
    """`logistic`, fitted once: queries (m, D) -> (m, classes)."""
    present = np.unique(truth.astype(int))
    if len(present) == 1:
        return lambda query: np.tile((np.arange(classes) == present[0]).astype(np.float64), (len(query), 1))
    rotation = span(train)
    model = _regression(train if rotation is None else train @ rotation, truth, inverse_strength)

    def predict(query: Array) -> Array:
        probability = np.zeros((len(query), classes))
        probability[:, model.classes_] = model.predict_proba(query if rotation is None else query @ rotation)
        return probability

    return predict


def span(rows: Array) -> Array | None:
    """Orthonormal (D, n) whose columns span the rows (n, D); None where there are as many rows as features. The solution of a regularised regression
    lies in the span of its rows: with fewer rows than features, solving there is the same and faster."""
    if rows.shape[1] <= rows.shape[0]:
        return None
    right: Array = np.linalg.svd(rows, full_matrices=False)[2]
    return right.T


def spanned(train: Array, query: Array) -> tuple[Array, Array]:
    """Both in the `span` of the first, where that is smaller than they are."""
    rotation = span(train)
    return (train, query) if rotation is None else (train @ rotation, query @ rotation)


def _regression(train: Array, truth: Array, inverse_strength: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # Hardly regularised, classes that can be parted have no end to converge to; a strength is chosen by what it says of others all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=inverse_strength, max_iter=1000, tol=1e-4).fit(train, truth.astype(int))
