"""CholecT45: action triplets <instrument, verb, target> in 45 videos of Cholec80 (Nwoye et al., Medical Image
Analysis 2022)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from domains.base import TaskSettings
from domains.layouts.base import Recording, Span
from domains.layouts.cholec import CHOLEC80, FOLD_NAMES, FOLDS, NULL, PARTS, VOCABULARY, fold_parts, procedure
from domains.layouts.numbered import NumberedLayout
from domains.layouts.tables import Frame, active, read_plain, runs, whole

VIDEOS = tuple(video for fold in FOLDS for video in fold if video in CHOLEC80)
RATE = 1.0  # frames were taken, and are labelled, once a second


class CholecT45(NumberedLayout):
    """`data/VIDxx/000000.png` and `{triplet,instrument,verb,target}/VIDxx.txt`: no header, a frame and 100 / 6 / 10 /
    15 zeros and ones.

    Recordings are folders of pictures, one a second; frame n (0-based) is the second from n on. Splits are the folds
    of the cross-validation, fold1 to fold5: the fold is tested, the last five videos of the others validate. Values
    with null (null_verb) are classes as the others are.
    """

    name = "cholect45"
    title = "CholecT45"
    domain = "surgical"
    grouped_by = "procedures"
    suffixes = (".png",)
    split_names = FOLD_NAMES
    video = re.compile(r"data/VID(\d+)")
    video_path = "data/VID{number:02d}"
    media = "frames"
    fps = RATE
    first_table = "triplet/VIDxx.txt"
    annotations = {label: re.compile(rf"{label}/VID(\d+)\.txt") for label in VOCABULARY}  # noqa: RUF012

    @classmethod
    def matches(cls, root: Path) -> bool:
        return (root / "triplet").is_dir() and any((root / "triplet").glob("VID*.txt"))

    def tasks(self) -> dict[str, TaskSettings]:
        return triplet_tasks()

    def _group(self, number: int) -> str:
        return procedure(number)

    def _parts(self, number: int) -> dict[str, str]:
        return fold_parts(number, VIDEOS)

    def _spans_of(self, label: str, recording: Recording, table: str) -> list[Span]:
        return runs(recording.path, label, self._frames(label, self.root / table), RATE)

    @staticmethod
    def _frames(label: str, table: Path) -> Iterator[Frame]:
        for where, (frame, *cells) in read_plain(table):
            yield Frame(where, whole(frame, "the frame", where), active(cells, VOCABULARY[label], where))


def triplet_tasks() -> dict[str, TaskSettings]:
    """The tasks of both triplet data sets."""
    return {
        label: TaskSettings(
            kind="presence", column=label, classes=classes, parts=PARTS.get(label, ()), nothing=NULL.get(label, ())
        )
        for label, classes in VOCABULARY.items()
    }
