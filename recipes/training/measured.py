"""What else was recorded, at the time of a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.base import ClipSettings
from domains.errors import ConfigError, DataError
from domains.store.clips import Clip, DrawnClip, frame_step, frames_of
from domains.store.prepared import Prepared
from domains.store.signals import Signals, other_side
from domains.store.square import stored_boxes
from recipes.objective import POSE

LONGEST = 1024  # numbers of a channel in the time of a clip
MISSING = "{}_missing"  # target beside each signal: whether nothing of it was measured in the time of the clip


class Measured:
    """Signals of a prepared folder by name, cut to clips. Every window is as long and as finely measured as any other, whatever the recording: what
    was measured in between is drawn in straight lines; NaN where nothing was.

    A pose has a line a frame of the clip, and is where that shows it: joints are in shares of the clip as it was cropped and mirrored, NaN beyond its
    edges, and in a mirror those whose columns are called left and right change places. Anything else has as many lines a second as the recordings
    have themselves (of the first: at most LONGEST).
    Raises ConfigError for a signal that there is not, or where a clip's length in seconds is not known; DataError for poses of recordings whose frame
    size is not known.
    """

    def __init__(self, prepared: Prepared, names: Sequence[str], clip: ClipSettings, views: Mapping[str, Clip]) -> None:
        self.prepared, self.clip = prepared, clip
        self.rate = next((view.rate for view in views.values()), 1.0)
        self.signals = {name: Signals(prepared, name) for name in names}
        if self.signals and clip.rate is None:
            raise ConfigError(
                "signals are cut by seconds, and clip.rate is null", do="Set frames a second: clip.rate=4"
            )
        self.view = next(iter(views), "")
        self.counts = {name: self._count(one, views[self.view]) for name, one in self.signals.items()}
        posed = sorted(self.signals[POSE].groups) if POSE in self.signals else []
        if posed and self.signals[POSE].channels % 2:
            what = f"poses have {self.signals[POSE].channels} columns beside the seconds, and a joint has two (x, y)"
            raise DataError(what, where=prepared.place, do="Mend their tables, and prepare them again")
        self.boxes = stored_boxes(prepared, posed) if posed else {}

    def _count(self, signals: Signals, view: Clip) -> int:
        """Lines of a window."""
        frames = frames_of(self.clip, view.length)
        if signals.name == POSE:
            return frames
        assert self.clip.rate is not None
        first = signals.of(min(signals.groups))
        step = float(np.median(np.diff(first.times))) if first is not None and len(first.times) > 1 else 1.0
        return min(LONGEST, max(1, round(frames * view.rate / self.clip.rate / step)))

    def at(self, row: int, drawn: Mapping[str, DrawnClip]) -> dict[str, NDArray[Any]]:
        """name -> (T, channels) float32 of a recording at the time of its drawn clip, of poses (T, joints, 2) in it; and whether all of it is
        missing."""
        found: dict[str, NDArray[Any]] = {}
        for name, signals in self.signals.items():
            signal, fps, count = signals.of(row), self.prepared.fps(row), self.counts[name]
            values = np.full((count, signals.channels), np.nan, np.float32)
            if signal is not None and fps:
                shown = drawn[self.view]
                length = len(shown.frames) * frame_step(fps, self.clip, self.rate) / fps
                values = signal.at(shown.start / fps + length * np.arange(count) / count)
                if name == POSE:
                    joints = shown.place(values.reshape(count, -1, 2), self.boxes[row])
                    values = joints[:, other_side(signal.columns)] if shown.flip and signal.columns else joints
            found[name] = values.reshape(count, -1, 2) if name == POSE else values
            found[MISSING.format(name)] = np.asarray(not np.isfinite(values).any())
        return found
