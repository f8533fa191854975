"""What was read of prepared folders at URLs, kept on this machine: tables whole, frame files as they are asked for.

    $VFM_CACHE, else $XDG_CACHE_HOME/vfm, else ~/.cache/vfm
        tables/<of the URL>/<of what lies there>/    prepared.json, manifest.parquet, index.arrow, ...: a folder that opens like any other
        objects/ab/<sha256>                          frame files by their content: shared between folders, and right by their name
        objects/ab/<sha256>.7                        a block of a large one

Frame files of at most `WHOLE` bytes are fetched whole, larger ones by the blocks that are asked for: docs/storage.md says what was measured.
The objects are held below $VFM_CACHE_GB (50): those that were not read for longest go first. Removing any of it is safe.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from domains.errors import ConfigError, DataError, MissingError, StorageError, UnreachableError
from domains.remote import storage
from domains.remote.place import Url
from domains.remote.storage import Entry

WHOLE = 32 << 20  # bytes of a frame file that is fetched whole
BLOCK = 1 << 20  # bytes of the pieces in which a larger one is fetched
STALE = 14 * 86400  # seconds after which the tables of an earlier upload go
TOUCHED = 3600  # seconds in which a file counts as just read
CHECKED = 64 << 20  # bytes of a table that is compared with its hash each time; a larger one by its size
TABLE = re.compile(r"[a-z_]+\.(json|parquet|arrow|csv|png)")
RECORD = "fetched.json"


def cache_folder() -> Path:
    """Where the cache lies."""
    if chosen := os.environ.get("VFM_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vfm"


def tables(url: Url, required: str) -> Path:
    """A local folder with all files that lie directly at `url`; fetched where they changed. required: the file without which it is not whole.

    Raises DataError where `url` holds none of it, UnreachableError, StorageError where the cache cannot be written.
    """
    for _ in range(2):
        entries = _top(url, required)
        folder = cache_folder() / "tables" / _short(str(url)) / _short(_told(entries))
        try:
            if _is_whole(folder):
                return folder
            _fetch_tables(url, entries, folder)
        except OSError as error:
            do = "Free some space, or set VFM_CACHE to a folder on another disk"
            raise StorageError(f"the cache cannot be written ({error.strerror})", where=cache_folder(), do=do) from None
        if _told(_top(url, required)) == _told(entries):
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # it was replaced while it was fetched
    raise UnreachableError("it changes while it is read", where=url, do="Wait until its upload is done")


def _top(url: Url, required: str) -> list[Entry]:
    try:
        entries = [entry for entry in storage.listing(url, deep=False) if TABLE.fullmatch(entry.relative)]
    except MissingError as error:
        raise DataError(error.what, where=url, do="Make one: vfm data prepare SOURCE --out URL") from None
    if required not in {entry.relative for entry in entries}:
        do = "Make one, or finish its upload: vfm data prepare SOURCE --out URL"
        raise DataError(f"not a prepared folder, or one that is not whole yet (no {required})", where=url, do=do)
    return entries


def _told(entries: Sequence[Entry]) -> str:
    return "\n".join(f"{entry.relative} {entry.size} {entry.version}" for entry in entries)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_whole(folder: Path) -> bool:
    """Whether the tables are as they were fetched."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        for name, (size, sha256) in record.items():
            if (folder / name).stat().st_size != size or (size <= CHECKED and _sha256(folder / name) != sha256):
                return False
        os.utime(folder / RECORD)
    except (OSError, ValueError, TypeError, AttributeError):
        return False
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_tables(url: Url, entries: list[Entry], folder: Path) -> None:
    """Into `folder` at once, or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
    try:
        for entry in entries:
            storage.fetch(url, entry, draft / entry.relative)
        record = {entry.relative: [entry.size, _sha256(draft / entry.relative)] for entry in entries}
        (draft / RECORD).write_text(json.dumps(record), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        with contextlib.suppress(FileExistsError):  # another process was faster
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    for old in folder.parent.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - (old / RECORD).stat().st_mtime > STALE:
                shutil.rmtree(old, ignore_errors=True)


def object_file(sha256: str) -> Path:
    """Where an object of this content lies, or would."""
    return cache_folder() / "objects" / sha256[:2] / sha256


def whole(url: Url, relative: str, size: int, sha256: str) -> Path | bytes:
    """An object below `url` as a file of the cache; its bytes where the cache cannot be written.

    Raises MissingError, UnreachableError; DataError where it is not what it should be.
    """
    path = object_file(sha256)
    with contextlib.suppress(OSError):
        if path.stat().st_size == size:
            _touch(path)
            return path
    data = storage.read(url, storage.at(url, relative, size))
    if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
        raise DataError("differs from what was written", where=url / relative)
    return path if _keep(path, data) else data


def forget(sha256: str) -> bool:
    """Drop an object whose bytes went bad; whether they had."""
    path = object_file(sha256)
    try:
        if _sha256(path) == sha256:
            return False
        path.unlink()
    except OSError:
        return False
    return True


def parts(
    url: Url, relative: str, size: int, sha256: str, wanted: Sequence[tuple[int, int]]
) -> Callable[[int, int], bytes]:
    """`part(start, end)` for the ranges in `wanted` of an object that is too large to be fetched whole. Raises as `whole`.

    What is fetched are the blocks of `BLOCK` bytes that hold them, each kept as an object of its own: `<sha256>.<number>`. They are no
    more than a storage sent: only a decoder can tell whether one is damaged (`forget_blocks`).
    """
    numbers = sorted({number for start, end in wanted for number in range(start // BLOCK, -(-end // BLOCK))})
    blocks: dict[int, bytes] = {}
    for number in numbers:
        with contextlib.suppress(OSError):
            path = object_file(f"{sha256}.{number}")
            data = path.read_bytes()
            if len(data) == min(BLOCK, size - number * BLOCK):
                blocks[number] = data
                _touch(path)
    missing = [number for number in numbers if number not in blocks]
    if missing:
        runs = [(number * BLOCK, min((number + 1) * BLOCK, size)) for number in missing]
        for number, data in zip(missing, storage.read_ranges(url, storage.at(url, relative, size), runs), strict=True):
            if len(data) != min(BLOCK, size - number * BLOCK):
                raise DataError("differs from what was written", where=url / relative)
            _keep(object_file(f"{sha256}.{number}"), data)
            blocks[number] = data

    def part(start: int, end: int) -> bytes:
        first = start // BLOCK
        run = b"".join(blocks[number] for number in range(first, -(-end // BLOCK)))
        return run[start - first * BLOCK : end - first * BLOCK]

    return part


def forget_blocks(sha256: str) -> None:
    """Drop all blocks of an object."""
    for path in object_file(sha256).parent.glob(f"{sha256}.*"):
        path.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    """It was just read."""
    if time.time() - path.stat().st_mtime > TOUCHED:
        os.utime(path)


def _keep(path: Path, data: bytes) -> bool:
    """Whether the cache could take it; whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft.write_bytes(data)
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        return False
    _room.added(len(data))
    return True


class _Room:
    """Keeps the objects below their bound. Every process counts what it adds, and looks at all of them now and then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: int | None = None  # bytes added since this process looked; None: it never did

    def added(self, size: int) -> None:
        bound = cache_bound()
        with self._lock:
            due = self._since is None or self._since + size > bound // 20
            self._since = 0 if due else (self._since or 0) + size
        if due:
            trim(bound)


_room = _Room()


def cache_bound() -> int:
    """Bytes that objects may take: $VFM_CACHE_GB. Raises ConfigError."""
    said = os.environ.get("VFM_CACHE_GB", "50")
    try:
        bound = int(float(said) * 1e9)
    except (ValueError, OverflowError):
        bound = -1
    if bound < 0:
        raise ConfigError(f"VFM_CACHE_GB is '{said}', not a number of gigabytes", do="For example: VFM_CACHE_GB=20")
    return bound


def trim(bound: int) -> None:
    """Remove objects, those that were not read for longest first, until they take nine tenths of `bound`; nothing where they are below it."""
    found: list[tuple[float, int, str]] = []
    with contextlib.suppress(OSError):
        for folder in os.scandir(cache_folder() / "objects"):
            for file in os.scandir(folder.path):
                with contextlib.suppress(OSError):
                    about = file.stat()
                    found.append((about.st_mtime, about.st_size, file.path))
    total = sum(size for _, size, _ in found)
    if total <= bound:
        return
    for _, size, path in sorted(found):
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size
        if total <= bound * 0.9:
            return
