"""A heart that beats: shape, volumes and motion, in centimetres, per echocardiographic view.

Everything is drawn once at end-diastole (the reference) and moved from there: `Scene.material` says where a point of the image was at
end-diastole, so that tissue and its speckle deform together. The left ventricle is half a prolate ellipsoid, V = 2/3 pi a b L with short
half-axes a (four-chamber plane) and b (two-chamber plane) and length L from apex to mitral plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
VIEWS = ("A4C", "A2C", "PLAX", "PSAX")
# Scattering strength in decibels, relative to myocardium.
BLOOD, MYOCARDIUM, BRIGHT, SOFT = -42.0, 0.0, 12.0, -11.0


@dataclass(frozen=True)
class Patient:
    """What does not change between the views of one study.

    edv: ml; ef: per cent; heart_rate: beats a minute; k: length over half-axis a; oval: b / a; wall: end-diastolic thickness, cm;
    tilt: radians about the view's usual axis; shift: cm; gain, noise, haze: of the picture; depth: cm; half_angle: radians; vendor: 0-2.
    """

    edv: float
    ef: float
    heart_rate: float
    k: float
    oval: float
    wall: float
    tilt: float
    shift: tuple[float, float]
    gain: float
    contrast: float
    noise: float
    haze: float
    depth: float
    half_angle: float
    vendor: int
    fps: float
    age: int
    female: bool
    echogenicity: float

    @property
    def esv(self) -> float:
        """ml."""
        return self.edv * (1 - self.ef / 100)

    @property
    def half_axis(self) -> float:
        """a at end-diastole, cm."""
        return float((self.edv / (2 / 3 * np.pi * self.oval * self.k)) ** (1 / 3))


def draw_patient(rng: np.random.Generator) -> Patient:
    """A patient. EDV, rate, size and every setting of the picture are drawn apart from EF; a weak tie of EDV to EF is real and kept."""
    ef = float(
        np.clip(rng.choice([rng.normal(60, 6), rng.normal(44, 8), rng.normal(28, 7)], p=[0.45, 0.3, 0.25]), 15, 75)
    )
    edv = float(np.clip(rng.lognormal(np.log(118), 0.26) * (1 + 0.35 * (55 - ef) / 55), 60, 260))
    return Patient(
        edv=edv,
        ef=ef,
        heart_rate=float(rng.uniform(52, 105)),
        k=float(rng.uniform(3.0, 3.9)),
        oval=float(rng.uniform(0.92, 1.08)),
        wall=float(rng.uniform(0.75, 1.35)),
        tilt=float(rng.normal(0, 0.13)),
        shift=(float(rng.normal(0, 0.45)), float(rng.normal(0, 0.3))),
        gain=float(rng.uniform(-5, 5)),
        contrast=float(rng.uniform(50, 66)),
        noise=float(rng.uniform(-58, -46)),
        haze=float(rng.uniform(-16, -4)),
        depth=float(rng.uniform(14.5, 18.0)),
        half_angle=float(np.radians(rng.uniform(36, 44))),
        vendor=int(rng.integers(3)),
        fps=float(rng.choice([25.0, 30.0, 33.3, 40.0, 50.0])),
        age=int(rng.integers(22, 97)),
        female=bool(rng.random() < 0.5),
        echogenicity=float(rng.normal(0, 2.0)),
    )


def emptied(phase: Array) -> Array:
    """Share of the stroke volume that has left the ventricle at `phase` in [0, 1) of the beat: 0 at end-diastole, 1 at end-systole.

    Ejection, early filling, diastasis, atrial kick.
    """
    knots = np.array([0.0, 0.04, 0.12, 0.22, 0.32, 0.37, 0.42, 0.48, 0.55, 0.62, 0.72, 0.84, 0.90, 0.96, 1.0])
    values = np.array([0.0, 0.02, 0.34, 0.76, 0.98, 1.0, 0.97, 0.70, 0.40, 0.27, 0.23, 0.20, 0.13, 0.03, 0.0])
    smooth = np.interp(np.linspace(0, 1, 201), knots, values)
    kernel = np.hanning(9) / np.hanning(9).sum()
    smooth = np.convolve(np.concatenate([smooth[-5:-1], smooth, smooth[1:5]]), kernel, mode="valid")
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.interp(np.mod(phase, 1.0), np.linspace(0, 1, 201), smooth)


END_SYSTOLE = float(np.argmax(emptied(np.linspace(0, 1, 1001))) / 1000)
END_DIASTOLE = float(np.argmin(emptied(np.linspace(0, 1, 1001))) / 1000)


@dataclass(frozen=True)
class Shape:
    """The ventricle at one moment: half-axis in the plane of the view, length, wall thickness; cm."""

    a: float
    length: float
    wall: float


class Scene:
    """One view of one patient: where the heart lies in the sector, and how a point at time t maps to end-diastole.

    Image coordinates are centimetres from the probe: x to the right, y down (depth).
    """

    def __init__(self, patient: Patient, view: str, rng: np.random.Generator) -> None:
        if view not in VIEWS:
            raise ValueError(f"no view '{view}'")
        self.patient, self.view = patient, view
        self.short = view == "PSAX"
        a = patient.half_axis * (patient.oval if view == "A2C" else 1.0)
        self.rest = Shape(a, patient.half_axis * patient.k, patient.wall)
        tilt = patient.tilt + float(rng.normal(0, 0.05))
        sx, sy = patient.shift
        if view in ("A4C", "A2C"):
            self.origin = (0.9 + sx if view == "A4C" else 0.1 + sx, 2.6 + sy)  # apex
            self.angle = (
                0.16 if view == "A4C" else -0.05
            ) + tilt  # axis from the vertical, base to the left if positive
        elif view == "PLAX":
            self.origin = (-4.6 + sx, 8.3 + sy)  # apex, to the left
            self.angle = -1.28 + 0.7 * tilt
        else:
            self.origin = (0.2 + sx, 7.6 + sy)  # centre of the ring
            self.angle = tilt
        self.rotation = float(rng.uniform(-0.3, 0.3))  # of the papillary muscles
        self.swing = float(rng.uniform(0.05, 0.25))  # whole heart, cm

    def shape(self, phase: float) -> Shape:
        """The ventricle at `phase`; its volume is exactly edv - emptied * (edv - esv)."""
        left = 1 - self.patient.ef / 100 * float(emptied(np.asarray(phase)))
        length = left**0.22  # the long axis shortens less than the short one
        a = (left / length) ** 0.5
        wall = self.rest.wall * (self.rest.a / (self.rest.a * a)) ** 0.75  # tissue does not shrink: it thickens
        return Shape(self.rest.a * a, self.rest.length * length, wall)

    def local(self, x: Array, y: Array, phase: float) -> tuple[Array, Array]:
        """Image -> (u, v): v from the apex along the long axis (PSAX: from the centre), u across."""
        swing = self.swing * np.sin(2 * np.pi * phase)
        dx, dy = x - self.origin[0] - 0.5 * swing, y - self.origin[1] - swing * 0.6
        c, s = np.cos(self.angle), np.sin(self.angle)
        return c * dx + s * dy, -s * dx + c * dy

    def radius(self, u: Array, v: Array, shape: Shape) -> Array:
        """1 on the endocardium, less inside, more outside."""
        if self.short:
            return np.hypot(u, v) / shape.a
        return np.hypot(u / shape.a, (shape.length - v) / shape.length)

    def inside(self, x: Array, y: Array, phase: float) -> NDArray[np.bool_]:
        """The cavity of the left ventricle."""
        u, v = self.local(x, y, phase)
        shape = self.shape(phase)
        inner = self.radius(u, v, shape) < 1
        return inner if self.short else inner & (v <= shape.length)

    def material(self, x: Array, y: Array, phase: float) -> tuple[Array, Array]:
        """Image position at `phase` -> (u, v) of the same piece of tissue at end-diastole."""
        now, rest = self.shape(phase), self.rest
        u, v = self.local(x, y, phase)
        rho = np.maximum(self.radius(u, v, now), 1e-6)
        scale = now.a / rest.a * rest.wall / now.wall  # outside the cavity the wall is as much thicker as it is now
        beyond = np.maximum(rho - 1, 0)
        edge = now.wall / now.a
        in_wall = np.minimum(beyond, edge) * scale + np.maximum(beyond - edge, 0)
        ratio = np.where(rho > 1, 1 + in_wall, rho) / rho
        fade = np.exp(-((np.maximum(beyond - edge, 0) / 0.9) ** 2))
        if self.short:
            u0, v0 = u * ratio * rest.a / now.a, v * ratio * rest.a / now.a
            return u + (u0 - u) * fade, v + (v0 - v) * fade
        depth = (now.length - v) / now.length
        u_in, v_in = u * ratio * rest.a / now.a, rest.length * (1 - depth * ratio)
        # Below the mitral plane tissue rides with the annulus, less and less with distance.
        below = np.maximum(v - now.length, 0)
        ride = np.exp(-((below / 3.5) ** 2))
        u_below, v_below = u * (1 + (rest.a / now.a - 1) * ride), v + (rest.length - now.length) * ride
        u0, v0 = np.where(v > now.length, u_below, u_in), np.where(v > now.length, v_below, v_in)
        side = np.exp(-((np.maximum(np.abs(u) / now.a - 1 - edge, 0) / 0.9) ** 2))
        fade = np.where(v > now.length, side, fade)
        return u + (u0 - u) * fade, v + (v0 - v) * fade

    def opening(self, phase: float) -> tuple[float, float]:
        """How far the mitral and the aortic valve are open, 0 to 1."""
        phase = float(np.mod(phase, 1.0))
        early = np.exp(-(((phase - 0.50) / 0.055) ** 2))
        atrial = 0.6 * np.exp(-(((phase - 0.90) / 0.04) ** 2))
        resting = 0.25 if 0.42 < phase < 0.95 else 0.0
        systole = float(np.clip(np.sin(np.pi * (phase - 0.05) / 0.30), 0, 1)) if 0.05 < phase < 0.35 else 0.0
        return float(min(1.0, max(resting, early, atrial))), systole
