"""What scatters how strongly: the reference picture of each view at end-diastole, and the valves that move in it."""

from __future__ import annotations

import numpy as np

from domains.echo.heart import BLOOD, BRIGHT, MYOCARDIUM, SOFT, Array, Scene


def soft_step(distance: Array, width: float) -> Array:
    """1 inside (negative distance), 0 outside, over `width` cm."""
    return 0.5 - 0.5 * np.tanh(distance / width)


def ellipse(u: Array, v: Array, cu: float, cv: float, ru: float, rv: float, turn: float = 0.0) -> Array:
    """Signed distance (about, cm) to an ellipse; negative inside."""
    c, s = np.cos(turn), np.sin(turn)
    du, dv = c * (u - cu) + s * (v - cv), -s * (u - cu) + c * (v - cv)
    return (np.hypot(du / ru, dv / rv) - 1) * min(ru, rv)


def paint(level: Array, distance: Array, value: float, width: float = 0.06) -> Array:
    """`value` where distance is negative, with a soft edge."""
    inside = soft_step(distance, width)
    return level * (1 - inside) + value * inside


def reference(scene: Scene, u: Array, v: Array) -> Array:
    """Scattering strength (dB) at end-diastole in local coordinates (u, v), cm."""
    return {"A4C": _apical, "A2C": _apical, "PLAX": _parasternal_long, "PSAX": _parasternal_short}[scene.view](
        scene, u, v
    )


def _background(scene: Scene, u: Array, v: Array) -> Array:
    """Tissue around the heart: patches of uneven strength, darker than muscle."""
    waves = (
        np.sin(0.9 * u + 0.6 * v + 3 * scene.rotation)
        + np.sin(1.7 * v - 0.5 * u + 5 * scene.swing)
        + np.sin(0.35 * v + 1.3 * u)
    )
    return SOFT - 8 + 3.0 * waves


def _apical(scene: Scene, u: Array, v: Array) -> Array:
    rest, four = scene.rest, scene.view == "A4C"
    a, length, wall = rest.a, rest.length, rest.wall
    level = _background(scene, u, v)
    rho = scene.radius(u, v, rest)
    mean = 0.5 * (a + 0.5 * length)
    ventricle = np.where(
        v <= length, (rho - 1) * np.where(np.abs(u) > 0.3 * a, a, mean), np.maximum(np.abs(u) - a, 2.5 * (v - length))
    )
    level = paint(level, ventricle - wall - 0.16, BRIGHT - 5)  # pericardium
    level = paint(level, ventricle - wall, MYOCARDIUM)
    if four:  # right heart on the left of the picture, behind the septum
        right = ellipse(u, v, -1.95 * a, 0.62 * length, 0.78 * a, 0.40 * length, -0.16)
        level = paint(level, right - 0.42, MYOCARDIUM - 2)
        level = paint(level, ventricle - wall, MYOCARDIUM)
        level = paint(level, right, BLOOD)
        level = paint(
            level, ellipse(u, v, -1.75 * a, 0.30 * length, 0.35 * a, 0.06 * length, 0.7), MYOCARDIUM - 4
        )  # moderator band
    # Atria below the mitral plane, with thin walls and the interatrial septum.
    left_atrium = ellipse(u, v, 0.02 * a, length + 0.95 * a + 0.25, 0.88 * a, 0.98 * a)
    level = paint(level, left_atrium - 0.28, MYOCARDIUM - 1)
    if four:
        right_atrium = ellipse(u, v, -1.80 * a, length + 0.80 * a + 0.1, 0.78 * a, 0.92 * a)
        level = paint(level, right_atrium - 0.26, MYOCARDIUM - 2)
        level = paint(level, right_atrium, BLOOD)
    level = paint(level, left_atrium, BLOOD)
    level = paint(level, np.maximum(ventricle, v - length), BLOOD)
    # Fibrous annulus at both hinges.
    for hinge in (-1.0, 1.0):
        level = paint(level, np.hypot(u - hinge * (a + 0.15), v - length) - 0.26, BRIGHT - 3)
    return level


def _parasternal_long(scene: Scene, u: Array, v: Array) -> Array:
    rest = scene.rest
    a, length, wall = rest.a, rest.length, rest.wall
    level = _background(scene, u, v)
    rho = scene.radius(u, v, rest)
    mean = 0.5 * (a + 0.5 * length)
    ventricle = np.where(
        v <= length, (rho - 1) * np.where(np.abs(u) > 0.3 * a, a, mean), np.maximum(np.abs(u) - a, 2.5 * (v - length))
    )
    level = paint(level, ventricle - wall - 0.22, BRIGHT)  # posterior pericardium is the brightest line of this view
    front = ellipse(
        u, v, 1.0 * a + wall + 0.85, 0.62 * length, 0.80, 0.42 * length
    )  # right ventricle, in front (towards the probe)
    level = paint(level, front - 0.35, MYOCARDIUM - 3)
    level = paint(level, front, BLOOD)
    level = paint(level, ventricle - wall, MYOCARDIUM)
    # The aortic root leaves the base in front, the left atrium lies behind it.
    root = np.maximum(np.abs(u - 0.45 * a) - 0.52 * a, np.abs(v - length - 1.9) - 2.0)
    level = paint(level, root - 0.20, BRIGHT - 6)
    atrium = ellipse(u, v, -0.72 * a, length + 1.7, 0.80 * a, 1.95)
    level = paint(level, atrium - 0.24, MYOCARDIUM)
    level = paint(level, atrium, BLOOD)
    level = paint(level, root, BLOOD)
    level = paint(level, np.maximum(ventricle, v - length), BLOOD)
    # Descending aorta behind the atrium.
    return paint(
        paint(level, ellipse(u, v, -2.25 * a, length + 1.6, 1.05, 1.05) - 0.12, BRIGHT - 7),
        ellipse(u, v, -2.25 * a, length + 1.6, 0.95, 0.95),
        BLOOD,
    )


def _parasternal_short(scene: Scene, u: Array, v: Array) -> Array:
    rest = scene.rest
    a, wall = rest.a, rest.wall
    level = _background(scene, u, v)
    ring = np.hypot(u, v) - a
    level = paint(level, ring - wall - 0.18, BRIGHT - 5)
    # The right ventricle is a crescent around the septum, on the left and in front.
    crescent = np.maximum(ellipse(u, v, -0.95 * a, -0.55 * a, 1.55 * a, 1.35 * a, 0.5), -(ring - wall))
    level = paint(level, crescent - 0.32, MYOCARDIUM - 3)
    level = paint(level, crescent, BLOOD)
    level = paint(level, ring - wall, MYOCARDIUM)
    level = paint(level, ring, BLOOD)
    for where in (0.75, 2.35):  # papillary muscles, behind on both sides
        angle = where + scene.rotation
        level = paint(
            level,
            ellipse(u, v, 0.72 * a * np.cos(angle), 0.72 * a * np.sin(angle), 0.24 * a, 0.19 * a, angle),
            MYOCARDIUM + 2,
        )
    return level


def leaflets(scene: Scene, phase: float) -> list[tuple[tuple[float, float], tuple[float, float], float]]:
    """Valve leaflets at `phase`: (hinge, tip, thickness cm) in local coordinates of that moment."""
    if scene.short:
        return []
    now = scene.shape(phase)
    mitral, aortic = scene.opening(phase)
    a, length = now.a, now.length
    reach = 0.88 * a
    tilt = np.radians(16 + 58 * mitral)  # from the mitral plane towards the apex
    lines: list[tuple[tuple[float, float], tuple[float, float], float]] = []
    for side, share in ((-1.0, 1.12), (1.0, 0.84)):
        hinge = (side * a, length)
        tip = (side * (a - share * reach * np.cos(tilt)), length - share * reach * np.sin(tilt))
        lines.append((hinge, tip, 0.11))
    if scene.view == "PLAX":
        for side in (-1.0, 1.0):
            edge = 0.45 * a + side * 0.52 * scene.rest.a
            free = edge - side * 0.5 * scene.rest.a * (1 - 0.92 * aortic)
            lines.append(((edge, length + 0.25), (free, length + 0.25 + 0.8 * (0.35 + 0.65 * aortic)), 0.08))
    elif scene.view == "A4C":  # tricuspid
        centre = -1.85 * scene.rest.a
        for side in (-1.0, 1.0):
            hinge = (centre + side * 0.7 * scene.rest.a, length + 0.1 - 0.3)
            run = 0.66 * scene.rest.a
            lines.append((hinge, (hinge[0] - side * run * np.cos(tilt), hinge[1] - run * np.sin(tilt)), 0.09))
    return lines


def segment_distance(u: Array, v: Array, start: tuple[float, float], end: tuple[float, float]) -> Array:
    """Distance (cm) of points to a line segment."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * du + (v - start[1]) * dv) / max(du * du + dv * dv, 1e-9), 0, 1)
    return np.hypot(u - start[0] - along * du, v - start[1] - along * dv)
