"""Whether anything of the sources' identities is left in what was written: the folder itself, and runs and reports made from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from domains.errors import DataError, MediaError
from domains.prepare import identifiers, output, written
from domains.prepare.contact_sheet import draw_sheet
from domains.prepare.find import Source, find_sources
from domains.prepare.identifiers import Words
from domains.prepare.ingest import Progress
from domains.prepare.letters import find_rows
from domains.prepare.privacy import MANUFACTURERS
from domains.remote.cache import tables
from domains.remote.place import Place
from domains.remote.transfer import download
from domains.store.clips import hidden_frames
from domains.store.frames import Frames
from domains.store.manifest import INFO, MANIFEST, frame_file, vfm_version
from domains.store.prepared import Prepared

PSEUDONYM = r"[a-z2-7]{16}"
# What a text column of the manifest may hold, whole cells.
CLOSED = {
    **dict.fromkeys(("video_id", "patient", "study", "instance", "source_path", "source_name"), PSEUDONYM),
    "media": r"[a-z]+",
    "region_source": r"[a-z+]+",
    "sha256": r"[0-9a-f]{64}",
    "manufacturer": "|".join(["", "other", *map(re.escape, MANUFACTURERS)]),
    "age": r"(0[0-8]\dY|090Y|\d{3}[DWM])?",
    "sex": r"[FMO]?",
}
TEXT = "drawn text"
SUSPECTS = "audit_suspects.png"
LOOKED_AT = 24  # frames of a recording in which text is looked for
ENLARGED = 2  # times: letters that were read at the source's size are small in the store
LONG_ROW = 4.0  # heights: enlarged speckle is coarser than that of the source


@dataclass(frozen=True)
class Finding:
    """where: a file of the output, relative to its folder. what: which tag or kind of thing; never the value itself."""

    where: str
    what: str


@dataclass
class Check:
    """One question: how much was looked at, in words, and what was found."""

    name: str
    looked_at: str = ""
    found: list[Finding] = field(default_factory=list)


@dataclass
class Audit:
    """The answers, and what could not be asked."""

    checks: list[Check]
    notes: list[str]
    manifest_sha256: str

    @property
    def clean(self) -> bool:
        """Nothing was found."""
        return not any(check.found for check in self.checks)

    @property
    def only_suspects(self) -> bool:
        """Nothing but recordings in which text may stand: a person can tell."""
        return all(check.name == TEXT or not check.found for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """For audit.json."""
        return {"vfm": vfm_version(), "clean": self.clean, **dataclasses.asdict(self)}


def audit(
    prepared: Place,
    against: Place | None = None,
    also: Sequence[Path] = (),
    *,
    local: Path | None = None,
    looked: bool = False,
    progress: Progress | None = None,
) -> Audit:
    """Search everything below `prepared` and `also` (runs, reports) for what the sources hold.

    prepared: a folder, or a URL, of which everything is fetched into a temporary folder first. local: where the URL's folder was made.
    against: the folder that was prepared; None: identifiers are not searched, the rest is. looked: a person has looked at the suspects'
    pictures and found no text; that is noted, and they no longer count. progress(done, total) counts source files.
    Writes audit.json, and a picture of suspects if there are any, to `<prepared>.private` (of a URL, `<local>.private`). Raises DataError,
    UnreachableError where a storage does not answer.
    """
    if isinstance(prepared, Path):
        return _audit(prepared, against, also, output.private_folder(prepared), looked, progress)
    tables(prepared, INFO)  # what is no prepared folder is not fetched
    with tempfile.TemporaryDirectory(prefix="vfm-") as scratch:
        download(prepared, Path(scratch))
        private = output.private_folder(local or Path(prepared.name))
        return _audit(Path(scratch), against, also, private, looked, progress)


def _audit(
    prepared: Path,
    against: Place | None,
    also: Sequence[Path],
    private: Path,
    looked: bool,
    progress: Progress | None,
) -> Audit:
    store = Prepared.open(prepared)
    folders = [prepared, *also]
    for folder in also:
        if not folder.exists():
            raise DataError("no such file or folder", where=folder)
    files = [(folder, path) for folder in folders for path in written.files(folder)]
    result = Audit([], [], hashlib.sha256((store.folder / MANIFEST).read_bytes()).hexdigest())
    if against is None:
        result.notes.append("identifiers were not searched: no source was given (--against)")
    else:
        result.checks.append(_search(files, against, prepared, result.notes, progress))
    result.checks += [_names(store), _columns(store), _frames(store)]
    suspects = _texts(store)
    result.checks.append(Check(TEXT, f"the kept pixels of {len(store)} recordings"))
    if looked and suspects:
        result.notes.append(
            f"{len(suspects)} recordings in which text was suspected: a person has looked and found none"
        )
    else:
        result.checks[-1].found = [Finding(one, "may hold text") for one in suspects]
    private.mkdir(parents=True, exist_ok=True, mode=0o700)
    result.notes.append(f"{private.name} leads back to the sources by design and was not searched")
    (private / "audit.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    if suspects:
        draw_sheet(store, [store.index_of(one) for one in suspects], private / SUSPECTS)
    return result


def _search(
    files: list[tuple[Path, Path]], against: Place, prepared: Path, notes: list[str], progress: Progress | None
) -> Check:
    """Identifiers of every source file, in every file that was written and in its name."""
    needles, unread, common = collect(against, prepared, progress)
    if unread:
        notes.append(
            f"{unread} source files have headers that could not be read whole; what was read of them was searched"
        )
    if common:
        notes.append(
            f"{common} values consist of words that vfm itself writes, or of short numbers, and were not searched"
        )
    check = Check("identifiers", f"{len(needles)} values of the sources, in {len(files)} files and their names")
    first: dict[str, list[Words]] = {}
    for needle in needles:
        first.setdefault(needle[0], []).append(needle)
    for folder, path in files:
        name = path.relative_to(folder).as_posix() if path != folder else path.name
        found: set[str] = set()
        for text in (name, *written.texts(path)):
            said = identifiers.words(text)
            for at, word in enumerate(said):
                for needle in first.get(word, ()):
                    if tuple(said[at : at + len(needle)]) == needle:
                        found.add(needles[needle])
        check.found += [Finding(name, what) for what in sorted(found)]
    return check


def collect(source: Place, prepared: Path, progress: Progress | None = None) -> tuple[dict[Words, str], int, int]:
    """(words -> where the sources hold them, source files with unreadable headers, values that mean nothing)."""
    ours = (prepared, output.draft_folder(prepared), output.private_folder(prepared))
    sources = find_sources(source, skip=ours)
    with tempfile.TemporaryDirectory(prefix="vfm-") as scratch:
        return _collect(sources, Path(scratch), progress)


def _collect(sources: Sequence[Source], scratch: Path, progress: Progress | None) -> tuple[dict[Words, str], int, int]:
    needles: dict[Words, str] = {}
    common: set[Words] = set()
    unread = 0
    for number, one in enumerate(sources, start=1):
        try:
            for where, needle in identifiers.of_source(one, scratch):
                if needle in needles or needle in common:
                    continue
                if identifiers.is_checkable(needle):
                    needles[needle] = where
                else:
                    common.add(needle)
        except MediaError:
            unread += 1
        if progress is not None:
            progress(number, len(sources))
    return needles, unread, len(common)


def _names(store: Prepared) -> Check:
    """Files that `prepare` did not write, by their names."""
    found = []
    paths = list(written.files(store.folder))
    for path in paths:
        name = path.relative_to(store.folder).as_posix()
        if name not in output.OURS and not re.fullmatch(rf"frames/[a-z2-7]{{2}}/{PSEUDONYM}\.mjpeg", name):
            found.append(Finding(name, "not a file of a prepared folder"))
    return Check("names of files", f"{len(paths)} files", found)


def _columns(store: Prepared) -> Check:
    """Cells of the manifest outside the closed vocabularies."""
    found = []
    for column, pattern in CLOSED.items():
        allowed = re.compile(pattern)
        wrong = sum(1 for cell in store.column(column) if not allowed.fullmatch(cell))
        if wrong:
            found.append(Finding(MANIFEST, f"column {column}: {wrong} cells outside what it may hold"))
    return Check("manifest", f"{len(CLOSED)} columns of {len(store)} rows", found)


def _frames(store: Prepared) -> Check:
    """Frame files that differ from what was written, or hold anything beside pictures."""
    found = [Finding(error.path.relative_to(store.folder).as_posix(), error.reason) for error in store.verify()]
    frames = 0
    for index in range(len(store)):
        row = store.row(index)
        path = frame_file(store.folder, row.video_id)
        frames += row.n_frames
        try:
            blob = path.read_bytes()
        except OSError:
            continue  # `verify` has said so
        parts = (blob[start:end] for start, end in zip(row.offsets, row.offsets[1:], strict=False))
        if len(blob) != row.offsets[-1] or not all(map(written.only_picture, parts)):
            found.append(Finding(path.relative_to(store.folder).as_posix(), "holds something beside pictures"))
    return Check("frame files", f"{frames} frames of {len(store)} recordings", found)


def _texts(store: Prepared) -> list[str]:
    """Recordings in whose kept pixels text may stand."""
    side = ENLARGED * store.size
    everywhere = np.ones((side, side), bool)
    suspects = []
    for index in range(len(store)):
        shown = np.flatnonzero(
            ~hidden_frames(store.outside(index), store.length(index))
        )  # letters stand still, but for blank frames
        at = shown[np.linspace(0, len(shown) - 1, min(LOOKED_AT, len(shown))).round().astype(int)]
        try:
            frames = store.frames(index, at.tolist())
        except MediaError:
            continue  # a damaged file is a finding of its own
        if find_rows(_enlarge(frames, side), everywhere, LONG_ROW):
            suspects.append(store.video_id(index))
    return suspects


def _enlarge(frames: Frames, side: int) -> Frames:
    large = [cv2.resize(frame, (side, side), interpolation=cv2.INTER_CUBIC) for frame in frames]
    return np.stack(large).reshape(len(frames), side, side, -1).astype(np.uint8)
