"""Whole procedures as the loop takes samples: descriptions that were written before, and what is true at each moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.base import AugmentPolicies, ClipSettings
from domains.store.clips import sample_seed
from domains.store.moments import UNLABELLED
from recipes.evaluate.written import Written
from recipes.finetune.temporal import DESCRIPTIONS, INSIDE, PIECE, TRUTH
from recipes.training.data import ClipData

SMALLEST = 1e-6  # a deviation below it is rounding: such a channel says nothing


class ProcedureData(ClipData):
    """A sample is a procedure: descriptions (L, D), truth (L,) or (L, C), inside (L,).

    L: the moments of the longest procedure, at most `window`. A shorter procedure is filled up; out of a longer one a stretch is drawn from
    (seed, epoch, recording, draw), so that a resumed run draws the same. Order, epochs and draws are those of `ClipData`.

    truths: row -> what is true at its moments (`domains.store.moments`); its rows are learned from.
    """

    def __init__(
        self,
        written: Written,
        truths: Mapping[int, NDArray[np.int64]],
        window: int,
        *,
        seed: int = 0,
        draws: int = 1,
    ) -> None:
        super().__init__(
            written.prepared, sorted(truths), {}, ClipSettings(), AugmentPolicies(), seed=seed, clips_per_video=draws
        )
        self.written, self.truths = written, truths
        self.length = min(window, max(len(truth) for truth in truths.values()))

    def __getitem__(self, position: int) -> dict[str, Any]:
        epoch, where, draw = self.place(position)
        row = self.rows[where]
        number = sample_seed(self.seed, epoch, self.prepared.video_id(row), draw)
        truth, descriptions = self.truths[row], self.written.read(row)
        room = max(0, len(truth) - self.length)
        first = int(np.random.default_rng(number).integers(room + 1))
        cut = slice(first, first + self.length)
        count = len(truth[cut])
        fill = self.length - count
        return {
            "views": {},
            "seed": number,
            "row": row,
            "targets": {
                DESCRIPTIONS: np.pad(descriptions[cut], ((0, fill), (0, 0))),
                TRUTH: np.pad(truth[cut], [(0, fill), *[(0, 0)] * (truth.ndim - 1)], constant_values=UNLABELLED),
                INSIDE: (np.arange(self.length) < count).astype(np.float32),
            },
            "failures": [],
        }


def spread_of(written: Written, rows: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`spread` of all moments of `rows`."""
    tables = (written.read(row) for row in rows)
    return spread(table[first : first + PIECE] for table in tables for first in range(0, len(table), PIECE))


def spread(pieces: Iterable[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(D,) mean and deviation of all rows of the pieces (n, D), of which one is in memory at a time. A channel that never changes has deviation 1.
    There is at least one row."""
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    shift: NDArray[np.float64] | None = None  # near the mean: squares of small numbers lose nothing
    for one in pieces:
        piece = one.astype(np.float64)
        shift = piece.mean(axis=0) if shift is None else shift
        count += len(piece)
        total = total + (piece - shift).sum(axis=0)
        squares = squares + ((piece - shift) ** 2).sum(axis=0)
    assert shift is not None
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    deviation[deviation < SMALLEST * (1 + np.abs(mean + shift))] = 1.0
    return (mean + shift).astype(np.float32), deviation.astype(np.float32)


def edges(pieces: Iterable[NDArray[np.float32]], channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(channels,) the least and the largest of all rows of the pieces (n, channels)."""
    low, high = np.full(channels, np.inf, np.float32), np.full(channels, -np.inf, np.float32)
    for piece in pieces:
        low, high = np.minimum(low, piece.min(axis=0)), np.maximum(high, piece.max(axis=0))
    return low, high
