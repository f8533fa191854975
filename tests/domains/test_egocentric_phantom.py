"""The house of the egocentric phantom: what happens in it, what its cameras see, and what is written of it."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from domains.base import load_domain
from domains.egocentric import figures
from domains.egocentric.cameras import DISPLAY, IMU_RATE, Filming, clocks, inertia, where
from domains.egocentric.eyes import VIEW, Camera, House
from domains.egocentric.house import HELD, NOUNS, OPPOSITES, ROOMS, VERBS, neighbours, route, stations
from domains.egocentric.life import live
from domains.egocentric.phantom import about, actions, make, split, synthesise
from domains.egocentric.stage import Stage
from domains.layouts import open_layout
from domains.media import open_reader
from domains.prepare.ingest import prepare
from domains.store.prepared import Prepared
from domains.store.signals import Signals
from domains.store.views import moments_of, read_views

KEY = bytes(range(32))
OPTIONS = {"people": 3, "seed": 5, "seconds": 10.0, "exo": True}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("egocentric") / "seen"
    synthesise(out, 2, **OPTIONS)  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def prepared(phantom: Path) -> Prepared:
    layout = open_layout(phantom)
    prepare(
        phantom, phantom.parent / "prepared", load_domain("egocentric").changed(layout.changes), key=KEY, layout=layout
    )
    return Prepared.open(phantom.parent / "prepared")


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage(live(np.random.default_rng(1), [0, 0, 1, 1], 60.0))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_same_seed_same_bytes_whatever_the_workers(phantom: Path, tmp_path: Path) -> None:
    synthesise(tmp_path / "again", 2, workers=2, **OPTIONS)  # type: ignore[arg-type]
    written = {path.relative_to(phantom): path.read_bytes() for path in phantom.rglob("*") if path.is_file()}
    again = {
        path.relative_to(tmp_path / "again"): path.read_bytes()
        for path in (tmp_path / "again").rglob("*")
        if path.is_file()
    }
    assert written == again
    assert sum(path.suffix == ".mp4" for path in written) == 2 * (3 + 1)


def test_rooms_are_joined_and_the_way_is_the_shortest() -> None:
    assert sorted(neighbours(4)) == [1, 3, 5, 7]
    assert len(route(0, 8)) == 4
    assert {(one.room, one.kind) for one in stations()} == {
        (room, kind) for room in range(9) for kind in ("door", "table", "switch", "load")
    }


def test_actions_come_with_their_opposites_and_change_what_they_say() -> None:
    counts: Counter[str] = Counter()
    for seed in range(12):
        stage = Stage(live(np.random.default_rng(seed), [0, 0, 1, 1], 40.0))
        for act in stage.event.acts:
            counts[act.verb] += 1
            what = {"door": "open", "switch": "on", "load": "far"}.get(act.station.kind, "")
            if act.verb in ("open", "close", "turn on", "turn off", "push", "pull"):
                before, after = (stage.state(act.station.room, what, time) for time in (act.start, act.end))
                assert (before, after) == ((0, 1) if act.verb in ("open", "turn on", "push") else (1, 0))
            if act.verb == "pick up":
                assert stage.lying(act.station.room, act.start) is not None
                assert stage.body(act.person, act.end + 0.01).held == act.noun
            if act.verb == "put down":
                assert stage.body(act.person, act.start).held == act.noun
                assert stage.lying(act.station.room, act.end + 0.01) is not None
            assert f"{act.verb},{act.noun}" in actions()
    assert set(counts) == set(VERBS)
    for one, other in OPPOSITES:
        assert 0.6 < counts[one] / counts[other] < 1.7


def test_nobody_walks_through_walls_and_teams_stay_together(stage: Stage) -> None:
    cells = House(stage, np.random.default_rng(0)).cells
    for person in stage.event.people:
        there = cells[np.array(person.xs).astype(int), np.array(person.ys).astype(int)]
        assert (there >= 0).all()
        assert np.hypot(np.diff(person.xs), np.diff(person.ys)).max() < 0.1  # units in a twentieth of a second
    rooms = [where(stage, number) for number in range(4)]
    together = np.mean([(rooms[0] == rooms[1]).mean(), (rooms[2] == rooms[3]).mean()])
    apart = np.mean([(rooms[a] == rooms[b]).mean() for a in (0, 1) for b in (2, 3)])
    assert together > 0.4 > apart + 0.1  # where a mate is, is worth knowing


def test_a_camera_sees_others_where_they_are(stage: Stage) -> None:
    """From two units away, by day: a shirt of the team's colour, at the pose's shoulders, and nobody behind a wall."""
    stage.event.light[:] = 1.0
    house, other = House(stage, np.random.default_rng(0)), stage.body(1, 5.0)
    for angle in np.linspace(0, 6, 7):
        far = min(2.0, house.clear((other.x, other.y), angle) - 0.2)
        camera = Camera(other.x + far * np.cos(angle), other.y + far * np.sin(angle), angle + np.pi)
        picture, met = house.look(camera, 5.0)
        seen = next(one for one in met if one.number == 1)
        assert seen.depth == pytest.approx(far, abs=1e-3)
        x, y = seen.joints[[2, 3, 8, 9]].mean(0) * VIEW  # between shoulders and hips
        red, green, blue = picture[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2].reshape(-1, 3).mean(0)
        assert red > 1.8 * max(green, blue)
    blind = house.look(Camera(other.x, other.y, 0.0), 5.0)[0]
    assert blind.shape == (VIEW, VIEW, 3)


def test_night_is_dark_and_lamps_help(stage: Stage) -> None:
    house, body = House(stage, np.random.default_rng(0)), stage.body(0, 3.0)
    camera = Camera(body.x, body.y, body.heading, lamp=False)
    light = []
    for level in (1.0, 0.0):
        stage.event.light[:] = level
        light.append(house.look(camera, 3.0)[0].mean())
    worn = house.look(Camera(body.x, body.y, body.heading), 3.0)[0].mean()
    assert light[0] > 1.8 * light[1]
    assert worn > light[1]
    stage.event.light[:] = 1.0


def test_opening_is_closing_backwards(stage: Stage) -> None:
    """So that single frames do not tell one from the other: what chirality is about."""
    levels = [stage_level / figures.LEVELS for stage_level in range(figures.LEVELS + 1)]
    handles = [figures.handle_at("fridge", level)[0] for level in levels]
    assert handles == sorted(handles, reverse=True)
    doors = [figures.with_door("fridge", number, "").picture for number in range(figures.LEVELS + 1)]
    dark = [float((door[..., 3] > 0).sum()) for door in doors]
    assert len({door.tobytes() for door in doors}) == len(doors)
    assert dark[0] > 0


def test_the_wrist_feels_a_hammer(stage: Stage) -> None:
    for seed in range(8):
        stage = Stage(live(np.random.default_rng(seed), [0, 0, 1, 1], 60.0))
        found = next((act for act in stage.event.acts if act.verb == "hammer"), None)
        if found is not None:
            break
    assert found is not None
    clock = clocks(np.random.default_rng(0), 4, 60.0, exo=False)[0]
    clock = type(clock)("one", found.person, False, 10.0, 0.0, 0.0, 60.0)
    felt = inertia(stage, clock, np.random.default_rng(0))
    assert felt.shape == (60 * IMU_RATE, 7)
    middle = (found.start + found.end) / 2
    during = felt[np.abs(felt[:, 0] - middle) < 0.4, 3]
    assert during.std() > 2.0
    assert felt[:, 3].mean() == pytest.approx(9.81, abs=0.2)


def test_recordings_show_the_event_by_their_own_clocks(phantom: Path) -> None:
    _, house, cameras = make(5, 1, 3, 10.0, True)
    rows = [row for row in table(phantom / "recordings.csv") if row["event"] == "event_0001"]
    assert [row["camera"] for row in rows] == ["person_0", "person_1", "person_2", "exo"]
    assert [row["exo"] for row in rows] == ["0", "0", "0", "1"]
    assert len({row["team"] for row in rows}) == 3  # two teams, and nobody's camera
    for row, clock in list(zip(rows, cameras, strict=True))[:3]:
        reader = open_reader(phantom / row["recording"])
        assert reader.fps == pytest.approx(clock.fps)
        assert len(reader) == clock.frames
        time = 5.0  # of the event
        number = round((time * (1 + float(row["drift"])) + float(row["offset"])) * clock.fps)
        shown = clock.of_event(number / clock.fps)
        assert abs(shown - time) < 0.6 / clock.fps
        made, _ = house.look(Filming(house, clock).at(shown), shown, clock.person)
        assert np.abs(reader.frames([number])[0].astype(float) - made).mean() < 12  # H.264, and grain


def test_a_display_gives_teammates_away(stage: Stage) -> None:
    house = House(stage, np.random.default_rng(0))
    clock = type(clocks(np.random.default_rng(0), 1, 9.0, exo=False)[0])("one", 0, False, 10.0, 0.0, 0.0, 0.3)
    plain, shown = (next(iter(Filming(house, clock, hud=hud))) for hud in (False, True))
    assert (plain != shown).any(-1)[:34, :34].mean() > 0.6
    assert np.array_equal(plain[40:], shown[40:])
    for x0, y0, x1, y1 in DISPLAY:  # what the domain blanks is all of it
        plain[int(y0 * VIEW) : int(np.ceil(y1 * VIEW)), int(x0 * VIEW) : int(np.ceil(x1 * VIEW))] = 0
        shown[int(y0 * VIEW) : int(np.ceil(y1 * VIEW)), int(x0 * VIEW) : int(np.ceil(x1 * VIEW))] = 0
    assert np.array_equal(plain, shown)
    assert about(hud=True)["changes"]["region"]["blank"] == [list(box) for box in DISPLAY]


def test_spans_texts_and_poses_agree_with_what_happens(phantom: Path) -> None:
    stage, _, cameras = make(5, 0, 3, 10.0, True)
    clock = cameras[0]
    path = "videos/event_0000_person_0.mp4"
    spans = [row for row in table(phantom / "spans.csv") if row["recording"] == path]
    mine = [
        act
        for act in stage.event.acts
        if act.person == 0 and clock.own(act.start) > 0 and clock.own(act.end) < clock.seconds
    ]
    verbs = [(float(row["start"]), row["value"]) for row in spans if row["label"] == "verb"]
    assert len(mine) > 1
    for act in mine:
        assert any(abs(start - clock.own(act.start)) < 0.002 and verb == act.verb for start, verb in verbs)
    team = [n for n, person in enumerate(stage.event.people) if n and person.team == stage.event.people[0].team]
    for own in np.arange(2.0, 8.0, 1.3):
        there = {ROOMS[where(stage, n)[round(clock.of_event(own) / 0.05)]] for n in team}
        said = {
            row["value"] for row in spans if row["label"] == "mates" and float(row["start"]) <= own < float(row["end"])
        }
        assert there == said
    texts = [row for row in table(phantom / "texts.csv") if row["recording"] == path]
    assert {row["start"] for row in texts} == {row["start"] for row in spans if row["label"] == "verb"}
    exo = table(phantom / "signals/event_0000_exo.pose.csv")
    assert len(exo) == cameras[-1].frames
    assert np.mean([row["head x"] != "" for row in exo]) > 0.7  # it films its person
    told = table(phantom / "texts.csv")
    assert all(row["text"].startswith("the person in ") for row in told if "exo" in row["recording"])


def test_prepared_it_has_events_clocks_and_signals(prepared: Prepared) -> None:
    assert len(prepared) == 8
    assert prepared.size == VIEW
    moments = moments_of(prepared, read_views(prepared), range(8), 1.0)
    assert len({moment.event for moment in moments}) == 2
    assert max(len(moment.rows) for moment in moments) == 4
    imu, pose = Signals(prepared, "imu"), Signals(prepared, "pose")
    assert (len(imu.groups), len(pose.groups)) == (6, 8)
    assert (imu.channels, pose.channels) == (6, 2 * len(figures.JOINTS))
    felt = imu.of(next(iter(imu.groups)))
    assert felt is not None
    assert felt.at(np.array([3.0, 1e9])).shape == (2, 6)
    assert set(prepared.info["layout"]["spans"]) >= {"verb", "noun", "action", "room", "mates"}


def test_every_split_has_events_of_its_own() -> None:
    assert Counter(split(10, 0)) == {"train": 5, "test": 3, "val": 2}
    assert sorted(split(2, 0)) == ["test", "train"]
    assert len({noun for held in HELD.values() for noun in held}) == len(NOUNS) == 19
