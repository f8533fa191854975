"""Figures of phases against scikit-learn and by hand; average precision against scikit-learn; the faults of official code shown."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, jaccard_score, precision_recall_fscore_support

from domains.layouts.cholec import NULL, PARTS, TRIPLETS
from domains.store.moments import UNLABELLED
from recipes.evaluate.phases import (
    PHASES,
    confusion_counts,
    mean_over_videos,
    phase_figures,
    relax,
    table_of_videos,
)
from recipes.evaluate.presence import ap_over_all, ap_table, average_precision, components
from recipes.evaluate.statistics import bootstrap, paired, patient_weights


def drawn(seed: int, moments: int = 300, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Truth without class 4, predictions that are right two times in three and call every class."""
    rng = np.random.default_rng(seed)
    truth = np.sort(rng.integers(0, classes - 1, moments))
    wrong = rng.integers(0, classes, moments)
    return truth, np.where(rng.random(moments) < 0.67, truth, wrong)


@pytest.mark.parametrize("absent", ["dropped", "called", "zero"])
def test_figures_are_those_of_scikit_learn_under_each_convention(absent):
    truth, prediction = drawn(0)
    found = phase_figures(truth, prediction, 6, absent)
    labels = {"dropped": [0, 1, 2, 3], "called": [0, 1, 2, 3, 4], "zero": list(range(6))}[absent]
    precision, recall, f1, _ = precision_recall_fscore_support(truth, prediction, labels=labels, zero_division=0)
    jaccard = jaccard_score(truth, prediction, labels=labels, average=None, zero_division=0)
    for name, theirs in (("precision", precision), ("recall", recall), ("f1", f1), ("jaccard", jaccard)):
        ours = getattr(found, name)
        np.testing.assert_allclose(ours[labels], theirs)
        assert np.isnan(np.delete(ours, labels)).all()
    assert found.means()["macro_f1"] == pytest.approx(f1.mean())
    assert found.accuracy == pytest.approx((truth == prediction).mean())


def test_a_phase_that_was_never_called_has_precision_0_and_unlabelled_moments_are_in_no_figure():
    truth = np.array([0, 0, 1, UNLABELLED, UNLABELLED])
    prediction = np.array([0, 0, 0, 1, 1])
    found = phase_figures(truth, prediction, 2)
    assert found.precision.tolist() == pytest.approx([2 / 3, 0])
    assert found.recall.tolist() == [1, 0]
    assert found.accuracy == pytest.approx(2 / 3)
    assert confusion_counts(truth, prediction, 2).tolist() == [[2, 0], [1, 0]]
    nothing = phase_figures(np.full(3, UNLABELLED), np.zeros(3, np.int64), 2, "zero")
    assert np.isnan(nothing.accuracy)
    assert np.isnan(nothing.means()["macro_f1"])


def evaluate_m(truth: np.ndarray, prediction: np.ndarray, window: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate.m as it was released, phases that follow each other by number: (precision (C,), forgiven (T,))."""
    difference, updated = prediction - truth, np.zeros(len(truth))
    for phase in range(classes):
        inside = np.flatnonzero(truth == phase)
        if not len(inside):
            continue
        start, end = inside[0], inside[-1] + 1
        part = difference[start:end].copy()
        t = min(window, len(part))
        part[:t][part[:t] == -1] = 0
        early = np.flatnonzero(part[-t:] == 1)
        part[early] = 0  # found at the end, applied at the start
        updated[start:end] = part
    precision = []
    for phase in range(classes):
        union = (truth == phase) | (prediction == phase)
        precision.append((updated[union] == 0).sum() / max(1, (prediction == phase).sum()))
    return np.array(precision), (updated == 0) & (difference != 0)


def test_early_and_late_changes_are_forgiven_at_their_own_end_and_once():
    """Ten seconds at 1 Hz around the change at 30 s: called 8 s early; and around that at 60 s: called 12 s late."""
    truth = np.repeat([0, 1, 2], 30)
    prediction = truth.copy()
    prediction[22:30] = 1
    prediction[60:72] = 1
    times = np.arange(90.0)
    relaxed = relax(truth, prediction, times, 10.0)
    assert np.flatnonzero(relaxed != truth).tolist() == [70, 71]
    assert (relaxed[22:30] == 0).all()
    # what was forgiven is of its true phase alone: the shares of every phase stay shares
    figures = phase_figures(truth, relaxed, 3)
    assert max(figures.precision.max(), figures.recall.max(), figures.jaccard.max()) <= 1
    assert figures.precision[1] == pytest.approx(30 / 32)
    theirs, forgiven = evaluate_m(truth, prediction, 10, 3)
    assert not forgiven[22:30].any()  # an early change is not forgiven where it is
    only_late = truth.copy()
    only_late[30:38] = 0
    theirs, _ = evaluate_m(truth, only_late, 10, 3)
    assert theirs[1] > 1  # 8 forgiven moments that nobody called phase 1 count for it
    assert phase_figures(truth, relax(truth, only_late, times, 10.0), 3).precision.tolist() == [1, 1, 1]


def test_only_the_neighbouring_phase_is_forgiven_and_only_within_seconds():
    truth = np.repeat([3, 0, 3], 40)  # phases need not come in the order of their numbers
    prediction = truth.copy()
    prediction[40:45] = 1  # a phase that is no neighbour
    prediction[45:48] = 3  # late
    prediction[80:83] = 0  # late, back again
    prediction[0:5] = 0  # far from any change
    wrong = np.flatnonzero(relax(truth, prediction, np.arange(120.0), 10.0) != truth)
    assert wrong.tolist() == [0, 1, 2, 3, 4, 40, 41, 42, 43, 44]
    # seconds, not moments: at 25 moments a second ten seconds are 250 of them
    truth = np.repeat([0, 1], 500)
    late = np.zeros(1000, np.int64)
    assert (relax(truth, late, np.arange(1000) / 25, 10.0) != truth).sum() == 250
    assert (relax(truth, late, np.arange(1000.0), 10.0) != truth).sum() == 490
    early = np.ones(1000, np.int64)
    assert (relax(truth, early, np.arange(1000) / 25, 10.0) != truth).sum() == 250
    # a gap without labels is no change of phase
    truth = np.repeat([0, UNLABELLED, 1], 5)
    assert (relax(truth, np.zeros(15, np.int64), np.arange(15.0), 10.0)[10:] == 0).all()


def test_relaxing_is_never_worse_and_a_right_prediction_stays():
    for seed in range(5):
        truth, prediction = drawn(seed)
        relaxed = relax(truth, prediction, np.arange(len(truth)) / 2, 7.0)
        changed = relaxed != prediction
        assert (relaxed[changed] == truth[changed]).all()
        strict, loose = phase_figures(truth, prediction, 5), phase_figures(truth, relaxed, 5)
        assert loose.accuracy >= strict.accuracy
        assert np.nanmax(loose.precision) <= 1


def test_means_are_per_video_and_intervals_over_videos():
    pairs = [drawn(seed, moments=50 + 100 * seed) for seed in range(6)]
    whole, parts = table_of_videos([t for t, _ in pairs], [p for _, p in pairs], 5, "dropped")
    assert parts["f1"].shape == (6, 5)
    assert np.isnan(parts["f1"][:, 4]).all()
    by_hand = [(t == p).mean() for t, p in pairs]
    np.testing.assert_allclose(whole["accuracy"], by_hand)
    weights = patient_weights([f"p{number}" for number in range(6)], 500)
    metric = next(one for one in PHASES if one.name == "accuracy")
    interval = bootstrap(metric, np.zeros(6), whole["accuracy"], weights)
    assert interval.value == pytest.approx(np.mean(by_hand))
    drawn_means = weights @ whole["accuracy"] / 6
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(drawn_means, [0.025, 0.975])))
    other = paired(metric, np.zeros(6), whole["accuracy"], whole["accuracy"] - 0.1, weights)
    assert (other.value, other.low, other.better) == (pytest.approx(0.1), pytest.approx(0.1), True)


def test_a_mean_over_videos_leaves_out_what_a_video_has_not():
    table = np.array([[1.0, np.nan], [0.0, np.nan], [0.5, 0.2]])
    one = np.ones((1, 3))
    assert mean_over_videos(one, table, one)[0] == pytest.approx((0.5 + 0.2) / 2)
    assert mean_over_videos(one, table, np.array([[1.0, 1.0, 0.0]]))[0] == pytest.approx(0.5)  # class 1 is in no video
    assert np.isnan(mean_over_videos(one, np.full(3, np.nan), one)[0])


def test_average_precision_is_scikit_learns_with_ties():
    rng = np.random.default_rng(0)
    for levels in (3, 1000):
        truth, score = rng.random(200) < 0.2, rng.integers(0, levels, 200) / levels
        assert average_precision(truth, score) == pytest.approx(average_precision_score(truth, score))
        shuffled = rng.permutation(200)
        assert average_precision(truth[shuffled], score[shuffled]) == pytest.approx(average_precision(truth, score))
    assert np.isnan(average_precision(np.zeros(4, bool), rng.random(4)))


def test_masked_is_a_class_without_positives_and_not_one_that_is_found_badly():
    rng = np.random.default_rng(1)
    truths = [rng.random((50, 3)) < 0.3 for _ in range(4)]
    for truth in truths:
        truth[:, 2] = False
    truths[0][:, 1] = False
    scores = [rng.random((50, 3)) for _ in range(4)]
    table = ap_table(truths, scores)
    assert np.isnan(table).tolist() == [[False, True, True], *[[False, False, True]] * 3]
    one = np.ones((1, 4))
    by_hand = (table[:, 0].mean() + table[1:, 1].mean()) / 2
    assert mean_over_videos(one, table, one)[0] == pytest.approx(by_hand)
    with_zero = np.array([[0.0, 0.8], [0.0, 0.6]])  # ivtmetrics would drop the class and say 0.7
    assert mean_over_videos(np.ones((1, 2)), with_zero, np.ones((1, 2)))[0] == pytest.approx(0.35)
    pooled = ap_over_all(truths, scores)
    whole = average_precision_score(np.concatenate(truths)[:, 0], np.concatenate(scores)[:, 0])
    assert pooled[0] == pytest.approx(whole)
    assert np.isnan(pooled[2])


def test_triplets_by_their_parts():
    found = {one.name: one for one in components(TRIPLETS, PARTS["triplet"], NULL["triplet"])}
    assert list(found) == ["i", "v", "t", "iv", "it", "ivt"]
    assert {name: len(one.names) for name, one in found.items()} == {
        "i": 6, "v": 10, "t": 15, "iv": 26, "it": 59, "ivt": 100,
    }  # fmt: skip
    assert {name: int(one.null.sum()) for name, one in found.items()} == {
        "i": 0, "v": 1, "t": 1, "iv": 6, "it": 6, "ivt": 6,
    }  # fmt: skip
    scores = np.random.default_rng(2).random((7, 100))
    hook = [number for number, name in enumerate(TRIPLETS) if name.startswith("hook,")]
    np.testing.assert_array_equal(found["i"].of(scores)[:, found["i"].names.index("hook")], scores[:, hook].max(axis=1))
    np.testing.assert_array_equal(found["ivt"].of(scores), scores)
    pair = [number for number, name in enumerate(TRIPLETS) if name.startswith("grasper,retract,")]
    at = found["iv"].names.index("grasper,retract")
    np.testing.assert_array_equal(found["iv"].of(scores)[:, at], scores[:, pair].max(axis=1))
    (alone,) = components(("hook", "clip"), (), ())
    assert (alone.name, alone.names) == ("", ("hook", "clip"))
