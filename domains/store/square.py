"""How a rectangle becomes the square that is stored, and where it lies in the recording's own frame: what was found in that is placed by it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from domains.errors import DataError
from domains.store.prepared import Prepared

Box = tuple[float, float, float, float]  # x0, y0, x1, y1
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def square(width: int, height: int, fit: str) -> tuple[int, int, int]:
    """(x, y, side) in pixels of a rectangle: its centre (fit "crop"), or all of it, beyond which is nothing (fit "pad"; x or y is then negative)."""
    if fit == "crop":
        side = min(width, height)
        return (width - side) // 2, (height - side) // 2, side
    side = max(width, height)
    return -((side - width) // 2), -((side - height) // 2), side


def stored_boxes(prepared: Prepared, rows: Sequence[int]) -> dict[int, Box]:
    """Row -> the box of the recording's frame that its stored frames show, in shares of the frame; with black bars it reaches beyond it.

    Raises DataError where a frame's size is not known: folders of earlier versions say it of recordings alone whose frame is all picture.
    """
    fit = prepared.info["store"]["fit"]
    frames, regions, sources = (prepared.column(name) for name in ("frame", "region", "region_source"))
    boxes = {}
    for row in rows:
        x0, y0, x1, y1 = regions[row]
        if not frames[row] and sources[row] != "whole":
            what = f"the size of the frames of '{prepared.video_id(row)}' was not kept, so that nothing can be placed in them"
            raise DataError(what, where=prepared.place, do="Prepare it again")
        width, height = frames[row] or (x1, y1)
        x, y, side = square(x1 - x0, y1 - y0, fit)
        left, top = x0 + x, y0 + y
        boxes[row] = (left / width, top / height, (left + side) / width, (top + side) / height)
    return boxes


def place(points: NDArray[np.float32], stored: Box, crop: Box = WHOLE, *, flip: bool = False) -> NDArray[np.float32]:
    """Points of a recording, where a clip shows them: (..., 2), x and y in shares of the recording's frame -> in shares of the clip; NaN for both of
    one that lies beyond its edges.

    stored: of the recording, see `stored_boxes`; crop, flip: how the clip was cut and mirrored (`DrawnClip.box`, `flip`).
    """
    seen = points.astype(np.float64)
    for box in (stored, crop):
        low, high = np.array(box[:2]), np.array(box[2:])
        seen = (seen - low) / (high - low)
    if flip:
        seen[..., 0] = 1 - seen[..., 0]
    inside = ((seen >= 0) & (seen <= 1)).all(axis=-1, keepdims=True)  # of NaN neither holds
    placed: NDArray[np.float32] = np.where(inside, seen, np.nan).astype(np.float32)
    return placed
