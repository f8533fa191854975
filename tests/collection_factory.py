"""Collections of given vectors, without a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from domains.errors import MediaError
from recipes.evaluate.collecting import Stretches, write_collection
from recipes.evaluate.collection import About
from recipes.evaluate.metrics import Array
from recipes.evaluate.towers import Piece

Embedded = tuple[Stretches, Array | MediaError]


def said(found: Sequence[Embedded], skip: int, at_once: int = 2) -> Iterator[Piece]:
    """What a model says of the clips from number `skip` on, a few at a time."""
    for place, (stretches, vectors) in enumerate(found):
        count = len(stretches.frames)
        for first in range(min(skip, count), count, at_once):
            some = vectors if isinstance(vectors, MediaError) else vectors[first : first + at_once]
            yield Piece(place, len(stretches.frames[first : first + at_once]), some)
        skip = max(0, skip - count)


def collected(folder: Path, about: About, found: Iterable[Embedded], *, overwrite: bool = False) -> About:
    """Written to `folder`."""
    found = list(found)
    return write_collection(
        folder, about, [one for one, _ in found], lambda skip: said(found, skip), overwrite=overwrite
    )
