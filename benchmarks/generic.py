"""What a general encoder is worth before any adaptation, on everything that it can be asked here.

    python benchmarks/generic.py --recordings ../shared/data --classes ../shared/data/labels/fight --patients 64 [--encoder FOLDER ...]

--recordings DIR: motion in recordings that nobody trained on. Every recording with enough frames is cut into windows; of each window come pairs of
clips that differ in one thing, and a probe says which of the two a clip is, cross-validated over recordings (copies of one picture count as one):
    pace       16 frames, one after the other; 16 frames of the whole window, every other one
    direction  a clip; the same clip backwards
    order      a clip; its second half before its first
--classes DIR: which of its folders a recording lies in, from the mean over its windows.
--patients N: ejection fraction and view of an echo phantom, made in --work and kept there; cross-validated over patients.

Beside the encoders stand `vfm-tiny-random` (what vfm-tiny was before it learned), weights as transformers draws them, and pixel statistics. Intervals
are bootstraps over recordings or patients; differences against random weights and against pixel statistics are paired.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from adaptation import make_data
from numpy.typing import NDArray

from domains.base import load_domain
from domains.errors import VfmError
from domains.media import open_reader
from domains.store.frames import Frames
from domains.store.prepared import Prepared
from domains.store.splits import patient_folds
from recipes.encoders import TINY_RANDOM, open_encoder
from recipes.evaluate.baselines import random_like
from recipes.evaluate.compare import Labelled, Row, out_of_fold, protocol_of, score
from recipes.evaluate.features import Extractor, clip_of, embedding, extract_all
from recipes.evaluate.pixels import pixel_features
from recipes.jobs.evaluate import folds_of, labelled_by, read_task

FRAMES, SIZE = 16, 112
MOTION = ("pace", "direction", "order")
PIXELS, DRAWN = "pixels", "transformers' own"
Values = dict[str, list[NDArray[np.float64]]]


@dataclass(frozen=True)
class Question:
    """features: row -> (n, D). metric: the one that is shown. scale: from its unit to the one shown."""

    name: str
    protocol: str
    features: Mapping[str, NDArray[np.float64]]
    labelled: Labelled

    @property
    def metric(self) -> tuple[str, float]:
        """Name, and factor to what is shown: accuracy in %, error in the label's unit."""
        return ("mae", 1.0) if self.labelled.kind == "regression" else ("accuracy", 100.0)

    @cached_property
    def predictions(self) -> dict[str, NDArray[np.float64]]:
        """row -> of each that is tested; probed once, whatever they are then compared with."""
        predict, tested = protocol_of(self.protocol), self.labelled.tested
        return {name: out_of_fold(predict, values, self.labelled)[tested] for name, values in self.features.items()}

    def against(self, reference: str) -> list[Row]:
        """The rows, with differences against one of them."""
        titles = {name: name for name in self.features}
        dimensions = {name: values.shape[1] for name, values in self.features.items()}
        labelled = self.labelled.at(self.labelled.tested)
        return score(labelled, self.predictions, reference, titles=titles, dimensions=dimensions)


def recordings(folder: Path) -> Iterator[tuple[str, Any]]:
    """(group, reader) of every recording that can be read and is long enough; what looks the same in the middle is one group."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            reader = open_reader(path)
            if len(reader) < 2 * FRAMES + 1:
                continue
            middle = reader.frames([len(reader) // 2])[0]
        except VfmError:
            continue
        small = cv2.resize(middle.mean(axis=-1).astype(np.float32), (8, 8), interpolation=cv2.INTER_AREA)
        yield hashlib.sha256((small > np.median(small)).tobytes()).hexdigest()[:12], reader


def windows(reader: Any, count: int) -> Iterator[Frames]:
    """Up to `count` windows of 2 * FRAMES frames (2 T, SIZE, SIZE, 3), spread over the recording; square from the middle."""
    starts = np.unique(np.linspace(0, len(reader) - 2 * FRAMES, count).astype(int))
    for start in starts:
        frames = reader.frames(list(range(start, start + 2 * FRAMES)))
        side = min(frames.shape[1:3])
        y, x = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
        cut = frames[:, y : y + side, x : x + side]
        small = [cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA).reshape(SIZE, SIZE, -1) for frame in cut]
        yield np.repeat(np.stack(small), 3, axis=-1) if small[0].shape[-1] == 1 else np.stack(small)


def pairs(window: Frames) -> dict[str, tuple[Frames, Frames]]:
    """Task -> the two clips, of classes 0 and 1."""
    clip, half = window[:FRAMES], FRAMES // 2
    return {
        "pace": (clip, window[::2]),
        "direction": (clip, clip[::-1].copy()),
        "order": (clip, np.concatenate([clip[half:], clip[:half]])),
    }


def moves(window: Frames) -> bool:
    """Whether there is something to see: of a still nothing can be told."""
    return bool(np.abs(np.diff(window.astype(np.float32), axis=0)).mean() > 0.5)


def classified(values: Values, who: list[str], truth: list[int], names: tuple[str, ...]) -> tuple[Any, Labelled]:
    """Features, and labels in folds over `who`."""
    labelled = Labelled(
        "classification", np.array(truth, float), names, tuple(who), tuple(f"{number}" for number in range(len(who))),
        patient_folds(who, 5, 0),
    )  # fmt: skip
    return {name: np.stack(rows) for name, rows in values.items()}, labelled


def of_motion(folder: Path, extractors: dict[str, Extractor], count: int) -> list[Question]:
    """Pace, direction and order."""
    found: dict[str, Values] = {task: {name: [] for name in extractors} for task in MOTION}
    groups: list[str] = []
    for group, reader in recordings(folder):
        try:
            each = [window for window in windows(reader, count) if moves(window)]
        except VfmError:
            continue
        for window in each:
            groups.append(group)
            for task, pair in pairs(window).items():
                for name, extractor in extractors.items():
                    found[task][name] += [extractor(clip[None]) for clip in pair]
        print(f"{len(set(groups))} recordings, {len(groups)} windows", end="\r", flush=True)
    print()
    who, changed = [group for group in groups for _ in (0, 1)], [0, 1] * len(groups)
    return [
        Question(task, "linear", *classified(values, who, changed, ("as it was", "changed")))
        for task, values in found.items()
    ]


def of_classes(folder: Path, extractors: dict[str, Extractor], count: int) -> list[Question]:
    """The class of each recording, by both protocols."""
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    found: Values = {name: [] for name in extractors}
    groups: list[str] = []
    classes: list[int] = []
    for number, name in enumerate(names):
        for group, reader in recordings(folder / name):
            clips = np.stack([window[:FRAMES] for window in windows(reader, count)])
            for row, extractor in extractors.items():
                found[row].append(extractor(clips))
            groups.append(group)
            classes.append(number)
    print(f"{folder.name}: {len(groups)} recordings of {len(names)} classes")
    return [
        Question(folder.name, protocol, *classified(found, groups, classes, names)) for protocol in ("linear", "knn")
    ]


def of_phantom(work: Path, patients: int, seed: int, extractors: dict[str, Extractor]) -> list[Question]:
    """Ejection fraction and view, by both protocols."""
    data, labels, key = make_data(work, patients, seed)
    prepared = Prepared.open(data)
    clip = load_domain("echo").clip
    geometry = open_encoder(TINY_RANDOM).geometry.model_copy(update={"rate": clip.rate, "stride": clip.stride})
    features = extract_all(extractors, prepared, np.arange(len(prepared)), clip_of(geometry), 3)
    asked = []
    for task in ("ef", "view"):
        settings, found = read_task(prepared, labels, task, "echo", key)
        folds = folds_of(prepared, found, 5, 0, "")
        labelled, index = labelled_by(found, settings.kind, prepared, found.index.tolist(), folds, task)
        values = {name: one.at(index) for name, one in features.items()}
        asked += [Question(task, protocol, values, labelled) for protocol in ("linear", "knn")]
    return asked


def show(question: Question) -> dict[str, Any]:
    """Print one question's rows; the figures."""
    metric, scale = question.metric
    rows = {reference: question.against(reference) for reference in (TINY_RANDOM, PIXELS)}
    print(f"\n{question.name}, {question.protocol}: {metric}, {len(set(question.labelled.patients))} groups")
    figures = {}
    for place, row in enumerate(rows[TINY_RANDOM]):
        figure = row.figures[metric]
        line = f"  {row.name:24s} {scale * figure.value:5.1f} [{scale * figure.low:.1f}, {scale * figure.high:.1f}]"
        for reference, said in ((TINY_RANDOM, "random"), (PIXELS, "pixels")):
            if (difference := rows[reference][place].difference) is not None:
                gain = difference[metric]
                line += (
                    f"  against {said} {scale * gain.value:+.1f} [{scale * gain.low:+.1f}, {scale * gain.high:+.1f}]"
                )
        print(line, flush=True)
        figures[row.name] = {"value": figure.value, "low": figure.low, "high": figure.high}
    return {"question": question.name, "protocol": question.protocol, "metric": metric, "rows": figures}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=Path)
    parser.add_argument("--classes", type=Path, action="append", default=[])
    parser.add_argument("--patients", type=int, default=0)
    parser.add_argument("--phantom-seed", type=int, default=31)
    parser.add_argument("--work", type=Path, default=Path("/tmp/vfm-generic"))
    parser.add_argument("--encoder", action="append", default=[])
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    asked = parser.parse_args()
    encoders = {name: open_encoder(name, frames=FRAMES, size=SIZE) for name in asked.encoder or ["vfm-tiny"]}
    born = open_encoder(TINY_RANDOM, frames=FRAMES, size=SIZE)
    with contextlib.ExitStack() as stack:
        extractors: dict[str, Extractor] = {PIXELS: pixel_features}
        for name, encoder in {DRAWN: random_like(born), TINY_RANDOM: born, **encoders}.items():
            extractors[name] = stack.enter_context(embedding(encoder))
        asking: list[Question] = []
        if asked.patients:
            asking += of_phantom(asked.work, asked.patients, asked.phantom_seed, extractors)
        if asked.recordings is not None:
            asking += of_motion(asked.recordings, extractors, asked.windows)
        for folder in asked.classes:
            asking += of_classes(folder, extractors, asked.windows)
    figures = [show(question) for question in asking]
    if asked.json is not None:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
