"""The bootstrap draws patients, and a paired difference is decided on the same draws."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.evaluate.metrics import CLASSIFICATION, REGRESSION
from recipes.evaluate.scored import Line, lines_of
from recipes.evaluate.statistics import bootstrap, paired, patient_draws, patient_weights

MAE, RMSE, R2, _ = REGRESSION
ACCURACY = CLASSIFICATION[0]


def cohort(patients: int, each: int, seed: int = 0) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Patients with `each` videos; how far off a prediction is belongs to the patient."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), each)
    truth = rng.uniform(30, 70, patients)[who]
    return [f"p{i:03d}" for i in who], truth, rng.normal(0, 8, patients)[who]


def test_videos_of_a_patient_are_drawn_together_and_every_draw_has_as_many_patients():
    patients = ["b", "a", "b", "c"]
    weights = patient_weights(patients, draws=500, seed=1)
    assert weights.shape == (500, 4)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), np.full(500, 3))
    np.testing.assert_array_equal(weights, patient_weights(patients, draws=500, seed=1))
    assert not np.array_equal(weights, patient_weights(patients, draws=500, seed=2))


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """Mean |error| of N(0, 8) is 8 sqrt(2 / pi); 95 % intervals should hold it nearly 95 % of the time."""
    expected, inside = 8 * np.sqrt(2 / np.pi), 0
    for trial in range(200):
        patients, truth, error = cohort(40, 3, seed=trial)
        found = bootstrap(MAE, truth, truth + error, patient_weights(patients, 400, trial))
        inside += found.low <= expected <= found.high
    assert 0.88 <= inside / 200 <= 0.98


def test_drawing_videos_instead_would_be_too_sure():
    patients, truth, error = cohort(20, 8)
    by_patient = bootstrap(MAE, truth, truth + error, patient_weights(patients))
    by_video = bootstrap(MAE, truth, truth + error, patient_weights([str(i) for i in range(len(truth))]))
    assert by_patient.value == by_video.value == pytest.approx(np.abs(error).mean())
    assert by_patient.high - by_patient.low > 2 * (by_video.high - by_video.low)


def test_a_small_but_steady_gain_shows_in_the_paired_difference_though_the_intervals_overlap():
    patients, truth, error = cohort(40, 2)
    reference, better = truth + error, truth + 0.85 * error
    weights = patient_weights(patients)
    a, b = bootstrap(MAE, truth, better, weights), bootstrap(MAE, truth, reference, weights)
    assert a.high > b.low
    found = paired(MAE, truth, better, reference, weights)
    assert found.value == pytest.approx(-0.15 * np.abs(error).mean())
    assert found.high < 0
    assert found.better
    assert not found.worse
    back = paired(MAE, truth, reference, better, weights)
    assert back.worse
    assert not back.better


def test_direction_follows_the_figure():
    truth = np.tile([0.0, 1.0], 20)
    right, wrong = np.eye(2)[truth.astype(int)], np.full((40, 2), [0.6, 0.4])
    found = paired(ACCURACY, truth, right, wrong, patient_weights([str(i) for i in range(40)]))
    assert found.value == pytest.approx(0.5)
    assert found.better


def test_no_difference_is_neither_better_nor_worse():
    patients, truth, error = cohort(30, 2)
    found = paired(MAE, truth, truth + error, truth + error, patient_weights(patients))
    assert (found.value, found.low, found.high, found.better, found.worse) == (0, 0, 0, False, False)


def test_draws_without_a_meaning_are_left_out_and_counted():
    """Two patients with one value each: every draw of a single patient has a constant truth and no R2."""
    truth = np.array([40.0, 60.0])
    found = bootstrap(R2, truth, np.array([42.0, 57.0]), patient_weights(["a", "b"], draws=400))
    assert 120 < found.draws < 280
    assert np.isfinite([found.low, found.high]).all()
    none = bootstrap(R2, np.array([50.0, 50.0]), truth, patient_weights(["a", "b"]))
    assert none.draws == 0
    assert np.isnan(none.value)


def test_draws_some_at_a_time_are_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    who, truth, off = cohort(7, 3)
    whole, parts = patient_weights(who, 50, seed=3), list(patient_draws(who, 50, seed=3, most=8 * len(who)))
    assert [len(part) for part in parts] == [8] * 6 + [2]
    assert np.array_equal(np.concatenate(parts), whole)

    def lines() -> list[Line]:
        scorers = {
            name: (name, lambda metric, weights, by=by: metric.of(truth, truth + by * off, weights))
            for name, by in (("far", 2.0), ("near", 1.0))
        }
        return list(lines_of(scorers, [MAE, RMSE], who, "far", draws=50, seed=3))

    at_once = lines()
    monkeypatch.setattr("recipes.evaluate.scored.HELD", 60)
    for one, other in zip(lines(), at_once, strict=True):
        assert one.figures["mae"].low == pytest.approx(other.figures["mae"].low, rel=1e-12)
        assert one.figures["rmse"].high == pytest.approx(other.figures["rmse"].high, rel=1e-12)
    far, near = at_once
    assert far.difference is None
    assert near.figures["mae"] == bootstrap(MAE, truth, truth + off, whole)
    assert near.difference["rmse"] == paired(RMSE, truth, truth + off, truth + 2 * off, whole)
    assert near.difference["mae"].better
