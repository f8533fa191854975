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
from domains.store.square import WHOLE, Box, place, stored_boxes
from recipes.objective import POSE

LONGEST = 1024  # numbers of a channel in the time of a clip
MISSING = "{}_missing"  # target beside each signal: whether nothing of it was measured in the time of the clip


class Measured:
    """Signals of a prepared folder by name, cut to clips. Every window is as long and as finely measured as any other, whatever the recording: what
    was measured in between is drawn in straight lines; NaN where nothing was.

    A pose has a line a frame of the clip, and is where that shows it: joints are in shares of the clip as it was cropped and mirrored, NaN beyond its
    edges, and in a mirror those whose columns are called left and right change places. Anything else has as many lines a second as the recordings
    have themselves (of the first: at most LONGEST). lines: by name, other numbers of them, those that something was trained with.
    Raises ConfigError for a signal that there is not, or where a clip's length in seconds is not known; DataError for poses of recordings whose frame
    size is not known.
    """

    def __init__(
        self,
        prepared: Prepared,
        names: Sequence[str],
        clip: ClipSettings,
        views: Mapping[str, Clip],
        lines: Mapping[str, int] | None = None,
    ) -> None:
        self.prepared, self.clip = prepared, clip
        self.rate = next((view.rate for view in views.values()), 1.0)
        self.signals = {name: Signals(prepared, name) for name in names}
        if self.signals and clip.rate is None:
            raise ConfigError(
                "signals are cut by seconds, and clip.rate is null", do="Set frames a second: clip.rate=4"
            )
        self.view = next(iter(views), "")
        self.frames = frames_of(clip, views[self.view].length) if self.signals else 0
        self.counts = {name: self._count(one) for name, one in self.signals.items()}
        self.counts |= {name: count for name, count in (lines or {}).items() if name in self.counts}
        posed = sorted(self.signals[POSE].groups) if POSE in self.signals else []
        if posed and self.signals[POSE].channels % 2:
            what = f"poses have {self.signals[POSE].channels} columns beside the seconds, and a joint has two (x, y)"
            raise DataError(what, where=prepared.place, do="Mend their tables, and prepare them again")
        self.boxes = stored_boxes(prepared, posed) if posed else {}

    def _count(self, signals: Signals) -> int:
        """Lines of a window."""
        if signals.name == POSE:
            return self.frames
        assert self.clip.rate is not None
        first = signals.of(min(signals.groups))
        step = float(np.median(np.diff(first.times))) if first is not None and len(first.times) > 1 else 1.0
        return min(LONGEST, max(1, round(self.frames * self.rate / self.clip.rate / step)))

    def at(self, row: int, drawn: Mapping[str, DrawnClip]) -> dict[str, NDArray[Any]]:
        """name -> (T, channels) float32 of a recording at the time of its drawn clip, of poses (T, joints, 2) in it; and whether all of it is
        missing."""
        if not self.signals:
            return {}
        shown = drawn[self.view]
        found: dict[str, NDArray[Any]] = {}
        for name in self.signals:
            values = self.during(name, row, shown.start, shown.box, flip=shown.flip)
            found[name] = values
            found[MISSING.format(name)] = np.asarray(not np.isfinite(values).any())
        return found

    def during(
        self, name: str, row: int, start: float, crop: Box = WHOLE, *, flip: bool = False
    ) -> NDArray[np.float32]:
        """One signal as `at` has it, of a clip that begins at native frame `start` and shows that crop of the stored frames."""
        signals, count, fps = self.signals[name], self.counts[name], self.prepared.fps(row)
        values = np.full((count, signals.channels), np.nan, np.float32)
        signal = signals.of(row)
        if signal is not None and fps:
            length = self.frames * frame_step(fps, self.clip, self.rate) / fps
            values = signal.at(start / fps + length * np.arange(count) / count)
        if name != POSE:
            return values
        joints = values.reshape(count, -1, 2)
        if signal is None:
            return joints
        joints = place(joints, self.boxes[row], crop, flip=flip)
        return joints[:, other_side(signal.columns)] if flip and signal.columns else joints
