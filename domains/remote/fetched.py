"""Objects of a storage as private temporary files, for as long as they are looked at."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from domains.errors import MediaError, MissingError, StorageError, UnreachableError
from domains.remote import storage
from domains.remote.place import Url
from domains.remote.storage import Beat, Entry

SPARE = 64 << 20  # bytes that stay free where files are fetched to


@dataclass(frozen=True)
class Remote:
    """What must lie on disk together to be looked at: a file, a header and its pixels, or the pictures of a folder.

    root: a URL above it. relative: of the file or folder, below `root`. entries: the objects, the file itself first. folder: `relative` is
    a folder, and `entries` lie in it.
    """

    root: Url
    relative: str
    entries: tuple[Entry, ...]
    folder: bool = False

    @property
    def url(self) -> Url:
        """For the terminal of its owner."""
        return self.root / self.relative

    @property
    def size(self) -> int:
        """Bytes, of all of it."""
        return sum(entry.size for entry in self.entries)

    @property
    def version(self) -> str:
        """Differs where any of the objects has become another; 16 hexadecimal digits."""
        told = "\n".join(f"{entry.relative} {entry.size} {entry.version}" for entry in self.entries)
        return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@contextmanager
def fetched(remote: Remote, scratch: str | Path, beat: Beat = lambda: None) -> Iterator[Path]:
    """The file or folder, of its own name, in a new private folder within `scratch`; gone afterwards.

    A process that is killed leaves it behind: `scratch` should be one that is removed with the work. Raises MediaError where an object
    cannot be had although the storage answers, UnreachableError where it does not, StorageError where `scratch` cannot take it.
    """
    try:
        home = Path(tempfile.mkdtemp(prefix="remote-", dir=scratch))
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror})", where=scratch) from None
    try:
        yield _fetch(remote, home, beat)
    finally:
        shutil.rmtree(home, ignore_errors=True)


class Kept:
    """The last archive that this process fetched: its members are looked at one after the other, and it comes once, not once each."""

    def __init__(self) -> None:
        self._of: tuple[int, str, Remote] | None = None
        self._home: Path | None = None

    def path(self, remote: Remote, scratch: str | Path, beat: Beat = lambda: None) -> Path:
        """Where the archive lies now; until another is asked for, or `scratch` is removed. Raises as `fetched`."""
        of = (os.getpid(), str(scratch), remote)
        if self._of == of and self._home is not None and self._home.is_dir():
            return self._home / _name(remote.relative)
        if self._home is not None and self._of is not None and self._of[0] == os.getpid():
            shutil.rmtree(self._home, ignore_errors=True)
        self._of, self._home = None, Path(tempfile.mkdtemp(prefix="archive-", dir=scratch))
        path = _fetch(remote, self._home, beat)
        self._of = of
        return path


kept = Kept()


def _fetch(remote: Remote, home: Path, beat: Beat) -> Path:
    free = shutil.disk_usage(home).free
    if remote.size + SPARE > free:
        what = f"{remote.size >> 20} MiB are to be fetched here, and {free >> 20} MiB are free"
        raise StorageError(what, where=home.parent, do="Free some space, or set TMPDIR")
    target = home / _name(remote.relative)
    if remote.folder:
        target.mkdir(mode=0o700)
    names = [_name(entry.relative) for entry in remote.entries]
    if len(set(names)) < len(names):
        raise MediaError(target, "two objects of one name")
    for entry, name in zip(remote.entries, names, strict=True):
        try:
            storage.fetch(remote.root, entry, (target if remote.folder else home) / name, beat)
        except MissingError:
            raise MediaError(target, "gone since the storage was listed") from None
        except UnreachableError as error:
            if storage.answers(remote.root):  # then it is this object's own trouble
                raise MediaError(target, f"cannot be fetched: {error.what}") from None
            raise
    return target


def _name(relative: str) -> str:
    """The last part of an object's name, as a file of ours may be called."""
    name = PurePosixPath(relative).name.replace("\0", "")
    if name in ("", ".", "..") or len(os.fsencode(name)) > 200:
        return f"object{PurePosixPath(name).suffix[:20]}"
    return name
