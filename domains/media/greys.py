"""Decoded samples of any depth, and palettes -> uint8, by one rule for all frames of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import apply_color_lut, apply_modality_lut

from domains.media.reader import Frames

PALETTES = [f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")]


class ToBytes:
    """Call with a decoded frame, (H, W) or (H, W, 3) of any integer type -> uint8 (H, W, 1 or 3).

    Palette: the table is applied, always to three channels. Monochrome of more than 8 bits: the file's first window (after its modality
    transform) where it has one, else the whole range of the stored bits. Colour of more than 8 bits: the whole range. MONOCHROME1 is
    inverted, so that more is always brighter. Where there are no more than 16 bits the rule becomes a table once, and a frame is a look-up.
    """

    def __init__(self, header: Any, photometric: str, stored: int, signed: bool) -> None:
        self._header, self._photometric, self._stored, self._signed = header, photometric, stored, signed
        self._tables: dict[np.dtype[Any], NDArray[np.uint8]] = {}

    def __call__(self, array: NDArray[Any]) -> Frames:
        monochrome = array.ndim == 2
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
        if (
            array.dtype == np.uint8
            and self._stored == 8
            and not self._signed
            and self._photometric not in ("PALETTE COLOR", "MONOCHROME1")
        ):
            return array[..., None] if monochrome else array
        if array.dtype.itemsize > 2:
            done = self._rule(array)
        else:
            done = self._table(array.dtype, monochrome)[array.view(f"u{array.dtype.itemsize}")]
        return done[..., None] if done.ndim == 2 else done

    def _table(self, kind: np.dtype[Any], monochrome: bool) -> NDArray[np.uint8]:
        """What becomes of every value that `kind` can hold, in the order of its bit patterns."""
        if kind not in self._tables:
            values = np.arange(256**kind.itemsize, dtype=f"u{kind.itemsize}").view(kind)
            # A column, so that the rule sees two dimensions for monochrome and three for colour, as in a frame.
            self._tables[kind] = self._rule(values[:, None] if monochrome else values[:, None, None]).squeeze(1)
            if not monochrome:
                self._tables[kind] = self._tables[kind].squeeze(1)
        return self._tables[kind]

    def _rule(self, array: NDArray[Any]) -> Frames:
        if self._photometric == "PALETTE COLOR":
            return _palette(array, self._header)
        if array.ndim == 3:
            return _scale(array, self._stored, self._signed)
        grey = _windowed(array, self._header) if self._stored > 8 else None
        if grey is None:
            grey = _scale(array, self._stored, self._signed)
        return 255 - grey if self._photometric == "MONOCHROME1" else grey


def _palette(array: NDArray[Any], header: Any) -> Frames:
    colours = apply_color_lut(array, header)[..., :3]
    if colours.dtype == np.uint8:
        return colours
    # Tables declared as 16 bit sometimes hold 8-bit values: their largest entry tells. Segmented ones are taken at their word.
    tables = [np.frombuffer(bytes(header[name].value), "<u2") for name in PALETTES if name in header]
    largest = max((int(table.max(initial=0)) for table in tables), default=65535)
    return (colours if largest <= 255 else colours >> 8).astype(np.uint8)


def _scale(array: NDArray[Any], stored: int, signed: bool) -> Frames:
    low = -(2.0 ** (stored - 1)) if signed else 0.0
    return spread(array, low, low + 2.0**stored - 1)


def spread(array: NDArray[Any], low: float, high: float) -> Frames:
    """Values of any real type -> uint8: `low` and below is 0, `high` (above `low`) and more is 255, what is no number is 0."""
    with np.errstate(all="ignore"):
        levels = (array.astype(np.float64) - low) * (255.0 / (high - low)) + 0.5
    return np.nan_to_num(np.clip(levels, 0, 255), copy=False).astype(np.uint8)


def _places(header: Any) -> Iterator[Any]:
    """Where a multi-frame header may keep its window and modality transform: on top, shared by all frames, or of the first frame."""
    yield header
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for item in list(header.get(groups) or [])[:1]:
            for inner in ("FrameVOILUTSequence", "PixelValueTransformationSequence"):
                yield from list(item.get(inner) or [])[:1]


def _first(item: Any, keyword: str) -> float | None:
    value = item.get(keyword)
    if value is None or value == "":
        return None
    try:
        return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)
    except (TypeError, ValueError, IndexError):
        return None


def _windowed(array: NDArray[Any], header: Any) -> Frames | None:
    """The window functions of DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3, to 0..255; None without a window."""
    places = list(_places(header))
    item = next((place for place in places if "WindowCenter" in place and "WindowWidth" in place), None)
    if item is None:
        return None
    centre, width, function = (
        _first(item, "WindowCenter"),
        _first(item, "WindowWidth"),
        str(item.get("VOILUTFunction") or "LINEAR"),
    )
    if centre is None or width is None or width <= (1 if function == "LINEAR" else 0):
        return None
    transform = next((place for place in places if "RescaleSlope" in place or "ModalityLUTSequence" in place), header)
    values = np.asarray(apply_modality_lut(array, transform), np.float64)
    if function == "SIGMOID":
        share = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    elif function == "LINEAR_EXACT":
        share = (values - centre) / width + 0.5
    else:
        share = (values - (centre - 0.5)) / (width - 1) + 0.5
    return np.clip(share * 255 + 0.5, 0, 255).astype(np.uint8)
