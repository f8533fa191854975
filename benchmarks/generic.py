"""What a general encoder tells of motion in recordings that nobody trained on: pace, direction of time, order of halves.

    python benchmarks/generic.py --recordings ../shared/data [--encoder vfm-tiny] [--encoder FOLDER ...] [--windows 6] [--json]

Every recording of the folder with enough frames is cut into windows; of each window come pairs of clips that differ in one thing:
    pace       16 frames, one after the other; 16 frames of the whole window, every other one
    direction  a clip; the same clip backwards
    order      a clip; its second half before its first
A linear probe on frozen features says which of the two a clip is, cross-validated over recordings (copies of one picture count as one recording).
Beside the encoders stand random weights of the same kind and pixel statistics; intervals are bootstraps over recordings, differences are paired
against random weights. The echo phantom's EF and view: benchmarks/adaptation.py, vfm evaluate.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.errors import VfmError
from domains.media import open_reader
from domains.store.frames import Frames
from domains.store.splits import patient_folds
from recipes.encoders import open_encoder
from recipes.evaluate.baselines import random_like
from recipes.evaluate.compare import Labelled, Row, compare
from recipes.evaluate.features import Extractor, embedding
from recipes.evaluate.pixels import pixel_features

FRAMES = 16
TASKS = ("pace", "direction", "order")


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


def windows(reader: Any, count: int, size: int) -> Iterator[Frames]:
    """Up to `count` windows of 2 * FRAMES frames (2 T, size, size, 3), spread over the recording; square from the middle."""
    starts = np.unique(np.linspace(0, len(reader) - 2 * FRAMES, count).astype(int))
    for start in starts:
        frames = reader.frames(list(range(start, start + 2 * FRAMES)))
        side = min(frames.shape[1:3])
        y, x = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
        cut = frames[:, y : y + side, x : x + side]
        small = [cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA).reshape(size, size, -1) for frame in cut]
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


def gather(folder: Path, extractors: dict[str, Extractor], count: int, size: int) -> tuple[dict[str, Any], list[str]]:
    """task -> row -> features (n, D), clips of a pair one after the other; the group of each window."""
    found: dict[str, dict[str, list[NDArray[np.float64]]]] = {task: {name: [] for name in extractors} for task in TASKS}
    groups: list[str] = []
    for group, reader in recordings(folder):
        try:
            each = [window for window in windows(reader, count, size) if moves(window)]
        except VfmError:
            continue
        for window in each:
            groups.append(group)
            for task, pair in pairs(window).items():
                for name, extractor in extractors.items():
                    found[task][name] += [extractor(clip[None]) for clip in pair]
        print(f"{len(set(groups))} recordings, {len(groups)} windows", end="\r", flush=True)
    return found, groups


def ask(features: dict[str, list[NDArray[np.float64]]], groups: list[str]) -> list[Row]:
    """The comparison on one task."""
    who = [group for group in groups for _ in (0, 1)]
    labelled = Labelled(
        "classification", np.tile([0.0, 1.0], len(groups)), ("as it was", "changed"), tuple(who),
        tuple(f"{number}" for number in range(len(who))), patient_folds(who, 5, 0),
    )  # fmt: skip
    return compare("linear", {name: np.stack(values) for name, values in features.items()}, labelled, "random")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=Path, required=True)
    parser.add_argument("--encoder", action="append", default=[])
    parser.add_argument("--windows", type=int, default=6)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    names = asked.encoder or ["vfm-tiny"]
    opened = {name: open_encoder(name, frames=FRAMES, size=asked.size) for name in names}
    extractors: dict[str, Extractor] = {"pixels": pixel_features}
    with embedding(random_like(next(iter(opened.values())))) as random:
        extractors["random"] = random
        for name, encoder in opened.items():
            extractors[name] = embedding(encoder).__enter__()
        found, groups = gather(asked.recordings, extractors, asked.windows, asked.size)
    print(f"{len(set(groups))} recordings, {len(groups)} windows")
    outcome = {task: ask(found[task], groups) for task in TASKS}
    if asked.json:
        print(
            json.dumps(
                {task: {row.name: row.figures["accuracy"].value for row in rows} for task, rows in outcome.items()}
            )
        )
        return
    for task, rows in outcome.items():
        print(f"\n{task}: accuracy (%)")
        for row in rows:
            figure, gain = row.figures["accuracy"], row.difference and row.difference["accuracy"]
            against = (
                f"  against random {100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
                if gain
                else ""
            )
            print(
                f"  {row.title:28s} {100 * figure.value:5.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]{against}"
            )


if __name__ == "__main__":
    main()
