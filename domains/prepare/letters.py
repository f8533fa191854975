"""Text that is drawn into a recording: rows of small, sharp shapes that stand still while the picture moves.

No recogniser is needed to see that there are letters, and none is shipped: weights for one could not be audited. What is drawn differs from
what is seen in four ways, each of them asked for below: it does not change, its strokes are thin and stand out from what is around
them, its shapes are of one height, and they stand in a row.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.prepare.order import kth_brightest, kth_darkest
from domains.store.frames import Frames

STROKE = 9  # pixels: wider than a stroke of a letter, narrower than the gap to the next line
CONTRAST = 45  # grey levels by which a stroke stands out
STILL = 32  # grey levels that compression may add and take from what stands still
SHORTEST, TALLEST = 5, 64  # pixels of a letter; lower is unreadable
LONG = 3.2  # heights that a row is long at least, about four letters: fewer identify nobody
GAP = 1.1  # letter heights between two letters of a row
SIZES = 0.6  # the smaller of two neighbours, in heights of the larger

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """A row of letters: box (x0, y0, x1, y1), half open, in pixels of the frame; how many separate shapes it has."""

    box: tuple[int, int, int, int]
    shapes: int


def find_rows(sample: Frames, mask: Mask, long: float = LONG) -> list[Row]:
    """Rows of letters within `mask` (H, W); sample (T, H, W, C): frames spread over the recording. long: heights that a row has at least."""
    rows: list[Row] = []
    for strokes in _still_strokes(sample, mask):
        rows += _in_rows(_shapes(strokes), long)
    return rows


def _still_strokes(sample: Frames, mask: Mask) -> Iterator[NDArray[np.uint8]]:
    """Thin shapes that are there in every frame, those brighter than what is around them and those darker: 0 or 1, (H, W)."""
    # The brightest channel of a pixel: coloured letters are bright in one. What moves around letters counts by its darkest moment where
    # they are bright, by its brightest where they are dark.
    channels = [sample[..., channel] for channel in range(sample.shape[-1])]
    brightest, darkest = _range(functools.reduce(np.maximum, channels))
    still = (brightest.astype(np.int16) - darkest <= STILL) & mask
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (STROKE, STROKE))
    for how, picture in ((cv2.MORPH_TOPHAT, darkest), (cv2.MORPH_BLACKHAT, brightest)):
        relief = cv2.morphologyEx(picture, how, kernel)
        yield ((relief >= CONTRAST) & still).astype(np.uint8)


def _range(values: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(T, H, W) -> (H, W): the brightest and the darkest moment of each pixel, without the outermost tenth of the frames."""
    skip = len(values) // 10
    return kth_brightest(values, skip), kth_darkest(values, skip)


def _shapes(strokes: NDArray[np.uint8]) -> list[tuple[int, int, int, int]]:
    """Boxes (x, y, width, height) of connected shapes that may be letters, or letters that touch."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(strokes, connectivity=8)
    boxes = []
    for x, y, width, height, area in stats[1:].tolist():
        if (
            SHORTEST <= height <= TALLEST
            and 1 <= width <= 12 * height
            and area >= 4
            and area <= 0.95 * width * height + 8
        ):
            boxes.append((x, y, width, height))
    return boxes


def _in_rows(boxes: Sequence[tuple[int, int, int, int]], long: float) -> list[Row]:
    """Boxes of about one height that follow each other at about one level."""
    left = sorted(boxes)
    rows: list[list[tuple[int, int, int, int]]] = []
    for box in left:
        home = next((row for row in reversed(rows) if _follows(row[-1], box)), None)
        if home is None:
            rows.append([box])
        else:
            home.append(box)
    found = []
    for row in rows:
        x0, y0 = min(b[0] for b in row), min(b[1] for b in row)
        x1, y1 = max(b[0] + b[2] for b in row), max(b[1] + b[3] for b in row)
        if len(row) > 1 and x1 - x0 >= long * (
            y1 - y0
        ):  # letters that touch are one shape: length tells more than number
            found.append(Row((x0, y0, x1, y1), len(row)))
    return found


def _follows(before: tuple[int, int, int, int], box: tuple[int, int, int, int]) -> bool:
    """Whether `box` may be the letter after `before`."""
    x0, y0, width0, height0 = before
    x1, y1, _, height1 = box
    taller = max(height0, height1)
    shared = min(y0 + height0, y1 + height1) - max(y0, y1)
    gap = x1 - (x0 + width0)
    return (
        min(height0, height1) >= SIZES * taller and shared >= 0.5 * min(height0, height1) and -2 <= gap <= GAP * taller
    )
