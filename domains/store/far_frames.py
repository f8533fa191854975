"""Frames of a prepared folder at a URL: out of the cache, or out of the ranges that hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domains.errors import DataError, MediaError
from domains.remote import cache
from domains.remote.place import Url
from domains.store import frames as jpeg
from domains.store.frames import Frames


@dataclass(frozen=True)
class RemoteFile:
    """The frame file of one video. url: of the prepared folder. relative: below it. sha256: as the manifest has it."""

    url: Url
    relative: str
    sha256: str

    def read(self, path: Path, offsets: NDArray[np.int64], indices: Sequence[int], size: int, channels: int) -> Frames:
        """As `domains.store.frames.read`; path: for the error. Raises MediaError, UnreachableError."""
        total = int(offsets[-1])
        assemble = partial(jpeg.assemble, path, offsets=offsets, indices=indices, size=size, channels=channels)
        try:
            if total > cache.WHOLE:
                wanted = [(int(offsets[index]), int(offsets[index + 1])) for index in indices]
                try:
                    return assemble(cache.parts(self.url, self.relative, total, self.sha256, wanted))
                except MediaError:  # a block may have gone bad in the cache
                    cache.forget_blocks(self.sha256)
                    return assemble(cache.parts(self.url, self.relative, total, self.sha256, wanted))
            for _ in range(2):
                file = cache.whole(self.url, self.relative, total, self.sha256)
                if isinstance(file, bytes):
                    return assemble(_within(file))
                try:
                    return jpeg.read(file, offsets, indices, size, channels)
                except MediaError as error:
                    if file.exists() and not cache.forget(
                        self.sha256
                    ):  # else: another process made room just now, or the disk failed
                        raise MediaError(path, error.reason) from None
        except MediaError:
            raise
        except DataError as error:
            raise MediaError(path, f"{error.what}; upload the folder again") from None
        raise MediaError(path, "the cache does not keep what is fetched")


def _within(data: bytes) -> Callable[[int, int], bytes]:
    return lambda start, end: data[start:end]
