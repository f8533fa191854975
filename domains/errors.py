"""The errors that a person meets, and the exit code of each.

Every one is a single line: what is wrong, where, and what to do about it. They live on the lowest floor because every floor raises
them; `vfm_cli.console` alone prints them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domains.remote.place import Place


class VfmError(Exception):
    """Something a person can put right. `exit_code` is the process's exit status (documented in docs/errors.md)."""

    exit_code = 1

    def __init__(self, what: str, *, where: str | Place | None = None, do: str | None = None) -> None:
        self.what, self.where, self.do = what, where, do
        line = what if where is None else f"{where}: {what}"
        super().__init__(line if do is None else f"{line}. {do}")


class ConfigError(VfmError):
    """A wrong option, key or value; also an output folder that must not be touched."""

    exit_code = 2


class DataError(VfmError):
    """Recordings, labels or a prepared store that cannot be used as asked."""

    exit_code = 3


class MissingError(DataError):
    """There is no such bucket, folder or object on a storage."""


class ModelError(VfmError):
    """An encoder, adapter or checkpoint that cannot be loaded or does not fit."""

    exit_code = 4


class StorageError(VfmError):
    """The disk refused: full, read-only, or no permission."""

    exit_code = 5


class UnreachableError(StorageError):
    """A storage (s3://, ...) that does not answer, or refuses: connection, credentials, permission. Nothing is known of the data itself."""


class TrainingError(VfmError):
    """A run that cannot go on: a loss that is not finite, too many unreadable samples."""

    exit_code = 6


class AlarmError(VfmError):
    """A monitor's alarm whose action is `stop`; everything up to it is saved."""

    exit_code = 7


class MediaError(DataError):
    """One file that cannot be read: its path and the reason, short enough for a table cell."""

    def __init__(self, path: str | Path, reason: str, *, category: str = "unreadable") -> None:
        self.path, self.reason, self.category = Path(path), reason, category
        super().__init__(reason, where=path)
