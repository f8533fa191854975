"""Recordings on a storage (s3://, ...): listed without being downloaded, and fetched one at a time to be looked at."""

from __future__ import annotations

import dataclasses
import json
import os
import posixpath
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from domains.errors import DataError, MediaError, StorageError
from domains.media.archive import Member, expand, opened
from domains.media.frame_folder import ENDINGS, numbered
from domains.media.kinds import HEAD, kind_of
from domains.prepare.find import Source
from domains.remote import storage
from domains.remote.fetched import Remote, fetched, kept
from domains.remote.place import Url
from domains.remote.storage import Entry
from domains.remote.transfer import download

# What is in an archive is known only by reading it: one whose name says nothing is set aside, and not opened.
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")
NAMELESS = "an archive, and its name does not say so: on a storage only *.zip, *.tar, *.tar.gz and *.tgz are opened"
TABLES = (".csv", ".csv.gz", ".tsv", ".txt", ".json", ".cfg", ".yaml")  # of public data sets
PIXELS = (".raw", ".zraw")  # of a .mhd beside them


def find_remote(url: Url, lists: Path | None = None) -> list[Source]:
    """Everything below `url` that may be a recording, in order of name; hidden objects are passed over, archives are read for their lists.

    lists: a file in which those are kept (mode 0600: they hold names). Raises DataError where there is nothing, UnreachableError, ConfigError.
    """
    entries = [entry for entry in storage.listing(url) if not _hidden(entry.relative)]
    if not entries:
        raise DataError("the folder holds no files", where=url, do="Give a folder with DICOM or video files")
    alone = len(entries) == 1 and entries[0].relative == url.name and str(url).endswith(entries[0].name.strip("/"))
    remotes = sorted(_grouped(url.parent if alone else url, entries), key=lambda remote: PurePosixPath(remote.relative))
    known = read_lists(lists)
    found: list[Source] = []
    now: Lists = {}
    with tempfile.TemporaryDirectory(prefix="vfm-") as scratch:
        for remote in remotes:
            if remote.folder or not remote.relative.lower().endswith(ARCHIVES):
                found.append(Source(Path(remote.relative), remote.relative, remote=remote))
                continue
            members = known[remote.version] if remote.version in known else _members(remote, Path(scratch))
            if members is not None:
                now[remote.version] = members
            found += _members_of(remote, members or [])
    if lists is not None and now != known:
        write_lists(lists, now)
    return found


def located(url: Url, relatives: Iterable[str]) -> list[Source]:
    """The sources of these names below `url`: files, or folders of pictures. Raises as `find_remote`, DataError where one is not there."""
    entries = [entry for entry in storage.listing(url) if not _hidden(entry.relative)]
    files = {remote.relative: remote for remote in _alone(url, entries)}
    folders: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        folders[posixpath.dirname(entry.relative)].append(entry)
    found = []
    for relative in relatives:
        remote = files.get(relative)
        if remote is None:
            if relative not in folders:
                raise DataError("gone since it was listed", where=url / relative, do="Run the same command again")
            remote = Remote(url, relative, tuple(folders[relative]), folder=True)
        found.append(Source(Path(relative), relative, remote=remote))
    return found


@contextmanager
def shadow(url: Url) -> Iterator[Path]:
    """A public data set on a storage as a private temporary folder: its tables as they are, every other file empty. Layouts read it as if
    it were the data set. Raises as `find_remote`.
    """
    entries = [entry for entry in storage.listing(url) if not _hidden(entry.relative)]
    with tempfile.TemporaryDirectory(prefix="vfm-") as scratch:
        root = Path(scratch) / (url.name or "data")
        names = {entry.relative for entry in entries if entry.relative.lower().endswith(TABLES)}
        download(url, root, entries, fetch=names.__contains__)
        yield root


def _hidden(relative: str) -> bool:
    return any(part.startswith(".") for part in relative.split("/"))


def _grouped(root: Url, entries: list[Entry]) -> Iterator[Remote]:
    """What belongs together: the numbered pictures of a folder, a header and its pixels; everything else stands alone."""
    folders: dict[str, list[Remote]] = defaultdict(list)
    for remote in _alone(root, entries):
        folders[posixpath.dirname(remote.relative)].append(remote)
    for folder, within in folders.items():
        pictures = tuple(remote.entries[0] for remote in within)
        if folder and _is_frames(root, pictures):
            yield Remote(root, folder, pictures, folder=True)
        else:
            yield from within


def _alone(root: Url, entries: list[Entry]) -> Iterator[Remote]:
    """Every file, a header with its pixels."""
    pixels: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        stem, ending = posixpath.splitext(entry.relative)
        if ending.lower() in PIXELS:
            pixels[stem].append(entry)
    for entry in entries:
        beside = pixels[entry.relative[:-4]] if entry.relative.lower().endswith(".mhd") else []
        yield Remote(root, entry.relative, (entry, *beside))


def _is_frames(root: Url, entries: Sequence[Entry]) -> bool:
    """As `is_frame_folder`: by the names of the pictures, and the first bytes of what lies beside them."""
    if numbered([PurePosixPath(entry.relative) for entry in entries]) is None:
        return False
    others = [entry for entry in entries if PurePosixPath(entry.relative).suffix.lower() not in ENDINGS]
    return not any(kind_of(storage.read(root, entry, 0, min(HEAD, entry.size))) for entry in others if entry.size)


def _members(remote: Remote, scratch: Path) -> list[Member] | None:
    """What is in an archive; nothing where it is none, None where it cannot be fetched now: `at_hand` says so."""
    try:
        with fetched(remote, scratch) as file:
            return expand(file) or []
    except MediaError:
        return None


def _members_of(remote: Remote, members: list[Member]) -> list[Source]:
    path = Path(remote.relative)
    if not members:
        return [Source(path, remote.relative, remote=remote)]
    return [Source(path, member.within(remote.relative), _moved(member, path), remote) for member in members]


@contextmanager
def at_hand(source: Source, scratch: str | Path, beat: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A source as a file (or folder) that can be opened: itself, or fetched and unpacked into `scratch` for as long as the block lasts.

    Raises MediaError where it cannot be had, StorageError where `scratch` cannot be written, UnreachableError where its storage is gone.
    """
    if source.remote is None and source.member is None:
        yield source.path
    elif source.member is None:
        assert source.remote is not None
        with fetched(source.remote, scratch, beat) as path:
            if not path.is_dir() and expand(path) is not None:
                named = source.relative.lower().endswith(ARCHIVES)
                what = "an archive that could not be fetched for its list" if named else NAMELESS
                raise MediaError(path, what, category="not a recording")
            yield path
    else:
        member = source.member
        if source.remote is not None:
            member = _moved(member, kept.path(source.remote, scratch, beat))
        with opened(member, scratch, beat) as path:
            yield path


def _moved(member: Member, archive: Path) -> Member:
    """The same member of the archive where it lies now."""
    beside = tuple(dataclasses.replace(one, archive=archive) for one in member.beside)
    return dataclasses.replace(member, archive=archive, beside=beside)


Lists = dict[str, list[Member]]  # by the version of the archive


def read_lists(path: Path | None) -> Lists:
    """What `write_lists` kept; nothing where there is no such file, or it is damaged. Where the archives lie is not in it."""
    try:
        told = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape")) if path is not None else {}
        return {version: [_member(one) for one in members] for version, members in told.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}


def write_lists(path: Path, lists: Lists) -> None:
    """Keep them for the owner alone. Raises StorageError."""
    told = {version: [dataclasses.asdict(_moved(one, Path())) for one in members] for version, members in lists.items()}
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(told, file, default=str)
        draft.replace(path)
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror})", where=path) from None


def _member(told: dict[str, Any]) -> Member:
    return Member(**{**told, "archive": Path(told["archive"]), "beside": tuple(map(_member, told["beside"]))})
