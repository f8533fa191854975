"""Before work starts: which files need a decoder that is not installed here, and could be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from domains.errors import DataError, MissingError, UnreachableError
from domains.media.decoders import can_decode, decoders, family_of, package
from domains.media.needs import needed
from domains.prepare.find import Source
from domains.remote import storage
from domains.remote.place import Place
from domains.remote.storage import AT_ONCE

BEGINNING = 64 << 10  # bytes of a file of a storage in which its header is looked for


@dataclass(frozen=True)
class Missing:
    """A decoder that `files` files need and that is not installed. install: the package that brings it. first: one of the files, for
    the terminal of its owner.
    """

    decoder: str
    files: int
    install: str
    first: Place

    def __str__(self) -> str:
        return f"{self.files} need {self.decoder} (pip install {self.install})"


Asked = Callable[[list[Missing]], None]


def missing_decoders(sources: Sequence[Source]) -> list[Missing]:
    """By header alone, the most needed first. Files that no package decodes (JPEG XL) are left to be set aside by name.

    Costs nothing where every decoder is installed: no file is opened then. Of a file of a storage the first bytes are fetched. Files within a
    .tar.gz, or an archive of a storage, are not asked: without its decoder such a file is set aside when its turn comes. Raises
    UnreachableError where a storage does not answer.
    """
    if everything_is_there():
        return []
    found: dict[str, list[Place]] = {}
    packages: dict[str, str] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        far = [source for source in sources if source.remote is not None]
        told = {source.relative: what for source, what in zip(far, pool.map(_of_remote, far), strict=True)}
    for source in sources:
        what = needed(source.member or source.path) if source.remote is None else told[source.relative]
        if what and not can_decode(what) and (install := package(what)):
            found.setdefault(family_of(what), []).append(source.shown)
            packages[family_of(what)] = install
    missing = [Missing(family, len(paths), packages[family], paths[0]) for family, paths in found.items()]
    return sorted(missing, key=lambda one: (-one.files, one.decoder))


def _of_remote(source: Source) -> str:
    """What `needed` says of the first bytes of a file on a storage; "" for folders of pictures and members of archives."""
    remote = source.remote
    if remote is None or remote.folder or source.member is not None:
        return ""
    try:
        return needed(storage.read(remote.root, remote.entries[0], 0, min(BEGINNING, remote.entries[0].size)))
    except MissingError:
        return ""
    except UnreachableError:
        if storage.answers(remote.root):
            return ""
        raise


def everything_is_there() -> bool:
    """Whether this installation has a decoder for all that any can decode."""
    return all(decoder.available for decoder in decoders())


def insist(source: Place, sources: Sequence[Source]) -> None:
    """Raises DataError where a decoder is missing: nobody should find out after a night's work."""
    missing = missing_decoders(sources)
    if not missing:
        return
    count = sum(one.files for one in missing)
    packages = " ".join(sorted({one.install for one in missing}))
    what = f"{count} of {len(sources)} files need a decoder that is not installed: " + ", ".join(
        f"{one.decoder} ({one.files})" for one in missing
    )
    do = f"pip install {packages}, or go on without these files: --without-decoders"
    raise DataError(what, where=source, do=do)
