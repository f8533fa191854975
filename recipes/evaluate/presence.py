"""How well it is told what is there at each moment (tools in view; actions as triplets of instrument, verb and target): average precision.

A class without a positive has no average precision and is masked; it is never 0, and never taken for one that has positives and is found badly, which
counts as what it is, be it 0. Classes that stand for nothing (null verb, null target) are averaged apart from the others.

Per video: the average precision of each class in each video that has it, averaged over videos, then over classes (the video-wise figures of CholecT45
and CholecT50). Over all: the moments of all videos in one list (as tools of Cholec80 are scored). Nothing is kept from call to call: no video can be
counted twice by asking too early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.evaluate.metrics import Array

Truth = NDArray[np.bool_]


def average_precision(truth: Truth, score: Array) -> float:
    """Sum over thresholds of (gain of recall) x precision; moments of one score share a threshold, so their order does not matter. Not a number
    where `truth` (T,) has no positive."""
    positives = int(truth.sum())
    if not positives:
        return float("nan")
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])  # of each run of equal scores
    precision, recall = hits[last] / (last + 1), hits[last] / positives
    return float(np.sum(np.diff(np.r_[0.0, recall]) * precision))


def ap_table(truths: Sequence[Truth], scores: Sequence[Array]) -> Array:
    """(V, C): of every class in every video, from (T_v, C) truths and scores."""
    return np.array([
        [average_precision(truth[:, c], score[:, c]) for c in range(truth.shape[1])]
        for truth, score in zip(truths, scores, strict=True)
    ])  # fmt: skip


def ap_over_all(truths: Sequence[Truth], scores: Sequence[Array]) -> Array:
    """(C,): over the moments of all videos."""
    return ap_table([np.concatenate(list(truths))], [np.concatenate(list(scores))])[0]


@dataclass(frozen=True)
class Component:
    """Classes seen through some of their parts: of triplets i, v, t, iv, it, ivt.

    name: its letters, "" where classes have no parts. names: of its classes. member (C,): which of them each class of the task belongs to.
    null: (K,) those that stand for nothing.
    """

    name: str
    names: tuple[str, ...]
    member: NDArray[np.int64]
    null: NDArray[np.bool_]

    def of(self, values: Array) -> Array:
        """(T, C) of the task's classes -> (T, K): the largest of those that belong together, of scores as of truth."""
        found = np.full((len(values), len(self.names)), -np.inf)
        for number in range(values.shape[1]):
            np.maximum(found[:, self.member[number]], values[:, number], out=found[:, self.member[number]])
        return found


def components(classes: Sequence[str], parts: Sequence[str], null: Sequence[str]) -> list[Component]:
    """The whole classes alone, or, where class names are of `parts` joined by commas, each part, each pair with the first part, and the whole.

    ("instrument", "verb", "target") -> i, v, t, iv, it, ivt. null: class names, or words of parts: what holds one of them stands for nothing.
    """
    split = [tuple(name.split(",")) if parts else (name,) for name in classes]
    everything = tuple(range(len(split[0])))
    wanted = [everything]
    if parts:
        singles, pairs = [(at,) for at in everything], [(0, at) for at in everything[1:]] if len(parts) > 2 else []
        wanted = [*singles, *pairs, everything]
    found = []
    for chosen in wanted:
        kept = [tuple(words[at] for at in chosen) for words in split]
        names = tuple(dict.fromkeys(kept))
        found.append(
            Component(
                name="".join(parts[at][0] for at in chosen) if parts else "",
                names=tuple(",".join(words) for words in names),
                member=np.array([names.index(words) for words in kept], np.int64),
                null=np.array([bool(set(words) & set(null)) for words in names]),
            )
        )
    return found
