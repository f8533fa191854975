"""Whole folders to and from a storage: what is there already is not sent again, and what says that all is there is sent last."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domains.errors import ConfigError, DataError, MissingError, StorageError
from domains.remote import storage
from domains.remote.place import Url
from domains.remote.storage import AT_ONCE, Entry

Progress = Callable[[int, int], None]


def listed(url: Url) -> dict[str, Entry]:
    """Everything below `url` by its relative name; empty where nothing is there yet. Raises ConfigError where the bucket is missing."""
    try:
        return {entry.relative: entry for entry in storage.listing(url)}
    except MissingError as error:
        if error.what == storage.NO_BUCKET:
            raise ConfigError(error.what, where=url, do="Make it first, or choose another --out") from None
        return {}


def upload(folder: Path, url: Url, last: str, record: Path, progress: Progress | None = None) -> int:
    """Make `url` hold what `folder` holds, and nothing else; returns how many objects were sent.

    last: the file that makes it whole; it is taken away before anything is changed, and sent when all else was found there as it should be.
    record: a local file in which what was sent is kept, so that neither a call that was killed nor the next one sends it again; where the
    storage tells MD5 sums it is not needed. progress(done, total) counts files.

    Raises UnreachableError, StorageError where something else arrived than was sent, OSError where `folder` cannot be read.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    there = listed(url)
    sent, sums = _Record(record, url), _Sums()
    left = {name: path for name, path in files.items() if not _is_there(path, there.get(name), sent, sums)}
    strays = [entry for name, entry in there.items() if name not in files]
    if not left and not strays:
        return 0
    if progress is not None:
        progress(len(files) - len(left), len(files))
    if last in there:
        storage.remove(url, [there[last]])
    left[last] = files[last]

    def send(name: str) -> None:
        storage.put(files[name], url / name)

    for done, name in enumerate(_at_once(send, [name for name in left if name != last]), len(files) - len(left) + 1):
        sent.add(name, sums.of(files[name]).sha256)
        if progress is not None:
            progress(done, len(files))
    storage.remove(url, strays)
    _compare({name: path for name, path in files.items() if name != last}, listed(url), url, sums)
    send(last)
    sent.close(
        {name: (sums.of(files[name]).sha256, entry.version) for name, entry in listed(url).items() if name in files}
    )
    if progress is not None:
        progress(len(files), len(files))
    return len(left)


@dataclass(frozen=True)
class _Sum:
    sha256: str
    md5: str


class _Sums:
    """Checksums of local files, each read once."""

    def __init__(self) -> None:
        self._known: dict[Path, _Sum] = {}

    def of(self, path: Path) -> _Sum:
        """Raises OSError."""
        if path not in self._known:
            digests = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    for digest in digests:
                        digest.update(block)
            self._known[path] = _Sum(*(digest.hexdigest() for digest in digests))
        return self._known[path]


def _is_there(path: Path, entry: Entry | None, sent: _Record, sums: _Sums) -> bool:
    if entry is None or entry.size != path.stat().st_size:
        return False
    return entry.md5 == sums.of(path).md5 or sent.holds(entry, sums.of(path).sha256)


def _compare(files: dict[str, Path], there: dict[str, Entry], url: Url, sums: _Sums) -> None:
    """What arrived with what was sent: by size, and by checksum where the storage tells it. Where no tag is the MD5 of its object (they are
    encrypted) none is taken for one.
    """
    told = any(there[name].md5 == sums.of(path).md5 for name, path in files.items() if name in there)
    for name, path in files.items():
        entry = there.get(name)
        same = entry is not None and entry.size == path.stat().st_size
        if not same or (told and entry is not None and entry.md5 and entry.md5 != sums.of(path).md5):
            raise StorageError(
                "what arrived differs from what was sent", where=url / name, do="Run the same command again"
            )


class _Record:
    """What was sent to a URL, a line a file: name, SHA-256, version that it has there ("" until all was sent). A line at which a call was
    killed is passed over.
    """

    def __init__(self, path: Path, url: Url) -> None:
        self._path, self._about = path, json.dumps({"url": str(url)})
        self._known: dict[str, tuple[str, str]] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            lines = []
        if lines[:1] != [self._about]:
            self._write([])
            return
        for line in lines[1:]:
            try:
                name, sha256, version = json.loads(line)
                self._known[name] = sha256, version
            except (ValueError, TypeError):
                continue

    def holds(self, entry: Entry, sha256: str) -> bool:
        """Whether this very content was sent under this name, and nobody has changed it since."""
        known, version = self._known.get(entry.relative, ("", ""))
        return known == sha256 and version in ("", entry.version)

    def add(self, name: str, sha256: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps([name, sha256, ""]))  # the newline ends a line at which a call was killed

    def close(self, sent: dict[str, tuple[str, str]]) -> None:
        """All was sent: what lies there now."""
        self._write([json.dumps([name, *told]) for name, told in sent.items()])

    def _write(self, lines: list[str]) -> None:
        draft = self._path.with_name(f".{self._path.name}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("\n".join([self._about, *lines]) + "\n")
        draft.replace(self._path)


def download(
    url: Url,
    folder: Path,
    entries: Sequence[Entry] | None = None,
    *,
    fetch: Callable[[str], bool] = lambda name: True,
    progress: Progress | None = None,
) -> None:
    """Everything below `url` into `folder`, which must be empty or absent. entries: what was listed there already. fetch(relative): False for
    an object that becomes an empty file.

    Raises DataError where an object's name is none that a file may have, MissingError, UnreachableError, StorageError.
    """
    by_name = {entry.relative: entry for entry in (storage.listing(url) if entries is None else entries)}
    for relative in by_name:
        parts = relative.split("/")
        if any(part in ("", ".", "..") or "\0" in part or len(os.fsencode(part)) > 200 for part in parts):
            raise DataError("holds an object whose name no file may have", where=url, do="Remove it")

    def get(name: str) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if fetch(name):
            storage.fetch(url, by_name[name], folder / name)
        else:
            (folder / name).touch()

    try:
        for count, _ in enumerate(_at_once(get, by_name), 1):
            if progress is not None:
                progress(count, len(by_name))
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror})", where=folder) from None


def _at_once(work: Callable[[str], None], names: Iterable[str]) -> Iterable[str]:
    """Names as their `work` is done, several at a time; the first error ends it, when those on their way have ended."""
    waiting = iter(names)
    pool = ThreadPoolExecutor(AT_ONCE)
    running: dict[Future[Any], str] = {}
    try:
        while True:
            while len(running) < 2 * AT_ONCE and (name := next(waiting, None)) is not None:
                running[pool.submit(work, name)] = name
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                future.result()
                yield name
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
