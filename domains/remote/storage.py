"""The one place that opens a storage (s3://, gs://, https://, memory://, ...): fsspec, and what its file systems raise, behind plain calls.

Whatever a file system raises becomes one of three errors: MissingError (there is no such thing), UnreachableError (no answer, or a refusal:
nothing is known of the data), ConfigError (a URL or an installation that cannot work). Their words are vfm's own: a library's message may
quote what was sent. What may pass (a busy server, a lost connection) is tried again, with growing pauses.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from domains.errors import ConfigError, MissingError, StorageError, UnreachableError, VfmError
from domains.remote.place import Url

T = TypeVar("T")
Beat = Callable[[], None]

ATTEMPTS = 4
AT_ONCE = 8  # requests on their way at a time: one waits more than it works
PAUSE = 0.5  # seconds before the second attempt; four times as long before each that follows
CHUNK = 8 << 20  # bytes of one request: a sign of life is given after each
VERSION = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "Content-MD5",
    "checksum",
)  # what changes with the content; else the times
TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created")
MD5 = re.compile(r"[0-9a-f]{32}")
PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
    "sftp": "paramiko",
}
PASSING = {  # by name, since the packages that define them may be absent; also those that inherit
    "ConnectionError", "HTTPClientError", "ClientConnectionError", "ClientPayloadError", "IncompleteRead", "ResponseParserError",
    "TimeoutError", "FSTimeoutError", "gaierror",
}  # fmt: skip
BUSY = {errno.EBUSY, errno.EIO, errno.EAGAIN, getattr(errno, "EREMOTEIO", errno.EIO)}
CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "CredentialRetrievalError",
    "TokenRetrievalError",
}
DO = "See docs/storage.md"
NO_BUCKET = "no such bucket"

_shared: dict[tuple[int, str, str], Any] = {}  # file systems that may be used from several threads, of this process


@dataclass(frozen=True)
class Entry:
    """One object of a listing.

    name: as its file system calls it. relative: below the URL that was listed, with forward slashes; the last part of its name where it is
    what was listed. size: bytes, -1 where the storage does not tell. version: differs for another content: checksum or tag of the storage,
    else its times.
    """

    name: str
    relative: str
    size: int
    version: str

    @property
    def md5(self) -> str:
        """Of the content, where the storage tells; "" elsewhere. A tag of an encrypted object may look like one."""
        return self.version if MD5.fullmatch(self.version) else ""


def listing(url: Url, deep: bool = True) -> list[Entry]:
    """Every object below `url`, in order of name, or `url` itself; nothing is downloaded. deep: folders within it too.

    Raises MissingError where nothing is there, UnreachableError, ConfigError.
    """

    def ask(system: Any, path: str) -> dict[str, dict[str, Any]]:
        if deep:
            found: dict[str, dict[str, Any]] = system.find(path, detail=True)
            return found
        return {about["name"]: about for about in system.ls(path, detail=True)}

    found = {
        name: about
        for name, about in _calling(url, ask, attempts=1).items()
        if about.get("type") == "file" and not name.endswith("/")
    }
    if unknown := [name for name in found if found[name].get("size") is None]:  # a page of links, of a web server
        with ThreadPoolExecutor(AT_ONCE) as pool:
            told = pool.map(lambda name: _calling(url, lambda system, _: system.info(name)), unknown)
            found.update(zip(unknown, told, strict=True))
    root = _opened(url)[1].rstrip("/")
    entries = []
    for name, about in found.items():
        inside = name[len(root) :].lstrip("/") if name.startswith(f"{root}/") else ""
        relative = inside or name.rpartition("/")[2]
        entries.append(_entry(name, unquote(relative) if url.scheme in ("http", "https") else relative, about))
    if not entries:
        raise MissingError("nothing is there: no such bucket, folder or file", where=url)
    return sorted(entries, key=lambda entry: entry.name)


def _entry(name: str, relative: str, about: dict[str, Any]) -> Entry:
    told = next((str(about[key]) for key in VERSION if about.get(key)), "")
    told = told.strip('"') or " ".join(_time(about[key]) for key in TIMES if about.get(key))
    size = about.get("size")
    return Entry(name, relative, -1 if size is None else int(size), told)


def _time(value: Any) -> str:
    """In one spelling: a listing and a question about one object may answer in different ones."""
    seconds = value.timestamp() if isinstance(value, datetime) else value
    return f"{seconds:.6f}" if isinstance(seconds, int | float) else str(seconds)


def at(url: Url, relative: str, size: int) -> Entry:
    """An object below `url` that needs no listing, its name being known. Nothing is asked."""
    return Entry(f"{_opened(url)[1].rstrip('/')}/{relative}", relative, size, "")


def read(url: Url, entry: Entry, start: int = 0, end: int | None = None) -> bytes:
    """Bytes [start, end) of an object that was listed below `url`. Raises MissingError, UnreachableError."""

    def ask(system: Any, _: str) -> bytes:
        part: bytes = (
            system.cat_file(entry.name, start=start, end=end)
            if (start, end) != (0, None)
            else system.cat_file(entry.name)
        )
        return part

    return _calling(url, ask)


def read_ranges(url: Url, entry: Entry, ranges: list[tuple[int, int]]) -> list[bytes]:
    """Several ranges of one object, at once where the storage allows it. Raises as `read`."""

    def ask(system: Any, _: str) -> list[bytes]:
        starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
        found: list[bytes] = system.cat_ranges([entry.name] * len(ranges), starts, ends, on_error="raise")
        return found

    return _calling(url, ask)


def sha256(url: Url, entry: Entry) -> str:
    """Of what is there now, read in pieces. Raises as `read`."""
    digest = hashlib.sha256()
    for start in range(0, max(1, entry.size), CHUNK):
        digest.update(read(url, entry, start, min(start + CHUNK, entry.size)) if entry.size else read(url, entry))
    return digest.hexdigest()


def fetch(url: Url, entry: Entry, target: Path, beat: Beat = lambda: None) -> None:
    """Download an object to `target` (mode 0600), which must not exist; what is there afterwards is whole, and of one version.

    beat: called after every few megabytes. Raises MissingError, UnreachableError, StorageError where `target` cannot be written.
    """
    if entry.size < 0:
        raise UnreachableError("its storage does not tell how large it is", where=url)
    for _ in range(2):  # once more, where it was replaced while it was read
        try:
            if _fetch(url, entry, target, beat):
                return
            target.unlink()
        except OSError as error:
            raise StorageError(f"cannot be written ({error.strerror})", where=target.parent) from None
        entry = _again(url, entry)
    raise UnreachableError("it changes while it is read", where=url)


def _fetch(url: Url, entry: Entry, target: Path, beat: Beat) -> bool:
    """Whether what came is what was listed."""
    digest = hashlib.md5(usedforsecurity=False)
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        at = 0
        while at < entry.size:
            end = min(at + CHUNK, entry.size)
            block = read(url, entry, at, None if (at, end) == (0, entry.size) else end)
            file.write(block)
            digest.update(block)
            if not block or len(block) != end - at:
                return at == 0 and len(block) == entry.size  # a server that knows no ranges sends everything
            at = end
            beat()
    if entry.md5 and digest.hexdigest() == entry.md5:
        return True
    # Tags of encrypted objects look like MD5 and are not: what is still listed as it was is taken for what was read.
    return (entry.size <= CHUNK and not entry.md5) or _again(url, entry).version == entry.version


def _again(url: Url, entry: Entry) -> Entry:
    """The same object as it is now."""
    return _calling(url, lambda system, _: _entry(entry.name, entry.relative, system.info(entry.name)))


def put(path: Path, url: Url) -> None:
    """Upload a file as `url`, replacing what is there. Raises UnreachableError, MissingError (no such bucket), OSError of `path`."""
    with path.open("rb"):  # so that an error of the local disk is told apart
        pass

    def ask(system: Any, target: str) -> None:
        if not getattr(system, "async_impl", False):  # object storages have no folders
            system.makedirs(target.rpartition("/")[0], exist_ok=True)
        system.put_file(str(path), target)

    _calling(url, ask)


def remove(url: Url, entries: Iterable[Entry]) -> None:
    """Delete objects that were listed below `url`; one that is gone already is no error. Raises UnreachableError."""
    for entry in entries:
        with contextlib.suppress(MissingError):
            _calling(url, lambda system, _, name=entry.name: system.rm_file(name))  # type: ignore[misc]


def answers(url: Url) -> bool:
    """Whether the storage can be reached, and lets us in, whatever is the matter with one object: one that is not there is asked for."""
    try:
        _calling(url, lambda system, path: system.info(f"{path.rstrip('/')}/.vfm-is-not-here"), attempts=1)
    except MissingError:
        return True
    except VfmError:
        return False
    return True


def _calling(url: Url, call: Callable[[Any, str], T], attempts: int = ATTEMPTS) -> T:
    """What `call(file system, path)` gives; tried again where the trouble may pass."""
    for attempt in range(attempts):
        if attempt:
            time.sleep(PAUSE * 4 ** (attempt - 1) * random.uniform(0.5, 1.5))
        try:
            return call(*_opened(url))
        except VfmError:
            raise
        except Exception as error:
            trouble, passing = _trouble(url, error)
            if not passing or attempt == attempts - 1:
                raise trouble from None
    raise AssertionError("unreachable")


def _opened(url: Url) -> tuple[Any, str]:
    """(file system, path in it). Raises ConfigError for a scheme that is unknown, or whose package is absent."""
    import fsspec

    key = (os.getpid(), url.scheme, url.host)  # a forked process must open its own
    if key in _shared:
        return _shared[key], _shared[key]._strip_protocol(str(url))
    options: dict[str, Any] = {"use_listings_cache": False}
    if url.scheme in ("s3", "s3a") and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        options["config_kwargs"] = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}
    try:
        system, path = fsspec.core.url_to_fs(str(url), **options)
    except ImportError:
        package = PACKAGES.get(url.scheme, f"the fsspec file system of {url.scheme}://")
        do = 'Install it: pip install "vfm[s3]"' if package == "s3fs" else f"Install it: pip install {package}"
        raise ConfigError(
            f"{url.scheme}:// needs a package that is not installed: {package}", where=url, do=do
        ) from None
    except ValueError:
        raise ConfigError(f"no storage is known by '{url.scheme}://'", where=url, do=DO) from None
    if getattr(system, "async_impl", False):
        _shared[key] = system
    return system, path


def _trouble(url: Url, error: Exception) -> tuple[VfmError, bool]:
    """(what to say of an error of a file system, whether it may pass)."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", "")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return MissingError(NO_BUCKET if code == "NoSuchBucket" else "no such object or folder", where=url), False
    if kinds & CREDENTIALS:
        return UnreachableError(
            "no usable credentials were found", where=url, do=f"Set AWS_PROFILE, or the keys. {DO}"
        ), False
    if isinstance(error, PermissionError):
        return UnreachableError(
            "access denied", where=url, do=f"Check the credentials and what they may do. {DO}"
        ), False
    if kinds & PASSING:
        do = f"Check the network, and AWS_ENDPOINT_URL where the storage is not Amazon's. {DO}"
        return UnreachableError("the storage cannot be reached", where=url, do=do), True
    if kinds & {"ParamValidationError", "NotImplementedError"}:
        return ConfigError(f"{url.scheme}:// cannot do this, or the name is not one it allows", where=url, do=DO), False
    busy = isinstance(error, OSError) and error.errno in BUSY
    what = "the storage is too busy, or fails" if busy else f"the storage refused ({code or type(error).__name__})"
    return UnreachableError(what, where=url, do=DO), busy
