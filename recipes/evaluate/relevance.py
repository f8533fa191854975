"""Multi-instance retrieval (EPIC-KITCHENS-100, Damen et al., IJCV 2022): many texts are right for a clip, some more than others.

The relevance of a text for a clip is the mean of two shares: of the verbs that both have in common among those that either has, and of the nouns. mAP
takes those for right that have all in common; nDCG counts each by its relevance, down to as many places as there are texts of any.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domains.store.actions import Act
from recipes.evaluate.metrics import Array, Metric
from recipes.evaluate.retrieval import BLOCK, ROUNDED, mean_of_queries

ORDERS = 10  # random orders that chance is the mean of
ALL = 1 - 1e-9

GRADED = (
    Metric("map", "mAP", mean_of_queries, higher_is_better=True, percent=True),
    Metric("ndcg", "nDCG", mean_of_queries, higher_is_better=True, percent=True),
)


def relevance(asking: Sequence[Act], asked: Sequence[Act]) -> Array:
    """(len(asking), len(asked)) in [0, 1]."""
    shares = []
    for kind in ("verbs", "nouns"):
        names = sorted({number for act in (*asking, *asked) for number in getattr(act, kind)})
        place = {number: at for at, number in enumerate(names)}

        def table(acts: Sequence[Act], kind: str = kind, place: dict[int, int] = place) -> Array:
            found = np.zeros((len(acts), max(1, len(place))))
            for row, act in enumerate(acts):
                found[row, [place[number] for number in getattr(act, kind)]] = 1
            return found

        left, right = table(asking), table(asked)
        common = left @ right.T
        either = left.sum(1)[:, None] + right.sum(1)[None] - common
        shares.append(np.divide(common, either, out=np.zeros_like(common), where=either > 0))
    return (shares[0] + shares[1]) / 2


def graded_figures(queries: Array, gallery: Array, relevant: Array) -> dict[str, Array]:
    """Vectors (Q, D), (G, D) of length one and relevance (Q, G) -> "map" and "ndcg", (Q,) each. Of equal scores the less relevant comes first, so
    that an encoder that says the same of everything gains nothing by it."""
    found: dict[str, list[Array]] = {"map": [], "ndcg": []}
    part = max(1, BLOCK // len(gallery))
    for first in range(0, len(queries), part):
        rows = relevant[first : first + part]
        scores = np.round(queries[first : first + part] @ gallery.T, ROUNDED)
        order = np.lexsort((rows, -scores), axis=1)
        for name, values in _of_orders(np.take_along_axis(rows, order, axis=1), rows).items():
            found[name].append(values)
    return {name: np.concatenate(values) for name, values in found.items()}


def graded_by_chance(relevant: Array, seed: int) -> dict[str, Array]:
    """The same of random orders, their mean."""
    rng = np.random.default_rng([seed, relevant.shape[1]])
    drawn = [_of_orders(rng.permuted(relevant, axis=1), relevant) for _ in range(ORDERS)]
    return {name: np.mean([one[name] for one in drawn], axis=0) for name in drawn[0]}


def _of_orders(ordered: Array, relevant: Array) -> dict[str, Array]:
    """Relevance (Q, G) in the order that was found -> average precision and nDCG, (Q,). 0 where nothing is relevant."""
    right = (ordered >= ALL).astype(float)
    places = np.arange(1, ordered.shape[1] + 1)
    count = right.sum(axis=1)
    precision = (np.cumsum(right, axis=1) / places * right).sum(axis=1)
    kept = places[None] <= (relevant > 0).sum(axis=1)[:, None]
    discount = kept / np.log2(places + 1)
    gained, best = (ordered * discount).sum(axis=1), (-np.sort(-relevant, axis=1) * discount).sum(axis=1)
    return {
        "map": np.divide(precision, count, out=np.zeros_like(count), where=count > 0),
        "ndcg": np.divide(gained, best, out=np.zeros_like(best), where=best > 0),
    }
