"""Pixel statistics: the trivial baseline that no comparison may leave out."""

from __future__ import annotations

import cv2
import numpy as np

from domains.store.frames import Frames
from recipes.evaluate.metrics import Array

SIDE = 16
LUMINANCE = (0.299, 0.587, 0.114)


def pixel_features(clips: Frames) -> Array:
    """(2 * 16 * 16,): mean and standard deviation over time of every cell of a 16 x 16 picture, averaged over clips.

    clips uint8 (count, T, S, S, C). Grey levels in [0, 1]; a colour clip is taken as luminance.
    """
    count, frames, height, width, channels = clips.shape
    grey = (
        clips[..., 0].astype(np.float32)
        if channels == 1
        else clips.astype(np.float32) @ np.array(LUMINANCE, np.float32)
    )
    pictures = grey.reshape(-1, height, width) / 255
    small = np.stack([cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for picture in pictures])
    cells = small.reshape(count, frames, SIDE * SIDE).astype(np.float64)
    return np.concatenate([cells.mean(axis=1), cells.std(axis=1)], axis=1).mean(axis=0)
