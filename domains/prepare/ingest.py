"""From a folder of recordings to a prepared folder: every file is looked at once, and used or set aside by name."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from domains.base import Domain
from domains.errors import DataError, StorageError, UnreachableError
from domains.layouts import Layout, Recording
from domains.prepare import decodable, listed, output, pool
from domains.prepare.contact_sheet import write_contact_sheet
from domains.prepare.find import Source, find_sources
from domains.prepare.journal import Journal, Stamp, take_over
from domains.prepare.listed import Listed
from domains.prepare.privacy import KEY_BYTES, Pseudonyms
from domains.prepare.source import DiskRefused, Outcome, Refused, Task, Unreached, Usable, examine
from domains.remote.place import Place, to_place
from domains.store.manifest import EXCLUDED, VideoRow, frame_file, write_info, write_manifest

PATIENCE = 60.0  # seconds without a sign of life before a file is given up
# Files without a patient in their header: a folder of them is taken for one patient if folders look like patients, that
# is, if there are several of them and none is a heap. Otherwise (Videos/*.avi) every file stands for itself.
FEWEST_FOLDERS, LARGEST_FOLDER = 5, 50

LISTS = "archives.json"  # in the private folder: what is in the archives of a storage
AGAIN = frozenset({"no decoder", "unreadable"})  # what may have been put right without a change of the file

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Excluded:
    """A file set aside. source: the real path or URL, for the terminal of its owner; never written into the output."""

    source: Place
    reason: str
    category: str


@dataclass(frozen=True)
class PrepareResult:
    """videos, patients: how many there are. excluded: the files set aside, by path. noted: those prepared that had something odd about them,
    with what. seconds: how long it took. reused: files that were as an earlier call had found them. listed: what the public data set said.
    frames: stored; outside: those of them that do not surely show the inside of a body, and are blank or blurred.
    """

    videos: int
    patients: int
    excluded: list[Excluded]
    seconds: float
    patients_from: dict[str, int] = field(default_factory=dict)
    noted: list[tuple[Place, str]] = field(default_factory=list)
    reused: int = 0
    listed: Listed | None = None
    frames: int = 0
    outside: int = 0

    def by_category(self) -> dict[str, int]:
        """Files set aside, most frequent first."""
        return dict(Counter(entry.category for entry in self.excluded).most_common())


def prepare(
    source: str | Place,
    out: str | Path,
    domain: Domain,
    *,
    key: bytes,
    workers: int = 1,
    overwrite: bool = False,
    update: bool = False,
    layout: Layout | None = None,
    without_decoders: bool = False,
    engine: pool.Engine | None = None,
    progress: Progress | None = None,
) -> PrepareResult:
    """Prepare every recording below `source` (a folder, one file, or a URL) into `out`.

    The result does not depend on `workers`, nor on interruptions: a call that was killed is taken up by the next one. A
    file that crashes or hangs its decoder is set aside like any other bad file. `out` appears when all is done; until
    then the work lies in `<out>.partial`. overwrite: replace `out`, every file looked at anew. update: bring `out` up
    to date; files that are as they were (by size and time of change) are not looked at again, those that are gone leave
    the output. layout: `source` holds a public data set: its tables say which files are recordings, and their labels, official splits, spans
    and texts are written beside the manifest (`domains.store.annotated`). without_decoders: set files aside whose decoder is not installed,
    instead of raising before anything is written. engine: who does the work; None: processes of this machine.
    progress(done, total) is called after every file.

    Raises DataError where there is no usable recording or a decoder is missing, ConfigError where `out` must not be touched, StorageError where
    the disk refuses, or a storage does not answer any more: the same call then goes on where this one stopped.
    """
    began = time.monotonic()
    source, out = to_place(source), Path(out)
    if engine is not None:  # workers elsewhere stand in other folders
        source, out = source.absolute() if isinstance(source, Path) else source, out.absolute()
    if out.is_symlink():  # to the disk that has the room: the draft and the private folder belong there too
        out = out.resolve()
    output.check(source, out, overwrite, update)
    recordings = None if layout is None else listed.recordings_of(layout)
    sources = (
        _sources(source, out) if layout is None or recordings is None else listed.sources_of(layout, recordings, source)
    )
    if not without_decoders:
        decodable.insist(source, sources)
    relatives = [one.relative for one in sources]
    names = Pseudonyms(key)
    journal = Journal(out, domain, names)
    going_on = output.draft_folder(out).exists()  # an earlier call was stopped, whatever it was asked for
    keep = bool(journal.known) and (update or going_on)
    with output.writing(out, resume=keep) as draft, output.scratch(out) as scratch, contextlib.closing(journal):
        journal.start(keep)
        tasks = [Task(one, draft, scratch, domain, key) for one in sources]
        stamps = [Stamp.of_source(one, names) for one in sources]
        before = _known(stamps, journal, draft, out, AGAIN if update and not going_on else frozenset())
        outcomes = _examine_all(
            tasks, workers, progress, before, lambda n, outcome: journal.add(stamps[n], outcome), engine
        )
        rows, refused = _settle(outcomes, relatives, names)
        if not rows:
            (output.private_folder(out) / LISTS).unlink(missing_ok=True)
            journal.drop()
            raise _nothing_usable(source, len(sources), [outcome.category for outcome in refused.values()])
        if layout is None or recordings is None:
            (rows, patients_from), found = _name_patients(rows, relatives, names), None
        else:
            rows, patients_from, found = _name_listed(rows, recordings, layout, draft, domain, names)
        output.drop_strays(draft, {frame_file(draft, row.video_id).name for row in rows.values()})
        _write(draft, rows, refused, relatives, domain, names, patients_from, found)
        output.write_private(out, _private_rows(sources, rows, refused, names))
    excluded = [Excluded(sources[n].shown, refused[n].reason, refused[n].category) for n in sorted(refused)]
    patients = len({row.patient for row in rows.values()})
    noted = [(sources[number].shown, rows[number].note) for number in sorted(rows) if rows[number].note]
    seconds = time.monotonic() - began
    frames, outside = sum(row.n_frames for row in rows.values()), sum(map(_outside, rows.values()))
    return PrepareResult(
        len(rows), patients, excluded, seconds, patients_from, noted, len(before), found, frames, outside
    )


def _outside(row: VideoRow) -> int:
    """Frames that are withheld."""
    return sum(row.outside[1::2]) - sum(row.outside[::2])


def _name_listed(
    rows: dict[int, VideoRow],
    recordings: list[Recording],
    layout: Layout,
    draft: Path,
    domain: Domain,
    names: Pseudonyms,
) -> tuple[dict[int, VideoRow], dict[str, int], Listed]:
    """The rows with the people that a public data set names; what else it says of them is written into the draft."""
    rows = {number: listed.named(row, recordings[number], names) for number, row in rows.items()}
    kept = {recordings[number].path: (row.video_id, recordings[number]) for number, row in rows.items()}
    return rows, {"layout": len(rows)}, listed.write(draft, layout, domain, kept, names)


def _sources(source: Place, out: Path | None = None) -> list[Source]:
    """Everything below `source` that may be a recording; what vfm writes is none."""
    ours = () if out is None else (out, output.draft_folder(out), output.private_folder(out))
    return find_sources(source, skip=ours, lists=None if out is None else output.private_folder(out) / LISTS)


@dataclass(frozen=True)
class Looked:
    """One file as `prepare` would see it. row: what the manifest would hold, None for a file that would be set aside, with the reason.

    source: the real path or URL, for the terminal of its owner.
    """

    source: Place
    row: VideoRow | None
    category: str = ""
    reason: str = ""


def check(
    source: str | Place,
    domain: Domain,
    *,
    workers: int = 1,
    layout: Layout | None = None,
    missing: decodable.Asked | None = None,
    progress: Progress | None = None,
) -> list[Looked]:
    """Look at every file below `source` as `prepare` does, every frame decoded, and write nothing. In order of path.

    missing: told before work starts which decoders are not installed (`decodable.missing_decoders`). Raises DataError where there is no file,
    UnreachableError where its storage does not answer.
    """
    source = to_place(source)
    if layout is None:
        sources = _sources(source)
    else:
        sources = listed.sources_of(layout, listed.recordings_of(layout), source)
    if missing is not None:
        missing(decodable.missing_decoders(sources))
    key = secrets.token_bytes(KEY_BYTES)  # pseudonyms of this one look: nobody will see them
    with tempfile.TemporaryDirectory(prefix="vfm-") as scratch:
        tasks = [Task(one, None, Path(scratch), domain, key) for one in sources]
        outcomes = _examine_all(tasks, workers, progress)
    rows, refused = _settle(outcomes, [one.relative for one in sources], Pseudonyms(key))
    return [
        Looked(one.shown, rows[number])
        if number in rows
        else Looked(one.shown, None, refused[number].category, refused[number].reason)
        for number, one in enumerate(sources)
    ]


def _known(
    stamps: list[Stamp | None], journal: Journal, draft: Path, out: Path, again: frozenset[str]
) -> dict[int, Outcome]:
    """Outcomes of before that still stand, by file number. again: categories of refusal that are looked into once more."""
    found: dict[int, Outcome] = {}
    for number, stamp in enumerate(stamps):
        outcome = journal.known.get(stamp) if stamp is not None else None
        if isinstance(outcome, Refused) and outcome.category in again:
            continue
        if outcome is not None and take_over(outcome, draft, out):
            found[number] = outcome
    return found


def _examine_all(
    tasks: list[Task],
    workers: int,
    progress: Progress | None,
    before: Mapping[int, Outcome] = MappingProxyType({}),
    keep: Callable[[int, Outcome], None] | None = None,
    engine: pool.Engine | None = None,
) -> list[Outcome]:
    """The outcome of every task. before: those known already. keep(number, outcome): called with every new one."""
    run = engine or pool.run
    outcomes: dict[int, Outcome] = dict(before)
    left = [number for number in range(len(tasks)) if number not in outcomes]
    if progress is not None and before:
        progress(len(outcomes), len(tasks))
    for place, outcome in run(examine, [tasks[n] for n in left], workers=max(1, workers), patience=PATIENCE):
        number = left[place]
        if isinstance(outcome, DiskRefused):
            what = f"cannot be written ({outcome.reason})"
            raise StorageError(what, where=tasks[number].out, do=output.GO_ON)
        if isinstance(outcome, Unreached):
            do = "What was done is kept: the same command goes on where this one stopped"
            raise UnreachableError(outcome.reason, where=tasks[number].source.shown, do=do)
        if outcome == "crashed":
            outcome = Refused("unreadable", "its decoder crashed", "its decoder crashed")
        elif outcome == "killed":
            reason = f"workers were killed at it {pool.TRIES} times: does it need more memory than there is?"
            outcome = Refused("unreadable", reason, reason)
        elif outcome == "hung":
            reason = f"its decoder gave no sign of life for {PATIENCE:g} s"
            outcome = Refused("unreadable", reason, reason)
        outcomes[number] = outcome
        if keep is not None:
            keep(number, outcome)
        if progress is not None:
            progress(len(outcomes), len(tasks))
    return [outcomes[number] for number in range(len(tasks))]


def _settle(
    outcomes: list[Outcome], relatives: list[str], names: Pseudonyms
) -> tuple[dict[int, VideoRow], dict[int, Refused]]:
    """Rows and refusals by file number; of files with the same content the first by path stays."""
    rows: dict[int, VideoRow] = {}
    refused: dict[int, Refused] = {}
    first: dict[str, int] = {}
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, Refused):
            refused[number] = outcome
        elif isinstance(outcome, Usable):
            same = first.setdefault(outcome.row.video_id, number)
            if same == number:
                rows[number] = outcome.row
            else:
                public = f"same content as {names.token('path', relatives[same])}"
                refused[number] = Refused("duplicate", f"same content as {relatives[same]}", public)
    return rows, refused


def _name_patients(
    rows: dict[int, VideoRow], relatives: list[str], names: Pseudonyms
) -> tuple[dict[int, VideoRow], dict[str, int]]:
    """Rows with patient and study filled in; how many got their patient from the header, a folder, or the file."""
    unnamed = {number: str(PurePosixPath(relatives[number]).parent) for number, row in rows.items() if not row.patient}
    sizes = Counter(unnamed.values())
    by_folder = len(sizes) >= FEWEST_FOLDERS and statistics.median(sizes.values()) <= LARGEST_FOLDER
    named, counts = {}, Counter[str]()
    for number, row in rows.items():
        folder = str(PurePosixPath(relatives[number]).parent)
        place = folder if by_folder and folder != "." else relatives[number]
        patient = row.patient or names.token("patient", place)
        counts["header" if row.patient else "folder" if place == folder else "file"] += 1
        named[number] = dataclasses.replace(row, patient=patient, study=row.study or names.token("study", place))
    return named, dict(sorted(counts.items()))


def _write(
    draft: Path,
    numbered: dict[int, VideoRow],
    refused: dict[int, Refused],
    relatives: list[str],
    domain: Domain,
    names: Pseudonyms,
    patients_from: dict[str, int],
    found: Listed | None,
) -> None:
    # In the order of pseudonyms: the order of paths would tell who is next to whom in the alphabet.
    rows = sorted(numbered.values(), key=lambda row: row.video_id)
    write_manifest(draft, rows)
    table = sorted((names.token("path", relatives[n]), what.category, what.public) for n, what in refused.items())
    output.write_table(draft / EXCLUDED, ("source", "category", "reason"), table)
    settings = domain.model_dump(mode="json", include={"min_frames", "colour_doppler", "out_of_body", "region"})
    counts = {
        "videos": len(rows),
        "patients": len({row.patient for row in rows}),
        "studies": len({row.study for row in rows}),
        "frames": sum(row.n_frames for row in rows),
        "excluded": dict(sorted(Counter(what.category for what in refused.values()).items())),
        "patients_from": patients_from,
    }
    info = {"domain": domain.name, "store": domain.store.model_dump(), "settings": settings, "counts": counts}
    if found is not None:
        info["layout"] = found.info()
    write_info(draft, {**info, "key": names.fingerprint})
    write_contact_sheet(draft)


def _private_rows(
    sources: list[Source], rows: dict[int, VideoRow], refused: dict[int, Refused], names: Pseudonyms
) -> Iterator[tuple[str, str, str, str, str]]:
    for number, source in enumerate(sources):
        pseudonym, shown = names.token("path", source.relative), str(source.shown.absolute())
        if number in rows:
            yield shown, pseudonym, "prepared", rows[number].video_id, ""
        else:
            yield shown, pseudonym, refused[number].category, "", refused[number].reason


def _nothing_usable(source: Place, looked: int, categories: list[str]) -> DataError:
    found = ", ".join(f"{count} {category}" for category, count in Counter(categories).most_common())
    do = "Give a folder with DICOM or video recordings; their content decides, not their names"
    return DataError(f"no usable recording among {looked} files ({found})", where=source, do=do)
