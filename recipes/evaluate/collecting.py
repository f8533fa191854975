"""A collection while it is being embedded: a folder beside the one that it will be, which the same call goes on with however it was stopped.

    FOLDER.partial/begun.json     what is being embedded, by which model, how
    FOLDER.partial/vectors.raw    (n, D) float32 of all clips, in order, as far as they are; those of recordings that cannot be read are 0
    FOLDER.partial/done.json      how many of them count, and the recordings that cannot be read

It is renamed to FOLDER once about.json, the last file, is in it: what bears that name is whole.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from domains.errors import ConfigError, DataError, MediaError, StorageError
from domains.schema import parse
from recipes.evaluate.collection import ABOUT, FORMAT, MOMENTS, SCHEMA, VECTORS, About
from recipes.evaluate.metrics import Array
from recipes.evaluate.towers import Piece
from recipes.evaluate.written import KEEP
from recipes.runs.status import LOCK
from recipes.training.lock import FolderLock
from recipes.training.run import replace

BEGUN, RAW, DONE, REPLACED = "begun.json", "vectors.raw", "done.json", "replaced"
OURS = {ABOUT, VECTORS, MOMENTS, BEGUN, RAW, DONE, REPLACED, LOCK, *(f"{name}.tmp" for name in (ABOUT, BEGUN, DONE))}
Note = Callable[[str], None]
Pieces = Callable[[int], Iterator[Piece]]


@dataclass(frozen=True)
class Stretches:
    """Clips of one recording: frames (n,) at which they begin, starts and ends (n,) in seconds (not a number: unknown)."""

    video_id: str
    frames: Array
    starts: Array
    ends: Array


def write_collection(
    folder: Path,
    about: About,
    planned: Sequence[Stretches],
    pieces: Pieces,
    *,
    overwrite: bool = False,
    note: Note | None = None,
) -> About:
    """Embed the clips of `planned`, or those that an earlier call, stopped or killed, did not; `about` gets its counts.

    pieces(k): what the model says of the clips from number k on, of all of them in order. overwrite: in place of another collection, which stays
    until this one is whole. note: told what was there.

    Raises ConfigError where there is something else already, whole or begun, or another process is at it; DataError where no recording can be read;
    StorageError for a disk that refuses, after which the same call goes on.
    """
    note = note or (lambda _: None)
    draft = folder.with_name(f"{folder.name}.partial")
    try:
        if (whole := _whole(folder, about, overwrite)) is not None:
            note("all of it is embedded already")
            _tidy(folder)
            return whole
        draft.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(draft)
        lock.take()
        try:
            if (done := _enter(draft, about, overwrite)) is None:
                left_out = _fill(draft, about.width, planned, pieces, note)
                if len(left_out) == len(planned):
                    shutil.rmtree(draft)  # nothing in it is of use
                    what = (
                        f"none of {len(planned)} recordings could be read; the first: {next(iter(left_out.values()))}"
                    )
                    raise DataError(what, where=about.data)
                done = _finish(draft, about, planned, left_out)
            _move(draft, folder)
            lock.folder = folder
        finally:
            lock.release()
        _tidy(folder)
    except OSError as error:
        what, do = f"cannot be written ({error.strerror})", "Free some space, then run it again: it goes on"
        raise StorageError(what, where=folder, do=do) from None
    return done


def _whole(folder: Path, about: About, overwrite: bool) -> About | None:
    """The collection that is asked for, where it is there; None where it may be written. Raises ConfigError for anything else."""
    if not folder.exists():
        return None
    found = _said(folder / ABOUT)
    other = None if found is None else difference(found, about)
    if not overwrite:
        if found is not None and other is None:
            return found
        what = "there is something already" + (f", made with {other}" if other else "")
        raise ConfigError(what, where=folder, do="Replace it with --overwrite, or give another folder")
    if not (folder / ABOUT).is_file() and any(folder.iterdir()):
        raise ConfigError("holds something that is no embedded collection", where=folder, do="Give another folder")
    return None


def _enter(draft: Path, about: About, overwrite: bool) -> About | None:
    """Make a folder ready to be gone on with, or begun. Returns what it says of itself where it is whole and has only not been renamed."""
    whole = _said(draft / ABOUT)
    begun = whole or _said(draft / BEGUN)
    if begun is not None and (other := difference(begun, about)) is not None:
        if not overwrite:
            do = "Go on with the same, begin anew with --overwrite, or give another folder"
            raise ConfigError(f"was begun with {other}", where=draft, do=do)
        begun = whole = None
    if begun is None:
        if any(path.name not in OURS for path in draft.iterdir()):
            raise ConfigError("holds something that is no embedded collection", where=draft, do="Give another folder")
        _remove(draft, OURS - {LOCK})
        replace(draft / BEGUN, about.model_dump_json(indent=2) + "\n")
    return whole


def difference(one: About, other: About) -> str | None:
    """In what two collections differ, in a user's words; None: they hold the same vectors."""
    if (one.fingerprint, one.width, one.words) != (other.fingerprint, other.width, other.words):
        return "another model"
    if one.every != other.every:
        return f"--every {one.every:g}" if one.every else "no --every"
    if (one.domain, one.clip) != (other.domain, other.clip):
        return "another --domain"
    if one.content is None or (one.content, one.key, one.store) != (other.content, other.key, other.store):
        return "other recordings"
    return None


def _said(path: Path) -> About | None:
    """What a collection says of itself; None where it says nothing that this vfm reads."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return parse(About, said, path) if isinstance(said, dict) and said.get("format") == FORMAT else None
    except (FileNotFoundError, ValueError, ConfigError):
        return None


def _fill(draft: Path, width: int, planned: Sequence[Stretches], pieces: Pieces, note: Note) -> dict[str, str]:
    """Embed what is missing. Returns the recordings that cannot be read, and why. Raises OSError."""
    total = sum(len(one.frames) for one in planned)
    with (draft / RAW).open("ab") as raw:
        done, left_out = _begun(draft, raw.tell() // (4 * width))
        raw.truncate(4 * width * done)
        if done:
            note(f"{done} of {total} clips are embedded already: going on")
        kept, saved = done, time.perf_counter()
        try:
            for piece in pieces(done) if done < total else ():
                if isinstance(piece.vectors, MediaError):
                    left_out.setdefault(planned[piece.place].video_id, piece.vectors.reason)
                    raw.write(bytes(4 * width * piece.count))
                else:
                    raw.write(np.ascontiguousarray(piece.vectors, np.float32).tobytes())
                done += piece.count
                if time.perf_counter() - saved > KEEP:
                    kept = _keep(draft, raw, done, left_out)
                    saved = time.perf_counter()
        finally:
            if done > kept:
                _keep(draft, raw, done, left_out)
    return left_out


def _begun(draft: Path, there: int) -> tuple[int, dict[str, str]]:
    """(clips that count, recordings that cannot be read) of an earlier call. there: clips whose vectors are in the file."""
    try:
        said = json.loads((draft / DONE).read_text(encoding="utf-8"))
        done, left_out = int(said["clips"]), dict(said["left_out"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0, {}
    return (done, left_out) if 0 <= done <= there else (0, {})


def _keep(draft: Path, raw: IO[bytes], done: int, left_out: dict[str, str]) -> int:
    """What is done counts only once it is on the disk."""
    raw.flush()
    os.fsync(raw.fileno())
    replace(draft / DONE, json.dumps({"clips": done, "left_out": left_out}))
    return done


def _finish(draft: Path, about: About, planned: Sequence[Stretches], left_out: dict[str, str]) -> About:
    """Write the files of a collection, the one that says that it is whole last. Raises OSError."""
    kept = [one for one in planned if one.video_id not in left_out]
    count = sum(len(one.frames) for one in kept)
    about = about.model_copy(update={"vectors": count, "recordings": len(kept), "left_out": left_out})
    with (draft / VECTORS).open("wb") as file, (draft / RAW).open("rb") as raw:
        head = {"descr": "<f4", "fortran_order": False, "shape": (count, about.width)}
        np.lib.format.write_array_header_1_0(file, head)
        for one in planned:
            vectors = raw.read(4 * about.width * len(one.frames))
            if one.video_id not in left_out:
                file.write(vectors)
    with pq.ParquetWriter(draft / MOMENTS, SCHEMA) as table:
        for one in kept:
            table.write_table(_table(one))
    replace(draft / ABOUT, about.model_dump_json(indent=2) + "\n")
    return about


def _table(one: Stretches) -> pa.Table:
    seconds = [pa.array(values, mask=~np.isfinite(values)) for values in (one.starts, one.ends)]
    return pa.table([pa.array([one.video_id] * len(one.frames)), pa.array(one.frames), *seconds], schema=SCHEMA)


def _move(draft: Path, folder: Path) -> None:
    """Give a whole collection its name. One that it replaces goes into it first: killed in between, both are still there."""
    if folder.exists():
        _remove(draft, {REPLACED})
        folder.rename(draft / REPLACED)
    draft.rename(folder)


def _tidy(folder: Path) -> None:
    """Remove what only a beginning needs."""
    _remove(folder, {BEGUN, RAW, DONE, REPLACED, LOCK})  # a lock: of a call that was killed as it had renamed it


def _remove(folder: Path, names: set[str]) -> None:
    for name in names:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
