"""An embedded collection: a vector for every stretch of every recording, to be searched by a text or by an example.

    FOLDER/about.json         by which model (its fingerprint), of which prepared folder, how
    FOLDER/vectors.npy        (n, D) float32, of length one
    FOLDER/moments.parquet    video_id, frame (native, at which the clip begins), start, end (s; null where the frame rate is not known)

Search is exact: the cosine with every vector, mapped into memory and read block by block. No approximate index is kept: at a vector every few
seconds, a million of them are weeks of video. `collecting` writes one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from domains.base import ClipSettings, StoreSettings
from domains.errors import DataError
from domains.schema import Strict, parse
from recipes.evaluate.metrics import Array

FORMAT = 1
ABOUT, VECTORS, MOMENTS = "about.json", "vectors.npy", "moments.parquet"
ROUNDING = 1e-6  # of seconds
BLOCK = 1 << 16  # vectors compared at once; of 512 numbers 128 MB
SCHEMA = pa.schema([("video_id", pa.string()), ("frame", pa.float64()), ("start", pa.float64()), ("end", pa.float64())])


class About(Strict):
    """What is kept of how a collection was made.

    model: as it was named; fingerprint: of its weights. words: whether it knows texts. data: the prepared folder or URL, as it was named; key: the
    fingerprint of its pseudonym key. store: how its frames are stored. clip: what the model was shown. every: seconds from one stretch to the next,
    None: one follows the other. content: a digest of the recordings and of the clips of them (None: of an older vfm). left_out: recordings that could
    not be read, and why.
    """

    format: int
    vfm: str
    model: str
    fingerprint: str
    words: bool
    width: int
    data: str
    domain: str
    key: str | None
    store: StoreSettings
    clip: ClipSettings
    every: float | None
    vectors: int
    recordings: int
    content: str | None = None
    left_out: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Hit:
    """A stretch that was found. frame: native, at which it begins. start, end: seconds, None where the frame rate is not known."""

    video_id: str
    frame: float
    start: float | None
    end: float | None
    similarity: float


class Collection:
    """Opened with `Collection.open`. Attributes: folder, about, vectors (n, D), mapped; video_ids, and video_of (n,), the place in them
    of each vector."""

    def __init__(self, folder: Path, about: About, vectors: NDArray[np.float32], moments: pa.Table) -> None:
        self.folder, self.about, self.vectors = folder, about, vectors
        coded = moments.column("video_id").combine_chunks().dictionary_encode()
        self.video_ids: list[str] = coded.dictionary.to_pylist()
        self.video_of: NDArray[np.int32] = coded.indices.to_numpy()
        self._frames: Array = moments.column("frame").to_numpy()
        self._starts, self._ends = (
            moments.column(name).combine_chunks().cast(pa.float64()).to_numpy(zero_copy_only=False)
            for name in ("start", "end")
        )

    @classmethod
    def open(cls, folder: Path) -> Collection:
        """Raises DataError where it is none, or is not whole."""
        try:
            said = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            do = "Make one: vfm embed --encoder RUN --data PREPARED --out INDEX"
            raise DataError(f"no embedded collection (no {ABOUT})", where=folder, do=do) from None
        except (OSError, ValueError) as error:
            raise DataError(
                f"{ABOUT} cannot be read ({error.__class__.__name__})", where=folder, do="Embed again"
            ) from None
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            raise DataError(f"not in format {FORMAT}, which this vfm reads", where=folder, do="Embed again")
        about = parse(About, said, folder / ABOUT)
        try:
            vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
            moments = pq.read_table(folder / MOMENTS, schema=SCHEMA)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(f"cannot be read ({error.__class__.__name__})", where=folder, do="Embed again") from None
        if vectors.shape != (about.vectors, about.width) or len(moments) != about.vectors:
            raise DataError("its parts are of different lengths", where=folder, do="Embed again")
        return cls(folder, about, vectors, moments)

    def search(self, query: Array, count: int, apart: float | None = None) -> list[Hit]:
        """The `count` most alike stretches, the best first; of equals the earlier. query (D,) of length one.

        Of stretches of one recording that begin less than `apart` seconds from one another the best stands for all; None, and where seconds are not
        known: if they overlap.
        """
        scores = np.concatenate(
            [
                self.vectors[first : first + BLOCK] @ query.astype(np.float32)
                for first in range(0, len(self.vectors), BLOCK)
            ]
        )
        clip, timed = self.about.clip, np.isfinite(self._starts)
        when = np.where(timed, self._starts, self._frames)
        near = np.where(timed, self._ends - self._starts if apart is None else apart, clip.frames * clip.stride)
        many = min(len(scores), 8 * count)
        while True:
            best = np.argpartition(-scores, many - 1)[:many] if many < len(scores) else np.arange(len(scores))
            kept: list[int] = []
            for place in best[np.lexsort((best, -scores[best]))].tolist():
                same = [k for k in kept if self.video_of[k] == self.video_of[place]]
                if all(abs(when[k] - when[place]) >= near[place] - ROUNDING for k in same):
                    kept.append(place)
                if len(kept) == count:
                    break
            if len(kept) == count or many == len(scores):
                return [self.hit(place, float(scores[place])) for place in kept]
            many = min(len(scores), 4 * many)

    @cached_property
    def _code(self) -> dict[str, int]:
        return {video_id: code for code, video_id in enumerate(self.video_ids)}

    def stretches(self, video_id: str) -> tuple[Array, Array]:
        """(frames (n,) at which the clips of a recording begin, their vectors (n, D)); none for a recording that is not in the collection."""
        places = np.flatnonzero(self.video_of == self._code.get(video_id, -1))
        return self._frames[places], self.vectors[places].astype(np.float64)

    def of_others(self, vectors: Mapping[str, Array]) -> Collection:
        """The same clips with other vectors (n, D) of length one, by recording; without the recordings of which none are given."""
        kept = np.flatnonzero(np.isin(self.video_of, [self._code[video] for video in vectors]))
        moments = pa.table(
            {
                "video_id": [self.video_ids[code] for code in self.video_of[kept]],
                "frame": self._frames[kept], "start": self._starts[kept], "end": self._ends[kept],
            },
            schema=SCHEMA,
        )  # fmt: skip
        found = np.empty((len(kept), len(next(iter(vectors.values()))[0])), np.float32)
        for video, own in vectors.items():
            found[self.video_of[kept] == self._code[video]] = own
        return Collection(self.folder, self.about, found, moments)

    def hit(self, place: int, similarity: float) -> Hit:
        """Stretch `place` as an answer."""
        known = bool(np.isfinite(self._starts[place]))
        start, end = (float(self._starts[place]), float(self._ends[place])) if known else (None, None)
        return Hit(self.video_ids[self.video_of[place]], float(self._frames[place]), start, end, similarity)
