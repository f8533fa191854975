"""Which kind of ultrasound recording a file holds: from its tags, and from its pixels where tags lack or lie.

Terms: DICOM PS3.3 C.8.5.5 (US regions) and C.8.5.6.1.1 (Image Type, value 4).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.media.enhanced import DOPPLER, TISSUE, data_types
from domains.prepare.privacy import text
from domains.store.frames import Frames

# Region Spatial Format (0018,6012)
TWO_D, M_MODE, SPECTRAL = 1, 2, 3
# Region Data Type (0018,6014)
COLOUR_FLOW, PULSED_WAVE, CONTINUOUS_WAVE = 2, 3, 4
# Image Type value 4 is a sum of flags in hexadecimal.
TYPE_M_MODE, TYPE_SPECTRAL, TYPE_COLOUR = 0x0002 | 0x0020, 0x0004 | 0x0008, 0x0010 | 0x0100
CENTIMETRES = 3  # Physical Units code

US_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.6": "Ultrasound Image (retired)",
    "1.2.840.10008.5.1.4.1.1.6.1": "Ultrasound Image",
    "1.2.840.10008.5.1.4.1.1.6.2": "Enhanced US Volume",
    "1.2.840.10008.5.1.4.1.1.3": "Ultrasound Multi-frame Image (retired)",
    "1.2.840.10008.5.1.4.1.1.3.1": "Ultrasound Multi-frame Image",
}
# The modalities worth naming; Modality is free text in a broken header, and free text stays behind.
MODALITIES = frozenset(
    ("CR", "CT", "DX", "ECG", "ES", "MG", "MR", "NM", "OP", "OT", "PR", "PT", "RF", "RTDOSE", "SEG", "SM", "SR", "XA")
)


@dataclass(frozen=True)
class Region:
    """One item of the Sequence of Ultrasound Regions; box is (x0, y0, x1, y1), half open, as the header has it."""

    spatial_format: int
    data_type: int
    box: tuple[int, int, int, int]
    cm_per_pixel: float | None

    @property
    def area(self) -> int:
        x0, y0, x1, y1 = self.box
        return max(0, x1 - x0) * max(0, y1 - y0)


class SetAside(Exception):
    """What a file is, if it is no B-mode cine; the reason holds no word of its header."""

    def __init__(self, category: str, reason: str) -> None:
        super().__init__(category, reason)
        self.category, self.reason = category, reason


def read_regions(header: Any) -> list[Region]:
    """The regions that a header describes completely; an item that cannot be read is left out."""
    try:
        items = list(header.get("SequenceOfUltrasoundRegions", None) or [])
    except Exception:  # a damaged sequence is as good as none
        return []
    return [region for item in items if (region := _region(item)) is not None]


def _region(item: Any) -> Region | None:
    try:
        corners = [int(item.get(f"RegionLocation{corner}")) for corner in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        x0, y0, x1, y1 = corners
        spatial, data = int(item.get("RegionSpatialFormat")), int(item.get("RegionDataType", 0) or 0)
    except (TypeError, ValueError, AttributeError):
        return None
    return Region(spatial, data, (x0, y0, x1 + 1, y1 + 1), _scale(item))


def _scale(item: Any) -> float | None:
    """Centimetres of a source pixel, where both directions say the same."""
    try:
        units = {int(item.get(f"PhysicalUnits{axis}Direction")) for axis in "XY"}
        x, y = (abs(float(item.get(f"PhysicalDelta{axis}"))) for axis in "XY")
    except (TypeError, ValueError, AttributeError):
        return None
    return x if units == {CENTIMETRES} and 0 < x < 1 and abs(x - y) <= 0.02 * x else None


def judge_header(header: Any, frames: int, min_frames: int, colour_doppler: str) -> None:
    """Raises SetAside where the tags of a DICOM say that this is no B-mode cine. Nothing is decoded for it."""
    regions = read_regions(header)
    modality = text(header, "Modality").upper()
    if modality != "US" and text(header, "SOPClassUID") not in US_CLASSES and not regions:
        named = modality if modality in MODALITIES else "unknown"
        raise SetAside("not ultrasound", f"modality {named}")
    kinds = {(region.spatial_format, region.data_type) for region in regions}
    flags = _type_flags(header)
    formats = {spatial for spatial, _ in kinds}
    if SPECTRAL in formats or {PULSED_WAVE, CONTINUOUS_WAVE} & {data for _, data in kinds} or flags & TYPE_SPECTRAL:
        raise SetAside("spectral", "spectral Doppler, by its tags")
    if M_MODE in formats or flags & TYPE_M_MODE:
        raise SetAside("M-mode", "M-mode, by its tags")
    judge_length(frames, min_frames)
    types = data_types(header)
    only_flow = bool(types & DOPPLER) and TISSUE not in types  # where there is both, the reader takes the tissue
    if colour_doppler == "exclude" and ((TWO_D, COLOUR_FLOW) in kinds or flags & TYPE_COLOUR or only_flow):
        raise SetAside("colour Doppler", "colour Doppler, by its tags")


def judge_length(frames: int, min_frames: int) -> None:
    """Raises SetAside for a still."""
    if frames < min_frames:
        many = "1 frame" if frames == 1 else f"{frames} frames"
        raise SetAside("still", f"{many}, fewer than {min_frames}")


def _type_flags(header: Any) -> int:
    try:
        return int(str(list(header.get("ImageType"))[3]), 16)
    except Exception:  # absent, shorter, or not hexadecimal
        return 0


def extremes(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(..., C) -> the brightest and the darkest channel of each pixel. NumPy's reduction of a short axis is slow."""
    channels = [pixels[..., channel] for channel in range(pixels.shape[-1])]
    return functools.reduce(np.maximum, channels), functools.reduce(np.minimum, channels)


def coloured_share(frames: Frames, mask: NDArray[np.bool_]) -> float:
    """Share of the region's pixels that bear a flow colour, mean over frames.

    frames (T, H, W, 3), mask (H, W). A tint of the whole picture (sepia and blue maps of B-mode) is no flow: there all
    bright pixels are coloured and of one hue; flow lies beside grey tissue or has both hues. Saturated means 60 grey
    levels between channels.
    """
    if frames.shape[-1] != 3 or not mask.any():
        return 0.0
    coloured = bright = 0
    hues = np.zeros(2)
    for picture in _pixels(frames, mask):
        high, low = extremes(picture)
        vivid = high - low > 60
        coloured += int(vivid.sum())
        bright += int((high > 80).sum())
        red, green, blue = picture[vivid].T.astype(np.float64)
        angle = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)
        hues += np.cos(angle).sum(), np.sin(angle).sum()
    if not coloured:
        return 0.0
    one_hue = np.hypot(*hues) / coloured > 0.9
    if one_hue and coloured > 0.8 * bright:
        return 0.0
    return coloured / (len(frames) * int(mask.sum()))


def _pixels(frames: Frames, mask: NDArray[np.bool_]) -> Iterator[NDArray[np.int16]]:
    inside = np.flatnonzero(mask)
    for frame in frames:
        yield frame.reshape(-1, frame.shape[-1]).take(inside, axis=0).astype(np.int16)


def judge_camera(frames: Frames, mask: NDArray[np.bool_]) -> None:
    """Raises SetAside for what a camera saw. A video file has no tag that says ultrasound.

    In ultrasound a pixel is grey, or of the one colour that the display's map gives to its brightness, or vivid flow.
    In front of a camera many pixels are faintly coloured, in different colours at the same brightness.
    """
    if frames.shape[-1] != 3 or not mask.any():
        return
    inside = np.flatnonzero(mask)
    inside = inside[
        :: max(1, len(frames) * len(inside) // 500_000)
    ]  # chosen first: a copy of them all is a gigabyte at 1080 lines
    pixels = frames.reshape(len(frames), -1, 3)[:, inside].reshape(-1, 3).astype(np.int16)
    high, low = extremes(pixels)
    chroma = high - low
    camera = SetAside("not ultrasound", "a camera's picture, by its colours")
    if (chroma > 60).mean() > 0.7:  # flow covers a part of the picture
        raise camera
    if ((chroma > 20) & (chroma <= 60)).mean() < 0.07:
        return
    muted = pixels[chroma <= 60]
    level = muted.sum(axis=1) // 24  # 32 bins of brightness
    tint = (muted[:, [0, 2]] - muted[:, [1]]).astype(np.float64)
    count = np.bincount(level, minlength=32)
    mean = np.stack([np.bincount(level, tint[:, c], 32) for c in (0, 1)], axis=1) / np.maximum(count, 1)[:, None]
    if np.sqrt(np.square(tint - mean[level]).mean()) > 6:
        raise camera


def judge_sweep(steps: Frames, mask: NDArray[np.bool_]) -> None:
    """Raises SetAside for a trace that is drawn from left to right: each step changes a narrow strip, all of them a
    wide one.

    steps (2 n, H, W, C): n pairs of neighbouring frames, spread over the recording. Tissue changes everywhere at every
    step.
    """
    brightest = functools.reduce(np.maximum, [steps[..., channel] for channel in range(steps.shape[-1])])
    pairs = brightest.astype(np.int16).reshape(-1, 2, *mask.shape)
    changed = (np.abs(pairs[:, 1] - pairs[:, 0]) > 12) & mask
    columns = changed.sum(axis=1) > 0.01 * mask.shape[0]  # (n, W)
    columns = columns[columns.any(axis=1)]  # a frame that was shown twice says nothing
    width = int(np.flatnonzero(mask.any(axis=0)).size)
    if len(columns) >= 3 and columns.sum(axis=1).max() < 0.15 * width and len(set(columns.argmax(axis=1))) >= 3:
        raise SetAside("M-mode", "M-mode or spectral Doppler, by its pixels: only a narrow strip changes at a time")


def judge_colour(frames: Frames, mask: NDArray[np.bool_], header: Any) -> None:
    """Raises SetAside for colour Doppler that only the pixels give away; a tag that announces colour lowers the bar."""
    announced = text(header, "UltrasoundColorDataPresent") == "1"
    share = coloured_share(frames, mask)
    if share > (0.002 if announced else 0.01):
        raise SetAside("colour Doppler", f"colour Doppler, by its pixels ({share:.0%} of the region is coloured)")
