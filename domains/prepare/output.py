"""The folder that `prepare` writes: a draft until all is done. And the table that leads back, outside of it."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from domains.errors import ConfigError, StorageError
from domains.store.manifest import INFO


def private_folder(out: Path) -> Path:
    """Beside the output, never inside."""
    return out.with_name(out.name + ".private")


def draft_folder(out: Path) -> Path:
    """Where the output is written until it is whole."""
    return out.with_name(out.name + ".partial")


def check(source: Path, out: Path, overwrite: bool) -> None:
    """Raises ConfigError where writing to `out` would destroy something."""
    if source.resolve().is_relative_to(out.resolve()):
        raise ConfigError("the output holds the source", where=out, do="Choose another --out")
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError("exists and is no folder", where=out, do="Choose another --out")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise ConfigError("the output is not empty", where=out, do="Choose another --out, or replace it: --overwrite")
    if not (out / INFO).is_file():
        do = "Choose another --out, or remove it yourself"
        raise ConfigError("--overwrite replaces prepared folders only, and this is none", where=out, do=do)


@contextlib.contextmanager
def writing(out: Path) -> Iterator[Path]:
    """Gives a draft folder; it becomes `out` when the block ends well, and is removed when it does not.

    Raises StorageError where the disk refuses.
    """
    draft = draft_folder(out)
    try:
        shutil.rmtree(draft, ignore_errors=True)  # left by a run that was killed
        draft.mkdir(parents=True)
        yield draft
        _replace(draft, out)
    except OSError as error:
        do = "Free some space or choose another --out; nothing was left behind"
        raise StorageError(f"cannot be written ({error.strerror or error})", where=out, do=do) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _replace(draft: Path, out: Path) -> None:
    """`draft` takes the place of `out`; at every moment one of the two is whole."""
    old = out.with_name(out.name + ".old")
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
    folder = private_folder(out)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = folder / ".sources.csv"
    draft.unlink(missing_ok=True)
    columns = ("source", "pseudonym", "outcome", "video_id", "reason")
    write_table(draft, columns, rows, mode=0o600)
    draft.replace(folder / "sources.csv")
