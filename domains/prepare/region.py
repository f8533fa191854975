"""Where the picture is. Everything outside is blanked before anything is written, and no region means no file.

Burned-in text, scales, menus and the ECG are pixels too. They stand still, or they move in thin lines; tissue moves in
one large,
thick and convex patch: a sector, a trapezoid, a rectangle. The region is the hull of that patch, within the header's
box if there is one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.prepare.classify import TWO_D, Region, SetAside, extremes
from domains.prepare.order import kth_brightest, kth_darkest
from domains.store.frames import Frames

WORKING = 320  # longer side of the frames in which the picture is looked for
THICK = 7  # pixels at that size: what is thinner is drawn, not tissue
STEP = 15  # pixels at that size: a gap within the picture
LIT = 24  # grey levels above the black of a border, which compression makes uneven
FULL = 0.97  # share of the frame from which there is no border

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Picture:
    """mask: (H, W), True where pixels are kept. box: the mask's bounds (x0, y0, x1, y1), half open.

    source: what found it: "regions+motion", "motion", "endoscope" or "whole". cm_per_pixel: of a source pixel, where the box came
    from the header.
    """

    mask: Mask
    box: Box
    source: str
    cm_per_pixel: float | None = None


def whole(height: int, width: int) -> Picture:
    """The frame is all picture."""
    return Picture(np.ones((height, width), bool), (0, 0, width, height), "whole")


def without(picture: Picture, boxes: Sequence[tuple[float, float, float, float]]) -> Picture:
    """The picture without boxes (x0, y0, x1, y1) in shares of the frame; what they touch is blanked, its bounds stay."""
    if not boxes:
        return picture
    mask, (height, width) = picture.mask.copy(), picture.mask.shape
    for x0, y0, x1, y1 in boxes:
        mask[math.floor(y0 * height) : math.ceil(y1 * height), math.floor(x0 * width) : math.ceil(x1 * width)] = False
    return dataclasses.replace(picture, mask=mask)


def endoscope(sample: Frames, min_fraction: float) -> Picture:
    """What an endoscope lights, without the black border and what is written there: the hull of the largest thick patch of light.

    sample (T, H, W, C): frames spread over the recording. Raises SetAside where hardly anything is lit.
    """
    height, width = sample.shape[1:3]
    scale = min(1.0, WORKING / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.stack(
        [cv2.resize(extremes(frame)[0], size, interpolation=cv2.INTER_AREA).reshape(size[::-1]) for frame in sample]
    )
    # What shines for a short while only (a menu, a flare in the glass) makes no picture of the border.
    light = kth_brightest(small, round(0.25 * (len(small) - 1)))
    outline = _hull((light > LIT).astype(np.uint8))
    mask = cv2.erode(_fill(outline, height, width, scale).astype(np.uint8), _disc(3), borderValue=1).astype(bool)
    if mask.sum() < min_fraction * mask.size:
        raise SetAside("no region", f"no picture found: less than {min_fraction:.0%} of the frame is lit")
    if mask.mean() > FULL:  # corners that are dark are the scene's own
        return dataclasses.replace(whole(height, width), source="endoscope")
    return Picture(mask, _bounds(mask), "endoscope")


def find(sample: Frames, regions: list[Region], min_fraction: float) -> Picture:
    """sample (T, H, W, C): frames spread over the recording. Raises SetAside where no picture is sure."""
    height, width = sample.shape[1:3]
    region = header_box(regions, height, width)
    x0, y0, x1, y1 = region.box if region is not None else (0, 0, width, height)
    motion = variation(sample)
    scale = max(motion.shape) / max(height, width)
    small = (math.floor(x0 * scale), math.floor(y0 * scale), math.ceil(x1 * scale), math.ceil(y1 * scale))
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = _fill(_patch(motion, small), height, width, scale)[y0:y1, x0:x1]
    if mask.sum() < min_fraction * mask.size:
        where = " inside the header's region" if region is not None else ""
        raise SetAside("no region", f"no picture found: less than {min_fraction:.0%} of the frame moves{where}")
    bounds = _bounds(mask)
    if region is None:
        return Picture(mask, bounds, "motion")
    return Picture(mask, bounds, "regions+motion", region.cm_per_pixel)


def _bounds(mask: Mask) -> Box:
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def header_box(regions: list[Region], height: int, width: int) -> Region | None:
    """The largest 2D region, clipped to the frame.

    None where there is none, or where it reaches out of the frame by more than rounding: then the header speaks of a
    frame of another size (recordings are scaled down on export and keep their tags), and what moves is the better
    witness.
    """
    pictures = [region for region in regions if region.spatial_format == TWO_D and region.area > 0]
    if not pictures:
        return None
    best = max(pictures, key=lambda region: region.area)
    x0, y0, x1, y1 = best.box
    if x1 > 1.02 * width or y1 > 1.02 * height or x0 < 0 or y0 < 0:
        return None
    clipped = (x0, y0, min(x1, width), min(y1, height))
    return Region(best.spatial_format, best.data_type, clipped, best.cm_per_pixel)


def variation(sample: Frames) -> NDArray[np.float32]:
    """(h, w), at working size: how far each pixel travels, from its 20th to its 80th percentile in time.

    A pixel's value is its darkest channel: tissue is grey, and coloured traces and letters, with what compression
    smears of them, are dark in one. Percentiles, because what passes over a pixel now and then is drawn, not tissue:
    the trace of a scrolling ECG sweeps a whole band from end to end, yet lies on each of its pixels in few frames only.
    """
    height, width = sample.shape[1:3]
    scale = min(1.0, WORKING / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = [cv2.resize(_darkest_channel(frame), size, interpolation=cv2.INTER_AREA) for frame in sample]
    smooth = np.stack([cv2.blur(frame, (3, 3)) for frame in small])
    last = len(smooth) - 1
    high, low = kth_brightest(smooth, last - round(0.8 * last)), kth_darkest(smooth, round(0.2 * last))
    return high.astype(np.float32) - low


def _darkest_channel(frame: Frames) -> NDArray[np.uint8]:
    return functools.reduce(np.minimum, [frame[..., channel] for channel in range(frame.shape[-1])])


def _patch(motion: NDArray[np.float32], box: Box) -> NDArray[np.int32]:
    """The convex outline, points (n, 2) as (x, y), of the largest thick patch of motion in `box`; empty if none."""
    x0, y0, x1, y1 = box
    inside = np.zeros_like(motion)
    inside[y0:y1, x0:x1] = motion[y0:y1, x0:x1]
    # Dim recordings move by a few grey levels; compression flickers by as much around text in bright ones.
    threshold = float(np.clip(0.06 * np.percentile(inside, 99), 3, 12))
    return _hull((inside > threshold).astype(np.uint8))


def _hull(moving: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The convex outline of the largest thick patch of what is not 0, with the pieces that belong to it."""
    # Opening removes what is thin: traces, ticks, letters. Closing more than this before would join them to the sector.
    thick = cv2.morphologyEx(moving, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    thick = cv2.morphologyEx(thick, cv2.MORPH_OPEN, _disc(THICK))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(thick, connectivity=8)
    if count < 2:
        return np.empty((0, 2), np.int32)
    areas = stats[:, cv2.CC_STAT_AREA]
    best = 1 + int(np.argmax(areas[1:]))
    # Chambers and shadows split a sector: pieces within a step of the main one belong to it unless they are small.
    near = cv2.dilate((labels == best).astype(np.uint8), _disc(STEP))
    touching = [n for n in np.unique(labels[near > 0]).tolist() if n and areas[n] >= 0.02 * areas[best]]
    points = cv2.findNonZero(np.isin(labels, touching).astype(np.uint8))
    outline: NDArray[np.int32] = cv2.convexHull(points).reshape(-1, 2)
    return outline


def _disc(size: int) -> NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)).astype(np.uint8)


def _fill(outline: NDArray[np.int32], height: int, width: int, scale: float) -> Mask:
    """The outline as a mask of the full frame: pixel centres of the working size, mapped to where they came from."""
    mask = np.zeros((height, width), np.uint8)
    if len(outline):
        full = np.round((outline + 0.5) / scale - 0.5).astype(np.int32)
        cv2.fillConvexPoly(mask, full, 1)
    return mask.astype(bool)
