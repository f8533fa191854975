"""Which recordings there may be below a folder: files, members of archives, folders of frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domains.errors import DataError
from domains.media.archive import Member, expand
from domains.media.frame_folder import is_frame_folder
from domains.remote.fetched import Remote
from domains.remote.place import Place, Url


@dataclass(frozen=True)
class Source:
    """Something that may be a recording.

    path: a file, a folder of frames, or the archive that holds it. relative: its path below the source folder, with
    forward slashes, members of archives as if the archive were a folder. member: of an archive. remote: what has to be fetched first; `path`
    is then the relative one, and no file until it is there (`domains.prepare.afar`). fps: frames a second that the table of a public data set
    says, None where there is none. redacted: from when to when (s) the data set shows nothing of it.
    """

    path: Path
    relative: str
    member: Member | None = None
    remote: Remote | None = None
    fps: float | None = None
    redacted: tuple[tuple[float, float], ...] = ()

    @property
    def shown(self) -> Place:
        """For the terminal of its owner: a path, or a URL."""
        place: Place = self.path if self.remote is None else self.remote.url
        return place / self.member.name if self.member is not None and self.member.name else place


def find_sources(source: Place, skip: Sequence[Path] = (), lists: Path | None = None) -> list[Source]:
    """Everything below `source` in order of path, archives opened. skip: folders of our own. lists: where what is in the archives of a storage
    is kept, so that those that did not change need not be fetched to know it. Raises DataError, and what `domains.remote.storage.listing`
    raises.
    """
    if isinstance(source, Url):
        from domains.prepare.afar import find_remote

        return find_remote(source, lists)
    paths = find_files(source, skip)
    root = source.parent if paths == [source] else source
    found = []
    for path in paths:
        relative = path.relative_to(root).as_posix()
        members = expand(path) if path.is_file() else None
        if members is None:
            found.append(Source(path, relative))
        else:
            found += [Source(path, member.within(relative), member) for member in members]
    return found


def find_files(source: Path, skip: Sequence[Path] = ()) -> list[Path]:
    """Every file below `source` in order of path; hidden files and folders (.DS_Store, ._copies) are passed over.

    Links are followed, a folder is never entered twice. skip: folders of our own. Raises DataError.
    """
    if not source.exists():
        raise DataError("no such file or folder", where=source)
    if source.is_file():
        return [source]
    ours = {path.resolve() for path in skip}
    entered: set[Path] = set()
    found: list[Path] = []

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == source:
            raise DataError(f"folder cannot be read ({error.strerror})", where=source) from None
        found.append(Path(error.filename))  # a closed folder is set aside by name, like a file that cannot be read

    for folder, folders, files in os.walk(source, onerror=unreadable, followlinks=True):
        here = Path(folder)
        if here.resolve() in entered | ours:
            folders.clear()
            continue
        entered.add(here.resolve())
        if is_frame_folder(here):  # one recording
            found.append(here)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [here / name for name in files if not name.startswith(".") and (here / name).is_file()]
    if not found:
        raise DataError("the folder holds no files", where=source, do="Give a folder with DICOM or video files")
    return sorted(found)
