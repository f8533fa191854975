"""Clips and texts as vectors that can be compared, for protocols that train nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from domains.base import ClipSettings
from domains.errors import MediaError
from domains.store.clips import clips_from
from domains.store.frames import Frames
from domains.store.prepared import Prepared
from recipes.encoders.aligned import PIECE, Aligned, Alignment
from recipes.evaluate.baselines import RANDOM_SEED
from recipes.evaluate.features import Extractor, ReadProgress, default_device, read_ahead
from recipes.evaluate.metrics import Array
from recipes.training.data import plain_pixel_values

Place = tuple[int, NDArray[np.float64]]  # a row, and native frames (n,) at which clips begin
AT_ONCE = 16  # clips that are read and embedded at once; of 16 x 224 x 224 x 3 about 40 MB


class Compared:
    """Both towers of an `Aligned`, with its own projections and `fresh` others that were never trained (each tower is asked once).

    Vectors are of length one, (n, 1 + fresh, D) float64; the first are the model's own.
    """

    def __init__(self, aligned: Aligned, device: torch.device, fresh: int = 0) -> None:
        self.aligned, self.device = aligned, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            drawn = [Alignment(aligned.alignment.shape).to(device).eval() for _ in range(fresh)]
        self.alignments = [aligned.alignment, *drawn]

    def clips(self, clips: Frames) -> Array:
        """uint8 (n, T, S, S, C) -> (n, 1 + fresh, D)."""
        encoder = self.aligned.encoder
        read = encoder.describe if self.aligned.alignment.shape.motion else encoder.embed
        with torch.inference_mode():
            pixels = plain_pixel_values(torch.from_numpy(clips), encoder.geometry, self.device)
            return self._projected(read(pixels), [one.video for one in self.alignments])

    def texts(self, texts: Sequence[str]) -> Array:
        """Texts, each of a word or more -> (n, 1 + fresh, D)."""
        tower = self.aligned.text
        with torch.inference_mode():
            parts = [tower.embed(texts[first : first + PIECE]) for first in range(0, len(texts), PIECE)]
            return self._projected(torch.cat(parts), [one.text for one in self.alignments])

    @staticmethod
    def _projected(read: Tensor, projections: Sequence[nn.Module]) -> Array:
        each = torch.stack([F.normalize(project(read).float(), dim=-1) for project in projections], dim=1)
        return each.cpu().numpy().astype(np.float64)


@contextmanager
def comparing(aligned: Aligned, fresh: int = 0, device: torch.device | None = None) -> Iterator[Compared]:
    """The towers on the device, in evaluation mode; their mode is restored afterwards."""
    device = device or default_device()
    was_training = aligned.training
    aligned.to(device).eval()
    try:
        yield Compared(aligned, device, fresh)
    finally:
        aligned.train(was_training)


def vectors_at(
    extractor: Extractor,
    prepared: Prepared,
    places: Sequence[Place],
    clip: ClipSettings,
    progress: ReadProgress | None = None,
) -> Iterator[Array | MediaError]:
    """What `extractor` says of clips that begin at `places`, each of one clip or more: one answer for each place, (n, ...), or why it cannot be read.

    A few clips are held at a time, however long a recording is. progress(clips done, of all).
    """
    for _, group in groupby(pieces_at(extractor, prepared, places, clip, progress), key=lambda piece: piece.place):
        found: list[Array] = []
        failed: MediaError | None = None
        for piece in group:
            if isinstance(piece.vectors, MediaError):
                failed = piece.vectors
            else:
                found.append(piece.vectors)
        yield failed or np.concatenate(found)


@dataclass(frozen=True)
class Piece:
    """What was said of `count` clips, one after the other, of place number `place`: (count, ...), or why it cannot be read."""

    place: int
    count: int
    vectors: Array | MediaError


def pieces_at(
    extractor: Extractor,
    prepared: Prepared,
    places: Sequence[Place],
    clip: ClipSettings,
    progress: ReadProgress | None = None,
    skip: int = 0,
) -> Iterator[Piece]:
    """The same a few clips at a time, without the first `skip` of all clips. Of a place that cannot be read all further pieces say so.

    A call that skips what whole pieces of an earlier one said gets the same pieces from there on. progress(clips done, of those that are left).
    """

    def read(piece: Place) -> Frames | MediaError:
        try:
            return clips_from(prepared, places[piece[0]][0], clip, piece[1])
        except MediaError as error:
            return error

    done, total = 0, sum(len(starts) for _, starts in places) - skip
    broken: tuple[int, MediaError] | None = None
    for (place, starts), clips in read_ahead(_cut(places, skip), read):
        if isinstance(clips, MediaError) and (broken is None or broken[0] != place):
            broken = (place, clips)
        if broken is not None and broken[0] == place:
            yield Piece(place, len(starts), broken[1])
        elif not isinstance(clips, MediaError):
            yield Piece(place, len(starts), extractor(clips))
        done += len(starts)
        if progress is not None:
            progress(done, total)


def _cut(places: Sequence[Place], skip: int) -> Iterator[Place]:
    """(number of the place, where AT_ONCE of its clips begin, or the last ones), without the first `skip` clips of all."""
    for number, (_, starts) in enumerate(places):
        for first in range(min(skip, len(starts)), len(starts), AT_ONCE):
            yield number, starts[first : first + AT_ONCE]
        skip = max(0, skip - len(starts))
