"""The folder that `prepare` writes: a draft until all is done. And the table that leads back, outside of it."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from domains.errors import ConfigError, DataError, StorageError
from domains.remote.place import Place
from domains.store import annotated
from domains.store.manifest import CONTACT_SHEET, EXCLUDED, INDEX, INFO, MANIFEST

try:
    import fcntl
except ImportError:  # not on Windows, where two writers are not told apart
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
GO_ON = "Free some space; the same command goes on where this one stopped"
OURS = {LOCK, "frames", INFO, MANIFEST, INDEX, EXCLUDED, CONTACT_SHEET, *annotated.FILES}


def private_folder(out: Path) -> Path:
    """Beside the output, never inside."""
    return out.with_name(out.name + ".private")


def make_private(out: Path) -> Path:
    """The private folder, closed to others. Raises OSError."""
    folder = private_folder(out)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def draft_folder(out: Path) -> Path:
    """Where the output is written until it is whole."""
    return out.with_name(out.name + ".partial")


def check(source: Place, out: Path, overwrite: bool, update: bool = False) -> None:
    """Raises ConfigError where writing to `out` would destroy something, or where there is nothing to update."""
    if isinstance(source, Path) and source.resolve().is_relative_to(out.resolve()):
        raise ConfigError("the output holds the source", where=out, do="Choose another --out")
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError("exists and is no folder", where=out, do="Choose another --out")
    if not any(out.iterdir()):
        return
    if not (overwrite or update):
        do = "Choose another --out, bring it up to date: --update, or replace it: --overwrite"
        raise ConfigError("the output is not empty", where=out, do=do)
    if not (out / INFO).is_file():
        do = "Choose another --out, or remove it yourself"
        raise ConfigError("only prepared folders are replaced or updated, and this is none", where=out, do=do)


@contextlib.contextmanager
def writing(out: Path, resume: bool = False) -> Iterator[Path]:
    """Gives a draft folder; it becomes `out` when the block ends well. When it does not, frames stay there for the next call, unless the
    sources themselves were at fault (DataError): then nothing is left.

    resume: keep the frames that an earlier call left. Raises StorageError where the disk refuses.
    """
    draft = draft_folder(out)
    lock: IO[str] | None = None
    try:
        lock = _claim(draft, resume)
        yield draft
        (draft / LOCK).unlink()
        _replace(draft, out)
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror or error})", where=out, do=GO_ON) from None
    except DataError:
        if lock is not None:
            shutil.rmtree(draft, ignore_errors=True)
        raise
    finally:
        if lock is not None:  # else the folder is not ours
            lock.close()


@contextlib.contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """`<out>.private/unpacked`, for members of archives while they are looked at: they bear names, so they are never near the output.

    What a killed call left there is removed first. Raises OSError.
    """
    folder = make_private(out) / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # goes where nothing else is in it


def drop_strays(draft: Path, wanted: set[str]) -> None:
    """Remove frames of no row: of files that changed or went away after an earlier call had stored them."""
    for path in list((draft / "frames").rglob("*")):
        if path.is_file() and path.name not in wanted:
            path.unlink()
    for folder in (draft / "frames").glob("*"):
        if not any(folder.iterdir()):
            folder.rmdir()


def _claim(draft: Path, resume: bool) -> IO[str]:
    """A draft folder that no one else writes to. What an earlier call left is cleared, but for frames that are wanted; all else is left
    alone.
    """
    draft.mkdir(parents=True, exist_ok=True)
    if not {path.name for path in draft.iterdir()} <= OURS:
        raise ConfigError("holds files that are not vfm's", where=draft, do="Move it, or choose another --out")
    lock = (draft / LOCK).open("a")
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        do = "Wait for it, or choose another --out"
        raise ConfigError("another 'vfm data prepare' is writing here", where=draft, do=do) from None
    for path in draft.iterdir():
        if path.name != LOCK and not (resume and path.name == "frames"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return lock


def _replace(draft: Path, out: Path) -> None:
    """`draft` takes the place of `out`; whatever happens, one of the two stays whole."""
    old = draft.with_name(draft.name + ".replaced")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    draft.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]], mode: int = 0o644) -> None:
    """A CSV, readable to whom `mode` says from its first byte on."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def write_private(out: Path, rows: Iterable[Sequence[str]]) -> None:
    """`<out>.private/sources.csv`: which file became which pseudonym. Leads back to patients; for its owner only."""
    folder = make_private(out)
    draft = folder / ".sources.csv"
    draft.unlink(missing_ok=True)
    columns = ("source", "pseudonym", "outcome", "video_id", "reason")
    write_table(draft, columns, rows, mode=0o600)
    draft.replace(folder / "sources.csv")
