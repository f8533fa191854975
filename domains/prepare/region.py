"""Where the picture is. Everything outside is blanked before anything is written, and no region means no file.

Burned-in text, scales, menus and the ECG are pixels too. They stand still, or they move in thin lines; tissue moves in
one large,
thick and convex patch: a sector, a trapezoid, a rectangle. The region is the hull of that patch, within the header's
box if there is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.prepare.classify import TWO_D, Region, SetAside
from domains.store.frames import Frames

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Picture:
    """mask: (H, W), True where pixels are kept. box: the mask's bounds (x0, y0, x1, y1), half open.

    source: what found it: "regions+motion", "motion" or "whole". cm_per_pixel: of a source pixel, where the box came
    from the header.
    """

    mask: Mask
    box: Box
    source: str
    cm_per_pixel: float | None = None


def whole(height: int, width: int) -> Picture:
    """The frame is all picture."""
    return Picture(np.ones((height, width), bool), (0, 0, width, height), "whole")


def find(sample: Frames, regions: list[Region], min_fraction: float) -> Picture:
    """sample (T, H, W, C): frames spread over the recording. Raises SetAside where no picture is sure."""
    height, width = sample.shape[1:3]
    region = header_box(regions, height, width)
    motion = variation(sample)
    if region is not None:
        x0, y0, x1, y1 = region.box
        inside = np.zeros_like(motion)
        inside[y0:y1, x0:x1] = motion[y0:y1, x0:x1]
        motion = inside
    mask = _patch(motion)
    if region is not None:
        x0, y0, x1, y1 = region.box
        box = np.zeros_like(mask)
        box[y0:y1, x0:x1] = True
        mask &= box
    if mask.sum() < min_fraction * mask.size:
        where = "inside the header's region" if region is not None else "in the frame"
        raise SetAside("no region", f"no picture found: less than {min_fraction:.0%} of the frame moves {where}")
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    bounds = (int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
    if region is None:
        return Picture(mask, bounds, "motion")
    return Picture(mask, bounds, "regions+motion", region.cm_per_pixel)


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
    """(H, W): how far each pixel's brightness travels over the sampled frames, after a small blur against noise."""
    low = high = None
    for frame in sample:
        bright = cv2.blur(frame.max(axis=-1), (3, 3))
        low = bright if low is None else np.minimum(low, bright)
        high = bright if high is None else np.maximum(high, bright)
    assert low is not None
    assert high is not None
    return high.astype(np.float32) - low


def _patch(motion: NDArray[np.float32]) -> Mask:
    """The hull of the largest thick patch of `motion`; all False where there is none."""
    top = float(np.percentile(motion, 99))
    # Dim recordings move by a few grey levels; compression flickers by as much around text in bright ones.
    threshold = float(np.clip(0.08 * top, 5, 16))
    moving = (motion > threshold).astype(np.uint8)
    unit = max(3, round(min(motion.shape) / 100) | 1)
    # Closing first would join text to the sector. Opening removes what is thinner than 2 % of the frame: traces, ticks,
    # letters.
    thick = cv2.morphologyEx(moving, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    thick = cv2.morphologyEx(thick, cv2.MORPH_OPEN, _disc(2 * unit + 1))
    largest = _largest(thick)
    if largest is None:
        return np.zeros(motion.shape, bool)
    # Chambers and shadows split a sector into pieces: pieces within a step of the main one belong to it if they are not
    # small.
    near = cv2.dilate(largest, _disc(6 * unit + 1))
    joined = _pieces_touching(thick, near, at_least=0.02 * largest.sum()) | largest
    return _hull(joined)


def _disc(size: int) -> NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)).astype(np.uint8)


def _largest(mask: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return None
    best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return (labels == best).astype(np.uint8)


def _pieces_touching(mask: NDArray[np.uint8], near: NDArray[np.uint8], at_least: float) -> NDArray[np.uint8]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    touching = set(np.unique(labels[near > 0]).tolist()) - {0}
    kept = [n for n in range(1, count) if n in touching and stats[n, cv2.CC_STAT_AREA] >= at_least]
    return np.isin(labels, kept).astype(np.uint8)


def _hull(mask: NDArray[np.uint8]) -> Mask:
    points = cv2.findNonZero(mask)
    out = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(out, cv2.convexHull(points), 1)
    return out.astype(bool)
