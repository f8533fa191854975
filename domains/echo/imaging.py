"""How an ultrasound machine would show a scene: beams, speckle, attenuation, compression, scan conversion.

Speckle is what a point-spread function makes of many scatterers: a complex Gaussian field that is attached to the tissue, weighted by
its strength, blurred along depth and across beams, and detected (the magnitude). It moves and deforms with the tissue because the field
is looked up at the tissue's place at end-diastole.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.echo.anatomy import leaflets, reference, segment_distance
from domains.echo.heart import BRIGHT, Array, Scene

CELL = 0.035  # cm between scatterers of the reference field
HALF = 13.0  # cm that the reference field reaches around the origin
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Screen:
    """Where the sector is on the screen: pixels, the probe's place, pixels a centimetre, depth and half angle."""

    height: int
    width: int
    top: int
    scale: float
    depth: float
    half_angle: float

    @property
    def apex(self) -> tuple[float, float]:
        """(x, y) of the probe in pixels."""
        return self.width / 2, float(self.top)

    def grid(self) -> tuple[Array, Array]:
        """(x, y) in cm of every pixel."""
        row, column = np.mgrid[: self.height, : self.width].astype(np.float32)
        return (column - self.apex[0]) / self.scale, (row - self.apex[1]) / self.scale

    def sector(self) -> NDArray[np.bool_]:
        """Pixels inside the fan."""
        x, y = self.grid()
        return (
            (np.hypot(x, y) <= self.depth)
            & (np.abs(np.arctan2(x, np.maximum(y, 1e-6))) <= self.half_angle)
            & (y > 0.15)
        )

    def box(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) around the fan, inclusive-exclusive, as the regions sequence gives it."""
        rows, columns = np.nonzero(self.sector())
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


class Probe:
    """Renders a scene frame by frame. `beams` across, `samples` in depth."""

    def __init__(
        self, scene: Scene, screen: Screen, rng: np.random.Generator, beams: int = 132, samples: int = 300
    ) -> None:
        self.scene, self.screen, self.rng = scene, screen, rng
        angle = np.linspace(-screen.half_angle, screen.half_angle, beams)
        depth = np.linspace(0.2, screen.depth, samples)
        self.depth = depth[:, None].astype(np.float32)
        self.x = (self.depth * np.sin(angle)).astype(np.float32)
        self.y = (self.depth * np.cos(angle)).astype(np.float32)
        self.angle = angle.astype(np.float32)
        side = int(2 * HALF / CELL)
        axis = (np.arange(side) + 0.5) * CELL - HALF
        u, v = np.meshgrid(axis, axis + 4.0)  # the heart reaches further down from its origin than up
        self.level = reference(scene, u.astype(np.float32), v.astype(np.float32)).astype(np.float32)
        self.level += np.float32(scene.patient.echogenicity)
        self.field = rng.standard_normal((side, side, 2), dtype=np.float32)
        self.fixed = rng.standard_normal((samples, beams, 2), dtype=np.float32)  # clutter that does not move
        shade = rng.standard_normal(beams).astype(np.float32)
        self.shadow = cv2.GaussianBlur(shade[None], (0, 0), 9)[0] * 9 - 5 * np.abs(angle / screen.half_angle) ** 6
        self._prepare_scan()

    def _prepare_scan(self) -> None:
        """Where each pixel of the fan lies on the grid of beams and samples."""
        screen = self.screen
        x, y = screen.grid()
        beams, samples = len(self.angle), len(self.depth)
        angle, depth = np.arctan2(x, np.maximum(y, 1e-6)), np.hypot(x, y)
        self.map_x = ((angle + screen.half_angle) / (2 * screen.half_angle) * (beams - 1)).astype(np.float32)
        self.map_y = ((depth - 0.2) / (screen.depth - 0.2) * (samples - 1)).astype(np.float32)
        self.fan = screen.sector()

    def render(self, phase: float) -> Picture:
        """(H, W) uint8 at `phase` of the beat; black outside the fan."""
        patient, depth = self.scene.patient, self.depth
        u, v = self.scene.material(self.x, self.y, phase)
        column = ((u + HALF) / CELL - 0.5).astype(np.float32)
        row = ((v - 4.0 + HALF) / CELL - 0.5).astype(np.float32)
        level = cv2.remap(self.level, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        level = self._add_valves(level, phase)
        field = cv2.remap(self.field, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        # Blood is not attached to anything: its scatterers are new in every frame.
        fresh = self.rng.standard_normal(field.shape, dtype=np.float32)
        flowing = (level < -20)[..., None]
        field = np.where(flowing, fresh, field)
        # Attenuation is compensated, but not where depth is large; near the probe there is clutter, which does not move.
        level = level + self.shadow - 0.030 * depth**2
        amplitude = 10 ** (level / 20)
        clutter = 10 ** ((patient.haze - 6.5 * depth) / 20)
        echo = self._blur(field * amplitude[..., None] + self.fixed * clutter[..., None])
        envelope = np.hypot(echo[..., 0], echo[..., 1])
        noise = 10 ** ((patient.noise + 1.35 * depth) / 20) * np.abs(
            self.rng.standard_normal(envelope.shape, dtype=np.float32)
        )
        decibels = 20 * np.log10(np.hypot(envelope, noise) + 1e-6) + patient.gain
        grey = np.clip((decibels + patient.contrast - 16) / patient.contrast, 0, 1) ** (0.9, 1.1, 1.25)[patient.vendor]
        picture = cv2.remap((255 * grey).astype(np.float32), self.map_x, self.map_y, cv2.INTER_LINEAR)
        return np.where(self.fan, picture + 0.5, 0).astype(np.uint8)

    def _blur(self, field: Array) -> Array:
        """The point-spread function: short along the beam, wide across it, of constant angle, and wider away from the focus."""
        axial, near, far = (
            cv2.getGaussianKernel(size, sigma).astype(np.float32) for size, sigma in ((5, 0.85), (7, 1.2), (13, 2.3))
        )
        # Divided by the root of the kernel's energy, so that blurring leaves the power of white noise as it was.
        sharp = cv2.sepFilter2D(field, -1, near, axial) / np.sqrt((near**2).sum() * (axial**2).sum())
        wide = cv2.sepFilter2D(field, -1, far, axial) / np.sqrt((far**2).sum() * (axial**2).sum())
        away = np.clip(np.abs(self.depth - 8.0) / 8.0, 0, 1)[..., None]
        return sharp * (1 - away) + wide * away

    def _add_valves(self, level: Array, phase: float) -> Array:
        u, v = self.scene.local(self.x, self.y, phase)
        for start, end, thick in leaflets(self.scene, phase):
            near = np.exp(-((segment_distance(u, v, start, end) / thick) ** 2))
            level = np.where(near > 0.02, np.maximum(level, (BRIGHT - 4) * near + level * (1 - near)), level)
        return level

    def cavity(self, phase: float) -> NDArray[np.bool_]:
        """(H, W): the left ventricle's cavity, inside the fan."""
        x, y = self.screen.grid()
        return self.scene.inside(x, y, phase) & self.fan
