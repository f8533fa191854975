"""What a head over studies looked at: a table of every clip and its weight, and a picture of every study. Pseudonyms only."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domains.errors import MediaError, StorageError
from domains.store.frames import Frames
from domains.store.prepared import Prepared
from domains.store.strips import strip, write_sheet
from recipes.evaluate.studies import Answer, Views
from recipes.finetune.study import UNKNOWN

ATTENTION, PICTURES = "attention.csv", "studies"
SHOWN = 24  # clips of a picture, those of the largest weight
COLUMNS = 6


@dataclass(frozen=True)
class Seen:
    """A study as a head saw it. truth: in words, "" where it is not known."""

    study: str
    patient: str
    rows: tuple[int, ...]
    answer: Answer
    truth: str = ""


def in_words(said: np.ndarray, classes: Sequence[str]) -> str:
    """An answer: the value, or the likeliest class."""
    return classes[int(said.argmax())] if classes else f"{float(said):.6g}"


def write_attention(seen: Sequence[Seen], prepared: Prepared, views: Views, classes: Sequence[str], path: Path) -> None:
    """A line a clip: study, patient, truth, prediction of the study; video_id, view (empty where not known), attention (of sum 1 over the study) and
    what the head says of this clip alone. Raises StorageError."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["study", "patient", "truth", "prediction", "video_id", "view", "attention", "alone"])
            for one in seen:
                said = in_words(one.answer.prediction, classes)
                for place, row in enumerate(one.rows):
                    view = "" if views.of[row] == UNKNOWN else views.names[views.of[row]]
                    alone = in_words(one.answer.alone[place], classes)
                    weight = f"{one.answer.weights[place]:.4f}"
                    writer.writerow(
                        [one.study, one.patient, one.truth, said, prepared.video_id(row), view, weight, alone]
                    )
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror})", where=path, do="Free some space") from None


def draw_study(one: Seen, prepared: Prepared, views: Views, path: Path) -> Path:
    """The middle frame of each clip with its weight and view under it, the largest weight first; black: what cannot be read. Raises StorageError."""
    strips = []
    for place in np.argsort(-one.answer.weights, kind="stable")[:SHOWN].tolist():
        row = one.rows[place]
        frames: Frames | None = None
        with suppress(MediaError):
            frames = prepared.frames(row, [prepared.length(row) // 2])
        view = "" if views.of[row] == UNKNOWN else views.names[views.of[row]]
        strips.append(strip(frames, prepared.size, 1, f"{one.answer.weights[place]:.0%} {view}"))
    return write_sheet(strips, COLUMNS, path)
