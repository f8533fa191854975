"""kNN and linear probe: hand-computed votes, scikit-learn's solutions, and folds that share no patient."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from domains.errors import ConfigError, DataError
from domains.store.splits import patient_folds
from recipes.evaluate import linear as probe
from recipes.evaluate.compare import Labelled, check, compare, out_of_fold, per_study, protocol_of
from recipes.evaluate.knn import knn
from recipes.evaluate.linear import linear, logistic, ridge_path


def labelled(truth, patients, kind="regression", classes=(), folds=3, studies=None) -> Labelled:
    truth = np.asarray(truth, float)
    return Labelled(
        kind,
        truth,
        classes,
        tuple(patients),
        tuple(studies or map(str, range(len(truth)))),
        patient_folds(patients, folds, 0),
    )


# --- kNN


def test_knn_votes_by_hand():
    train = np.array([[1.0, 0], [0.6, 0.8], [0, 1]])
    truth = np.array([10.0, 20, 40])
    query = np.array([[3.0, 0]])  # cosine 1, 0.6, 0; its length must not matter
    votes = np.exp(np.array([1, 0.6, 0]) / 0.07)
    expected = (votes * truth).sum() / votes.sum()
    assert knn(train, truth, [], query, 0)[0] == pytest.approx(expected)
    shares = knn(train, np.array([0.0, 2, 2]), [], query, 3)[0]
    np.testing.assert_allclose(shares, [votes[0] / votes.sum(), 0, votes[1:].sum() / votes.sum()])


def test_knn_looks_at_k_neighbours_only():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(50, 4))
    truth = np.arange(50.0)
    query = rng.normal(size=(1, 4))
    cosine = (train @ query[0]) / np.linalg.norm(train, axis=1) / np.linalg.norm(query)
    near = np.argsort(-cosine)[:10]
    expected = np.average(truth[near], weights=np.exp(cosine[near] / 0.07))
    assert knn(train, truth, [], query, 0)[0] == pytest.approx(expected)
    assert knn(train, truth, [], query, 0, k=1)[0] == truth[near[0]]


# --- linear


def test_ridge_path_is_scikit_learns_ridge_for_every_strength():
    rng = np.random.default_rng(1)
    for n, d in ((40, 6), (12, 30)):  # more rows than features, and fewer
        train, truth, query = rng.normal(size=(n, d)) + 3, rng.normal(size=n) + 50, rng.normal(size=(5, d))
        strengths = np.array([0.01, 1, 100])
        expected = [Ridge(alpha=a).fit(train, truth).predict(query) for a in strengths]
        np.testing.assert_allclose(ridge_path(train, truth, query, strengths), expected, rtol=1e-6)


def test_logistic_in_the_span_of_the_rows_is_the_full_solution():
    rng = np.random.default_rng(2)
    train, query = rng.normal(size=(20, 60)), rng.normal(size=(7, 60))
    truth = (train[:, 0] > 0).astype(float) + (train[:, 1] > 0.5)
    full = LogisticRegression(C=0.5, max_iter=5000, tol=1e-8).fit(train, truth.astype(int)).predict_proba(query)
    np.testing.assert_allclose(logistic(train, truth, query, 3, 0.5), full, atol=2e-3)


def test_a_class_absent_from_training_gets_nothing_and_the_rest_keep_their_columns():
    rng = np.random.default_rng(3)
    train = np.concatenate([rng.normal(-4, 1, (10, 3)), rng.normal(4, 1, (10, 3))])
    truth = np.repeat([0.0, 2.0], 10)
    patients = [f"p{i % 5}" for i in range(20)]
    probability = linear(train, truth, patients, np.array([[-4.0] * 3, [4.0] * 3]), 3)
    assert probability.argmax(axis=1).tolist() == [0, 2]
    np.testing.assert_allclose(probability[:, 1], 0)
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    only = logistic(train, np.full(20, 1.0), train[:2], 3, 1.0)
    np.testing.assert_array_equal(only, [[0, 1, 0]] * 2)


def test_standardising_uses_training_rows_only_and_survives_a_constant_feature():
    rng = np.random.default_rng(4)
    train = rng.normal(size=(40, 3)) * [1, 1000, 1] + [0, 5e4, 7]
    train[:, 2] = 7
    truth = train[:, 0] * 10 + 50
    patients = [f"p{i}" for i in range(40)]
    query = np.array([[0.5, 5e4, 7.0], [0.5, 5e4, 1e6]])
    found = linear(train, truth, patients, query, 0)
    assert found[0] == pytest.approx(55, abs=0.5)
    assert found[1] == found[0]  # a feature that never changed in training is not extrapolated
    scaled = linear(train * [1e3, 1e-3, 1], truth, patients, query * [1e3, 1e-3, 1], 0)
    np.testing.assert_allclose(scaled, found)


def test_a_feature_that_hardly_varied_in_training_cannot_throw_a_prediction_off():
    rng = np.random.default_rng(8)
    train = rng.normal(size=(60, 6))
    train[:, 5] = rng.normal(0, 1e-4, 60)  # a corner of the picture that is black but for noise
    truth = 50 + 8 * train[:, 0] + rng.normal(0, 2, 60)
    query = np.array([[0.5, 0, 0, 0, 0, 0.0], [0.5, 0, 0, 0, 0, 30.0]])
    plain, thrown = linear(train, truth, [f"p{i}" for i in range(60)], query, 0)
    assert plain == pytest.approx(54, abs=1.5)
    assert thrown == pytest.approx(plain, abs=3)


def test_strength_is_chosen_between_patients_not_between_their_videos(monkeypatch):
    """Features name the patient and nothing else: between videos of one patient they predict, between patients they
    cannot.
    """
    rng = np.random.default_rng(5)
    who = np.repeat(np.arange(20), 5)
    code = rng.normal(size=(20, 40))
    train = code[who] + rng.normal(0, 0.05, (100, 40))
    truth = rng.uniform(30, 70, 20)[who]
    patients = [f"p{i}" for i in who]
    found = linear(train, truth, patients, rng.normal(size=(30, 40)), 0)
    monkeypatch.setattr(probe, "patient_folds", lambda p, f, s: np.arange(len(p)) % f)
    leaking = linear(train, truth, patients, rng.normal(size=(30, 40)), 0)
    assert np.std(found) < 0.5 * np.std(leaking)  # shrunk to the mean, as it must be


def test_one_training_patient_leaves_nothing_to_choose_on_and_still_works():
    rng = np.random.default_rng(6)
    train = rng.normal(size=(8, 3))
    assert np.isfinite(linear(train, rng.normal(size=8), ["p"] * 8, train, 0)).all()
    assert linear(train, np.repeat([0.0, 1], 4), ["p"] * 8, train, 2).shape == (8, 2)


# --- out of fold


def test_no_video_is_predicted_by_a_model_that_saw_its_patient():
    patients = [f"p{i // 2}" for i in range(12)]
    cut = labelled(np.arange(12), patients)
    calls = []

    def spy(train, truth, people, query, classes):
        calls.append((set(people), len(query)))
        return np.array([float(len(people))] * len(query))

    features = np.arange(12.0)[:, None]
    prediction = out_of_fold(spy, features, cut)
    assert np.isfinite(prediction).all()
    assert sum(n for _, n in calls) == 12
    for fold, (people, _) in zip(np.unique(cut.fold), calls, strict=True):
        assert people.isdisjoint({patients[i] for i in np.flatnonzero(cut.fold == fold)})
        assert len(people) == 4


def test_per_study_averages_predictions_of_its_videos():
    cut = labelled([50, 50, 60, 60], ["a", "a", "b", "b"], folds=2, studies=["s1", "s1", "s2", "s2"])
    assert cut.by_study
    truth, found, patients = per_study(cut, np.array([40.0, 50, 70, 60]))
    assert (truth.tolist(), found.tolist(), patients) == ([50, 60], [45, 65], ["a", "b"])
    rows = compare_rows(cut, np.array([40.0, 50, 70, 60]))
    assert rows.figures["mae"].value == 5
    assert rows.per_video["mae"].value == 5
    # +10 and -10 in one study cancel there, and do not per video
    rows = compare_rows(cut, np.array([40.0, 60, 60, 60]))
    assert (rows.figures["mae"].value, rows.per_video["mae"].value) == (0, 5)


def compare_rows(cut, prediction):
    from recipes.evaluate.compare import score

    return score(cut, {"x": prediction}, None, titles={"x": "x"}, dimensions={"x": 1}, draws=50)[0]


def test_labels_of_videos_are_counted_per_video():
    cut = labelled([0, 1, 0, 1], ["a", "a", "b", "b"], "classification", ("A", "B"), 2, ["s1", "s1", "s2", "s2"])
    assert not cut.by_study


def test_compare_finds_what_is_there_and_claims_nothing_where_there_is_nothing():
    rng = np.random.default_rng(7)
    who = np.repeat(np.arange(40), 3)
    ef = rng.uniform(25, 70, 40)[who]
    patients = [f"p{i:02d}" for i in who]
    cut = labelled(ef, patients, folds=5, studies=patients)
    noise = rng.normal(size=(120, 8))
    knows = np.concatenate([noise, (ef + rng.normal(0, 3, 120))[:, None]], axis=1)
    rows = {row.name: row for row in compare("linear", {"noise": noise, "knows": knows}, cut, "noise", draws=500)}
    assert rows["noise"].difference is None
    assert rows["knows"].dimension == 9
    assert rows["knows"].difference["mae"].better
    assert rows["knows"].figures["mae"].value < 4
    false = 0
    for _ in range(20):
        two = {"a": rng.normal(size=(120, 8)), "b": rng.normal(size=(120, 8))}
        false += compare("knn", two, cut, "a", draws=200)[1].difference["mae"].better
    assert false <= 4


def test_labels_with_nothing_to_learn_are_refused():
    with pytest.raises(DataError, match=r"all 3 labelled videos are of one class \('A4C'\)"):
        check("classification", np.array([1.0, 1, 1]), ("A2C", "A4C"), "view")
    with pytest.raises(DataError, match="same value"):
        check("regression", np.array([50.0, 50]), (), "ef")
    check("classification", np.array([0.0, 1]), ("A2C", "A4C"), "view")


def test_unknown_protocol_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'linear'"):
        protocol_of("liner")
