"""CAMUS: apical two- and four-chamber sequences of 500 patients (Leclerc et al., IEEE TMI 2019)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from domains.base import TaskSettings
from domains.errors import DataError
from domains.layouts.base import Layout, Notes, Recording, Span, Value, official
from domains.layouts.echo import echo_tasks, frame_span
from domains.layouts.tables import known, number, read_plain, whole
from domains.schema import nearest

# The older release has patientNNNN_2CH_sequence.mhd, the newer patientNNNN_2CH_half_sequence.nii.gz (from ED to ES).
SEQUENCE = re.compile(r"(?:.*/)?(patient\d{4})/\1_(2CH|4CH)_(?:half_)?sequence\.(?:nii\.gz|nii|mhd)")
FOLDER = re.compile(r"(?:(.*)/)?(patient\d{4})/Info_(2CH|4CH)\.cfg")
VIEWS = {"2CH": "A2C", "4CH": "A4C"}
QUALITIES = ("Good", "Medium", "Poor")
PARTS = {"training": "train", "validation": "val", "testing": "test"}
Info = dict[str, tuple[str, str]]  # key -> (value, file:line)


class Camus(Layout):
    """`patientNNNN/patientNNNN_{2CH,4CH}_half_sequence.nii.gz` with `Info_{2CH,4CH}.cfg`;
    `subgroup_{training,validation,testing}.txt`.

    ef in percent; age in years; views are named A2C and A4C as elsewhere. ED and ES in the cfg count frames from 1.
    Sequences are volumes, which domains.media does not open yet. The subgroups may be absent (the older release has
    none): then there is no split, and a note. Without FrameRate in the cfg there are no keyframes.
    """

    name = "camus"
    title = "CAMUS"
    domain = "echo"
    grouped_by = "patients"
    suffixes = ("_sequence.nii.gz", "_sequence.nii", "_sequence.mhd")
    split_names = ("official",)

    @classmethod
    def matches(cls, root: Path) -> bool:
        return any(True for _ in root.glob("patient[0-9][0-9][0-9][0-9]/Info_[24]CH.cfg")) or any(
            True for _ in root.glob("*/patient[0-9][0-9][0-9][0-9]/Info_[24]CH.cfg")
        )

    def tasks(self) -> dict[str, TaskSettings]:
        return {
            **echo_tasks("ef"),
            "view": TaskSettings(kind="classification", column="view", classes=tuple(VIEWS.values())),
            "image_quality": TaskSettings(kind="classification", column="image_quality", classes=QUALITIES),
        }

    @property
    def span_labels(self) -> tuple[str, ...]:
        return ("keyframe",)

    def _read(self, notes: Notes) -> Iterator[Recording]:
        parts = self._parts(notes)
        sequences = {match.groups(): path for path in self.files if (match := SEQUENCE.fullmatch(path))}
        tables = [(path, match) for path in self.files if (match := FOLDER.fullmatch(path))]
        if not tables:
            do = "Give the folder that holds the patients"
            raise DataError("no patientNNNN/Info_2CH.cfg", where=self.root, do=do)
        for path, match in tables:
            folder, patient, chamber = path.rsplit("/", 1)[0], match.group(2), match.group(3)
            info = _info(self.root / path)
            part = parts.get(patient, "")
            if parts and not part:
                notes.add("in no subgroup", path)
            yield Recording(
                path=sequences.get((patient, chamber), f"{folder}/{patient}_{chamber}_half_sequence.nii.gz"),
                group=f"{self.name}/{patient}",
                splits=official(part),
                labels={"view": VIEWS[chamber], **_labels(info, self.root / path)},
                media="volume",
                fps=number(*_told(info, "FrameRate")) if "FrameRate" in info else None,
                event=f"{self.name}/{patient}",
                camera=VIEWS[chamber],
                listed=str(self.root / path),
            )

    @cached_property
    def _lists(self) -> dict[str, str]:
        names = {f"subgroup_{word}.txt": part for word, part in PARTS.items()}
        return {path: names[path.rsplit("/", 1)[-1]] for path in self.files if path.rsplit("/", 1)[-1] in names}

    def _parts(self, notes: Notes) -> dict[str, str]:
        parts: dict[str, str] = {}
        for path, part in self._lists.items():
            for where, (patient, *_) in read_plain(self.root / path, None):
                if parts.setdefault(patient, part) != part:
                    raise DataError(f"a patient of the part '{parts[patient]}' again", where=where)
        if not parts:
            notes.add("no subgroup_*.txt: no official split")
        return parts

    def _spans(self, label: str, present: Mapping[str, Recording], notes: Notes) -> Iterator[Span]:
        for path, recording in present.items():
            if recording.fps is None:
                notes.add("no FrameRate: no keyframes", recording.listed)
                continue
            info = _info(Path(recording.listed))
            for key in ("ED", "ES"):
                text, _, where = _told(_needed(info, key, Path(recording.listed)), key)
                frame = whole(text, f"'{key}'", where)
                if frame < 1:
                    raise DataError(f"'{key}' is frame 0; CAMUS counts from 1", where=where)
                yield frame_span(path, frame - 1, recording.fps, key)


def _info(path: Path) -> Info:
    """The keys of an Info_*.cfg, "Key: value" a line."""
    info: Info = {}
    for where, cells in read_plain(path, ":"):
        if len(cells) != 2:
            raise DataError(f"'{':'.join(cells)}' is not 'Key: value'", where=where)
        info[cells[0]] = cells[1], where
    return info


def _needed(info: Info, key: str, path: Path) -> Info:
    if key not in info:
        raise DataError(f"no key '{key}' (keys: {', '.join(info)})", where=path, do=nearest(key, list(info)))
    return info


def _told(info: Info, key: str) -> tuple[str, str, str]:
    """value, what it is and where, as `number` takes them."""
    value, where = info[key]
    return value, f"'{key}'", where


def _labels(info: Info, path: Path) -> dict[str, Value]:
    """ef, age, sex, image_quality. The older release writes LVef."""
    key = "LVef" if "LVef" in info and "EF" not in info else "EF"
    labels: dict[str, Value] = {"ef": number(*_told(_needed(info, key, path), key))}
    if "Age" in info:
        labels["age"] = number(*_told(info, "Age"))
    for key, name, classes in (("Sex", "sex", ("F", "M")), ("ImageQuality", "image_quality", QUALITIES)):
        if key in info:
            labels[name] = known(info[key][0], classes, f"'{key}'", info[key][1])
    return labels
