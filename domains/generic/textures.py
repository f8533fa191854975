"""What surfaces look like: fields in [0, 255] over a square, and the colours that they are given."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Field = NDArray[np.float32]

TEXTURES = ("flat", "gradient", "noise", "stripes", "checker", "cells", "spots", "rings")


def draw_texture(kind: str, side: int, features: float, rng: np.random.Generator) -> Picture:
    """A field (side, side) of `kind`. features: about how many of its features (stripes, cells, ...) lie along a side."""
    field = _KINDS[kind](side, max(1.5, features), rng)
    low, high, _, _ = cv2.minMaxLoc(field)
    scaled = cv2.convertScaleAbs(field, alpha=255 / max(high - low, 1e-6), beta=-low * 255 / max(high - low, 1e-6))
    return scaled


def draw_palette(rng: np.random.Generator, contrast: float, grey: bool) -> Picture:
    """(256, 3): the colour of every value of a field, between two colours or through a third. contrast: of their brightness, in [0, 1]."""
    middle = rng.uniform(0.5 * contrast, 1 - 0.5 * contrast)
    way = 1 if rng.random() < 0.5 else -1
    brightness = middle + way * contrast * np.array([-0.5, rng.uniform(-0.4, 0.4), 0.5])
    hues = rng.normal(0, 0.0 if grey else 0.18, (3, 3))
    hues -= hues.mean(axis=1, keepdims=True)
    stops = np.clip(brightness[:, None] + hues, 0, 1) * 255
    places = np.array([0.0, rng.uniform(80, 176), 255.0])
    return np.stack([np.interp(np.arange(256.0), places, stops[:, c]) for c in range(3)], axis=1).astype(np.uint8)


def spectrum(side: int, finest: float, slope: float, rng: np.random.Generator) -> Field:
    """Noise whose amplitude falls with the frequency to the power `slope`: octaves of random grids, the finest with `finest` cells a side."""
    field = np.zeros((side, side), np.float32)
    cells = 2.0
    while cells <= finest * 1.01 and cells <= side:
        n = round(cells) + 1
        grid = rng.standard_normal((n, n), np.float32)
        field += cells**-slope * cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        cells *= 2
    return field


def _axes(side: int, rng: np.random.Generator) -> tuple[Field, Field]:
    """Coordinates in [-0.5, 0.5] along and across a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    line = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * line[None, :] + s * line[:, None], c * line[:, None] - s * line[None, :]


def _flat(side: int, features: float, rng: np.random.Generator) -> Field:
    field = np.full((side, side), 0.5, np.float32)
    field[0, 0], field[-1, -1] = 0, 1
    return field


def _gradient(side: int, features: float, rng: np.random.Generator) -> Field:
    along, across = _axes(side, rng)
    return along + np.float32(rng.uniform(-1, 1)) * across**2


def _noise(side: int, features: float, rng: np.random.Generator) -> Field:
    return spectrum(side, 4 * features, rng.uniform(0.2, 1.6), rng)


def _stripes(side: int, features: float, rng: np.random.Generator) -> Field:
    along, across = _axes(side, rng)
    wave = np.sin(np.float32(2 * np.pi * features) * (along + np.float32(rng.uniform(0, 0.3)) * across**2))
    return np.tanh(wave * np.float32(rng.uniform(0.5, 6)))


def _checker(side: int, features: float, rng: np.random.Generator) -> Field:
    along, across = _axes(side, rng)
    turn = np.float32(np.pi * features)
    return np.tanh(np.sin(turn * along) * np.sin(turn * across) * np.float32(rng.uniform(2, 12)))


def _points(side: int, features: float, rng: np.random.Generator) -> Picture:
    """0 at random places, about features^2 of them, 1 elsewhere."""
    places = np.ones((side, side), np.uint8)
    count = int(np.clip(features**2, 3, side**2 / 9))
    x, y = rng.integers(0, side, (2, count))
    places[y, x] = 0
    return places


def _cells(side: int, features: float, rng: np.random.Generator) -> Field:
    points = _points(side, features, rng)
    distance, labels = cv2.distanceTransformWithLabels(points, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    shades = rng.random(int(labels.max()) + 1, np.float32)
    edge = np.float32(rng.uniform(0, 0.8) * features / side)
    return shades[labels] - edge * distance


def _spots(side: int, features: float, rng: np.random.Generator) -> Field:
    distance = cv2.distanceTransform(_points(side, features, rng), cv2.DIST_L2, 5)
    radius = side / features * rng.uniform(0.15, 0.5)
    return np.tanh((np.float32(radius) - distance) * np.float32(rng.uniform(0.2, 1.5)))


def _rings(side: int, features: float, rng: np.random.Generator) -> Field:
    along, across = _axes(side, rng)
    x, y = rng.uniform(-0.5, 0.5, 2).astype(np.float32)
    distance = np.sqrt((along - x) ** 2 + (across - y) ** 2)
    return np.tanh(np.sin(np.float32(2 * np.pi * features) * distance) * np.float32(rng.uniform(0.5, 4)))


_KINDS = {
    "flat": _flat, "gradient": _gradient, "noise": _noise, "stripes": _stripes, "checker": _checker, "cells": _cells, "spots": _spots,
    "rings": _rings,
}  # fmt: skip
