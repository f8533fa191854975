"""Where something lies: a path of this machine, or a URL of a storage that fsspec reaches (s3://, gs://, https://, ...).

Paths stay what they are, with no cost; `Url` is the other kind, and only `domains.remote.storage` opens one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from domains.errors import ConfigError

URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<host>[^/]*)(?P<rest>.*)", re.DOTALL)

CHAIN = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*::.*://|.*://.*::", re.DOTALL
)  # as fsspec writes a cache or an archive around a URL


@dataclass(frozen=True, order=True)
class Url:
    """text: as a person writes it, without a slash at its end and without anything secret. Made by `to_place`."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, relative: str) -> Url:
        return Url(f"{self.text}/{relative}")

    @property
    def scheme(self) -> str:
        """s3, gs, https, ..."""
        return self.text.partition("://")[0]

    @property
    def host(self) -> str:
        """The bucket or machine; "" where the URL has none (file:///data)."""
        return self.text.partition("://")[2].partition("/")[0]

    @property
    def path(self) -> str:
        """What follows the host, without a slash at either end."""
        return self.text.partition("://")[2].partition("/")[2].strip("/")

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.path).name or self.host

    @property
    def parent(self) -> Url:
        """What it lies in; itself where that would name no bucket or folder."""
        above = self.text.rpartition("/")[0]
        return self if above.endswith("/") else Url(above)

    def absolute(self) -> Url:
        """Itself: as of a path, what names the same from everywhere."""
        return self

    def is_relative_to(self, other: Url) -> bool:
        """Whether it is `other` or lies below it."""
        return f"{self.text}/".startswith(f"{other.text}/")


Place = Path | Url


def is_url(text: str) -> bool:
    """Whether a word names a URL and not a path."""
    return URL.match(text) is not None


def to_place(given: str | Path | Url) -> Place:
    """What a person typed, told apart. Raises ConfigError for a URL that holds a secret (it would be kept in records of runs), or a chain."""
    if not isinstance(given, str):
        return given
    if CHAIN.match(given):
        raise ConfigError(
            "a chain of URLs is not read", where=given.partition(":")[0], do="Give the last URL of it alone"
        )
    found = URL.match(given)
    if found is None:
        return Path(given)
    scheme, host, rest = found["scheme"].lower(), found["host"], found["rest"]
    if "@" in host:
        what, shown = "a URL must not hold a user name or password", f"{scheme}://...@{host.rpartition('@')[2]}"
        raise ConfigError(what, where=shown, do="Give them in the environment, see docs/storage.md")
    if "?" in host + rest:
        what, shown = "a URL must not hold a query: it may be a key", given.partition("?")[0]
        raise ConfigError(what, where=shown, do="Leave out what follows '?', see docs/storage.md")
    if not (host or rest.strip("/")):
        raise ConfigError("the URL names no bucket or folder", where=given, do="For example: s3://bucket/folder")
    if {".", ".."} & set(rest.split("/")):
        raise ConfigError("a URL is not read with '.' or '..' in it", where=given, do="Write it out")
    return Url(f"{scheme}://{host}{rest}".rstrip("/"))
