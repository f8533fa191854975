"""One picture to look at before training: what is kept of every recording, and nothing that names anyone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from domains.errors import MediaError
from domains.store.clips import hidden_frames
from domains.store.frames import Frames
from domains.store.manifest import CONTACT_SHEET
from domains.store.prepared import Prepared
from domains.store.strips import strip, write_sheet

MOST = 96  # recordings shown; more make a picture that nobody looks through
COLUMNS = 8  # recordings in a row


def write_contact_sheet(folder: Path, most: int = MOST) -> Path:
    """`contact_sheet.png`: two frames of up to `most` recordings, evenly chosen, in manifest order.

    Under each: its row, frames, frame rate and what found the region. A tile whose frames cannot be read stays empty.
    """
    prepared = Prepared.open(folder)
    rows = np.unique(np.linspace(0, len(prepared) - 1, min(most, len(prepared))).round().astype(int)).tolist()
    return draw_sheet(prepared, rows, folder / CONTACT_SHEET)


def draw_sheet(prepared: Prepared, rows: Sequence[int], path: Path) -> Path:
    """First and middle frame of the recordings `rows` (of those that are not withheld), as a PNG. Raises StorageError."""
    return write_sheet([_tile(prepared, row) for row in rows], COLUMNS, path)


def _tile(prepared: Prepared, index: int) -> Frames:
    row = prepared.row(index)
    try:
        shown = np.flatnonzero(~hidden_frames(prepared.outside(index), row.n_frames))
        frames = prepared.frames(index, [int(shown[0]), int(shown[len(shown) // 2])])
    except MediaError:
        return strip(None, prepared.size, 2)
    fps = f"{row.fps:.0f}/s" if row.fps else "?/s"
    return strip(frames, prepared.size, 2, f"{index}: {row.n_frames} frames {fps} {row.region_source}")
