"""Figures against scikit-learn and hand-computed cases; weights against repeated samples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from recipes.evaluate.metrics import CLASSIFICATION, REGRESSION, confusion, metrics_of


def ones(n: int) -> np.ndarray:
    return np.ones((1, n))


@pytest.fixture
def numbers() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    truth = rng.uniform(20, 75, 60)
    return truth, truth + rng.normal(1, 8, 60)


@pytest.fixture
def classes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 3, 60).astype(float)
    return truth, rng.dirichlet(np.ones(4), 60)  # four classes known, three occur


def test_regression_figures_are_those_of_scikit_learn(numbers):
    truth, found = numbers
    expected = {
        "mae": sk.mean_absolute_error(truth, found),
        "rmse": sk.root_mean_squared_error(truth, found),
        "r2": sk.r2_score(truth, found),
        "pearson": np.corrcoef(truth, found)[0, 1],
    }
    for metric in REGRESSION:
        assert metric.of(truth, found, ones(60))[0] == pytest.approx(expected[metric.name]), metric.name


def test_classification_figures_are_those_of_scikit_learn_with_a_class_that_never_occurs(classes):
    truth, probability = classes
    called = probability.argmax(1)
    expected = {
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": np.mean([(called[truth == c] == c).mean() for c in range(3)]),
        "macro_f1": sk.f1_score(truth, called, average="macro", zero_division=0),
    }
    assert set(called) == {0, 1, 2, 3}  # the absent class is predicted, and counts in F1 as scikit-learn counts it
    for metric in CLASSIFICATION:
        assert metric.of(truth, probability, ones(60))[0] == pytest.approx(expected[metric.name]), metric.name


@pytest.mark.parametrize("metric", [*REGRESSION, *CLASSIFICATION], ids=lambda m: m.name)
def test_a_weight_is_a_repeated_sample(metric, numbers, classes):
    truth, found = numbers if metric in REGRESSION else classes
    weights = np.random.default_rng(5).integers(0, 4, (6, 60))
    repeated = [metric.of(np.repeat(truth, w), np.repeat(found, w, axis=0), ones(w.sum()))[0] for w in weights]
    np.testing.assert_allclose(metric.of(truth, found, weights.astype(float)), repeated)


def test_figures_without_a_meaning_are_nan_not_a_number_that_looks_like_one():
    same = np.full(4, 50.0)
    found = np.array([48.0, 50, 51, 53])
    values = {m.name: m.of(same, found, ones(4))[0] for m in REGRESSION}
    assert values["mae"] == pytest.approx(1.5)
    assert np.isnan(values["r2"])
    assert np.isnan(values["pearson"])


def test_confusion_has_the_truth_in_rows():
    probability = np.eye(3)[[0, 1, 1, 2]]
    matrix = confusion(np.array([0.0, 0, 1, 2]), probability, ones(4))[0]
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 1, 0], [0, 0, 1]])


def test_headlines():
    assert metrics_of("regression")[0].name == "mae"
    assert metrics_of("classification")[0].name == "accuracy"
