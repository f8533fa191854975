"""What was decided about every source file, kept beside the output: a killed `prepare` goes on, and an update looks at new files only."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from domains.base import Domain
from domains.errors import StorageError
from domains.prepare.find import Source
from domains.prepare.output import make_private, private_folder
from domains.prepare.privacy import Pseudonyms
from domains.prepare.source import Outcome, Refused, Usable
from domains.store.manifest import FORMAT, frame_file, read_row, vfm_version

NAME = "journal.jsonl"


@dataclass(frozen=True)
class Stamp:
    """What tells that a file is the one that was looked at: its name below the source (a pseudonym), size in bytes, time of change; on a
    storage, a number that its version (checksum, tag, times) becomes. fps, redacted: as a public data set's table says; which frames are stored, and
    shown, depends on it.
    """

    path: str
    size: int
    changed: int
    fps: float | None = None
    redacted: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of_source(cls, source: Source, names: Pseudonyms) -> Stamp | None:
        """What is listed of it, without its bytes. None for a file that cannot be asked: it is looked at again."""
        if source.remote is not None:
            version = int(source.remote.version, 16)
            return cls(names.token("path", source.relative), source.remote.size, version, source.fps, source.redacted)
        found = cls.of(source.path, source.relative, names)
        return found and dataclasses.replace(found, fps=source.fps, redacted=source.redacted)

    @classmethod
    def of(cls, path: Path, relative: str, names: Pseudonyms) -> Stamp | None:
        """None for a file that cannot be asked: it is looked at again."""
        try:
            abouts = [path.stat(), *(one.stat() for one in path.iterdir())] if path.is_dir() else [path.stat()]
        except OSError:
            return None
        # The later of both: a file that became readable (chmod) or was put in another's place has the time of its content, or that of change.
        changed = max(max(about.st_mtime_ns, about.st_ctime_ns) for about in abouts)
        return cls(names.token("path", relative), sum(about.st_size for about in abouts), changed)


class Journal:
    """`<out>.private/journal.jsonl`: a line that says which settings it is for, then one per file. For the owner only (mode 0600).

    `known`: outcomes of earlier calls under the same key, settings and version of vfm; empty where anything differs.
    """

    def __init__(self, out: Path, domain: Domain, names: Pseudonyms) -> None:
        self._out, self.path = out, private_folder(out) / NAME
        settings = domain.model_dump(
            mode="json", include={"min_frames", "colour_doppler", "out_of_body", "region", "store"}
        )
        about = {"format": FORMAT, "vfm": vfm_version(), "key": names.fingerprint, "settings": settings}
        self._about = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        self.known: dict[Stamp, Outcome] = self._read()
        self._file: IO[str] | None = None

    def _read(self) -> dict[Stamp, Outcome]:
        known: dict[Stamp, Outcome] = {}
        try:
            lines = self.path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            if not lines or json.loads(lines[0]) != {"about": self._about}:
                return {}
        except (OSError, ValueError):
            return {}
        for line in lines[1:]:
            try:
                entry = json.loads(line)
                redacted = tuple((float(start), float(end)) for start, end in entry["redacted"])
                stamp = Stamp(entry["path"], entry["size"], entry["changed"], entry["fps"], redacted)
                known[stamp] = Usable(read_row(entry["row"])) if "row" in entry else Refused(*entry["refused"])
            except (ValueError, KeyError, TypeError):  # the line at which a run was killed
                continue
        return known

    def start(self, keep: bool) -> None:
        """Open for writing; `keep`: after what is there, else from the beginning. Raises StorageError."""
        try:
            make_private(self._out)
            fresh = not (keep and self.known)
            flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if fresh else os.O_APPEND)
            self._file = os.fdopen(os.open(self.path, flags, 0o600), "w", encoding="utf-8", errors="surrogateescape")
            # A leading newline ends a line at which an earlier run was killed.
            self._file.write(json.dumps({"about": self._about}) + "\n" if fresh else "\n")
            self._file.flush()
        except OSError as error:
            raise StorageError(f"cannot be written ({error.strerror})", where=self.path) from None
        if fresh:
            self.known = {}

    def add(self, stamp: Stamp | None, outcome: Outcome) -> None:
        """Keep an outcome. Raises OSError."""
        if self._file is None or stamp is None or not isinstance(outcome, Usable | Refused):
            return
        said: dict[str, Any] = dataclasses.asdict(stamp)
        if isinstance(outcome, Usable):
            said["row"] = vars(outcome.row)
        else:
            said["refused"] = [outcome.category, outcome.reason, outcome.public]
        self._file.write(json.dumps(said) + "\n")
        self._file.flush()

    def drop(self) -> None:
        """Nothing came of it: the file goes, and its folder with it unless something else is there."""
        self.close()
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def take_over(outcome: Outcome, draft: Path, out: Path) -> bool:
    """Whether an outcome of before still stands: its frames are in the draft, or whole in `out`, from where they are linked or copied."""
    if not isinstance(outcome, Usable):
        return True
    row = outcome.row
    here = frame_file(draft, row.video_id)
    for place in (here, frame_file(out, row.video_id)):
        try:
            blob = place.read_bytes()
        except OSError:
            continue
        if len(blob) != row.bytes or hashlib.sha256(blob).hexdigest() != row.sha256:
            continue
        if place != here:
            here.parent.mkdir(parents=True, exist_ok=True)
            here.unlink(missing_ok=True)
            try:
                os.link(place, here)
            except OSError:  # another disk, or one without links
                here.write_bytes(blob)
        return True
    return False
