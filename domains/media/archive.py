"""Recordings in .zip, .tar and .tar.gz: what an archive holds, and one member at a time as a file that any reader opens.

`expand` lists, `opened` gives a member as a private temporary file. Nothing else is unpacked. A caller that looks at every file of a folder
treats a member as one more source:

    for path in files:
        for member in expand(path) or []:  # None: no archive, a source itself
            relative = member.within(path.relative_to(root).as_posix())  # studies.zip/a/IM1
            with opened(member, work) as file, open_reader(file) as reader:  # MediaError: why this member cannot be used
                ...

Members are small and can be sent to other processes. What cannot be used comes with a reason, so that each is set aside by name; an archive
that cannot be used at all is one nameless member.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import posixpath
import shutil
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from domains.errors import MediaError, StorageError
from domains.media.kinds import Packing, packed_as, read_head, why

MOST_MEMBERS = 200_000
MOST_BYTES = 1 << 36  # of one member
FREE = 1 << 28  # bytes that may come out of anything, however small; beyond them the ratio counts
MOST_RATIO = 200  # of unpacked to packed bytes: dark uncompressed cines reach 50, bombs 1000
MOST_HEADER = 1 << 20  # bytes of a header within a tar, which is read into memory
CHUNK = 1 << 20
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
PACKED = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".tbz2", ".xz", ".txz", ".7z", ".rar", ".zst"}
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """One file of an archive.

    archive: the archive's path. name: the member's path in it, with forward slashes, unlike any other's; "" stands for the archive. size:
    bytes, unpacked. place: where to find it. beside: members that must lie beside it to be of use (the pixels of a .mhd). reason, category:
    why it cannot be used, "" if it can be tried.
    """

    archive: Path
    name: str
    size: int
    place: int
    format: Packing
    reason: str = ""
    category: str = ""
    beside: tuple[Member, ...] = ()

    def within(self, relative: str) -> str:
        """Its path where that of the archive is `relative`."""
        return f"{relative}/{self.name}" if self.name else relative


def expand(path: str | Path) -> list[Member] | None:
    """The files of an archive in its own order, None where `path` is no archive (by content). Folders and hidden files are passed over.

    An archive that is empty, damaged from the start, or claims more than one should hold is one member without a name, with the reason.
    """
    path = Path(path)
    try:
        form = packed_as(read_head(path))
    except MediaError:  # a folder, or a file that no reader opens either
        return None
    if form not in ("zip", "tar", "tar.gz"):
        return None
    try:
        members = list(_list_zip(path) if form == "zip" else _list_tar(path, form))
    except MediaError as error:
        return [Member(path, "", 0, 0, form, error.reason, error.category)]
    except DAMAGE as error:
        return [Member(path, "", 0, 0, form, why("a damaged archive", error), "unreadable")]
    empty = Member(path, "", 0, 0, form, "an archive without files", "not a recording")
    return _companions(_unique(members)) or [empty]


@contextmanager
def opened(member: Member, folder: str | Path, beat: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A member as a file of its own name in a new private folder (mode 0700, the file 0600) within `folder`, gone afterwards.

    beat: called now and then while bytes are unpacked; of a large .tar.gz all that lies before the member have to be.
    A process that is killed leaves it behind: `folder` should be one that is removed with the work.
    Raises MediaError where the member cannot be read, StorageError where `folder` cannot be written.
    """
    if member.reason:
        raise MediaError(member.archive, member.reason, category=member.category)
    try:
        home = Path(tempfile.mkdtemp(prefix="member-", dir=folder))
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror})", where=folder) from None
    try:
        for one in (member, *member.beside):
            _unpack(one, home / _file_name(one), beat)
        yield home / _file_name(member)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def peek(member: Member) -> bytes:
    """The first bytes of a member (up to 1 MiB), nothing written; none of a .tar.gz, where they lie behind all that is before them.

    Raises MediaError where it cannot be read.
    """
    if member.reason or member.format == "tar.gz":
        return b""
    chunks = _chunks(member, lambda: None)
    try:
        return next(chunks, b"")
    finally:
        chunks.close()


def _list_zip(path: Path) -> Iterator[Member]:
    packed = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    _bound(path, len(infos), sum(info.file_size for info in infos), packed)
    for number, info in enumerate(infos):
        name = info.filename if "/" in info.filename else info.filename.replace("\\", "/")  # made on Windows
        if info.is_dir() or _hidden(name):
            continue
        said = ("encrypted", "unreadable") if info.flag_bits & 0x41 else _why_not(name, info.file_size)
        if not said[0] and info.compress_type not in METHODS:
            said = "packed by a method that is not supported", "no decoder"
        if not said[0] and info.file_size > max(FREE, MOST_RATIO * info.compress_size):
            said = f"claims to unpack to {info.file_size >> 20} MiB from {info.compress_size >> 10} KiB", "unreadable"
        yield Member(path, name, info.file_size, number, "zip", *said)


def _list_tar(path: Path, form: Packing) -> Iterator[Member]:
    """A .tar.gz is read through for it, never more than `MOST_RATIO` times its size; of a cut one the whole members count."""
    packed = path.stat().st_size
    most = max(FREE, MOST_RATIO * packed) if form == "tar.gz" else packed + CHUNK
    last: Member | None = None
    number, lost = 0, False
    with _stream(path, form) as file:
        bounded = _Bounded(file, path, most)
        try:
            with tarfile.open(fileobj=bounded, mode="r:") as archive:  # type: ignore[call-overload]
                for number, info in enumerate(archive, start=1):
                    _bound(path, number, 0, packed)
                    if last is not None:
                        yield last
                    last = _of_tar(path, form, info)
                    archive.members = []  # it keeps every header that it has read
                # tarfile stops without a word at a damaged header: a block of zeros, or nothing, ends a whole archive.
                bounded.seek(archive.offset)
                block = bounded.read(tarfile.BLOCKSIZE)
                lost = bool(block.strip(b"\0")) or 0 < len(block) < tarfile.BLOCKSIZE
        except DAMAGE:
            if not number:
                raise
            lost = True
            if last is not None:
                last = dataclasses.replace(last, reason="the archive is cut short here", category="truncated")
    if last is not None:
        yield last
    if lost:
        yield Member(path, "(the rest)", 0, 0, form, "the archive is damaged: what follows is lost", "truncated")


def _of_tar(path: Path, form: Packing, info: tarfile.TarInfo) -> Member | None:
    if info.isdir() or _hidden(info.name):
        return None
    if info.issparse() or not info.isreg():
        what = "a link" if info.issym() or info.islnk() else "not a plain file"
        return Member(path, info.name, 0, 0, form, f"{what} within an archive", "not a recording")
    return Member(path, info.name, info.size, info.offset_data, form, *_why_not(info.name, info.size))


class _Bounded:
    """A stream that refuses to go further than an honest archive would."""

    def __init__(self, file: BinaryIO, path: Path, most: int) -> None:
        self._file, self._path, self._most = file, path, most

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and offset > self._most:
            raise MediaError(self._path, f"claims to unpack to more than {self._most >> 20} MiB")
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise MediaError(self._path, "an archive with a header of an absurd size")
        return self._file.read(size)


def _bound(path: Path, members: int, unpacked: int, packed: int) -> None:
    if members > MOST_MEMBERS:
        raise MediaError(path, f"an archive of more than {MOST_MEMBERS} files")
    if unpacked > max(FREE, MOST_RATIO * packed):  # members that share their bytes pass one by one
        raise MediaError(path, f"claims to unpack to {unpacked >> 20} MiB from {packed >> 10} KiB")


def _hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") and part not in (".", "..") for part in parts) or "__MACOSX" in parts


def _why_not(name: str, size: int) -> tuple[str, str]:
    """(reason, category) of a member by its name and size; ("", "") if it can be tried."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or name[1:2] == ":" or "\0" in name or not path.name:
        return "its name leads out of the archive", "unreadable"
    nifti = name.lower().endswith((".nii.gz", ".img.gz"))
    if path.suffix.lower() in PACKED and not nifti:
        return "an archive within an archive: unpack it first", "not a recording"
    if size > MOST_BYTES:
        return f"claims {size >> 30} GiB", "unreadable"
    return "", ""


def _unique(members: list[Member]) -> list[Member]:
    """Names that occur again (a tar to which a file was added twice) are numbered: each member is a source of its own."""
    seen: Counter[str] = Counter()
    named = []
    for member in members:
        name = str(PurePosixPath(member.name)) if not member.reason else member.name
        seen[name] += 1
        named.append(dataclasses.replace(member, name=name if seen[name] == 1 else f"{name} ({seen[name]})"))
    return named


def _companions(members: list[Member]) -> list[Member]:
    """A .mhd is a header alone: the pixels of its name lie beside it when it is opened."""
    pixels = defaultdict(list)
    for member in members:
        stem, ending = posixpath.splitext(member.name)
        if ending.lower() in (".raw", ".zraw") and not member.reason:
            pixels[stem].append(member)
    return [
        dataclasses.replace(member, beside=tuple(pixels[member.name[:-4]]))
        if member.name.lower().endswith(".mhd")
        else member
        for member in members
    ]


def _file_name(member: Member) -> str:
    name = PurePosixPath(member.name).name
    return name if len(os.fsencode(name)) <= 200 else f"member{PurePosixPath(name).suffix[:20]}"


def _unpack(member: Member, target: Path, beat: Callable[[], None]) -> None:
    """Write one member to `target`, which must not exist."""
    chunks = _chunks(member, beat)
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
                beat()
    except OSError as error:  # of writing: those of reading are MediaErrors by now
        raise StorageError(f"cannot be written ({error.strerror})", where=target.parent.parent) from None


def _chunks(member: Member, beat: Callable[[], None]) -> Generator[bytes]:
    """The bytes of a member, exactly as many as it claims."""
    try:
        if member.format == "zip":
            with zipfile.ZipFile(member.archive) as archive, archive.open(archive.infolist()[member.place]) as file:
                yield from _exactly(member, file)  # type: ignore[arg-type]
        elif member.format == "tar":
            with member.archive.open("rb") as plain:
                plain.seek(member.place)
                yield from _exactly(member, plain, until_end=False)
        else:
            with _forward:
                stream = _forward.at(member, beat)
                yield from _exactly(member, stream, until_end=False)
    except DAMAGE as error:
        raise MediaError(member.archive, why("a damaged member", error)) from None


def _exactly(member: Member, file: BinaryIO, *, until_end: bool = True) -> Iterator[bytes]:
    left = member.size
    while left:
        chunk = file.read(min(CHUNK, left))
        if not chunk:
            raise MediaError(member.archive, "the archive is cut short here", category="truncated")
        left -= len(chunk)
        yield chunk
    if until_end and file.read(1):
        raise MediaError(member.archive, "a member holds more than it claims")


def _stream(path: Path, form: Packing) -> BinaryIO:
    return gzip.open(path, "rb") if form == "tar.gz" else path.open("rb")  # type: ignore[return-value]


class _Forward:
    """The last .tar.gz that this process read, left where it is: members that are asked for in order unpack it once, not once each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[object, ...] = ()
        self._file: BinaryIO | None = None

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._key = ()  # wherever it stands, it is not trusted any more
        self._lock.release()

    def at(self, member: Member, beat: Callable[[], None]) -> BinaryIO:
        """The unpacked stream, standing at the member's first byte."""
        about = member.archive.stat()
        key = os.getpid(), str(member.archive), about.st_size, about.st_mtime_ns
        if self._file is None or key != self._key:
            if self._file is not None:
                self._file.close()
            self._file, self._key = _stream(member.archive, member.format), key
        while (at := self._file.tell()) < member.place - CHUNK:
            self._file.seek(at + CHUNK)
            if self._file.tell() == at:  # the file has become shorter
                break
            beat()
        self._file.seek(member.place)
        return self._file


_forward = _Forward()
