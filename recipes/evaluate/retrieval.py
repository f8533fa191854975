"""Retrieval: the text of a clip among all texts, and the clip of a text among all clips. Ranks, with ties averaged.

The same words are often said twice, and two people speak of overlapping stretches of one recording. So texts that read alike are one; and a text is
right for every stretch of its recording that shares half or more of their common time with one of which it was said.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recipes.evaluate.metrics import Array, Metric, average
from recipes.evaluate.scored import Scorer

OVERLAP = 0.5
ROUNDED = 6  # decimals of a cosine that count: the same clip, embedded twice, differs beyond them
RECALLS = (1, 5, 10)
BLOCK = 4_000_000  # scores held at once

Right = NDArray[np.int64]
Moment = tuple[int, float, float]  # a row, from when to when (s); (0, inf): all of it


@dataclass(frozen=True)
class Pairs:
    """What is asked, and what is right.

    moments: distinct stretches of recordings. texts: of each distinct text, where it was given first. said: (n, 2) moment and text of every pair that
    was given. texts_of: of each moment, the texts that are right. moments_of: of each text, the moments that are.
    """

    moments: tuple[Moment, ...]
    texts: NDArray[np.int64]
    said: NDArray[np.int64]
    texts_of: tuple[Right, ...]
    moments_of: tuple[Right, ...]


def pairs_of(moments: Sequence[Moment], texts: Sequence[int]) -> Pairs:
    """What was said (numbers, the same for the same words), and of which moment; both (n,)."""
    distinct = {moment: number for number, moment in enumerate(dict.fromkeys(moments))}
    first: dict[int, tuple[int, int]] = {}
    for place, text in enumerate(texts):
        first.setdefault(text, (len(first), place))
    said = np.array(
        [(distinct[moment], first[text][0]) for moment, text in zip(moments, texts, strict=True)], np.int64
    ).reshape(-1, 2)
    of_moment: list[set[int]] = [set() for _ in distinct]
    for moment, text in said.tolist():
        of_moment[moment].add(text)
    texts_of = [np.array([], np.int64)] * len(distinct)
    moments_of: list[list[int]] = [[] for _ in first]
    for moment, near in _overlapping(list(distinct)):
        right = sorted(set().union(*(of_moment[other] for other in near)))
        texts_of[moment] = np.array(right, np.int64)
        for text in right:
            moments_of[text].append(moment)
    return Pairs(
        tuple(distinct),
        np.array([place for _, place in first.values()], np.int64),
        said,
        tuple(texts_of),
        tuple(np.array(sorted(right), np.int64) for right in moments_of),
    )


def _overlapping(moments: Sequence[Moment]) -> Iterator[tuple[int, list[int]]]:
    """Each moment, and those of its recording that share half or more of their common time with it; itself among them."""
    by_row = defaultdict(list)
    for number, (row, _, _) in enumerate(moments):
        by_row[row].append(number)
    for numbers in by_row.values():
        starts, ends = (np.array([moments[n][at] for n in numbers]) for at in (1, 2))
        for number, start, end in zip(numbers, starts, ends, strict=True):
            shared = np.minimum(ends, end) - np.maximum(starts, start)
            common = np.maximum(ends, end) - np.minimum(starts, start)
            near = (shared >= OVERLAP * common) & np.isfinite(common) | (starts == start) & (ends == end)
            yield number, [numbers[place] for place in np.flatnonzero(near)]


def rank(scores: Array, right: Right) -> float:
    """Place, from 1, of the best of the right ones among scores (G,); among equals the mean place that it has over all orders of them."""
    best = scores[right].max()
    equal = int((scores == best).sum())
    true = int((scores[right] == best).sum())
    return 1 + int((scores > best).sum()) + (equal - true) / (true + 1)


def ranks(queries: Array, gallery: Array, right: Sequence[Right]) -> Array:
    """Vectors (Q, D) and (G, D) of length one, and what is right for each query, one or more of the gallery -> (Q,)."""
    found = np.empty(len(queries))
    part = max(1, BLOCK // len(gallery))
    for first in range(0, len(queries), part):
        scores = np.round(queries[first : first + part] @ gallery.T, ROUNDED)
        for place, row in enumerate(scores, first):
            found[place] = rank(row, right[place])
    return found


@dataclass(frozen=True)
class Ranked:
    """What a figure is the mean, or the median, of, for each query: hits (Q,) within k, in [0, 1], by k; ranks (Q,); graded: other figures (Q,) by
    name."""

    hits: dict[int, Array]
    ranks: Array
    graded: Mapping[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, ranks: Array, graded: Mapping[str, Array] | None = None) -> Ranked:
        """Of ranks that were found."""
        return cls({k: (ranks <= k).astype(float) for k in RECALLS}, ranks, graded or {})

    @classmethod
    def chance(cls, gallery: int, right: Sequence[Right], graded: Mapping[str, Array] | None = None) -> Ranked:
        """What a random order of the gallery is expected to give: hits, and the rank of the best of c right ones among G, (G + 1) / (c + 1)."""
        counts = np.array([len(one) for one in right])
        kinds = {int(c): [_share_hit(gallery, int(c), k) for k in RECALLS] for c in np.unique(counts)}
        hits = {k: np.array([kinds[int(c)][n] for c in counts]) for n, k in enumerate(RECALLS)}
        return cls(hits, (gallery + 1) / (counts + 1), graded or {})

    def scorer(self) -> Scorer:
        """The figures of METRICS."""

        def score(metric: Metric, weights: Array) -> Array:
            if metric.name in self.graded:
                values = self.graded[metric.name]
            elif metric.name == "median_rank":
                values = self.ranks
            else:
                values = self.hits[int(metric.name.removeprefix("recall_"))]
            return metric.of(values, values, weights)

        return score


def _share_hit(gallery: int, right: int, k: int) -> float:
    """The probability that one or more of the right ones are among k of the gallery."""
    if k >= gallery:
        return 1.0
    return 1 - math.comb(gallery - right, k) / math.comb(gallery, k)


def weighted_median(_: Array, values: Array, weights: Array) -> Array:
    """The median of values (n,) under weights (R, n) -> (R,); the mean of the two in the middle."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[:, order], axis=1)
    half = below[:, -1:] / 2
    low, high = (below >= half).argmax(axis=1), (below > half).argmax(axis=1)
    middle: Array = (values[order][low] + values[order][high]) / 2
    return middle


def mean_of_queries(_: Array, values: Array, weights: Array) -> Array:
    """Of values (n,) under weights (R, n)."""
    return average(values, weights)


def _recall(k: int) -> Metric:
    return Metric(f"recall_{k}", f"R@{k}", mean_of_queries, higher_is_better=True, percent=True)


METRICS = (
    *map(_recall, RECALLS),
    Metric("median_rank", "median rank", weighted_median, higher_is_better=False),
)
