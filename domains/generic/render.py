"""From a scene to a clip and what is true of it. About the time that a decoder would take; the same (seed, index), the same pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.generic.scene import BACKGROUND, Array, Light, Scene, Surface
from domains.generic.shapes import draw_shape
from domains.generic.textures import draw_palette, draw_texture
from domains.store.frames import Frames

Picture = NDArray[np.uint8]
NOISE = np.random.default_rng(0).standard_normal(
    1 << 20, np.float32
)  # drawn once: drawing it anew costs more than the scene


@dataclass(frozen=True)
class View:
    """What a clip shows of a scene.

    times (T,): in frames of the scene. crop: (x, y, half side) in the scene's coordinates. tint: factors on the three channels. light: factor on the
    brightness. seed: of the noise.
    """

    times: Array
    crop: tuple[float, float, float] = (0.0, 0.0, 1.0)
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    light: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Rendered:
    """frames uint8 (T, size, size, 3); owner int8 (T, P): which surface is seen at each of the points that were asked for."""

    frames: Frames
    owner: NDArray[np.int8]


def render(scene: Scene, view: View, size: int, points: NDArray[np.int64]) -> Rendered:
    """The clip, and which surface is seen at `points` (P, 2), (x, y) in pixels."""
    count = len(view.times)
    canvas = np.empty((count, size, size, 3), np.float32)
    owner = np.zeros((count, len(points)), np.int8)
    for number, surface in enumerate(scene.surfaces):
        matrix, shift = surface.affine(scene.camera, view.times, view.crop)
        side = picture_side(surface, view, size)
        picture = draw_picture(surface, side, scene.grey)
        box = (0, 0, size, size) if surface.kind == BACKGROUND else _seen(surface, matrix, shift, size)
        if box is None:
            continue
        warped = _warp(picture, surface, matrix, shift, view.times, box, size)
        x0, y0, x1, y1 = box
        if surface.kind == BACKGROUND:
            canvas[:] = warped
            continue
        opacity = warped[..., 3]
        inside = (points[:, 0] >= x0) & (points[:, 0] < x1) & (points[:, 1] >= y0) & (points[:, 1] < y1)
        covered = opacity[:, points[inside, 1] - y0, points[inside, 0] - x0] > 127
        owner[:, inside] = np.where(covered, np.int8(number), owner[:, inside])
        part = canvas[:, y0:y1, x0:x1]
        share = np.multiply(opacity, np.float32(1 / 255), dtype=np.float32)[..., None]
        part += share * (warped[..., :3] - part)
    return Rendered(_lit(canvas, scene.light, view, scene.grey), owner)


def picture_side(surface: Surface, view: View, size: int) -> int:
    """Pixels along the picture of a surface: about as many as it is seen with."""
    seen = surface.radius * surface.reach / view.crop[2] * size
    return int(np.clip(round(seen / 8) * 8, 24, 3 * size))


def draw_picture(surface: Surface, side: int, grey: bool) -> Picture:
    """(side, side, 3), or 4 with the opacity of a shape."""
    rng = np.random.Generator(np.random.Philox(key=surface.seed))
    field = draw_texture(surface.texture, side, surface.features, rng)
    colours = np.take(draw_palette(rng, surface.contrast, grey), field, axis=0)
    if surface.shaded:  # lit from a side
        angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.0)
        line = np.linspace(-1, 1, side, dtype=np.float32)
        light = 1 + np.float32(strength / 2) * (
            np.float32(np.cos(angle)) * line[None, :] + np.float32(np.sin(angle)) * line[:, None]
        )
        colours = np.clip(colours * light[..., None], 0, 255).astype(np.uint8)
    if surface.kind == BACKGROUND:
        return colours
    return np.dstack([colours, draw_shape(surface.kind, side, rng)])


def _seen(surface: Surface, matrix: Array, shift: Array, size: int) -> tuple[int, int, int, int] | None:
    """(x0, y0, x1, y1) in pixels that a shape reaches at any time; None where it stays outside."""
    reach = surface.reach + abs(surface.bend.size.size) * 1.5
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) * reach
    inverse = np.linalg.inv(matrix)
    x = np.einsum("tij,tkj->tki", inverse, corners[None] - shift[:, None])
    pixels = (x + 1) * size / 2
    low = np.clip(np.floor(pixels.min(axis=(0, 1))), 0, size).astype(int)
    high = np.clip(np.ceil(pixels.max(axis=(0, 1))) + 1, 0, size).astype(int)
    return (int(low[0]), int(low[1]), int(high[0]), int(high[1])) if (high > low).all() else None


def _warp(
    picture: Picture,
    surface: Surface,
    matrix: Array,
    shift: Array,
    times: Array,
    box: tuple[int, int, int, int],
    size: int,
) -> Picture:
    """The picture as it is seen in the box at each time: (T, h, w, channels)."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    out = np.empty((len(times), height, width, picture.shape[2]), np.uint8)
    border = cv2.BORDER_REFLECT if surface.kind == BACKGROUND else cv2.BORDER_CONSTANT
    half = len(picture) / 2 / surface.reach  # pixels of the picture per unit of the surface
    # Pixel p of the box -> view coordinates (p + box + 0.5) * 2 / size - 1 -> surface -> pixel v * half + side / 2 - 0.5 of the picture
    first = (np.array([x0, y0]) + 0.5) * 2 / size - 1
    linear = matrix * (2 / size * half)
    offset = (matrix @ first + shift) * half + (len(picture) / 2 - 0.5)
    bent = surface.bend.size.at(times) * half
    for t in range(len(times)):
        if surface.bend.size.size == 0:
            affine = np.concatenate([linear[t], offset[t][:, None]], axis=1)
            cv2.warpAffine(picture, affine, (width, height), out[t], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, border)
            continue
        across, down = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
        where = [linear[t, i, 0] * across[None, :] + (linear[t, i, 1] * down + offset[t, i])[:, None] for i in (0, 1)]
        wave = _wave(surface, linear[t], offset[t] - (len(picture) / 2 - 0.5), half, across, down) * np.float32(bent[t])
        maps = [(w + np.float32(way) * wave).astype(np.float32) for w, way in zip(where, surface.bend.way, strict=True)]
        cv2.remap(picture, maps[0], maps[1], cv2.INTER_LINEAR, out[t], border)
    return out


def _wave(
    surface: Surface,
    linear: Array,
    offset: Array,
    half: float,
    across: NDArray[np.float32],
    down: NDArray[np.float32],
) -> NDArray[np.float32]:
    """sin(2 pi wave . v + phase) at every pixel of the box, as sin(a + b) of rows and columns: no sine per pixel."""
    turn = 2 * np.pi * np.array(surface.bend.wave) / half
    a = (turn @ linear[:, 0]) * across + (turn @ offset + surface.bend.phase)
    b = (turn @ linear[:, 1]) * down
    wave = np.outer(np.cos(b), np.sin(a)) + np.outer(np.sin(b), np.cos(a))
    return wave.astype(np.float32)


def _lit(canvas: NDArray[np.float32], light: Light, view: View, grey: bool) -> Frames:
    """Light, blur and noise: canvas (T, S, S, 3) in [0, 255] -> uint8. The canvas is used up."""
    count, size = canvas.shape[:2]
    rng = np.random.Generator(np.random.Philox(key=view.seed))
    gain = np.clip(light.gain.at(view.times), 0.1, 3) * view.light
    line = np.linspace(-1, 1, size, dtype=np.float32)
    fall = (
        1 - np.float32(light.corner / 2) * (line[None, :] ** 2 + line[:, None] ** 2)
        if light.corner
        else np.ones((1, 1), np.float32)
    )
    np.maximum(fall, 0, out=fall)
    if light.gamma != 1:
        table = (255 * (np.arange(256) / 255) ** light.gamma).astype(np.float32)
        canvas = np.take(table, canvas.astype(np.uint8))
    if light.slope:
        angle = light.slope_turn.at(view.times)
        c, s = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        side = c[:, None, None] * line[None, None, :] + s[:, None, None] * line[None, :, None]
        fall = fall * (1 + np.float32(light.slope) * side)
    factor = (fall if fall.ndim == 3 else fall[None]) * gain.astype(np.float32)[:, None, None]
    tint = np.ones(3, np.float32) if grey else np.array(view.tint, np.float32)
    canvas *= factor[..., None] * tint
    if light.blur:
        for frame in canvas:
            cv2.GaussianBlur(frame, (0, 0), max(0.3, light.blur * size), dst=frame)
    if light.grain or light.noise:
        start = rng.integers(0, len(NOISE) - size * size - 1, (2, count))
        cells = size * size
        for t in range(count):
            if light.grain:
                canvas[t] *= 1 + np.float32(light.grain) * NOISE[start[0, t] : start[0, t] + cells].reshape(
                    size, size, 1
                )
            if light.noise:
                canvas[t] += np.float32(255 * light.noise) * NOISE[start[1, t] : start[1, t] + cells].reshape(
                    size, size, 1
                )
    if light.floor:
        canvas += np.float32(255 * light.floor)
    np.clip(canvas, 0, 255, out=canvas)
    return canvas.astype(np.uint8)
