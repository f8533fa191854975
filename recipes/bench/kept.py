"""Features that a comparison keeps in `features/`, so that nothing is computed twice: of recordings, and of clips of their moments."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from domains.base import ClipSettings
from domains.errors import StorageError
from domains.store.clips import frame_step
from domains.store.prepared import Prepared
from recipes.evaluate.features import Extractor, Failure, Features, ReadProgress, extract_all
from recipes.evaluate.metrics import Array
from recipes.evaluate.questions import Unit, read_units

# A clip of a moment: the manifest row, and the native frame at which a clip of the comparison's geometry begins.
Place = tuple[int, float]
Moments = dict[Place, Array | None]  # None: it could not be read
Opened = tuple[Mapping[str, Extractor], ClipSettings]


@dataclass(frozen=True)
class Wanted:
    """What features are wanted of.

    Attributes
        rows: (n,) recordings, each the mean of `clips` clips.
        moments: clips of moments, each once. clip: their geometry; an encoder of another one sees clips of its own about the same middles, so that
            all are asked the same.
    """

    rows: NDArray[np.int64]
    clips: int
    moments: tuple[Place, ...]
    clip: ClipSettings


@dataclass(frozen=True)
class Kept:
    """Features of one encoder. recordings: None where none are wanted. moments: place -> (D,), of those that are wanted and of others."""

    recordings: Features | None
    moments: Moments


def keep(
    folder: Path,
    names: Sequence[str],
    opened: Callable[[], AbstractContextManager[Opened]],
    prepared: Prepared,
    wanted: Wanted,
    progress: ReadProgress | None = None,
) -> dict[str, Kept]:
    """Features by the extractors of these names: those that `folder` has, and the others, which it has then.

    opened: the extractors, and the clips that they see; called where something is missing, so that every clip is decoded once for all of them.
    Raises DataError where nothing can be read; StorageError, after which the same call goes on.
    """
    files = {name: folder / f"{name}.safetensors" for name in names}
    moment_files = {name: folder / f"{name}.moments.safetensors" for name in names}
    recordings = {name: load_features(path, wanted.rows) for name, path in files.items()} if len(wanted.rows) else {}
    moments = {name: load_moments(path) for name, path in moment_files.items()} if wanted.moments else {}
    missing = [place for place in wanted.moments if any(place not in known for known in moments.values())]
    unread = any(one is None for one in recordings.values())
    if unread or missing:
        with opened() as (extractors, clip):
            if unread:
                found = extract_all(extractors, prepared, wanted.rows, clip, wanted.clips, progress=progress)
                for name, path in files.items():
                    save_features(path, found[name])
                recordings |= found
            if missing:
                read = read_places(extractors, prepared, missing, wanted.clip, clip, progress)
                for name, path in moment_files.items():
                    moments[name] |= read[name]
                    save_moments(path, moments[name])
    return {name: Kept(recordings.get(name), moments.get(name, {})) for name in names}


def read_places(
    extractors: Mapping[str, Extractor],
    prepared: Prepared,
    places: Sequence[Place],
    made: ClipSettings,
    clip: ClipSettings,
    progress: ReadProgress | None = None,
) -> dict[str, Moments]:
    """Features of clips at `places`, which are those of clips `made`; shown are clips of `clip` about the same middles."""
    starts = [start + shift(prepared.fps(row), made, clip) for row, start in places]
    units = [
        Unit(row, np.array([start]), start / (prepared.fps(row) or 1.0), np.zeros(0))
        for (row, _), start in zip(places, starts, strict=True)
    ]
    values, kept, _ = read_units(prepared, units, clip, extractors, progress)
    found: dict[str, Moments] = {}
    for name, read in values.items():
        found[name] = dict.fromkeys(places)
        found[name] |= {places[place]: one for place, one in zip(kept, read, strict=True)}
    return found


def shift(fps: float | None, made: ClipSettings, clip: ClipSettings) -> float:
    """Native frames from the start of a clip `made` to that of a clip `clip` about the same middle."""
    return (frame_step(fps, made) * (made.frames - 1) - frame_step(fps, clip) * (clip.frames - 1)) / 2


def save_features(path: Path, features: Features) -> None:
    """As safetensors, with the videos that could not be read. Raises StorageError."""
    failed = json.dumps([asdict(one) for one in features.failed])
    _save(path, {"index": features.index, "values": features.values}, {"failed": failed})


def load_features(path: Path, wanted: NDArray[np.int64]) -> Features | None:
    """Features of the videos `wanted`; None where they are not there, not whole, or of other videos."""
    try:
        with safe_open(path, "np") as file:
            failed = json.loads((file.metadata() or {})["failed"])
        arrays = load_file(path)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    if len(arrays["index"]) + len(failed) != len(wanted) or not np.isin(arrays["index"], wanted).all():
        return None
    return Features(arrays["index"], arrays["values"], tuple(Failure(**one) for one in failed))


def save_moments(path: Path, moments: Moments) -> None:
    """As safetensors, with the places that could not be read. Raises StorageError."""
    places = sorted(moments, key=lambda place: moments[place] is None)  # those that could not stand last
    rows, starts = (np.array(column) for column in zip(*places, strict=True))
    values = np.stack([one for one in (moments[place] for place in places) if one is not None])
    _save(path, {"rows": rows.astype(np.int64), "starts": starts.astype(np.float64), "values": values})


def load_moments(path: Path) -> Moments:
    """All that are there; none where the file is not whole."""
    try:
        arrays = load_file(path)
        places = list(zip(arrays["rows"].tolist(), arrays["starts"].tolist(), strict=True))
        return {**dict.fromkeys(places), **dict(zip(places, arrays["values"], strict=False))}
    except (OSError, SafetensorError, KeyError, ValueError):
        return {}


def _save(path: Path, arrays: dict[str, NDArray[np.generic]], metadata: dict[str, str] | None = None) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        save_file(arrays, draft, metadata)
        draft.replace(path)
    except (OSError, SafetensorError) as error:
        do = "Free some space; the same command goes on"
        raise StorageError(f"cannot be written ({error})", where=path, do=do) from None
