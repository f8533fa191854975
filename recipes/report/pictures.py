"""Pictures that travel inside the page, as data URIs."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from domains.store.frames import Frames
from domains.store.prepared import Prepared

SIDE, FRAMES, QUALITY = 112, 20, 55
SHEET_WIDTH = 1600


def data_uri(blob: bytes, kind: str) -> str:
    """`data:image/...;base64,...`."""
    return f"data:image/{kind};base64,{base64.b64encode(blob).decode('ascii')}"


def animation(prepared: Prepared, index: int, side: int = SIDE, frames: int = FRAMES) -> str:
    """A looping WebP of about the first second and a half of a video at its own speed. Raises MediaError."""
    n_frames, fps = prepared.length(index), prepared.fps(index) or 25.0
    step = max(1, round(fps * 1.5 / frames))
    chosen = list(range(0, n_frames, step))[:frames]
    pictures = [
        Image.fromarray(_rgb(frame)).resize((side, side), Image.Resampling.BILINEAR)
        for frame in prepared.frames(index, chosen)
    ]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 * step / fps),
        loop=0,
        quality=QUALITY,
        method=4,
    )
    return data_uri(buffer.getvalue(), "webp")


def contact_sheet(path: Path) -> str | None:
    """The contact sheet as a smaller WebP; None where there is none to read."""
    try:
        with Image.open(path) as file:
            sheet: Image.Image = file.convert("RGB")
            if sheet.width > SHEET_WIDTH:
                height = round(sheet.height * SHEET_WIDTH / sheet.width)
                sheet = sheet.resize((SHEET_WIDTH, height), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            sheet.save(buffer, "WEBP", quality=80, method=4)
    except OSError:
        return None
    return data_uri(buffer.getvalue(), "webp")


def _rgb(frame: Frames) -> Frames:
    """(H, W, 1 or 3) -> (H, W, 3)."""
    return np.repeat(frame, 3, axis=-1) if frame.shape[-1] == 1 else frame
