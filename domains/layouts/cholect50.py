"""CholecT50: action triplets and phases in 50 cholecystectomies, 45 of them of Cholec80 (Nwoye et al., Medical Image
Analysis 2022)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from domains.base import TaskSettings
from domains.errors import DataError
from domains.layouts.base import Recording, Span
from domains.layouts.cholec import FOLD_NAMES, FOLDS, PHASES, PHASES_T50, VOCABULARY, fold_parts, procedure
from domains.layouts.cholect45 import triplet_tasks
from domains.layouts.numbered import NumberedLayout
from domains.layouts.tables import Frame, class_name, known, read_json, runs, whole

VIDEOS = tuple(video for fold in FOLDS for video in fold)
LENGTH = 15  # numbers in the vector of one triplet
AT = {"triplet": 0, "instrument": 1, "verb": 7, "target": 8, "phase": 14}  # places in it; the rest are scores and boxes
NULL = -1


class CholecT50(NumberedLayout):
    """`videos/VIDxx/000000.png` and `labels/VIDxx.json`: annotations {frame: [a vector of 15 numbers per triplet]}.

    Recordings are folders of pictures, one a second; frame n (0-based) is the second from n on, unless the file says
    another "fps". -1 is no value. A triplet that stands twice in a frame (two graspers) is one value. Phases have
    Cholec80's names: the file's own where it lists them, else by number. Splits as in CholecT45; videos 92, 96, 103,
    110 and 111 are not of Cholec80.
    """

    name = "cholect50"
    title = "CholecT50"
    domain = "surgical"
    grouped_by = "procedures"
    suffixes = (".png",)
    split_names = FOLD_NAMES
    video = re.compile(r"videos/VID(\d+)")
    video_path = "videos/VID{number:02d}"
    media = "frames"
    fps = 1.0
    first_table = "labels/VIDxx.json"
    annotations = {label: re.compile(r"labels/VID(\d+)\.json") for label in AT}  # noqa: RUF012

    @classmethod
    def matches(cls, root: Path) -> bool:
        return (root / "labels").is_dir() and any((root / "labels").glob("VID*.json"))

    def tasks(self) -> dict[str, TaskSettings]:
        return {**triplet_tasks(), "phase": TaskSettings(kind="phases", column="phase", classes=PHASES)}

    def _group(self, number: int) -> str:
        return procedure(number)

    def _parts(self, number: int) -> dict[str, str]:
        return fold_parts(number, VIDEOS)

    def _spans_of(self, label: str, recording: Recording, table: str) -> list[Span]:
        path = self.root / table
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("annotations"), dict):
            raise DataError("no 'annotations' of frames", where=path, do="Restore the file as it was downloaded")
        rate = float(content.get("fps", self.fps))
        classes = VOCABULARY.get(label) or _phases(content, str(path))
        return runs(recording.path, label, _frames(content["annotations"], label, classes, path), rate)


def _phases(content: dict[str, Any], where: str) -> Sequence[str]:
    """Names by number, as Cholec80 has them."""
    named = content.get("categories", {}).get("phase")
    if named is None:
        return PHASES
    own = [named[key] for key in sorted(named, key=int)]
    return [PHASES_T50[known(name, PHASES_T50, "a phase", where)] for name in own]


def _frames(annotations: dict[str, Any], label: str, classes: Sequence[str], path: Path) -> Iterator[Frame]:
    """In order of frames: as text "10" stands before "2"."""
    for key in sorted(annotations, key=lambda text: whole(text, "the frame", str(path))):
        where = f"{path}: frame {key}"
        values = set()
        for vector in annotations[key]:
            if len(vector) != LENGTH:
                raise DataError(f"{len(vector)} numbers where there should be {LENGTH}", where=where)
            if int(vector[AT[label]]) != NULL:
                values.add(class_name(str(vector[AT[label]]), classes, label, where))
        yield Frame(where, int(key), values)
