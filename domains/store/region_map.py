"""Where in the picture something is, as the domain says it: the map of a recording, for methods that hide some regions first."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.base import RegionMapSettings
from domains.errors import ConfigError, DataError, MediaError
from domains.store.frames import Frames
from domains.store.prepared import Prepared

RegionMap = NDArray[np.uint8]
BLACK = 8  # grey levels up to which a pixel counts as blanked: JPEG leaves a few
OUTSIDE, PICTURE, MOVING = 0, 1, 2


def region_map(prepared: Prepared, index: int, settings: RegionMapSettings, frames: Frames) -> RegionMap:
    """The map of video `index`: uint8 (S, S), 0 outside the picture, 1 the picture, from 2 on the regions of interest, in no order.

    frames (N, S, S, C): those of the clip that is drawn, which `picture` and `motion` are told from. Raises MediaError where the map of this
    recording is missing or unreadable, ConfigError where the domain has none.
    """
    if settings.source == "picture":
        return picture_of(frames)
    if settings.source == "motion":
        return moving_parts(frames, settings.moving)
    return read_map(map_file(prepared, index, settings), prepared.size)


def picture_of(frames: Frames) -> RegionMap:
    """PICTURE within the convex hull of what is not black in some frame; nothing but OUTSIDE where all is black."""
    light = np.argwhere(frames.max(axis=(0, 3)) > BLACK)[:, ::-1].astype(np.int32)
    found = np.zeros(frames.shape[1:3], np.uint8)
    if len(light):
        cv2.fillConvexPoly(found, cv2.convexHull(light.reshape(-1, 1, 2)), PICTURE)
    return found


def moving_parts(frames: Frames, share: float) -> RegionMap:
    """MOVING where the smoothed clip deviates most over time, in `share` of the picture; PICTURE in the rest of it."""
    found = picture_of(frames)
    inside = found == PICTURE
    grey = frames.mean(axis=3, dtype=np.float32)
    side = max(3, frames.shape[1] // 24 * 2 + 1)
    deviation = np.stack([cv2.GaussianBlur(one, (side, side), 0) for one in grey]).std(axis=0)
    if inside.any():
        found[inside & (deviation > np.quantile(deviation[inside], 1 - share))] = MOVING
    return found


def map_file(prepared: Prepared, index: int, settings: RegionMapSettings) -> Path:
    """The picture that holds the map of a recording. Raises ConfigError where the domain has no map."""
    if settings.source == "map":
        return Path(settings.path)
    if settings.source == "folder":
        return Path(settings.path) / f"{prepared.video_id(index)}.png"
    raise missing_source(prepared.domain)


def missing_source(domain: str) -> ConfigError:
    """A method asks for regions and the domain has none: an error, never a random mask in their place."""
    do = "Set region_map.source: motion, picture, map or folder (docs/domains.md), or use a recipe without regions: videomae"
    return ConfigError(f"the recipe hides regions of the picture, and the domain '{domain}' has no region map", do=do)


def read_map(path: Path, size: int) -> RegionMap:
    """A picture of one channel, 8 bits, square, as a map of `size`: nearest neighbours. Raises MediaError."""
    try:
        found = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error) as error:
        raise MediaError(path, f"the region map cannot be read ({error.__class__.__name__})") from None
    if found is None or found.ndim != 2 or found.dtype != np.uint8 or found.shape[0] != found.shape[1]:
        raise MediaError(path, "a region map is a square PNG of one channel and 8 bits")
    return np.asarray(cv2.resize(found, (size, size), interpolation=cv2.INTER_NEAREST), np.uint8)


def check_region_maps(prepared: Prepared, rows: list[int], settings: RegionMapSettings, domain: str) -> None:
    """Before a run begins: every recording has its map. Raises ConfigError where the domain has none, DataError where some are missing,
    MediaError where the one of all recordings cannot be read."""
    if settings.source == "none":
        raise missing_source(domain)
    if settings.source == "map":
        read_map(Path(settings.path), prepared.size)
    if settings.source == "folder":
        lost = [row for row in rows if not map_file(prepared, row, settings).is_file()]
        if lost:
            what = f"{len(lost)} of {len(rows)} recordings have no region map, e.g. {prepared.video_id(lost[0])}.png"
            raise DataError(what, where=settings.path, do="Add them, or set region_map.source: motion")


def cut_map(found: RegionMap, crop: tuple[int, int, int], size: int) -> Frames:
    """A map (S, S) under the crop (x, y, side) of a view: uint8 (1, size, size, 1), nearest neighbours."""
    x, y, side = crop
    cut = cv2.resize(found[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cut, np.uint8).reshape(1, size, size, 1)
