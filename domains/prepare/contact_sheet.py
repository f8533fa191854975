"""One picture to look at before training: what is kept of every recording, and nothing that names anyone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from domains.errors import MediaError, StorageError
from domains.store.clips import hidden_frames
from domains.store.frames import Frames
from domains.store.manifest import CONTACT_SHEET
from domains.store.prepared import Prepared

MOST = 96  # recordings shown; more make a picture that nobody looks through
COLUMNS = 8  # recordings in a row
CAPTION = 14


def write_contact_sheet(folder: Path, most: int = MOST) -> Path:
    """`contact_sheet.png`: two frames of up to `most` recordings, evenly chosen, in manifest order.

    Under each: its row, frames, frame rate and what found the region. A tile whose frames cannot be read stays empty.
    """
    prepared = Prepared.open(folder)
    rows = np.unique(np.linspace(0, len(prepared) - 1, min(most, len(prepared))).round().astype(int)).tolist()
    return draw_sheet(prepared, rows, folder / CONTACT_SHEET)


def draw_sheet(prepared: Prepared, rows: Sequence[int], path: Path) -> Path:
    """First and middle frame of the recordings `rows` (of those that are not withheld), as a PNG. Raises StorageError."""
    tiles = [_tile(prepared, row) for row in rows]
    height, width, _ = tiles[0].shape
    columns = min(COLUMNS, len(tiles))
    lines = -(-len(tiles) // columns)
    sheet = np.full((lines * (height + 6) + 6, columns * (width + 6) + 6, 3), 40, np.uint8)
    for number, tile in enumerate(tiles):
        y, x = (number // columns) * (height + 6) + 6, (number % columns) * (width + 6) + 6
        sheet[y : y + height, x : x + width] = tile
    done, png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not done:
        raise StorageError("the picture cannot be encoded", where=path)
    path.write_bytes(png.tobytes())
    return path


def _tile(prepared: Prepared, index: int) -> Frames:
    row, size = prepared.row(index), prepared.size
    tile = np.zeros((size + CAPTION, 2 * size, 3), np.uint8)
    try:
        shown = np.flatnonzero(~hidden_frames(prepared.outside(index), row.n_frames))
        frames = prepared.frames(index, [int(shown[0]), int(shown[len(shown) // 2])])
    except MediaError:
        return tile
    for number, frame in enumerate(frames):
        tile[:size, number * size : (number + 1) * size] = frame  # grey spreads over the channels
    fps = f"{row.fps:.0f}/s" if row.fps else "?/s"
    caption = f"{index}: {row.n_frames} frames {fps} {row.region_source}"
    cv2.putText(tile, caption, (2, size + CAPTION - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.32, (200, 200, 200), 1, cv2.LINE_AA)
    return tile
