"""Decoded samples of any depth and palette -> uint8, by one rule for all frames of a file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import apply_color_lut, apply_modality_lut

from domains.media.reader import Frames


def to_bytes(array: NDArray[Any], header: Any, photometric: str, stored: int, signed: bool) -> Frames:
    """One frame (H, W) or (H, W, 3) -> uint8 (H, W, 1 or 3).

    Palette: the table is applied. Monochrome of more than 8 bits: the header's first window (after the modality transform) where it has
    one, else the whole range of the stored bits. MONOCHROME1 is inverted, so that more is always brighter.
    """
    if photometric == "PALETTE COLOR":
        return _palette(array, header)
    if array.ndim == 3:
        return _scale(array, stored, signed)
    grey = _windowed(array, header) if stored > 8 else None
    if grey is None:
        grey = _scale(array, stored, signed)
    return (255 - grey if photometric == "MONOCHROME1" else grey)[..., None]


def _palette(array: NDArray[Any], header: Any) -> Frames:
    colours = apply_color_lut(array, header)[..., :3]
    if colours.dtype == np.uint8:
        return colours
    # Tables declared as 16 bit sometimes hold 8-bit values: their largest entry tells. Segmented ones are taken at their word.
    names = [f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")]
    largest = max(
        (int(np.frombuffer(bytes(header[name].value), "<u2").max(initial=0)) for name in names if name in header),
        default=65535,
    )
    return (colours if largest <= 255 else colours >> 8).astype(np.uint8)


def _scale(array: NDArray[Any], stored: int, signed: bool) -> Frames:
    if stored == 8 and not signed and array.dtype == np.uint8:
        return array
    low = -(2.0 ** (stored - 1)) if signed else 0.0
    return np.clip((array.astype(np.float64) - low) * (255.0 / (2.0**stored - 1)) + 0.5, 0, 255).astype(np.uint8)


def _windowed(array: NDArray[Any], header: Any) -> Frames | None:
    """DICOM PS3.3 C.11.2.1.2 linear window to 0..255; None without a window."""

    def first(keyword: str) -> float | None:
        value = header.get(keyword)
        if value is None or value == "":
            return None
        try:
            return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)
        except (TypeError, ValueError, IndexError):
            return None

    centre, width = first("WindowCenter"), first("WindowWidth")
    if centre is None or width is None or width <= 1:
        return None
    values = np.asarray(apply_modality_lut(array, header), np.float64)
    return np.clip(((values - (centre - 0.5)) / (width - 1) + 0.5) * 255 + 0.5, 0, 255).astype(np.uint8)
