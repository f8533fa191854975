"""Which frames and which crop of a video a clip is made of, from (seed, epoch, sample id) and nothing else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.base import AugmentPolicies, AugmentSettings, ClipSettings, RegionMapSettings, TemporalDrop
from domains.errors import DataError
from domains.store.frames import Frames
from domains.store.prepared import Prepared
from domains.store.region_map import cut_map, region_map
from domains.store.square import WHOLE, Box

DRAWN = 32  # places that are tried where a recording has withheld frames
Band = tuple[float, float]
Span = tuple[float, float]  # seconds
EVERYTHING: Band = (0.0, 1.0)  # in cycles a frame or a pixel, which never pass 0.71


@dataclass(frozen=True)
class Clip:
    """A view that an objective asks for.

    augment: name of the domain's policy (`none`, `weak`, `strong`).
    near: another view whose place in time this one is drawn close to; None: anywhere.
    within: how far from it, in clip lengths, the start may lie; 0: the same start; None: as far as the recording goes.
    falling: nearer is likelier, the density falling in a straight line to 0 at that distance (CVRL); else every place is as likely.
    rate: multiple of the domain's sampling rate (2.0 looks twice as fast).
    length: multiple of the frames that the encoder sees: a long clip out of which an objective cuts its own.
    like: another view whose crop, flip, brightness, contrast and frequencies it shares; None: its own.
    regions: the region map of the view that it is `like`, in place of frames: whole numbers as grey levels, one frame (length 0).
    recording: of a sample that several recordings belong to (the report of a study), from which of them: 0 the sample's own, then the others in an
    order that is drawn, and over again where there are no more. Views of one number may be `near` and `like` each other.
    across: of a sample that is a text, the view at whose moment this is what another camera of the event shows; blank where there is none.
    """

    augment: str = "weak"
    near: str | None = None
    within: float | None = 1.0
    falling: bool = False
    rate: float = 1.0
    length: float = 1.0
    like: str | None = None
    regions: bool = False
    recording: int = 0
    across: str | None = None


@dataclass(frozen=True)
class _Look:
    """How a view is cut out and shown; the same in every frame."""

    crop: tuple[int, int, int]
    flip: bool
    brightness: float
    contrast: float
    keep_temporal: Band
    keep_spatial: Band

    def box(self, stored: int) -> Box:
        """The crop in shares of a stored frame of that side."""
        x, y, side = self.crop
        return x / stored, y / stored, (x + side) / stored, (y + side) / stored


@dataclass(frozen=True)
class DrawnClip:
    """A clip as the loader hands it on; what is cheap on the device is left to the device, as numbers.

    frames: uint8 (T, size, size, C), cropped and resized, the same crop in every frame.
    flip: mirror left and right.
    brightness: added, in units of full scale (0 leaves the clip as it is).
    contrast: factor about the clip's mean (1 leaves the clip as it is).
    keep_temporal, keep_spatial: frequencies [least, below) that are left, in cycles a frame and a pixel; EVERYTHING leaves the clip as it is.
    start: native frame at which it begins.
    box: (x0, y0, x1, y1) of the crop in shares of the stored frame.
    """

    frames: Frames
    flip: bool
    brightness: float
    contrast: float
    keep_temporal: Band = EVERYTHING
    keep_spatial: Band = EVERYTHING
    start: float = 0.0
    box: Box = WHOLE


def sample_seed(seed: int, epoch: int, video_id: str, draw: int) -> int:
    """A number in [0, 2**63) that is the same on every machine and in every process for the same sample."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{video_id}/{draw}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def frame_step(fps: float | None, clip: ClipSettings, speed: float = 1.0) -> float:
    """Native frames from one frame of a clip to the next."""
    return speed * (fps / clip.rate if fps and clip.rate else clip.stride)


def frames_of(clip: ClipSettings, length: float) -> int:
    """Frames of a view that is `length` times as long as a clip; at least one."""
    return max(1, round(clip.frames * length))


def frame_indices(
    n_frames: int, fps: float | None, clip: ClipSettings, start: float, speed: float = 1.0, length: float = 1.0
) -> NDArray[np.int64]:
    """(T,) native frames of a clip that starts at native frame `start`; past the end the last frame is held."""
    times = start + frame_step(fps, clip, speed) * np.arange(frames_of(clip, length))
    return np.clip(np.floor(times + 0.5), 0, n_frames - 1).astype(np.int64)


def last_start(n_frames: int, fps: float | None, clip: ClipSettings, speed: float = 1.0, length: float = 1.0) -> float:
    """The latest start at which a clip still fits; 0 where the video is too short for it."""
    return max(0.0, n_frames - 1 - frame_step(fps, clip, speed) * (frames_of(clip, length) - 1))


def spread_starts(prepared: Prepared, index: int, clip: ClipSettings, count: int) -> NDArray[np.float64]:
    """(count,) native frames at which clips begin that are spread evenly over the video (one: its middle), moved off withheld frames."""
    end = last_start(prepared.length(index), prepared.fps(index), clip)
    starts = np.linspace(0, end, count, dtype=np.float64) if count > 1 else np.array([end / 2])
    return _clear_starts(prepared, index, clip, starts)


def starts_within(prepared: Prepared, index: int, clip: ClipSettings, count: int, span: Span) -> NDArray[np.float64]:
    """(count,) native frames at which clips begin that are spread evenly over a span (s; up to inf: the whole video), or lie about its middle where
    it is shorter than a clip; moved off withheld frames. Raises DataError for a span within a video whose frame rate is not known."""
    if math.isinf(span[1]):
        return spread_starts(prepared, index, clip, count)
    if not (fps := prepared.fps(index)):
        raise DataError("its frame rate is not known, so times mean nothing in it", do="Prepare it with one")
    length = frame_step(fps, clip) * (clip.frames - 1)
    first, last = _within(span, fps, length, last_start(prepared.length(index), fps, clip))
    starts = np.linspace(first, last, count, dtype=np.float64) if count > 1 else np.array([(first + last) / 2])
    return _clear_starts(prepared, index, clip, starts)


def starts_every(prepared: Prepared, index: int, clip: ClipSettings, every: float | None) -> NDArray[np.float64]:
    """Native frames (n,) at which clips begin, `every` seconds apart, or (None, or where the frame rate is not known) one after the other; the last
    one fits, unless the video is shorter than a clip. Those that meet withheld frames are left out: there may be none."""
    n_frames, fps = prepared.length(index), prepared.fps(index)
    step = every * fps if every and fps else frame_step(fps, clip) * clip.frames
    starts = np.arange(0, last_start(n_frames, fps, clip) + 1e-6, step, dtype=np.float64)
    outside = prepared.outside(index)
    if not len(outside):
        return starts
    hidden = hidden_frames(outside, n_frames)
    return starts[[not hidden[frame_indices(n_frames, fps, clip, start)].any() for start in starts]]


def centred_starts(centres: NDArray[np.int64], fps: float | None, clip: ClipSettings) -> NDArray[np.float64]:
    """(n,) native frames at which clips begin whose middle is native frame centres[i] (n,). One before the recording begins, or after its end, holds
    the first frame, or the last."""
    return centres.astype(np.float64) - frame_step(fps, clip) * (clip.frames - 1) / 2


def clips_from(prepared: Prepared, index: int, clip: ClipSettings, starts: NDArray[np.float64]) -> Frames:
    """uint8 (n, T, size, size, C): whole frames, clips that begin at native frame starts[i] (n,). Raises MediaError where frames are damaged."""
    n_frames, fps = prepared.length(index), prepared.fps(index)
    return _whole_frames(prepared, index, clip, np.stack([frame_indices(n_frames, fps, clip, at) for at in starts]))


def _whole_frames(prepared: Prepared, index: int, clip: ClipSettings, wanted: NDArray[np.int64]) -> Frames:
    """wanted (n, T) native frames -> uint8 (n, T, size, size, C); one that several clips share is decoded once."""
    needed, places = np.unique(wanted, return_inverse=True)
    small = resize(prepared.frames(index, needed.tolist()), (0, 0, prepared.size), clip.size, np.arange(len(needed)))
    return small[places.reshape(wanted.shape)]


def draw_views(
    prepared: Prepared,
    index: int,
    views: Mapping[str, Clip],
    clip: ClipSettings,
    policies: AugmentPolicies,
    seed: int,
    epoch: int,
    draw: int = 0,
    *,
    regions: RegionMapSettings | None = None,
    spans: Mapping[str, Span] | None = None,
    sample: str | None = None,
) -> dict[str, DrawnClip]:
    """Every view of one sample. Each view has a generator of its own, so that adding one changes no other.

    Frames that several views share are decoded once. regions: what the domain says of region maps, for views that ask for one. spans: name of a view
    -> (start, end) in seconds that its clip lies within (longer than the span, about its middle); only for a recording whose frame rate is known.
    sample: what the sample is called where a recording is more than one (its texts); None: as the recording.
    Raises MediaError where the stored frames, or the region map, are damaged.
    """
    number = sample_seed(seed, epoch, sample or prepared.video_id(index), draw)
    random = {name: generator(number, name) for name in views}
    starts = _draw_starts(prepared, index, views, clip, random, spans or {})
    n_frames, fps = prepared.length(index), prepared.fps(index)
    wanted = {
        name: frame_indices(n_frames, fps, clip, starts[name], view.rate, view.length) for name, view in views.items()
    }
    needed = np.unique(np.concatenate(list(wanted.values())))
    decoded = prepared.frames(index, needed.tolist())
    looks = {
        name: _draw_look(prepared.size, policy_of(policies, view.augment), random[name]) for name, view in views.items()
    }
    drawn = {}
    for name in views:
        look = looks[_whose_look(name, views)]
        if views[name].regions:
            of = decoded[np.searchsorted(needed, wanted[views[name].like or name])]
            found = region_map(prepared, index, regions or RegionMapSettings(), of)
            pixels = cut_map(found, look.crop, clip.size)
            drawn[name] = DrawnClip(pixels, look.flip, brightness=0.0, contrast=1.0, box=look.box(prepared.size))
            continue
        pixels = resize(decoded, look.crop, clip.size, np.searchsorted(needed, wanted[name]))
        drawn[name] = DrawnClip(
            pixels, look.flip, look.brightness, look.contrast, look.keep_temporal, look.keep_spatial, starts[name],
            look.box(prepared.size),
        )  # fmt: skip
    return drawn


def evaluation_clips(prepared: Prepared, index: int, clip: ClipSettings, count: int) -> Frames:
    """uint8 (count, T, size, size, C): whole frames, clips spread evenly over the video (one: its middle)."""
    return clips_from(prepared, index, clip, spread_starts(prepared, index, clip, count))


def clips_until(prepared: Prepared, index: int, clip: ClipSettings, ends: NDArray[np.int64]) -> Frames:
    """uint8 (n, T, size, size, C): whole frames, clips whose last frame is native frame ends[i] (n,). Nothing later than its end is in a clip;
    before the recording begins its first frame is held. Raises MediaError where the stored frames are damaged."""
    n_frames, fps = prepared.length(index), prepared.fps(index)
    back = frame_step(fps, clip) * (clip.frames - 1)
    wanted = np.stack([np.minimum(frame_indices(n_frames, fps, clip, end - back), end) for end in ends.tolist()])
    return _whole_frames(prepared, index, clip, wanted)


def _clear_starts(
    prepared: Prepared, index: int, clip: ClipSettings, starts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Each of `starts`, moved to the nearest frame from which a clip meets no withheld one; as it is where there is no such frame."""
    outside = prepared.outside(index)
    if not len(outside):
        return starts
    n_frames, fps = prepared.length(index), prepared.fps(index)
    hidden = hidden_frames(outside, n_frames)
    every = range(int(last_start(n_frames, fps, clip)) + 1)
    clear = [start for start in every if not hidden[frame_indices(n_frames, fps, clip, start)].any()]
    if not clear:
        return starts
    return np.array([min(clear, key=lambda one: abs(one - start)) for start in starts], np.float64)


def hidden_frames(outside: NDArray[np.int64], n_frames: int) -> NDArray[np.bool_]:
    """(n_frames,): whether a frame is withheld. outside: `Prepared.outside`."""
    hidden = np.zeros(n_frames, bool)
    for start, end in outside.tolist():
        hidden[start:end] = True
    return hidden


def policy_of(policies: AugmentPolicies, name: str) -> AugmentSettings:
    """A policy by name; `none` keeps the whole frame as it is. Raises KeyError for an unknown name."""
    if name == "none":
        return AugmentSettings()
    if name not in type(policies).model_fields:
        raise KeyError(f"no augmentation policy '{name}'")
    policy: AugmentSettings = getattr(policies, name)
    return policy


def resize(frames: Frames, crop: tuple[int, int, int], size: int, indices: NDArray[np.int64]) -> Frames:
    """frames (N, S, S, C), crop (x, y, side) -> uint8 (len(indices), size, size, C)."""
    x, y, side = crop
    out = np.empty((len(indices), size, size, frames.shape[-1]), np.uint8)
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    done: dict[int, int] = {}
    for place, index in enumerate(indices.tolist()):
        if index in done:  # a held last frame is resized once
            out[place] = out[done[index]]
            continue
        done[index] = place
        cut = frames[index, y : y + side, x : x + side]
        out[place] = cut if side == size else cv2.resize(cut, (size, size), interpolation=how).reshape(out.shape[1:])
    return out


def generator(number: int, view: str) -> np.random.Generator:
    """What a view, or anything else that is called `view`, draws from; `number`: the sample's `sample_seed`."""
    name = int.from_bytes(hashlib.blake2b(view.encode(), digest_size=8).digest(), "big")
    return np.random.Generator(np.random.Philox(key=np.array([number, name], np.uint64)))


def _draw_starts(
    prepared: Prepared,
    index: int,
    views: Mapping[str, Clip],
    clip: ClipSettings,
    random: Mapping[str, np.random.Generator],
    spans: Mapping[str, Span],
) -> dict[str, float]:
    """Start of every view in native frames; see `Clip` for what one view has to do with another, `draw_views` for spans."""
    n_frames, fps = prepared.length(index), prepared.fps(index)
    outside = prepared.outside(index)
    hidden = hidden_frames(outside, n_frames) if len(outside) else None
    starts: dict[str, float] = {}

    def clear(view: Clip, draw: Callable[[], float]) -> float:
        """A start by `draw`, again where the clip meets withheld frames; after that many the one that meets fewest."""
        if hidden is None:
            return draw()
        drawn = []
        for _ in range(DRAWN):
            start = draw()
            met = int(hidden[frame_indices(n_frames, fps, clip, start, view.rate, view.length)].sum())
            if not met:
                return start
            drawn.append((met, start))
        return min(drawn)[1]

    def place(name: str, waiting: tuple[str, ...] = ()) -> float:
        _check_waiting(name, waiting)
        if name not in starts:
            view = views[name]
            low, high = 0.0, last_start(n_frames, fps, clip, view.rate, view.length)
            if name in spans and fps:
                low, high = _within(
                    spans[name], fps, frame_step(fps, clip, view.rate) * (frames_of(clip, view.length) - 1), high
                )
            centre, reach = 0.0, float("inf")
            if view.near is not None:
                centre = place(view.near, (*waiting, name))
                if view.within is not None:
                    reach = view.within * frame_step(fps, clip, view.rate) * clip.frames
                    low, high = min(high, max(low, centre - reach)), max(low, min(high, centre + reach))
            draw = random[name]
            if view.falling and view.near is not None:
                reach = min(reach, max(n_frames - 1, 1))
                starts[name] = clear(view, partial(_draw_falling, draw, centre, reach, low, high))
            else:
                starts[name] = clear(view, lambda: float(draw.uniform(low, high)))
        return starts[name]

    for name in views:
        place(name)
    return starts


def _within(span: Span, fps: float, length: float, latest: float) -> tuple[float, float]:
    """First and last start (native frames) of a clip of `length` frames within a span (s), about its middle where it is longer."""
    first, last = span[0] * fps, span[1] * fps - length
    if last < first:
        first = last = (first + last) / 2
    return min(max(first, 0.0), latest), min(max(last, 0.0), latest)


def _draw_falling(random: np.random.Generator, centre: float, reach: float, low: float, high: float) -> float:
    """A number in [low, high], of a density that falls in straight lines from `centre` to 0 at `centre` +- `reach`."""
    if high <= low or reach <= 0:
        return low

    def share(x: float) -> float:  # of the whole density that lies below x
        away = min(1.0, abs(x - centre) / reach)
        tail = (1 - away) ** 2 / 2
        return tail if x < centre else 1 - tail

    drawn = random.uniform(share(low), share(high))
    side, tail = (-1, drawn) if drawn < 0.5 else (1, 1 - drawn)
    return float(np.clip(centre + side * reach * (1 - np.sqrt(2 * tail)), low, high))


def _whose_look(name: str, views: Mapping[str, Clip], waiting: tuple[str, ...] = ()) -> str:
    """The view whose crop and light `name` shows: its own, or that of the view it is `like`."""
    _check_waiting(name, waiting)
    like = views[name].like
    return name if like is None else _whose_look(like, views, (*waiting, name))


def _check_waiting(name: str, waiting: tuple[str, ...]) -> None:
    if name in waiting:
        raise ValueError(f"views wait for each other: {' -> '.join((*waiting, name))}")


def _draw_look(stored: int, policy: AugmentSettings, rng: np.random.Generator) -> _Look:
    """A square crop (x, y, side), anywhere in the stored frame, and the light."""
    side = max(1, round(stored * policy.crop_scales[rng.integers(len(policy.crop_scales))]))
    x, y = rng.integers(0, stored - side + 1, size=2)
    return _Look(
        crop=(int(x), int(y), side),
        flip=bool(rng.random() < policy.flip),
        brightness=float(rng.uniform(-policy.brightness, policy.brightness)),
        contrast=float(1 + rng.uniform(-policy.contrast, policy.contrast)),
        keep_temporal=_draw_band(policy.temporal_drop, rng),  # last: what is drawn before does not depend on them
        keep_spatial=_draw_band(policy.spatial_drop, rng),
    )


def _draw_band(drop: TemporalDrop, rng: np.random.Generator) -> Band:
    """The frequencies that are left."""
    if rng.random() >= drop.probability:
        return EVERYTHING
    return (drop.cutoff, EVERYTHING[1]) if drop.band == "low" else (EVERYTHING[0], drop.cutoff)
