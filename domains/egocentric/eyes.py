"""The house seen from a camera in it: walls, floor and ceiling by ray casting, and everything else as flat pictures that stand in the room."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.egocentric import figures
from domains.egocentric.figures import LEVELS, PERSON, Sprite
from domains.egocentric.hands import draw_hands
from domains.egocentric.house import CELLS, DOORWAY, HELD, ROOMS, WALL, Point, Station, plan, room_at
from domains.egocentric.paper import FLOORS, SIZE, WALLS, papers
from domains.egocentric.stage import Body, Stage

Picture = NDArray[np.uint8]
Array = NDArray[np.float32]

VIEW = 128  # pixels, height and width
FIELD = math.radians(78)  # of view
HEIGHT = 1.3  # of the walls, units
EYE = 0.86  # of a person's eyes
FAR = 11.0  # units: nothing is further
ANGLE = math.tan(FIELD / 2)
FOCAL = VIEW / 2 / ANGLE


@dataclass(frozen=True)
class Camera:
    """Where it is, where it looks (radians); eye: height; tilt: pixels that the horizon is moved down; lamp: whether it carries one."""

    x: float
    y: float
    heading: float
    eye: float = EYE
    tilt: float = 0.0
    lamp: bool = True


@dataclass(frozen=True)
class Met:
    """A person in the picture. depth: units; joints: (J, 2), (x, y) in shares of the picture, also beyond its edges; shown: share of the figure's
    columns that nothing hides."""

    number: int
    depth: float
    joints: NDArray[np.float64]
    shown: float


@dataclass(frozen=True)
class _Thing:
    sprite: Sprite
    x: float
    y: float
    body: Body | None = None
    joints: NDArray[np.float64] | None = None
    station: Station | None = None


class House:
    """The house of one event, painted: colours vary a little. `look(camera, time, wearer)` is a frame."""

    def __init__(self, stage: Stage, rng: np.random.Generator) -> None:
        self.stage = stage
        self.cells = plan()
        self.walls, self.floors = papers(WALLS, rng), papers(FLOORS, rng)
        self.grain = rng.normal(0, 5, (4, VIEW, VIEW, 1)).astype(np.float32)
        self._across = ((np.arange(VIEW) + 0.5) / VIEW * 2 - 1).astype(np.float32) * ANGLE

    def look(self, camera: Camera, time: float, wearer: int | None = None) -> tuple[Picture, list[Met]]:
        """A frame (VIEW, VIEW, 3) RGB, and the people in it. wearer: who carries the camera, and is not in the picture but for the hands."""
        rays = self._rays(camera)
        depth, room, u = self._cast(camera, rays)
        horizon = VIEW / 2 - 0.5 + camera.tilt
        light, ambient = self.stage.light(time), self._ambient(time)
        picture = self._background(camera, rays, depth, room, u, horizon, light, ambient)
        met, spots = self._stand(picture, camera, depth, horizon, time, wearer, light, ambient)
        if light < 0.99:  # night is blue, and the lamp's cone is in the middle
            night = 1 - light
            picture *= np.array([1 - 0.25 * night, 1 - 0.12 * night, 1 + 0.1 * night], np.float32)
        if wearer is not None:
            body = self.stage.body(wearer, time)
            draw_hands(picture, body, spots, 0.45 + 0.55 * light)
        picture += self.grain[int(time * 30) % 4] * (1 + (1 - light))
        return np.clip(picture, 0, 255).astype(np.uint8), met

    def clear(self, start: Point, angle: float) -> float:
        """How far one sees from a point before a wall."""
        ray = np.array([[math.cos(angle)], [math.sin(angle)]], np.float32)
        return float(self._cast(Camera(*start, angle), ray)[0][0])

    def _rays(self, camera: Camera) -> Array:
        """(2, VIEW): directions of the columns, as long as one unit ahead is."""
        cos, sin = math.cos(camera.heading), math.sin(camera.heading)
        return np.stack([cos - sin * self._across, sin + cos * self._across]).astype(np.float32)

    def _cast(self, camera: Camera, rays: Array) -> tuple[Array, NDArray[np.int64], Array]:
        """Depth of the wall in each column, the room (or doorway) that its paper is of, and where along it (0 to 1)."""
        best = np.full(rays.shape[1], FAR, np.float32)
        room = np.full(rays.shape[1], DOORWAY)
        along = np.zeros(rays.shape[1], np.float32)
        lines = np.arange(CELLS + 1, dtype=np.float32)[:, None]
        for axis, (own, other) in enumerate(((camera.x, camera.y), (camera.y, camera.x))):
            a, b = rays[axis], rays[1 - axis]
            with np.errstate(divide="ignore", invalid="ignore"):
                far = (lines - own) / a  # (lines, columns)
                hit = other + far * b
            good = np.isfinite(far) & (far > 1e-3) & (hit > 0) & (hit < CELLS)
            across = np.where(good, hit, 0).astype(np.int64)
            ahead = np.clip(np.where(a > 0, lines, lines - 1).astype(np.int64), 0, CELLS - 1)
            behind = np.clip(np.where(a > 0, lines - 1, lines).astype(np.int64), 0, CELLS - 1)
            of = (ahead, across) if axis == 0 else (across, ahead)
            before = (behind, across) if axis == 0 else (across, behind)
            good &= self.cells[of] == WALL
            far = np.where(good, far, np.inf)
            first = far.argmin(0)
            columns = np.arange(rays.shape[1])
            nearest = far[first, columns]
            nearer = nearest < best
            best = np.where(nearer, nearest, best)
            room = np.where(nearer, self.cells[before][first, columns], room)
            along = np.where(nearer, across_of(hit[first, columns]), along)
        return best.astype(np.float32), np.where(room == WALL, DOORWAY, room), along.astype(np.float32)

    def _ambient(self, time: float) -> Array:
        """(rooms + 1,): light of each room, and of doorways."""
        day = self.stage.light(time)
        lamps = np.array([*self.stage.lit(time), 0.0], np.float32)
        return (0.2 + 0.8 * day + 0.4 * (1 - day) * lamps + 0.08 * lamps).astype(np.float32)

    @staticmethod
    def _reaching(depth: Array | float, light: float) -> Array:
        """What is left of the light at a depth, beside the lamp that a person carries by night."""
        return np.asarray(1 / (1 + 0.07 * np.asarray(depth)), np.float32)

    def _background(
        self, camera: Camera, rays: Array, depth: Array, room: NDArray[np.int64], u: Array, horizon: float, light: float, ambient: Array,
    ) -> Array:  # fmt: skip
        rows = np.arange(VIEW, dtype=np.float32)[:, None]
        top = horizon - (HEIGHT - camera.eye) * FOCAL / depth
        bottom = horizon + camera.eye * FOCAL / depth
        v = ((rows - top) / (bottom - top) * HEIGHT * SIZE).astype(np.int64) % SIZE
        lamp = 0.55 * (1 - light) * camera.lamp
        shine = ambient[room] * self._reaching(depth, light) + lamp * np.exp(-depth / 1.4)
        picture = self.walls[room[None], v, (u * SIZE).astype(np.int64)[None] % SIZE] * shine[None, :, None]
        # from the floor's row up to the ceiling's, what is not wall
        below = max(0, math.ceil(horizon + 1))
        if below < VIEW:
            far = np.minimum(camera.eye * FOCAL / (rows[below:] - horizon), FAR)  # (rows, 1)
            x, y = camera.x + far * rays[0], camera.y + far * rays[1]
            cell_x, cell_y = (np.clip(one.astype(np.int64), 0, CELLS - 1) for one in (x, y))
            of = self.cells[cell_x, cell_y]
            of = np.where(of == WALL, DOORWAY, of)
            shine2 = ambient[of] * self._reaching(far, light) + lamp * np.exp(-far / 1.4)
            floor = self.floors[of, (y * SIZE).astype(np.int64) % SIZE, (x * SIZE).astype(np.int64) % SIZE]
            where = rows[below:] >= bottom
            picture[below:] = np.where(where[..., None], floor * shine2[..., None], picture[below:])
        above = min(VIEW, math.floor(horizon))
        if above > 0:
            far = np.minimum((HEIGHT - camera.eye) * FOCAL / np.maximum(horizon - rows[:above], 0.5), FAR)
            tone = ambient[room][None] * self._reaching(far, light)
            where = rows[:above] < top
            ceiling = np.array([235, 232, 224], np.float32) * tone[..., None]
            picture[:above] = np.where(where[..., None], ceiling, picture[:above])
        return picture.astype(np.float32)

    def _things(self, camera: Camera, time: float, wearer: int | None) -> list[tuple[float, float, _Thing]]:
        """Depth, place across (-1 to 1 within the view) and picture of everything that may be in sight, the furthest first."""
        cos, sin = math.cos(camera.heading), math.sin(camera.heading)

        def placed(x: float, y: float) -> tuple[float, float] | None:
            dx, dy = x - camera.x, y - camera.y
            ahead = dx * cos + dy * sin
            across = (-dx * sin + dy * cos) / max(ahead, 1e-6) / ANGLE
            return (ahead, across) if 0.12 < ahead < FAR and abs(across) < 1 + 0.7 / ahead else None

        found = []
        for station in self.stage.stations:
            x, y = self.stage.place_of(station, time)
            if (place := placed(x, y)) is not None:
                found.append((*place, _Thing(self._picture_of(station, time), x, y, station=station)))
        for number in range(len(self.stage.event.people)):
            if number != wearer:
                body = self.stage.body(number, time)
                if (place := placed(body.x, body.y)) is not None:
                    found.append((*place, self._person(camera, body)))
        return sorted(found, key=lambda one: -one[0])

    def _picture_of(self, station: Station, time: float) -> Sprite:
        room, name = station.room, ROOMS[station.room]
        item = HELD[name][1]
        if station.kind == "door":
            level = round(self.stage.state(room, "open", time) * LEVELS)
            return figures.with_door(station.noun, level, item if self.stage.lying(room, time) == 0 else "")
        if station.kind == "table":
            return figures.table(item if self.stage.lying(room, time) == 1 else "")
        if station.kind == "switch":
            level = round(self.stage.state(room, "on", time) * LEVELS)
            return figures.switched(station.noun, level, int(time * 8) % 6 if level > LEVELS / 2 else 0)
        return figures.load(station.noun)

    def _person(self, camera: Camera, body: Body) -> _Thing:
        cos, sin = math.cos(body.heading), math.sin(body.heading)
        dx, dy = body.x - camera.x, body.y - camera.y
        far = math.hypot(dx, dy) + 1e-6
        away = (cos * dx + sin * dy) / far
        right = -math.sin(camera.heading) * cos + math.cos(camera.heading) * sin
        facing = 2 if away > 0.72 else 0 if away < -0.72 else 1 if right > 0 else 3
        swing = math.sin(body.step) if body.speed > 0.1 else 0.0
        stride, reach = round((swing + 1) / 2 * LEVELS), round(body.reach * LEVELS)
        skin, hair, shade = body.looks
        sprite = figures.person(body.team, skin, hair, round(8 * shade), facing, stride, reach, body.held)
        at = figures.joints(facing, 2 * stride / LEVELS - 1, reach / LEVELS)
        joints = np.array([at[name] for name in figures.JOINTS]) / (PERSON[1], PERSON[0])
        return _Thing(sprite, body.x, body.y, body=body, joints=joints)

    def _stand(
        self, picture: Array, camera: Camera, depth: Array, horizon: float, time: float, wearer: int | None, light: float, ambient: Array,
    ) -> tuple[list[Met], dict[str, tuple[float, float, float, float]]]:  # fmt: skip
        """Paint what stands there, the furthest first; who is met, and where (x0, y0, x1, y1 in pixels) each station of the wearer's action is."""
        met: list[Met] = []
        spots: dict[str, tuple[float, float, float, float]] = {}
        lamp = 0.55 * (1 - light) * camera.lamp
        for ahead, across, thing in self._things(camera, time, wearer):
            tall, wide = thing.sprite.height * FOCAL / ahead, thing.sprite.width * FOCAL / ahead
            centre = (across + 1) / 2 * VIEW
            bottom = horizon + (camera.eye - thing.sprite.lift) * FOCAL / ahead
            box = (centre - wide / 2, bottom - tall, centre + wide / 2, bottom)
            if thing.station is not None:
                spots[f"{thing.station.room} {thing.station.kind}"] = box
            if box[2] <= 0 or box[0] >= VIEW or box[3] <= 0 or box[1] >= VIEW:
                continue
            room = room_at((thing.x, thing.y))
            shine = float(ambient[room] * self._reaching(ahead, light) + lamp * math.exp(-ahead / 1.4))
            shown = _lay(picture, thing.sprite.picture, box, depth > ahead, shine)
            if thing.body is not None and thing.joints is not None and shown > 0:
                low = np.array([box[0], box[1]])
                joints = (low + thing.joints * (wide, tall)) / VIEW
                met.append(Met(thing.body.number, ahead, joints, shown))
        return met, spots


def across_of(hit: Array) -> Array:
    """Where along a cell's wall it was hit, 0 to 1; 0 where nothing was."""
    return np.where(np.isfinite(hit), hit, 0.0).astype(np.float32) % 1


def _lay(
    picture: Array, sprite: Picture, box: tuple[float, float, float, float], free: NDArray[np.bool_], shine: float
) -> float:
    """Paint a flat picture into a box of the view where its columns are free; the share of its columns within the view's width that are."""
    x0, y0, x1, y1 = box
    left, right = max(0, math.floor(x0)), min(VIEW, math.ceil(x1))
    top, bottom = max(0, math.floor(y0)), min(VIEW, math.ceil(y1))
    if right <= left or bottom <= top:
        return 0.0
    columns = free[left:right]
    shown = float(columns.sum()) / max(1.0, x1 - x0)
    if not columns.any():
        return 0.0
    height, width = sprite.shape[:2]
    u = np.clip((np.arange(left, right) + 0.5 - x0) / (x1 - x0) * width, 0, width - 1).astype(np.int64)
    v = np.clip((np.arange(top, bottom) + 0.5 - y0) / (y1 - y0) * height, 0, height - 1).astype(np.int64)
    if x1 - x0 < width / 2:  # far away: what would flicker is averaged first
        small = cv2.resize(sprite, (max(2, round(x1 - x0)), max(2, round(y1 - y0))), interpolation=cv2.INTER_AREA)
        u = (u * small.shape[1] // width).clip(0, small.shape[1] - 1)
        v = (v * small.shape[0] // height).clip(0, small.shape[0] - 1)
        sprite = small
    cut = sprite[v[:, None], u[None]]
    solid = (cut[..., 3] > 127) & columns[None]
    part = picture[top:bottom, left:right]
    part[solid] = cut[..., :3][solid].astype(np.float32) * min(1.25, shine)
    return min(1.0, shown)
