"""Questions about moments: which clips are asked, and what is true of them. Of actions (spans of one class at a time) one a span; of what is there at
each moment one a clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domains.base import ClipSettings, TaskSettings
from domains.errors import ConfigError, DataError, MediaError
from domains.store.clips import clips_from, frame_step, hidden_frames, starts_every, starts_within
from domains.store.frames import Frames
from domains.store.moments import MomentLabels, Stretch
from domains.store.prepared import Prepared
from recipes.evaluate.features import Extractor, Failure, ReadProgress, read_ahead
from recipes.evaluate.metrics import Array


@dataclass(frozen=True)
class Asking:
    """How moments are asked about.

    every: tasks of presence: seconds from one clip to the next; None: a clip's length. ahead: seconds: of an action, that its clip ends before it
    starts (anticipation: nothing later is seen); of presence, after the clip's end at which the answer holds; 0: the action itself, and the middle of
    the clip. clips: of an action, averaged. opposites: tell each class of a pair from its reverse, and nothing else.
    """

    every: float | None = None
    ahead: float = 0.0
    clips: int = 1
    opposites: bool = False


@dataclass(frozen=True)
class Unit:
    """One question: clips of a recording (row) that begin at native frames `starts`, and what is true. second: of the clip, or of the action."""

    row: int
    starts: NDArray[np.float64]
    second: float
    truth: Array


def check_asking(asking: Asking, settings: TaskSettings, task: str) -> None:
    """Raises ConfigError for what does not go together with the kind of the task."""
    actions = settings.kind == "phases"
    if actions and asking.every is not None:
        raise ConfigError(f"'{task}' is asked of each action, and --every is of moments", do="Leave --every out")
    if not actions and asking.clips > 1:
        raise ConfigError(f"'{task}' is asked of single clips", do="Leave --clips out")
    if asking.clips > 1 and asking.ahead:
        raise ConfigError("what comes next is asked of one clip that ends before it", do="Leave --clips or --ahead out")
    if asking.opposites and not settings.opposites:
        what = f"the task '{task}' names no opposites"
        raise ConfigError(what, do="Name them: opposites: [[open, close]] in the task's section of the domain")


def units_of(
    prepared: Prepared, labels: MomentLabels, clip: ClipSettings, asking: Asking, fold_of: Mapping[int, int]
) -> tuple[list[Unit], tuple[str, ...]]:
    """The questions, in order of recording and time, and sentences about what could not be asked. Raises DataError where nothing can be."""
    make = _actions if labels.task.kind == "phases" else _presences
    units: list[Unit] = []
    early = 0
    for row in sorted(fold_of):
        if prepared.fps(row) is None:
            raise DataError("a recording's frame rate is not known, so times mean nothing in it", where=prepared.place)
        for unit in make(prepared, labels, row, clip, asking):
            if unit is None:
                early += 1
            else:
                units.append(unit)
    if not units:
        raise DataError(f"nothing of '{labels.task.column}' can be asked", where=prepared.place)
    said = (f"{early} moments are not asked: too close to the beginning or end, or withheld",) if early else ()
    return units, said


def _actions(
    prepared: Prepared, labels: MomentLabels, row: int, clip: ClipSettings, asking: Asking
) -> Iterator[Unit | None]:
    """One a span; None where its clip would lie before the recording."""
    fps = prepared.fps(row) or 0.0
    length, step = prepared.length(row), frame_step(fps, clip)
    hidden = hidden_frames(prepared.outside(row), length)
    for stretch in labels.stretches[row]:
        if not stretch.value:
            continue
        truth = np.array(float(labels.classes.index(stretch.value)))
        if asking.ahead:
            last = (stretch.start - asking.ahead) * fps
            starts = np.array([last - step * (clip.frames - 1)])
            early = starts[0] < -step * clip.frames / 2  # more than half of it would be the held first frame
            yield None if early else Unit(row, starts, stretch.start, truth)
            continue
        middle = min(length - 1, int((stretch.start + stretch.end) / 2 * fps))
        if stretch.start * fps >= length or hidden[middle]:
            yield None
            continue
        span = (stretch.start, min(stretch.end, length / fps))
        yield Unit(row, starts_within(prepared, row, clip, asking.clips, span), stretch.start, truth)


def _presences(
    prepared: Prepared, labels: MomentLabels, row: int, clip: ClipSettings, asking: Asking
) -> Iterator[Unit | None]:
    """One a clip, or, where the data set names its moments, one of each; None where its answer would lie after the recording."""
    fps = prepared.fps(row) or 0.0
    length = frame_step(fps, clip) * (clip.frames - 1) / fps
    if any(stretch.moment for stretch in labels.stretches[row]):
        if asking.every is not None or asking.ahead:
            what = f"the moments of '{labels.task.column}' are those that the data set names"
            raise ConfigError(what, where=prepared.place, do="Leave --every and --ahead out")
        yield from _named(prepared, labels, row, clip)
        return
    starts = starts_every(prepared, row, clip, asking.every)
    times = starts / fps + (length + asking.ahead if asking.ahead else length / 2)
    truths = labels.targets(row, times)
    for start, time, truth in zip(starts, times, truths, strict=True):
        beyond = time > prepared.length(row) / fps
        yield None if beyond else Unit(row, np.array([start]), float(start / fps), truth.astype(np.float64))


def _named(prepared: Prepared, labels: MomentLabels, row: int, clip: ClipSettings) -> Iterator[Unit | None]:
    """A clip about the middle of each moment, and all that is said of it; None for one that begins after the recording's end."""
    length = prepared.length(row) / (prepared.fps(row) or 1.0)
    moments: dict[str, list[Stretch]] = {}
    for stretch in labels.stretches[row]:
        moments.setdefault(stretch.moment, []).append(stretch)
    for stretches in moments.values():
        first = stretches[0]
        truth = np.zeros(len(labels.classes))
        truth[[labels.classes.index(one.value) for one in stretches if one.value]] = 1
        if first.start >= length:
            yield None
            continue
        span = (first.start, min(first.end, length))
        yield Unit(row, starts_within(prepared, row, clip, 1, span), first.start, truth)


def read_units(
    prepared: Prepared,
    units: Sequence[Unit],
    clip: ClipSettings,
    extractors: Mapping[str, Extractor],
    progress: ReadProgress | None,
) -> tuple[dict[str, Array], list[int], tuple[Failure, ...]]:
    """name -> (n, D) of the questions that could be read, their places, and the recordings that could not. Raises DataError where none can."""

    def read(place: int) -> Frames | MediaError:
        try:
            return clips_from(prepared, units[place].row, clip, units[place].starts)
        except MediaError as error:
            return error

    values: dict[str, list[Array]] = {name: [] for name in extractors}
    kept: list[int] = []
    failed: dict[str, Failure] = {}
    for done, (place, clips) in enumerate(read_ahead(range(len(units)), read), 1):
        if isinstance(clips, MediaError):
            video_id = prepared.video_id(units[place].row)
            failed.setdefault(video_id, Failure(video_id, clips.reason))
        else:
            kept.append(place)
            for name, extractor in extractors.items():
                values[name].append(extractor(clips))
        if progress is not None:
            progress(done, len(units))
    if not kept:
        raise DataError(f"none of {len(failed)} recordings could be read", where=prepared.place)
    return {name: np.stack(found) for name, found in values.items()}, kept, tuple(failed.values())


def described(asking: Asking, settings: TaskSettings, clip: ClipSettings) -> tuple[str, ...]:
    """What was done, in sentences."""
    length = f"{clip.frames} frames" + (f" at {clip.rate:g} a second" if clip.rate else "")
    if settings.kind == "presence":
        when = f"{asking.ahead:g} s after the clip's end" if asking.ahead else "in the clip's middle"
        gap = f"{asking.every:g} s apart" if asking.every else "one after the other"
        return (f"clips of {length}, {gap}; what is there {when}",)
    if asking.ahead:
        return (f"one clip of {length} that ends {asking.ahead:g} s before an action starts; which action it will be",)
    pairs = "; each class told from its opposite alone (half is chance)" if asking.opposites else ""
    return (f"{asking.clips} clip{'s' * (asking.clips > 1)} of {length} within each action{pairs}",)
