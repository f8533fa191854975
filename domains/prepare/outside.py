"""Frames that show the operating room, a face or the inside of the trocar: told from the inside of a body by colour, and withheld.

Light within a body comes from the endoscope and comes back from blood and fat: red outweighs green nearly everywhere. Drapes, gowns, walls,
lamps, gauze and the tube of a trocar are white, grey, blue or green. What is not surely inside is withheld: the rule may take tissue away
(thick smoke, a bag before the lens); it lets no room pass, except where most of the picture is of the colour of tissue. It recognises nobody, and a
close view of skin is of such a colour: see docs/surgical.md.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.store.frames import Frames

LIT = 40  # grey levels of the brightest channel from which a pixel shows anything
GLARE = 200  # of the darkest channel: white of its own, a reflection or the sky
RED = 0.2  # (red - green) / red of tissue; skin and wood under white light lie below
INSIDE = 0.5  # share of the lit pixels that are tissue, from which a frame is surely inside
OUTSIDE = 0.25  # below which it surely is not, and its neighbours are not trusted either
DARK = 0.02  # share of lit pixels below which there is nothing to tell by
LOOKED_AT = 128  # side in pixels
MARGIN = 2.0  # seconds about what is surely outside: the endoscope on its way
PATCHES = 8  # patches of colour along a side that a blurred frame is left with
FEWEST = 0.1  # share of a recording's frames that must be inside: below, the detector does not understand it


def tissue_share(frame: Frames) -> float:
    """Share of the lit pixels of an RGB frame (S, S, 3) that have the colour of tissue; 0 where hardly anything is lit."""
    step = max(1, frame.shape[0] // LOOKED_AT)
    small = frame[::step, ::step].astype(np.int16)
    red, green, blue = small[..., 0], small[..., 1], small[..., 2]
    lit = np.maximum(np.maximum(red, green), blue) > LIT
    if lit.mean() < DARK:
        return 0.0
    tissue = lit & (red - green > RED * red) & (np.minimum(green, blue) < GLARE)
    return float(tissue.sum() / lit.sum())


class Withheld:
    """Frames on their way into the store: those that are not surely inside become blank or patches of colour.

    policy: "exclude" or "blur". rate: frames a second, None where unknown (then each stands for a second). A frame waits until it is known what
    follows it within the margin; no more than that is held. `spans` is complete when all have passed: (from, to, from, to, ...), half open.
    """

    def __init__(self, policy: str, rate: float | None) -> None:
        self._policy, self._margin = policy, round(MARGIN * (rate or 1.0))
        self.total = self.withheld = 0
        self.spans: tuple[int, ...] = ()

    def pass_on(self, frames: Iterator[Frames]) -> Iterator[Frames]:
        """frames: RGB (S, S, 3), in order."""
        waiting: deque[tuple[Frames, bool]] = deque()  # (frame, whether it is surely inside)
        since = self._margin + 1  # frames since the last that was surely outside
        until = -1  # the last number that one to come makes doubtful
        for number, frame in enumerate(frames):
            share = tissue_share(frame)
            if share < OUTSIDE:
                until = number
            since = 0 if share < OUTSIDE else since + 1
            waiting.append((frame, share >= INSIDE and since > self._margin))
            if len(waiting) > self._margin:
                yield self._settle(*waiting.popleft(), until)
        while waiting:
            yield self._settle(*waiting.popleft(), until)

    def _settle(self, frame: Frames, inside: bool, until: int) -> Frames:
        number = self.total
        self.total += 1
        if inside and number > until:  # what is surely outside and waits still lies within the margin behind
            return frame
        self.withheld += 1
        if self.spans and self.spans[-1] == number:
            self.spans = (*self.spans[:-1], number + 1)
        else:
            self.spans = (*self.spans, number, number + 1)
        return np.zeros_like(frame) if self._policy == "exclude" else patches(frame)

    @property
    def understood(self) -> bool:
        """Whether enough is inside to believe that the recording shows what the detector knows."""
        return self.total - self.withheld >= max(1.0, FEWEST * self.total)


def patches(frame: Frames) -> Frames:
    """What is left of a frame that is blurred: a few soft patches of colour, nobody and no letter."""
    few = cv2.resize(frame, (PATCHES, PATCHES), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(few, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def redacted_frames(spans: Sequence[tuple[float, float]], count: int, rate: float | None) -> tuple[int, ...]:
    """Seconds (start, end) that a data set redacts -> (from, to, from, to, ...), half open, of `count` frames: every frame that may show some of
    them. All of the recording where the rate is not known."""
    if not spans or not count:
        return ()
    if rate is None:
        return (0, count)
    hidden = np.zeros(count, bool)
    for start, end in spans:
        hidden[max(0, math.floor(start * rate)) : max(0, math.ceil(end * rate) + 1)] = True
    return _runs(hidden)


def blanked(frames: Iterator[Frames], spans: tuple[int, ...]) -> Iterator[Frames]:
    """The same frames, those in spans (from, to, ...) without anything in them."""
    edges = list(zip(spans[::2], spans[1::2], strict=True))
    for number, frame in enumerate(frames):
        yield np.zeros_like(frame) if any(start <= number < end for start, end in edges) else frame


def joined(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """Both spans in one."""
    if not first or not second:
        return first or second
    hidden = np.zeros(max(first[-1], second[-1]), bool)
    for spans in (first, second):
        for start, end in zip(spans[::2], spans[1::2], strict=True):
            hidden[start:end] = True
    return _runs(hidden)


def _runs(hidden: NDArray[np.bool_]) -> tuple[int, ...]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden.astype(np.int8), [0]])))
    return tuple(edges.tolist())
