"""`vfm evaluate retrieval` of a run that brought clips and signals together (`imu`, `previps`): each among all of the other kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from domains.base import ClipSettings
from domains.errors import ConfigError, DataError, MediaError
from domains.store.annotated import read_split
from domains.store.clips import Clip, frame_step, spread_starts, starts_every
from domains.store.frames import Frames
from domains.store.prepared import Prepared
from recipes.evaluate.baselines import RANDOM_SEED
from recipes.evaluate.both_ways import BASELINES, UNALIGNED, Way, both_ways, check_rows
from recipes.evaluate.features import Failure, ReadProgress, default_device
from recipes.evaluate.metrics import Array
from recipes.evaluate.retrieval import METRICS, OVERLAP, Moment, pairs_of
from recipes.evaluate.scored import Scored, write_scored
from recipes.evaluate.statistics import DRAWS, LEVEL
from recipes.evaluate.towers import vectors_at
from recipes.jobs.evaluate import clip_seen
from recipes.jobs.seen import meetings, who
from recipes.parts.sensed import Sensing, open_sensed, sensed_of
from recipes.training.data import plain_pixel_values
from recipes.training.measured import Measured

AT_ONCE = 256  # signals embedded at once


@dataclass(frozen=True)
class Windows:
    """What is asked: stretches of a clip's length, as `moments`, and the signals of that time (n, T, ...). starts: row -> native frames at which its
    clips begin, in the order of the moments. unmeasured: stretches in whose time nothing was measured, which nobody asks."""

    starts: dict[int, NDArray[np.float64]]
    moments: list[Moment]
    signals: NDArray[np.float32]
    unmeasured: int


class Compared:
    """The encoder's head and tower, and `fresh` others that were never trained on the same encoder: vectors of length one, (n, 1 + fresh, D)."""

    def __init__(self, sensing: Sensing, device: torch.device, fresh: int) -> None:
        self.sensing, self.device = sensing.to(device).eval(), device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            drawn = [sensed_of(sensing.sensed.shape).to(device).eval() for _ in range(fresh)]
        self.every = [sensing.sensed, *drawn]

    def clips(self, clips: Frames) -> Array:
        """uint8 (n, T, S, S, C) -> (n, 1 + fresh, D)."""
        encoder = self.sensing.encoder
        with torch.inference_mode():
            pixels = plain_pixel_values(torch.from_numpy(clips), encoder.geometry, self.device)
            read = self.sensing.sensed.read(encoder, pixels)
            return _stacked([one.head(read) for one in self.every])

    def signals(self, values: NDArray[np.float32]) -> Array:
        """(n, T, channels), of poses (n, T, joints, 2) -> (n, 1 + fresh, D)."""
        with torch.inference_mode():
            parts = [
                _stacked([one.signals(part.to(self.device)) for one in self.every])
                for part in torch.from_numpy(values).split(AT_ONCE)
            ]
        return np.concatenate(parts)


def _stacked(vectors: Sequence[Tensor]) -> Array:
    each = torch.stack([F.normalize(one.float(), dim=-1) for one in vectors], dim=1)
    return each.cpu().numpy().astype(np.float64)


def signal_retrieval(
    run: str | Path,
    data: Prepared | str | Path,
    *,
    baselines: tuple[str, ...] = BASELINES,
    split: str = "",
    clips: int | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    domain: str | None = None,
    out: Path | None = None,
    online: bool = False,
    progress: ReadProgress | None = None,
) -> Scored:
    """R@1, R@5, R@10 and the median rank, both ways, over all stretches of a clip's length in which something was measured.

    run: one that brought clips and signals together. clips: stretches of each recording, spread evenly; None: all, one after the other. Other
    arguments: see `recipes.jobs.retrieval.retrieval`. Raises ConfigError, DataError (nothing was measured, nothing can be read), ModelError.
    """
    check_rows(baselines)
    prepared = data if isinstance(data, Prepared) else Prepared.open(data)
    parts = read_split(prepared, split) if split else ["test"] * len(prepared)
    sensing = open_sensed(run, online=online)
    shape = sensing.sensed.shape
    clip = clip_seen(sensing.encoder, prepared, domain)
    measured = _measured(sensing, prepared, clip)
    asked = windows(sensing, measured, prepared, clip, [row for row, part in enumerate(parts) if part == "test"], clips)
    towers = Compared(sensing, default_device(), UNALIGNED if "unaligned" in baselines else 0)
    failed: list[Failure] = []
    shown: list[Array] = []
    kept = np.ones(len(asked.moments), bool)
    places = list(asked.starts.items())
    for (row, _), vectors in zip(places, vectors_at(towers.clips, prepared, places, clip, progress), strict=True):
        if isinstance(vectors, MediaError):
            failed.append(Failure(prepared.video_id(row), vectors.reason))
            kept &= np.array([moment[0] != row for moment in asked.moments])
        else:
            shown.append(vectors)
    if not shown:
        raise DataError(f"none of {len(failed)} recordings could be read", where=prepared.place)
    moments = [moment for moment, there in zip(asked.moments, kept, strict=True) if there]
    seen, felt = np.concatenate(shown), towers.signals(asked.signals[kept])
    pairs = pairs_of(moments, range(len(moments)))
    names, name = [prepared.patients[row] for row, _, _ in moments], shape.signal
    ways = (
        Way("clip_to_signal", f"clip to {name}", seen, felt, pairs.texts_of, names),
        Way("signal_to_clip", f"{name} to clip", felt, seen, pairs.moments_of, names),
    )
    lines, ranked = both_ways(ways, "towers", baselines, draws=draws, seed=seed)
    people, patients = who(prepared), set(names)
    scored = Scored(
        protocol="retrieval",
        task=name,
        metrics=METRICS,
        lines=lines,
        asked=tuple(way.name for way in ways),
        how=(
            f"{len(moments)} stretches of {clip.frames} frames, clips and signals, each among all of the other kind; ties averaged",
            f"{clips} stretches of each recording, spread evenly" if clips else "stretches of each recording, one after the other",
            f"stretches of a recording that share {OVERLAP:.0%} or more of their common time are right for each other",
            *((f"{asked.unmeasured} stretches in which nothing was measured are not asked",) if asked.unmeasured else ()),
            *((f"the test part of the official split '{split}' alone",) if split else ()),
        ),
        size=f"{len(moments)} stretches, {len(patients)} {people}, {LEVEL:.0%} intervals over {people}",
        settings={
            "signal": name, "stretches": len(moments), "unmeasured": asked.unmeasured, "stretches_per_recording": clips, "split": split,
            "patients": len(patients), "seed": seed, "bootstrap": {"draws": draws, "over": "patients of the questions", "level": LEVEL},
        },
        predictions=_predictions(ways, moments, prepared, ranked),
        excluded=tuple(failed),
        notes=tuple(meetings(run, prepared, patients)),
    )  # fmt: skip
    if out is not None:
        write_scored(scored, out)
    return scored


def _measured(sensing: Sensing, prepared: Prepared, clip: ClipSettings) -> Measured:
    """The signal that the run's tower reads, of these recordings. Raises ConfigError where there is none, or one of other channels."""
    sensed = sensing.sensed
    name, lines = sensed.shape.signal, sensed.shape.lines
    measured = Measured(prepared, (name,), clip, {"clip": Clip(augment="none")}, {name: lines} if lines else None)
    found = measured.signals[name].channels
    if found != sensed.channels:
        what = f"'{name}' has {found} columns here, and the run's tower reads {sensed.channels}"
        raise ConfigError(
            what, where=prepared.place, do="Ask it of recordings that were measured as those it was trained on"
        )
    return measured


def windows(
    sensing: Sensing, measured: Measured, prepared: Prepared, clip: ClipSettings, rows: Sequence[int], count: int | None
) -> Windows:
    """The stretches of `rows` in which something was measured; count: of each row, None for all. Raises DataError where there is none."""
    name = sensing.sensed.shape.signal
    found: dict[int, NDArray[np.float64]] = {}
    moments: list[Moment] = []
    signals: list[NDArray[np.float32]] = []
    unmeasured = 0
    for row in rows:
        fps = prepared.fps(row)
        starts = starts_every(prepared, row, clip, None) if count is None else spread_starts(prepared, row, clip, count)
        starts = np.unique(starts)
        if not fps or not len(starts):
            unmeasured += len(starts)
            continue
        values = np.stack([measured.during(name, row, float(start)) for start in starts])
        there = sensing.sensed.present(torch.from_numpy(values)).numpy()
        unmeasured += int((~there).sum())
        if there.any():
            found[row] = starts[there]
            length = frame_step(fps, clip) * clip.frames / fps
            moments += [(row, start / fps, start / fps + length) for start in starts[there].tolist()]
            signals += list(values[there])
    if not moments:
        what = f"nothing of '{name}' was measured in the recordings that are asked"
        raise DataError(what, where=prepared.place, do="Leave out --split, or ask other recordings")
    return Windows(found, moments, np.stack(signals), unmeasured)


def _predictions(
    ways: Sequence[Way], moments: Sequence[Moment], prepared: Prepared, ranked: dict[str, Array]
) -> tuple[list[str], list[list[str]]]:
    """A line for every question."""
    lines = [
        [way.title, prepared.video_id(row), f"{start:g}", f"{end:g}", f"{rank:g}"]
        for way in ways
        for (row, start, end), rank in zip(moments, ranked[way.name], strict=True)
    ]
    return ["question", "video_id", "start", "end", "rank"], lines
