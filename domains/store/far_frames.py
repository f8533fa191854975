"""Frames of a prepared folder at a URL: out of the cache, or out of the ranges that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
        try:
            if total > cache.WHOLE:
                wanted = [(int(offsets[index]), int(offsets[index + 1])) for index in indices]
                blocks = cache.parts(self.url, self.relative, total, wanted)
                return jpeg.assemble(path, lambda a, b: blocks[a, b], offsets, indices, size, channels)
            for _ in range(2):
                file = cache.whole(self.url, self.relative, total, self.sha256)
                if isinstance(file, bytes):
                    return jpeg.assemble(path, lambda a, b, data=file: data[a:b], offsets, indices, size, channels)  # type: ignore[misc]
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
