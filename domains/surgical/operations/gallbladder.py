"""What lies under the liver, painted once per procedure in layers and put together as the operation goes on: wall, liver and its bed, gallbladder,
duct and artery, fat, blood, clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domains.layouts.cholec import PHASES
from domains.surgical.procedure import Act
from domains.surgical.tissue import (
    Done,
    Field,
    Picture,
    Place,
    Plane,
    State,
    between,
    blend,
    draw_clip,
    lobules,
    over,
    shade,
    soft,
    tube,
    window,
)

_, CALOT, CLIPPING, DISSECTION, PACKAGING, _, RETRACTION = PHASES
NECK: Place = (235.0, 235.0)  # where the gallbladder becomes the cystic duct
FUNDUS: Place = (360.0, 120.0)
DUCT_END: Place = (150.0, 300.0)
ARTERY_END: Place = (175.0, 245.0)
BED: Place = (330.0, 150.0)  # where it lay on the liver
BAG: Place = (285.0, 280.0)
DOME: Place = (300.0, 30.0)  # where the trocar for the bag comes through the wall


@dataclass(frozen=True, kw_only=True)
class Freed(State):
    """How far things are, each in [0, 1]: fat over the triangle, gallbladder off the liver, char of the bed. clips: how many there are. cut: between
    them."""

    fat: float = 1.0
    detached: float = 0.0
    char: float = 0.0
    clips: int = 0
    cut: bool = False


class Gallbladder(Field):
    """The field of a cholecystectomy."""

    bag, dome = BAG, DOME

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        tint = rng.uniform(-12, 12, 3)
        self._liver = np.array([124, 44, 42]) + tint
        self._organ = np.array(((168, 150, 96), (150, 140, 112), (172, 120, 98))[int(rng.integers(3))]) + tint
        self._fat = np.array([222, 170, 84]) + rng.uniform(-14, 14, 3)
        self._lobules = lobules(rng)
        self._patches = rng.uniform(-34, 34, (10, 2)) + np.array([190, 265])
        self._girth = float(rng.uniform(36, 50))
        _, middle, fine = self._noise
        self._still = self._paint_still(rng)
        self._raw = shade(np.array([158, 40, 40]), 0.22 * middle + 0.12 * fine)
        self._lump = self._fat_of(self._fat * 1.04, self._lobules)
        self._clotted = self._clot()
        self._skin = shade(self._organ, 0.06 * middle + 0.03 * fine)
        self._skin[np.abs(middle + 0.3 * fine) < 0.06] *= (0.94, 0.7, 0.66)
        self._film = soft(300 - np.abs(self._x - 260), 60) * soft(self._y - 120, 40)

    def _paint_still(self, rng: np.random.Generator) -> Plane:
        """Wall, liver and fat, which nobody moves."""
        low, middle, fine = self._noise
        wall = shade(np.array([196, 128, 118]), 0.16 * low + 0.08 * middle)
        vessels = np.abs(low + 0.5 * middle - 0.1) < 0.05
        wall[vessels] *= (0.9, 0.72, 0.72)
        edge = 250 - 0.32 * self._x + 26 * np.sin(self._x / 95 + float(rng.uniform(0, 3))) + 60 * (self._x > 0)
        top = 70 + 18 * np.sin(self._x / 130 + float(rng.uniform(0, 3)))
        liver = soft(edge + 6 * middle - self._y, 3) * soft(self._y - top, 6)
        body = shade(self._liver, 0.14 * low + 0.10 * middle + 0.05 * fine)
        rim = np.exp(-(((edge - self._y - 5) / 5) ** 2))[..., None] * np.array([46, 30, 26], np.float32)
        picture = over(wall, body + rim, liver)
        fat_edge = 305 + 22 * np.sin(self._x / 70 + float(rng.uniform(0, 6))) + 12 * low
        cavity = soft(self._y - edge - 4, 10) * soft(fat_edge - self._y, 14)
        picture = over(picture, shade(np.array([92, 36, 30]), 0.2 * middle), cavity)
        return over(picture, self._fat_of(self._fat, self._lobules), soft(self._y - fat_edge, 6))

    def state(self, done: Done, blood: float) -> Freed:
        clipped, dissected = done(CLIPPING), done(DISSECTION)
        return Freed(
            fat=round(1 - done(CALOT), 1),
            detached=round(dissected * 20) / 20,
            blood=round(blood * 12) / 12,
            char=round(dissected * 5) / 5,
            bagged=round(max(0.0, 2 * done(PACKAGING) - 1), 1),
            raised=done(RETRACTION),
            clips=int(np.clip((clipped - 0.05) / 0.45 * 6, 0, 6)),
            cut=clipped > 0.75,
        )

    def target(self, act: Act, state: State) -> Place:
        assert isinstance(state, Freed)
        if act.phase == RETRACTION:
            return self.held(state)
        down, neck = state.detached, np.array(NECK)
        hanging = np.array([FUNDUS[0] - 20.0 * down, FUNDUS[1] + 92.0 * down])
        near = 0.55 if act.tool == "Hook" else 0.8
        gallbladder = near * hanging + (1 - near) * neck
        places: dict[str, Place] = {
            "cystic_duct": between(NECK, DUCT_END, 0.5),
            "cystic_artery": between(NECK, ARTERY_END, 0.5),
            "peritoneum": (NECK[0] + 6, NECK[1] - 8),
            "omentum": (205.0, 320.0),
            "cystic_plate": (BED[0] - 40.0 * (1 - down), BED[1] + 30.0),
            "blood_vessel": (NECK[0] + 20, NECK[1] + 12),
            "liver": BED,
            "fluid": (270.0, 285.0),
            "specimen_bag": (BAG[0] - 10, BAG[1] - 45),
            "gallbladder": (float(gallbladder[0]), float(gallbladder[1])),
        }
        return places[act.action.rsplit(",", 1)[-1]]

    def paint(self, state: State) -> Picture:
        assert isinstance(state, Freed)
        _, _, fine = self._noise
        picture = self._still.copy()
        if state.detached > 0:
            bed = self._ellipse(BED, 74, 34, -40, 5)
            raw = self._raw.copy()
            raw[fine > 1.8 - 1.2 * state.char] = (58, 34, 26)
            blend(picture, raw, bed * min(1.0, 1.6 * state.detached))
        self._tubes(picture, state)
        if state.bagged < 1:
            self._gallbladder(picture, state)
        for place in self._patches[: max(0, round(len(self._patches) * state.fat))]:
            blend(picture, self._lump, self._ellipse(tuple(place), 32, 20, 20, 7))
        self._clips(picture, state)
        self._bleed(picture, state.blood, self._clotted, self._film)
        return np.clip(picture, 0, 255).astype(np.uint8)

    def _gallbladder(self, picture: Plane, state: Freed) -> None:
        """A pear from neck to fundus; it hangs lower, and turns, as it comes off."""
        down = 70 * state.detached
        fundus = np.array([FUNDUS[0] - 20 * state.detached, FUNDUS[1] + 1.3 * down])
        neck = np.array([NECK[0] + 30 * state.detached * state.cut, NECK[1] + 0.4 * down * state.cut])
        goal = np.array(BAG)
        fundus, neck = (point + (goal - point) * min(1.0, 1.1 * state.bagged) for point in (fundus, neck))
        axis = fundus - neck
        length = float(np.hypot(*axis)) + 1e-3
        u, v = axis / length
        part = window(np.stack([neck, fundus]), 1.4 * self._girth)
        x, y = self._x[part] - neck[0], self._y[part] - neck[1]
        along, across = (x * u + y * v) / length, np.abs(y * u - x * v)
        # Radius along the axis: a slim neck, the widest at three quarters, a round fundus.
        rise = np.clip((along + 0.02) / 0.55, 0, 1)
        tip = np.sqrt(np.clip(1 - np.clip((along - 0.72) / 0.34, 0, 1) ** 2, 0, 1))
        girth = self._girth * (0.2 + 0.8 * rise**2 * (3 - 2 * rise)) * tip * (along > -0.02)
        light = 1.12 - 0.62 * (across / np.maximum(girth, 1)) ** 2
        colour = self._skin[part] * np.clip(light, 0.35, 1.15)[..., None]
        picture[part] += (colour - picture[part]) * soft(girth - across, 2.5)[..., None]

    def _tubes(self, picture: Plane, state: Freed) -> None:
        """The cystic duct and, above it, the artery; a gap where they are cut."""
        for end, width, colour in ((DUCT_END, 15, (206, 176, 124)), (ARTERY_END, 7, (196, 72, 66))):
            for part in ((0.0, 0.42), (0.58, 1.0)) if state.cut else ((0.0, 1.0),):
                a, b = (between(NECK, end, share) for share in part)
                tube(picture, a, b, width, colour)

    def _clips(self, picture: Plane, state: Freed) -> None:
        """Two on the side that stays and one on the gallbladder's, of each tube in turn."""
        for number in range(state.clips):
            end = (DUCT_END, ARTERY_END)[number % 2]
            x, y = between(NECK, end, (0.3, 0.66, 0.78)[number // 2 % 3])
            across = np.array([-(end[1] - NECK[1]), end[0] - NECK[0]], float)
            across *= (11 if number % 2 == 0 else 7) / np.hypot(*across)
            draw_clip(picture, (x - across[0], y - across[1]), (x + across[0], y + across[1]))
