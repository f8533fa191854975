"""Charts put things where they belong; the map keeps neighbours together and is the same every time."""

from __future__ import annotations

import re

import numpy as np
import pytest

from recipes.report.charts import Axis, Whisker, agreement, cloud, curve, ramp, smooth, whiskers
from recipes.report.projection import flatten
from recipes.report.scale import number, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (3, 11, [4, 6, 8, 10]),
        (-2.2, 0.3, [-2, -1, 0]),
        (5, 5, [5]),
        (0, 4e-5, [0, 1e-5, 2e-5, 3e-5, 4e-5]),
    ],
)
def test_ticks_are_round_and_inside(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_numbers_are_short():
    assert [number(v) for v in (1234.5, 0.25, 3e-5, -2)] == ["1234", "0.25", "3e-05", "-2"]


def test_an_axis_maps_ends_to_ends():
    axis = Axis(10, 20, 100, 0)
    assert [axis.at(v) for v in (10, 15, 20)] == [100, 50, 0]


def test_smoothing_keeps_length_level_and_short_series():
    noisy = 3 + np.random.default_rng(0).normal(size=200)
    smoothed = smooth(noisy)
    assert smoothed.shape == noisy.shape
    assert smoothed.std() < 0.5 * noisy.std()
    np.testing.assert_allclose(smooth(np.full(200, 3.0)), 3)
    np.testing.assert_array_equal(smooth(noisy[:10]), noisy[:10])


def test_a_falling_curve_falls_and_unusable_values_are_left_out():
    drawn = curve("loss", [1, 2, 3, 4], [4.0, float("nan"), 2.0, 1.0])
    points = [tuple(map(float, p.split(","))) for p in re.search(r'points="([^"]+)" class="raw"', drawn)[1].split()]
    assert len(points) == 3
    assert [y for _, y in points] == sorted(y for _, y in points)  # down the page
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert drawn.count('class="mark"') == 3
    assert curve("loss", [1, 2], [float("nan")] * 2) == ""
    assert "nan" not in curve("flat", [1, 2], [0.0, 0.0])


def test_whiskers_stand_at_their_values():
    rows = [
        Whisker("generic", 8, 6, 10, "8 [6, 10]"),
        Whisker("adapted", 4, 3, 5, "4 [3, 5]", "accent"),
        Whisker("none", float("nan"), 0, 0, "n/a"),
    ]
    drawn = whiskers("MAE", rows, zero=0.0)
    dots = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn)]
    lines = re.findall(r'<line x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)" y2="[\d.]+" class="(whisker \w+|zero)"', drawn)
    (zero, _, _), (generic_low, generic_high, _), (low, high, kind) = [(float(a), float(b), c) for a, b, c in lines]
    assert kind == "whisker accent"
    assert zero < low < dots[1] < high < generic_low + (generic_high - generic_low) / 2
    assert dots[0] == pytest.approx((generic_low + generic_high) / 2, abs=0.2)
    assert dots[0] - zero == pytest.approx(2 * (dots[1] - zero), abs=0.2)
    assert "none" not in drawn
    assert whiskers("MAE", []) == ""


def test_names_of_points_are_escaped():
    drawn = cloud("a & b", np.zeros((1, 2)), ["red"], ["<b>"])
    assert "<b>" not in drawn
    assert "&lt;b&gt;" in drawn
    assert "a &amp; b" in drawn


def test_agreement_puts_right_predictions_on_the_diagonal():
    drawn = agreement("x", np.array([20.0, 40, 70]), np.array([20.0, 40, 70]), "%", "EF", size=400)
    dots = np.array([[float(a), float(b)] for a, b in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)])
    x0, y0, x1, y1 = (
        float(v)
        for v in re.search(r'x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)" class="zero"', drawn).groups()
    )
    along = (dots - [x0, y0]) @ np.array([y1 - y0, x0 - x1])
    assert np.abs(along).max() < 60  # within rounding of the written coordinates
    assert "true EF (%)" in drawn


def test_the_ramp_goes_from_end_to_end():
    assert ramp(-1) == ramp(0)
    assert ramp(1) == ramp(2)
    assert len({ramp(step / 10) for step in range(11)}) == 11


def test_a_map_keeps_groups_together_and_is_the_same_every_time():
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 20)
    features = rng.normal(size=(3, 30))[group] * 5 + rng.normal(size=(60, 30))
    flat, method = flatten(features)
    assert (flat.shape, method) == ((60, 2), "t-SNE")
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (group[distance.argmin(axis=1)] == group).all()
    np.testing.assert_array_equal(flatten(features)[0], flat)


def test_few_videos_are_placed_by_their_main_axes():
    flat, method = flatten(np.array([[0.0, 0, 5], [1, 0, 5], [4, 0, 5]]))
    assert method == "PCA"
    np.testing.assert_allclose(np.abs(np.diff(flat[:, 0])) / np.abs(np.diff(flat[:, 0])).sum(), [0.25, 0.75])
    np.testing.assert_allclose(flat[:, 1], 0, atol=1e-9)
    assert flatten(np.ones((2, 1)))[0].shape == (2, 2)
