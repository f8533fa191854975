"""Frames side by side with a line under them, as a PNG to look at. It holds pixels and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from domains.errors import StorageError
from domains.store.frames import Frames

CAPTION = 14  # pixels
GAP = 6
BACKGROUND = 40


def strip(frames: Frames | None, size: int, count: int, caption: str = "") -> Frames:
    """uint8 (size + CAPTION, count * size, 3): frames (count, size, size, C) in a row, the caption under them; None: what could not be read."""
    picture = np.zeros((size + CAPTION, count * size, 3), np.uint8)
    if frames is None:
        return picture
    for number, frame in enumerate(frames):
        picture[:size, number * size : (number + 1) * size] = frame  # grey spreads over the channels
    where, colour = (2, size + CAPTION - 4), (200, 200, 200)
    cv2.putText(picture, caption, where, cv2.FONT_HERSHEY_SIMPLEX, 0.32, colour, 1, cv2.LINE_AA)
    return picture


def write_sheet(strips: Sequence[Frames], columns: int, path: Path) -> Path:
    """Strips of one size in so many columns, as a PNG. Raises StorageError."""
    height, width, _ = strips[0].shape
    columns = min(columns, len(strips))
    lines = -(-len(strips) // columns)
    sheet = np.full((lines * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), BACKGROUND, np.uint8)
    for number, one in enumerate(strips):
        y, x = (number // columns) * (height + GAP) + GAP, (number % columns) * (width + GAP) + GAP
        sheet[y : y + height, x : x + width] = one
    done, png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not done:
        raise StorageError("the picture cannot be encoded", where=path)
    try:
        path.write_bytes(png.tobytes())
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror})", where=path, do="Give another file") from None
    return path
