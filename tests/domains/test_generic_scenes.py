"""Drawn scenes: the same every time, and what is said of their motion is true of their pixels."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from domains.generic.motion import COURSES, PERIODIC, Course, draw_course
from domains.generic.render import View, render
from domains.generic.samples import (
    PACES,
    Truth,
    draw_sample,
    generator,
    grid_points,
    halves_swapped,
    halves_swapped_truth,
)
from domains.generic.scene import BACKGROUND, STILL, Bend, Light, Place, Scene, Surface, draw_scene
from domains.generic.textures import TEXTURES
from domains.generic.truth import FACTS, facts_of, flow_of

PLAIN = Light(Course(rest=1.0), 0.0, STILL, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
GRID = grid_points(64, 8)


def scene_of(*things: Surface, camera: Place = Place(), bend: Bend = Bend()) -> Scene:  # noqa: B008
    background = Surface(BACKGROUND, "noise", 1.0, Place(), bend, 1.0, 7, 8.0, 1.0, shaded=False)
    return Scene((background, *things), camera, PLAIN, grey=True)


def thing(place: Place, **changes: object) -> Surface:
    disc = Surface("disc", "flat", 0.4, place, Bend(), 0.0, 3, 2.0, 1.0, shaded=False)
    return dataclasses.replace(disc, **changes)  # type: ignore[arg-type]


def moving(speed: float) -> Course:
    """`speed` a frame, through 0 at time 0."""
    return Course("linear", 0.0, speed * 16, 16.0, 0.0)


def test_a_camera_that_pans_moves_everything_the_other_way() -> None:
    """A pan of 2 / 64 of the view's width of 2 is one pixel of 64 a frame."""
    view = View(np.arange(4.0))
    scene = scene_of(camera=Place(x=moving(2 / 64)))
    flow = flow_of(scene, view, render(scene, view, 64, GRID).owner, GRID, 64)
    np.testing.assert_allclose(flow, np.broadcast_to([-1.0, 0.0], flow.shape), atol=1e-9)
    facts = dict(zip(FACTS, facts_of(flow, GRID, 64), strict=True))
    assert facts["speed"] == pytest.approx(1)
    assert facts["across"] == pytest.approx(-1)
    assert facts["down"] == pytest.approx(0)
    assert facts["change"] == pytest.approx(0)


def test_turns_and_growth_by_hand() -> None:
    """A point at r from the middle of a view that turns by w a frame goes 2 r sin(w / 2); one that grows by g goes r (e^g - 1)."""
    view, r = View(np.arange(2.0)), np.linalg.norm((GRID + 0.5) - 32, axis=-1)
    turned = scene_of(camera=Place(turn=moving(0.1)))
    flow = flow_of(turned, view, render(turned, view, 64, GRID).owner, GRID, 64)[0]
    np.testing.assert_allclose(np.linalg.norm(flow, axis=-1), 2 * r * np.sin(0.05), rtol=1e-6)
    grown = scene_of(camera=Place(grow=moving(0.05)))
    flow = flow_of(grown, view, render(grown, view, 64, GRID).owner, GRID, 64)
    np.testing.assert_allclose(np.linalg.norm(flow[0], axis=-1), r * (np.exp(0.05) - 1), rtol=1e-6)
    facts = dict(zip(FACTS, facts_of(flow, GRID, 64), strict=True))
    assert facts["outwards"] == pytest.approx(facts["speed"])
    assert facts["around"] == pytest.approx(0, abs=1e-9)


def test_what_is_in_front_moves_by_itself() -> None:
    scene = scene_of(thing(Place(x=moving(4 / 64))))
    view = View(np.arange(3.0))
    owner = render(scene, view, 64, GRID).owner
    flow = flow_of(scene, view, owner, GRID, 64)
    front = owner[0] == 1
    assert 3 <= front.sum() <= 9  # a disc of radius 0.4, at most an eighth of 64 points; it may be seen from the side
    np.testing.assert_allclose(flow[0][front], np.broadcast_to([2.0, 0.0], (int(front.sum()), 2)), atol=1e-9)
    assert (flow[0][~front] == 0).all()


def test_pixels_go_where_the_flow_says() -> None:
    """Of fifty scenes of all kinds: the light at a point and at the place where it goes is the same, far more than at the point itself."""
    points, with_flow, without = grid_points(128, 8), [], []
    for index in range(50):
        scene = dataclasses.replace(draw_scene(generator(5, index)), light=PLAIN)
        view = View(np.arange(3.0) * 0.5, seed=index)
        shown = render(scene, view, 128, points)
        flow = flow_of(scene, view, shown.owner, points, 128)[0]
        first, second = (cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 1.0) for frame in shown.frames[:2])
        there = (points + flow).astype(np.float32)
        length = np.linalg.norm(flow, axis=1)
        clear = (there > 4).all(axis=1) & (there < 123).all(axis=1) & (length > 0.3) & (length < 12)
        if clear.sum() < 10:
            continue
        here = first[points[:, 1], points[:, 0]]
        moved = cv2.remap(second, there[:, :1], there[:, 1:], cv2.INTER_LINEAR)[:, 0]
        with_flow.append(np.median(np.abs(moved - here)[clear]))
        without.append(np.median(np.abs(second[points[:, 1], points[:, 0]] - here)[clear]))
    assert len(with_flow) > 30
    assert np.mean(with_flow) < 0.15 * np.mean(without)


def test_a_deformation_is_followed() -> None:
    bend = Bend(Course("linear", 0.1, 0.08, 4.0, 0.0), (1.0, 0.0), (0.5, 0.3), 0.4)
    scene, view = scene_of(bend=bend), View(np.arange(2.0))
    flow = flow_of(scene, view, render(scene, view, 64, GRID).owner, GRID, 64)[0]
    seen = (GRID + 0.5) * 2 / 64 - 1
    after = seen + flow / 32  # the same point of the picture: x + size wave(x) does not change
    marks = [at[:, 0] + size * np.sin(2 * np.pi * (at @ [0.5, 0.3]) + 0.4) for at, size in ((seen, 0.1), (after, 0.12))]
    np.testing.assert_allclose(*marks, atol=5e-4)  # a hundredth of a pixel
    assert np.abs(flow[:, 1]).max() < 1e-9
    assert np.abs(flow[:, 0]).max() > 0.2


def test_periodic_courses_come_back_and_others_do_not() -> None:
    times = np.linspace(-20, 20, 81)
    for kind in COURSES:
        course = Course(kind, 0.5, 1.0, 8.0, 0.3)
        same = np.allclose(course.at(times), course.at(times + 8.0))
        assert same == (kind in PERIODIC), kind
        assert course.periodic == same
    still = [draw_course(generator(0, index), 0.0, 1.0, still=0.5).kind == "still" for index in range(400)]
    assert 160 < sum(still) < 240


def test_a_sample_follows_from_its_number() -> None:
    first, again = (draw_sample(3, 11, 8, 64, (2, 16)) for _ in range(2))
    other = draw_sample(3, 12, 8, 64, (2, 16))
    for one, two in zip(first.clips, again.clips, strict=True):
        assert one.shape == (8, 64, 64, 3)
        assert (one == two).all()
    assert (first.truths[1].flow == again.truths[1].flow).all()
    assert (first.clips[0] != other.clips[0]).any()
    assert (first.clips[0] != first.clips[1]).any()
    truth = first.truths[0]
    assert truth.flow.shape == (4, 4, 4, 2)
    assert truth.front.shape == (4, 4, 4)
    assert set(np.unique(truth.front)) <= {0.0, 1.0}
    kinds = [draw_sample(0, index, 2, 32, (2, 16)) for index in range(150)]
    assert {one.pace for one in kinds} == set(range(len(PACES)))
    assert {one.texture for one in kinds} == set(range(len(TEXTURES)))
    assert 50 < sum(one.backwards for one in kinds) < 100
    assert 20 < sum(one.swapped for one in kinds) < 60


def test_a_clip_that_runs_backwards_is_the_clip_reversed() -> None:
    scene, times = draw_scene(generator(2, 4)), np.arange(6.0) - 3
    scene = dataclasses.replace(scene, light=PLAIN)
    there, back = (render(scene, View(one), 48, GRID).frames for one in (times, times[::-1].copy()))
    assert (there == back[::-1]).all()
    assert (there[0] != there[-1]).any()


def test_halves_are_swapped_with_what_is_true_of_them() -> None:
    """Six frames in tubelets of two: the last two tubelets come first."""
    frames = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    assert halves_swapped(frames, 2).ravel().tolist() == [4, 5, 0, 1, 2, 3]
    assert halves_swapped(frames[:4], 2).ravel().tolist() == [2, 3, 0, 1]
    flow, front = (
        np.arange(3.0, dtype=np.float32).reshape(3, 1, 1, 1),
        np.arange(3.0, dtype=np.float32).reshape(3, 1, 1),
    )
    truth = halves_swapped_truth(Truth(flow, front, np.ones(6, np.float32)))
    assert truth.flow.ravel().tolist() == truth.front.ravel().tolist() == [2, 0, 1]
    assert (truth.facts == 1).all()
