"""k nearest neighbours by cosine: the protocol that trains nothing (Wu et al., CVPR 2018; DISCOVR's "zero-shot")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recipes.evaluate.metrics import Array

NEIGHBOURS = 10
TEMPERATURE = 0.07


def unit(features: Array) -> Array:
    """Rows of length 1; a row of zeros stays zero."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def nearest(train: Array, query: Array, k: int) -> tuple[NDArray[np.int64], Array]:
    """(indices into train, cosine similarities), each (n_query, k), the nearest first; ties go to the earlier row."""
    similarity = unit(query) @ unit(train).T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(similarity, order, axis=1)


def knn(
    train: Array,
    truth: Array,
    patients: list[str],
    query: Array,
    classes: int,
    *,
    k: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Array:
    """Predictions for `query` (m, D) from labelled `train` (n, D): each neighbour votes with weight exp(similarity /
    temperature).

    truth (n,): values, or class numbers where `classes` > 0. Returns (m,) weighted means, or (m, classes) shares of
    the vote. `patients` is not used: nothing is chosen here.
    """
    neighbours, similarity = nearest(train, query, min(k, len(train)))
    # Subtracting the largest changes no share and keeps exp() finite.
    votes = np.exp((similarity - similarity[:, :1]) / temperature)
    votes /= votes.sum(axis=1, keepdims=True)
    if not classes:
        return (votes * truth[neighbours]).sum(axis=1)
    return np.einsum("mk,mkc->mc", votes, np.eye(classes)[truth[neighbours].astype(int)])
