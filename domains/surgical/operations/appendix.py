"""What lies in the right lower abdomen, painted once per procedure: wall, loops of bowel, caecum, the appendix and its mesentery, blood, clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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

MESENTERY, DIVISION, PACKAGING, RETRACTION = (
    "MesoappendixDissection", "AppendixDivision", "AppendixPackaging", "AppendixRetraction",
)  # fmt: skip
BASE: Place = (205.0, 262.0)  # where the appendix leaves the caecum
BEND: Place = (292.0, 262.0)
TIP: Place = (362.0, 176.0)
ROOT: Place = (250.0, 318.0)  # from where the mesentery spreads
CAECUM: Place = (128.0, 236.0)
PELVIS: Place = (330.0, 330.0)  # where fluid gathers
BAG: Place = (300.0, 250.0)
DOME: Place = (250.0, 30.0)
PATCHES = 12


@dataclass(frozen=True, kw_only=True)
class Freed(State):
    """mesentery: how much of it is left, in [0, 1]; clips on the base; cut: between them."""

    mesentery: float = 1.0
    clips: int = 0
    cut: bool = False


class Appendix(Field):
    """The field of an appendectomy."""

    bag, dome = BAG, DOME

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        tint = rng.uniform(-12, 12, 3)
        self._bowel = np.array(((206, 142, 122), (198, 128, 108), (212, 156, 138))[int(rng.integers(3))]) + tint
        self._inflamed = np.array(((196, 84, 74), (182, 110, 96), (170, 62, 62))[int(rng.integers(3))]) + tint
        self._fat = np.array([224, 178, 96]) + rng.uniform(-14, 14, 3)
        self._girth = float(rng.uniform(11, 17))
        self._bulge = float(rng.uniform(0.0, 0.5))  # of the tip
        low, middle, _ = self._noise
        lobes = lobules(rng)
        self._lump = self._fat_of(self._fat * 1.04, lobes)
        self._still = self._paint_still(lobes, rng)
        # Along the line from base to tip, on the side of the root, in order: the tip is freed first.
        shares = np.linspace(0.95, 0.1, PATCHES)
        self._patches = [between(between(ROOT, _on(s), float(rng.uniform(0.45, 0.85))), _on(s), 0.1) for s in shares]
        self._skin = shade(self._inflamed, 0.08 * middle + 0.05 * low)
        self._clotted = self._clot()
        self._film = soft(260 - np.abs(self._x - 280), 60) * soft(self._y - 190, 50)

    def _paint_still(self, lobes: Plane, rng: np.random.Generator) -> Plane:
        """Wall, bowel and caecum, which nobody moves."""
        low, middle, fine = self._noise
        wall = shade(np.array([204, 140, 128]), 0.14 * low + 0.07 * middle)
        vessels = np.abs(middle + 0.5 * low + 0.2) < 0.06
        wall[vessels] *= (0.88, 0.66, 0.66)
        picture = over(wall, self._fat_of(self._fat, lobes), soft(self._y - 285 - 16 * low, 10))
        coat = shade(self._bowel, 0.08 * low + 0.04 * fine)
        for number in range(6):  # loops, from behind to the front
            x, y = (
                330 + 46 * (number % 3) + rng.normal(0, 14),
                60 + 74 * (number // 3) + 34 * (number % 3) + rng.normal(0, 10),
            )
            self._lay(picture, coat, (float(x), float(y)), float(rng.uniform(80, 120)), 34, float(rng.uniform(-30, 30)))
        for number in range(4):
            self._lay(
                picture, coat, (90.0 + 130 * number, 398 + 12.0 * (number % 2)), 90, 36, float(rng.uniform(-12, 12))
            )
        self._lay(picture, coat * 1.04, CAECUM, 98, 84, 70)
        for a, b in (((70.0, 150.0), (150.0, 240.0)), ((150.0, 240.0), BASE)):  # the taenia leads to the base
            tube(picture, a, b, 10, (232, 196, 172))
        return picture

    def _lay(self, picture: Plane, coat: Plane, centre: Place, long: float, wide: float, degrees: float) -> None:
        """A loop of bowel, round in the light and with its folds."""
        mask = self._ellipse(centre, long, wide, degrees, 4)
        angle = np.deg2rad(degrees)
        across = (-(self._x - centre[0]) * np.sin(angle) + (self._y - centre[1]) * np.cos(angle)) / wide
        along = ((self._x - centre[0]) * np.cos(angle) + (self._y - centre[1]) * np.sin(angle)) / long
        light = 1.1 - 0.5 * across**2 - 0.12 * along**2 + 0.03 * np.sin(14 * along)
        blend(picture, coat * np.clip(light, 0.4, 1.15)[..., None], mask)

    def state(self, done: Done, blood: float) -> Freed:
        divided = done(DIVISION)
        return Freed(
            mesentery=round(1 - done(MESENTERY), 1),
            blood=round(blood * 12) / 12,
            bagged=round(max(0.0, 2 * done(PACKAGING) - 1), 1),
            raised=done(RETRACTION),
            clips=int(np.clip((divided - 0.05) / 0.5 * 3, 0, 3)),
            cut=divided > 0.8,
        )

    def target(self, act: Act, state: State) -> Place:
        assert isinstance(state, Freed)
        if act.phase == RETRACTION:
            return self.held(state)
        places: dict[str, Place] = {
            "appendix": _on(0.85) if act.tool == "Grasper" else _on(0.08),
            "mesoappendix": between(ROOT, _on(0.2 + 0.7 * state.mesentery), 0.75),
            "appendicular_artery": between(ROOT, _on(0.3), 0.5),
            "caecum": (CAECUM[0] + 40, CAECUM[1] - 10),
            "gut": (360.0, 120.0),
            "fluid": PELVIS,
            "pelvis": PELVIS,
            "specimen_bag": (BAG[0] - 10, BAG[1] - 45),
        }
        return places[act.action.rsplit(",", 1)[-1]]

    def paint(self, state: State) -> Picture:
        assert isinstance(state, Freed)
        picture = self._still.copy()
        left = round(PATCHES * state.mesentery)
        if left:
            tube(picture, ROOT, between(ROOT, _on(0.3), 0.9), 6, (178, 52, 50))
        for place in self._patches[PATCHES - left :]:
            blend(picture, self._lump, self._ellipse(place, 34, 24, 30, 7))
        if state.bagged < 1:
            self._worm(picture, state)
        for number in range(state.clips):
            x, y = _on((0.05, 0.1, 0.2)[number])
            draw_clip(picture, (x, y - 15), (x + 2, y + 15))
        if state.cut:
            x, y = _on(0.03)
            blend(picture, self._clotted, self._ellipse((x, y), 12, 9, 0, 3))
        self._bleed(picture, state.blood, self._clotted, self._film)
        return np.clip(picture, 0, 255).astype(np.uint8)

    def _worm(self, picture: Plane, state: Freed) -> None:
        """The appendix: thicker at an inflamed tip; once cut it lies loose, and goes into the bag."""
        shares = np.linspace(0.15 if state.cut else 0.0, 1, 48)
        points = np.array([_on(share) for share in shares])
        if state.cut:
            points += (np.array(BAG) - points) * min(1.0, 1.1 * state.bagged) + (1 - state.bagged) * np.array([26, 20])
        part = window(points, 2.2 * self._girth)
        nearest = np.full(self._x[part].shape, np.inf, np.float32)
        for (x, y), share in zip(points, shares, strict=True):
            girth = self._girth * (1 + self._bulge * share**2)
            np.minimum(nearest, np.hypot(self._x[part] - x, self._y[part] - y) / girth, out=nearest)
        light = np.clip(1.14 - 0.6 * nearest**2, 0.4, 1.15)
        mask = soft((1 - nearest) * self._girth, 2)[..., None]
        picture[part] += (self._skin[part] * light[..., None] - picture[part]) * mask


def _on(share: float) -> Place:
    """A place on the appendix, from base (0) to tip (1): a curve through its bend."""
    a, b = between(BASE, BEND, share), between(BEND, TIP, share)
    return between(a, b, share)
