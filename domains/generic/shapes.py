"""Outlines of things: masks over a square, with soft or hard edges."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

SHAPES = ("disc", "polygon", "star", "ring", "bar", "blob", "cross")
REACH = 1.3  # half the side of a mask's square, in radii of the shape


def draw_shape(kind: str, side: int, rng: np.random.Generator) -> Picture:
    """(side, side) opacity in [0, 255] of a shape of radius 1 in the middle of the square [-REACH, REACH]^2."""
    mask = np.zeros((side, side), np.uint8)
    outline = _outline(kind, rng)
    _fill(mask, outline, 255)
    if kind == "ring":
        _fill(mask, outline * rng.uniform(0.4, 0.8), 0)
    elif rng.random() < 0.15:  # its edge alone
        _fill(mask, outline * 0.8, 0)
    if rng.random() < 0.4:
        mask = cv2.GaussianBlur(mask, (0, 0), side * rng.uniform(0.01, 0.06))
    return mask


def _fill(mask: Picture, outline: NDArray[np.float64], value: int) -> None:
    """Fill the inside of an outline (n, 2) with sub-pixel precision and a smooth edge."""
    pixels = (outline / REACH + 1) * (len(mask) / 2) - 0.5
    cv2.fillPoly(mask, [np.round(pixels * 256).astype(np.int32)], value, cv2.LINE_AA, 8)


def _outline(kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    if kind in ("disc", "ring"):
        return circle * np.array([1.0, rng.uniform(0.4, 1.0)])
    if kind == "blob":
        order = np.arange(2, 6)
        waves = np.sin(np.outer(turns, order) + rng.uniform(0, 2 * np.pi, 4)) @ (rng.uniform(0.1, 0.5, 4) / order)
        return circle * np.clip(0.8 + waves, 0.3, 1.25)[:, None]
    if kind == "bar":
        return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.array([1.0, rng.uniform(0.12, 0.4)])
    if kind == "cross":
        w = rng.uniform(0.15, 0.4)
        quarter = np.array([[w, -1], [w, -w], [1, -w]])
        quarters = [quarter @ np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
        return np.concatenate(quarters)
    count = int(rng.integers(3, 8))
    corners = np.linspace(0, 2 * np.pi, 2 * count if kind == "star" else count, endpoint=False)
    radius = np.ones(len(corners))
    if kind == "star":
        radius[1::2] = rng.uniform(0.3, 0.6)
    else:
        radius = rng.uniform(0.7, 1.1, len(corners))
    return np.stack([np.cos(corners), np.sin(corners)], axis=1) * radius[:, None]
