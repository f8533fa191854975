"""The groin from within, painted once per procedure: peritoneum, the gap of a hernia and its sac, vessels, cord, the space behind, a mesh and its
tacks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from domains.surgical.procedure import Act
from domains.surgical.tissue import (
    FIELD,
    Done,
    Field,
    Picture,
    Place,
    Plane,
    State,
    between,
    blend,
    lobules,
    over,
    shade,
    soft,
    tube,
)

OPENING, REDUCTION, PLACEMENT, FIXATION, CLOSURE = (
    "PeritoneumOpening", "HerniaSacReduction", "MeshPlacement", "MeshFixation", "PeritoneumClosure",
)  # fmt: skip
GAP: Place = (300.0, 205.0)  # of the hernia
LEFT, RIGHT = 120.0, 450.0  # how far the peritoneum is opened
EDGE = 110.0  # the upper edge of the opening
HEM = 320.0  # where the flap hangs
CORD_END: Place = (430.0, 345.0)
TACKS: tuple[Place, ...] = ((190.0, 140.0), (300.0, 128.0), (405.0, 142.0), (200.0, 245.0), (395.0, 250.0))


@dataclass(frozen=True, kw_only=True)
class Repaired(State):
    """Each in [0, 1]: how far the peritoneum is opened, the sac pulled back, the mesh spread, the peritoneum closed again. tacks: how many there
    are."""

    opened: float = 0.0
    reduced: float = 0.0
    spread: float = 0.0
    closed: float = 0.0
    tacks: int = 0


class Groin(Field):
    """The field of a hernia repair. Nothing is cut out: there is no bag."""

    bag = dome = GAP

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        tint = rng.uniform(-12, 12, 3)
        low, middle, fine = self._noise
        self._fat = np.array([228, 186, 104]) + rng.uniform(-14, 14, 3)
        self._wide = float(rng.uniform(26, 42))
        self._weave = float(rng.uniform(9, 13))
        self._sheet = shade(np.array([214, 152, 134]) + tint, 0.12 * low + 0.07 * middle + 0.03 * fine)
        self._sheet[np.abs(middle + 0.4 * low) < 0.06] *= (0.86, 0.62, 0.64)
        behind = self._fat_of(self._fat, lobules(rng))
        muscle = shade(np.array([164, 70, 62]) + tint, 0.2 * np.sin(self._y / 7 + 2 * low) + 0.06 * middle)
        self._space = over(behind, muscle, soft(170 + 20 * low - self._y, 24))
        self._dark = shade(np.array([62, 22, 22]), 0.2 * middle)
        self._sac = shade(np.array([226, 176, 160]) + tint, 0.08 * low + 0.04 * middle)
        self._clotted = self._clot()
        self._film = soft(250 - np.abs(self._x - 290), 60) * soft(self._y - 150, 50)
        self._uneven = 7 * middle
        self._veins = float(rng.uniform(225, 262))

    def state(self, done: Done, blood: float) -> Repaired:
        return Repaired(
            opened=round(done(OPENING), 1),
            reduced=round(done(REDUCTION), 1),
            spread=round(done(PLACEMENT), 1),
            closed=round(done(CLOSURE), 1),
            tacks=int(np.clip(done(FIXATION) * (len(TACKS) + 0.5), 0, len(TACKS))),
            blood=round(blood * 12) / 12,
        )

    def target(self, act: Act, state: State) -> Place:
        assert isinstance(state, Repaired)
        places: dict[str, Place] = {
            "peritoneum": (LEFT + (RIGHT - LEFT) * (1 - state.closed if state.closed else state.opened), EDGE + 12),
            "flap": (290.0, EDGE + (HEM - EDGE) * max(0.2, state.opened)),
            "hernia_sac": (GAP[0], GAP[1] + 60 * state.reduced),
            "spermatic_cord": between(GAP, CORD_END, 0.4),
            "mesh": (GAP[0] - 70 + 120 * state.spread, GAP[1] - 20.0),
            "mesh_edge": TACKS[min(state.tacks, len(TACKS) - 1)],
            "blood_vessel": (self._veins, 150.0),
            "gut": (330.0, 370.0),
            "fluid": (300.0, 300.0),
        }
        return places[act.action.rsplit(",", 1)[-1]]

    def paint(self, state: State) -> Picture:
        assert isinstance(state, Repaired)
        picture = self._sheet.copy()
        if state.closed == 0:  # what is closed again has no gap
            blend(picture, self._dark, self._ellipse(GAP, self._wide * 1.3, self._wide, -15, 4))
        if state.opened > 0 and state.closed < 1:
            self._behind(picture, state)
        else:
            self._vessels(picture, 0.5)
        if state.closed > 0:  # the seam, as far as it is sewn
            end = RIGHT - (RIGHT - LEFT) * state.closed
            for x in range(round(end), round(RIGHT), 18):
                cv2.line(picture, (x, round(EDGE - 6)), (x + 12, round(EDGE + 16)), (70, 62, 150), 4, cv2.LINE_AA)
        self._bleed(picture, state.blood, self._clotted, self._film)
        return np.clip(picture, 0, 255).astype(np.uint8)

    def _behind(self, picture: Plane, state: Repaired) -> None:
        """What is seen where the flap hangs down: fat and muscle, vessels, cord, the gap with its sac, the mesh."""
        right = LEFT + (RIGHT - LEFT) * (state.opened if not state.closed else 1 - state.closed)
        low = EDGE + (HEM - EDGE) * (0.35 + 0.65 * state.reduced if not state.closed else 0.9)
        x, y = self._x + self._uneven, self._y + self._uneven
        shown = soft(x - LEFT, 5) * soft(right - x, 5) * soft(y - EDGE, 4) * soft(low - y, 6)
        space = self._space.copy()
        self._vessels(space, 1.0)
        tube(space, GAP, CORD_END, 22, (206, 150, 122))
        tube(space, (GAP[0] + 12, GAP[1]), (CORD_END[0] + 14, CORD_END[1]), 6, (150, 56, 70))
        blend(space, self._dark, self._ellipse(GAP, self._wide * 1.3, self._wide, -15, 4))
        if state.reduced < 1:
            sac = (GAP[0], GAP[1] + 10 + 60 * state.reduced)
            blend(space, self._sac, self._ellipse(sac, 0.9 * self._wide, self._wide + 34 * state.reduced, 0, 6))
        if state.spread > 0:
            self._mesh(space, state)
        blend(picture, space, shown)
        rim = shown * (1 - shown) * 4
        blend(picture, self._sac, np.clip(rim, 0, 1).astype(np.float32))

    def _vessels(self, picture: Plane, strength: float) -> None:
        """The epigastric ones: an artery between two veins."""
        layer = picture.copy()
        for shift, width, colour in ((-9, 9, (92, 74, 120)), (0, 6, (186, 54, 52)), (9, 9, (92, 74, 120))):
            tube(layer, (self._veins + shift, 0), (self._veins + 24 + shift, 230), width, colour)
        picture += strength * (layer - picture)

    def _mesh(self, picture: Plane, state: Repaired) -> None:
        """A white net, unrolled from the left."""
        left, top, right, bottom = 168.0, 118.0, 168.0 + 268.0 * state.spread, 275.0
        x, y = self._x + 0.6 * self._uneven, self._y + 0.6 * self._uneven
        inside = soft(x - left, 2) * soft(right - x, 2) * soft(y - top, 2) * soft(bottom - y, 2)
        u, v = (x + y) / self._weave, (x - y) / self._weave
        thread = np.maximum(np.cos(np.pi * u) ** 8, np.cos(np.pi * v) ** 8).astype(np.float32)
        white = np.full((*FIELD, 3), (232, 234, 236), np.float32)
        blend(picture, white, inside * (0.25 + 0.7 * thread))
        if state.spread < 1:  # what is still rolled
            tube(picture, (right, top), (right, bottom), 24, (222, 224, 228))
        for number in range(state.tacks):
            centre = tuple(round(c) for c in TACKS[number])
            cv2.circle(picture, centre, 7, (64, 66, 72), -1, cv2.LINE_AA)
            cv2.circle(picture, centre, 3, (206, 210, 218), -1, cv2.LINE_AA)
