"""The studies of an embedded collection that are most like one: clip by clip, with the pairs of clips that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.evaluate.collection import BLOCK, Collection, Hit
from recipes.evaluate.metrics import Array


@dataclass(frozen=True)
class Pair:
    """A recording of the study that is asked about, the frame at which its clip begins, and the clip of the other study that is most like it."""

    video_id: str
    frame: float
    hit: Hit


@dataclass(frozen=True)
class Neighbour:
    """A study that is alike. similarity: the mean over the pairs, of which each recording has one."""

    study: str
    similarity: float
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Asked:
    """Clips of a recording of the study that is asked about: frames (n,) at which they begin, vectors (n, D) of length one."""

    video_id: str
    frames: Array
    vectors: Array


def nearest_studies(
    collection: Collection, study_of: Mapping[str, str], asked: Sequence[Asked], count: int
) -> list[Neighbour]:
    """The `count` studies most like the one whose recordings are `asked`, the most alike first; of equals the first by name.

        similarity(Q, S) = mean over recordings q of Q of  max over clips x of q and y of S of  x . y

    Every clip finds its like, so that views are compared with their own, and a study that lacks a view is less alike. (EchoPrime compares means over
    a study's clips.) study_of: video_id -> study, of those recordings of the collection that may be found.
    """
    names = sorted(set(study_of.values()))
    number = {name: place for place, name in enumerate(names)}
    group = np.array([number.get(study_of.get(video, ""), -1) for video in collection.video_ids], np.int64)[
        collection.video_of
    ]
    order: NDArray[np.int64] = np.flatnonzero(group >= 0)[np.argsort(group[group >= 0], kind="stable")]
    if not len(order):
        return []
    first = np.concatenate([[0], np.flatnonzero(np.diff(group[order])) + 1])
    present = group[order[first]]
    ends = np.append(first[1:], len(order))
    total = np.zeros(len(present))
    for one in asked:
        total += np.concatenate(
            [
                np.maximum.reduceat(
                    _scores(collection, order[first[a] : ends[b - 1]], one).max(axis=0), first[a:b] - first[a]
                )
                for a, b in _chunks(first, ends)
            ]
        )
    total /= max(1, len(asked))
    best = np.lexsort((present, -total))[:count]
    return [
        Neighbour(names[present[at]], float(total[at]), _pairs(collection, order[first[at] : ends[at]], asked))
        for at in best.tolist()
    ]


def _scores(collection: Collection, places: NDArray[np.int64], one: Asked) -> NDArray[np.float32]:
    """(clips of the recording, places) cosines."""
    found: NDArray[np.float32] = one.vectors.astype(np.float32) @ collection.vectors[places].T
    return found


def _chunks(first: NDArray[np.int64], ends: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges of studies that hold some BLOCK vectors together, or one study."""
    found, start = [], 0
    for at in range(1, len(first) + 1):
        if at == len(first) or ends[at] - first[start] > BLOCK:
            found.append((start, at))
            start = at
    return found


def _pairs(collection: Collection, places: NDArray[np.int64], asked: Sequence[Asked]) -> tuple[Pair, ...]:
    found = []
    for one in asked:
        scores = _scores(collection, places, one)
        mine, theirs = np.unravel_index(int(scores.argmax()), scores.shape)
        hit = collection.hit(int(places[theirs]), float(scores[mine, theirs]))
        found.append(Pair(one.video_id, float(one.frames[mine]), hit))
    return tuple(found)
