"""The head over studies against hand-computed attention, and studies as samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from store_factory import make_prepared

from domains.base import TaskSettings
from domains.errors import DataError, ModelError
from domains.store.labels import read_labels
from domains.store.splits import patient_folds
from domains.store.studies import Studies, label_studies
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.evaluate.described import describe_recordings
from recipes.evaluate.features import clip_of, extract
from recipes.evaluate.linear import linear, linear_classifier, linear_regressor
from recipes.evaluate.procedures import edges, spread
from recipes.evaluate.stacked import _fit, first_answers
from recipes.evaluate.studies import StudyData, Views, answers, baselines
from recipes.finetune.head import load_study_head, load_temporal_head, save_head
from recipes.finetune.study import UNKNOWN, StudyHeadSettings, StudyObjective
from recipes.objective import Batch

EF = TaskSettings(kind="regression", column="ef")
TINY = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 16, "tubelet_size": 2,
}  # fmt: skip


def by_hand(**over) -> StudyObjective:
    """One channel, one hidden channel, weights that can be followed on paper."""
    values = {
        "task": "ef",
        "kind": "regression",
        "mean": 50.0,
        "std": 10.0,
        "channels": 1,
        "width": 1,
        "attention": 1,
        **over,
    }
    objective = StudyObjective(StudyHeadSettings(**values)).eval()
    head = objective.head
    with torch.no_grad():
        for layer, weight, bias in (
            (head.enter, 1.0, 0.0),
            (head.value, 2.0, 0.0),
            (head.gate, 0.0, 0.0),
            (head.answer, 3.0, 0.5),
        ):
            layer.weight.fill_(weight)
            layer.bias.fill_(bias)
        head.score.weight.fill_(4.0)
        head.mean.fill_(1.0)
        head.deviation.fill_(2.0)
    return objective


def gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def on_paper(clips: list[float], shift: list[float]) -> tuple[float, list[float]]:
    hidden = [gelu((x - 1) / 2 + s) for x, s in zip(clips, shift, strict=True)]
    scores = [math.exp(4 * math.tanh(2 * h) * 0.5) for h in hidden]
    weights = [score / sum(scores) for score in scores]
    return 3 * sum(a * h for a, h in zip(weights, hidden, strict=True)) + 0.5, weights


def test_attention_is_what_comes_out_on_paper():
    objective, clips = by_hand(), [3.0, 1.0, -1.0]
    wanted, weights = on_paper(clips, [0, 0, 0])
    said, found, alone = objective.predict(np.array(clips, np.float32)[:, None])
    assert float(said) == pytest.approx(50 + 10 * wanted, rel=1e-5)
    np.testing.assert_allclose(found, weights, rtol=1e-5)
    np.testing.assert_allclose(alone, [50 + 10 * (3 * gelu((x - 1) / 2) + 0.5) for x in clips], rtol=1e-5)
    # In a batch, filled up with what is no clip: the same, and the loss is Huber's of (truth - mean) / std.
    batch = Batch({}, torch.zeros(1), {
        "descriptions": torch.tensor([[3.0, 1.0, -1.0, 99.0]])[..., None], "inside": torch.tensor([[1.0, 1, 1, 0]]),
        "view": torch.full((1, 4), UNKNOWN), "first": torch.zeros(1, 4, 1), "target": torch.tensor([50 + 10 * (wanted + 0.3)]),
    })  # fmt: skip
    losses = objective(batch)
    assert losses["loss"].item() == pytest.approx(0.5 * 0.3**2, rel=1e-3)
    assert float(losses["mae"]) == pytest.approx(3.0, rel=1e-3)
    entropy = -sum(a * math.log(a) for a in weights)
    assert float(losses["clips_used"]) == pytest.approx(math.exp(entropy), rel=1e-4)


def test_views_shift_what_a_clip_says_and_an_unknown_one_does_not():
    objective = by_hand(views="labels", view_names=("one", "two"))
    with torch.no_grad():
        objective.head.of_view.weight.copy_(torch.tensor([[0.7, -0.4]]))
    wanted, weights = on_paper([3.0, 3.0, 3.0], [0.7, -0.4, 0.0])
    said, found, _ = objective.predict(np.full((3, 1), 3, np.float32), np.array([0, 1, UNKNOWN]))
    assert float(said) == pytest.approx(50 + 10 * wanted, rel=1e-5)
    np.testing.assert_allclose(found, weights, rtol=1e-5)


def test_a_probe_tells_the_view_from_the_description():
    objective = by_hand(views="probe", view_names=("low", "high"))
    with torch.no_grad():
        objective.head.probe_weight.copy_(torch.tensor([[-1.5], [1.5]]))
    likely = objective.head.view_of(torch.tensor([[3.0], [1.0]]), torch.zeros(2, dtype=torch.int64))
    assert likely[0, 1].item() == pytest.approx(1 / (1 + math.exp(-3)), rel=1e-5)
    assert likely[1].tolist() == [0.5, 0.5]


def test_any_number_of_clips_in_any_order():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        objective = StudyObjective(
            StudyHeadSettings(task="x", kind="classification", classes=("a", "b", "c"), channels=6)
        ).eval()
        objective.head.score.weight.data.normal_()
        objective.head.answer.weight.data.normal_()
    clips = np.random.default_rng(0).normal(size=(9000, 6)).astype(np.float32)  # more than a piece
    said, weights, alone = objective.predict(clips)
    back, _, _ = objective.predict(clips[::-1])
    np.testing.assert_allclose(said, back, atol=1e-6)
    assert said.sum() == pytest.approx(1, abs=1e-6)
    assert (weights.sum(), alone.shape) == (pytest.approx(1, abs=1e-5), (9000, 3))
    only, weight, itself = objective.predict(clips[:1])
    np.testing.assert_allclose(only, itself[0], atol=1e-7)
    assert weight.tolist() == [1.0]


def test_a_new_head_weighs_all_clips_alike():
    objective = StudyObjective(StudyHeadSettings(task="x", kind="regression", channels=4)).eval()
    _, weights, _ = objective.predict(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32))
    np.testing.assert_allclose(weights, 0.2, atol=1e-6)


def test_saved_and_loaded(tmp_path):
    objective = by_hand(views="probe", view_names=("low", "high"))
    save_head(objective, tmp_path)
    again = load_study_head(tmp_path)
    assert again.settings == objective.settings
    clips = np.array([[3.0], [1.0]], np.float32)
    assert [one.tolist() for one in again.predict(clips)] == [one.tolist() for one in objective.predict(clips)]
    with pytest.raises(ModelError, match=r"no head\.json"):
        load_study_head(tmp_path / "elsewhere")
    (tmp_path / "head.json").write_text((tmp_path / "head.json").read_text().replace('"width": 1', '"width": 2'))
    with pytest.raises(ModelError, match="do not belong together"):
        load_study_head(tmp_path)
    with pytest.raises(ModelError, match="answers for whole studies, not for moments"):
        load_temporal_head(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("described")
    prepared, labels = make_prepared(root / "prepared", videos=24, patients=10, frames=10, size=32)
    encoder = fresh_videomae(Geometry(frames=4, size=32, rate=12.5), seed=0, **TINY)
    described, failed = describe_recordings(
        encoder, prepared, range(24), clip_of(encoder.geometry), 2, root / "features"
    )
    assert failed == ()
    return prepared, labels, encoder, described


def test_descriptions_are_those_of_probes_and_are_written_once(made, monkeypatch):
    prepared, _, encoder, described = made
    plain = extract(encoder, prepared, [3, 1], clips_per_video=2)
    np.testing.assert_allclose(described.read([3, 1]), plain.values, rtol=1e-5, atol=1e-6)
    import recipes.evaluate.described as module

    monkeypatch.setattr(module, "evaluation_clips", lambda *_: pytest.fail("read again"))
    again, _ = describe_recordings(encoder, prepared, range(24), clip_of(encoder.geometry), 2, described.folder.parent)
    assert again.folder == described.folder
    done = np.load(described.folder / "done.npy")
    np.save(described.folder / "done.npy", np.where(np.arange(24) == 5, 0, done).astype(np.uint8))
    with pytest.raises(DataError, match=f"video {prepared.video_id(5)} was not described"):
        described.read([4, 5])
    np.save(described.folder / "done.npy", done)


def studies_of(made) -> Studies:
    return label_studies(read_labels(made[1], EF, made[0], None), made[0], "ef")


def test_labels_of_studies_hold_for_all_their_recordings(made, tmp_path):
    prepared = made[0]
    whole = studies_of(made)
    assert sorted(row for rows in whole.rows for row in rows) == list(range(24))
    assert all(
        {prepared.column("study")[row] for row in rows} == {name}
        for name, rows in zip(whole.names, whole.rows, strict=True)
    )
    few = tmp_path / "few.csv"  # of two studies, one recording each is labelled
    few.write_text(f"video_id,ef\n{prepared.video_id(0)},30\n{prepared.video_id(1)},60\n")
    found = label_studies(read_labels(few, EF, prepared, None), prepared, "ef")
    assert found.rows == ((0, 10, 20), (1, 11, 21))
    assert found.values.tolist() == [30, 60]
    few.write_text(f"video_id,ef\n{prepared.video_id(0)},30\n{prepared.video_id(10)},60\n")
    with pytest.raises(DataError, match="have different labels"):
        label_studies(read_labels(few, EF, prepared, None), prepared, "ef")


def test_a_sample_is_a_study_drawn_from_its_seed(made):
    described = made[3]
    whole, views = studies_of(made), Views(("even", "odd"), np.arange(24) % 2)
    first = np.arange(24, dtype=np.float32)[:, None]
    data = StudyData(described, whole, views, first, clips=2, drop=0.4, seed=1)
    samples = [data[position] for position in range(40)]
    again = StudyData(described, whole, views, first, clips=2, drop=0.4, seed=1)
    counts = set()
    for position, sample in enumerate(samples):
        targets, same = sample["targets"], again[position]["targets"]
        assert all((targets[name] == same[name]).all() for name in targets)
        study = next(n for n, rows in enumerate(whole.rows) if rows[0] == sample["row"])
        inside = targets["inside"].astype(bool)
        counts.add(int(inside.sum()))
        assert targets["target"] == whole.values[study]
        assert (targets["view"][~inside] == UNKNOWN).all()
        assert (targets["descriptions"][~inside] == 0).all()
        table = described.read(whole.rows[study])
        for clip, view in zip(targets["descriptions"][inside], targets["view"][inside], strict=True):
            (place,) = np.flatnonzero((table == clip).all(axis=1))
            assert view == whole.rows[study][place] % 2
        clip = [whole.rows[study].index(int(row)) for row in targets["first"][inside, 0]]
        assert (table[clip] == targets["descriptions"][inside]).all()
    assert counts == {1, 2}
    assert len({sample["row"] for sample in samples[:10]}) == 10


def test_baselines_take_the_view_that_is_best_and_fall_back_where_it_is_missing(made, tmp_path):
    """View 0 says the truth, view 1 nothing; a test study without view 0 is answered by view 1, one without either by the probe of all."""
    prepared = made[0]
    described = made[3].__class__(tmp_path, prepared, 1)
    rng = np.random.default_rng(0)
    names, rows = tuple("abcdefgh"), tuple((3 * n, 3 * n + 1) for n in range(8))
    truth = np.array([10.0, 20, 30, 40, 50, 60, 70, 80])
    values = rng.normal(size=(24, 1)).astype(np.float32)
    values[[own[0] for own in rows], 0] = truth
    np.save(tmp_path / "described.npy", values)
    np.save(tmp_path / "done.npy", np.ones(24, np.uint8))
    view = np.full(24, UNKNOWN)
    view[[own[0] for own in rows]], view[[own[1] for own in rows]] = 0, 1
    views = Views(("good", "bad"), view)

    def part(numbers, own=None):
        return Studies(
            tuple(names[n] for n in numbers),
            own or tuple(rows[n] for n in numbers),
            truth[list(numbers)],
            tuple(names[n] for n in numbers),
        )

    test = part((6, 7, 0), (rows[6], (rows[7][1],), (2,)))
    found = baselines(described, part((0, 1, 2, 3, 4)), part((5,)), test, views, "regression", 0)
    assert found.best == ("good", "bad")
    assert found.titles["single"] == "best single clip (good)"
    # Features are held at the range seen in training (10 to 50), so the best answer to 70 is 50.
    assert found.predictions["single"][0] == pytest.approx(50, abs=1)
    assert found.predictions["constant"].tolist() == [30, 30, 30]
    without = baselines(described, part((0, 1, 2, 3, 4)), part((5,)), test, Views.unknown(prepared), "regression", 0)
    assert set(without.predictions) == {"constant", "single", "mean"}
    assert without.titles["single"] == "one clip"
    assert found.predictions["single"][2] == pytest.approx(without.predictions["single"][2])
    assert found.predictions["single"][1] != pytest.approx(found.predictions["mean"][1], abs=1e-9)


def test_answers_of_a_head_restore_its_mode(made):
    objective = StudyObjective(StudyHeadSettings(task="ef", kind="regression", channels=32, dropout=0.5)).train()
    one, two = (answers(objective, made[3], [(0, 1, 2), (5,)], Views.unknown(made[0])) for _ in range(2))
    assert objective.training
    assert [float(a.prediction) for a in one] == [float(a.prediction) for a in two]
    assert [len(a.weights) for a in one] == [3, 1]


def test_a_head_begins_as_the_mean_of_a_probes_answers(made):
    """What the built-in baseline `mean` says, a new head says before it has learned anything."""
    prepared, _, _, described = made
    whole = studies_of(made)
    parts = [
        Studies(whole.names[cut], whole.rows[cut], whole.values[cut], whole.patients[cut]) for cut in (slice(7), slice(7, 8), slice(8, 10))
    ]  # fmt: skip
    train, validation, test = parts
    rows = [row for own in train.rows for row in own]
    table = described.read(rows)
    mean, deviation = spread([table])
    low, high = ((edge - mean) / deviation for edge in edges([table[:3], table[3:]], 32))

    def even(descriptions):
        return np.clip((descriptions - mean) / deviation, low, high).astype(np.float64)

    centre, scale = train.values.mean(), train.values.std()
    first = first_answers(described, train, (train.values - centre) / scale, even, 0)
    objective = StudyObjective(
        StudyHeadSettings(task="ef", kind="regression", channels=32, mean=centre, std=scale)
    ).eval()
    head = objective.head
    for buffer, found in (
        (head.mean, mean), (head.deviation, deviation), (head.low, low), (head.high, high), (head.first_weight, first.weight),
        (head.first_bias, first.bias),
    ):  # fmt: skip
        buffer.copy_(torch.from_numpy(found))
    said = [float(one.prediction) for one in answers(objective, described, test.rows, Views.unknown(prepared))]
    wanted = baselines(described, train, validation, test, Views.unknown(prepared), "regression", 0).predictions["mean"]
    np.testing.assert_allclose(said, wanted, atol=1e-3)
    # Of training clips, what probes say that saw none of their patients: as cross-validation does, and not what the probe itself says.
    own = even(table) @ first.weight.T + first.bias
    assert np.abs(first.said[rows] - own).max() > 0.01
    held = [place for place, row in enumerate(rows) if prepared.patients[row] == train.patients[0]]
    others = [place for place in range(len(rows)) if place not in held]
    if (
        len(set(train.patients)) > 5
    ):  # a fold may hold two patients: the one that holds only this one is checked by hand
        fold = patient_folds([prepared.patients[row] for row in rows], 5, 0)
        others = [place for place in range(len(rows)) if fold[place] != fold[held[0]]]
    features, truth = even(table), np.repeat((train.values - centre) / scale, [len(one) for one in train.rows])
    _, _, strength = linear_regressor(features, truth, [prepared.patients[row] for row in rows])
    weight, bias, _ = linear_regressor(features[others], truth[others], [], strength)
    np.testing.assert_allclose(first.said[[rows[place] for place in held]], features[held] @ weight.T + bias, atol=1e-4)


def test_probes_of_classes_are_those_of_the_protocol_and_stand_for_those_they_never_saw():
    rng = np.random.default_rng(0)
    features, patients = rng.normal(size=(40, 6)), [str(n // 2) for n in range(40)]
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    for classes, truth in (
        (2, (features[:, 0] > 0).astype(float)),
        (3, np.digitize(features[:, 1], [-0.5, 0.5]).astype(float)),
    ):
        weight, bias, _ = linear_classifier(features, truth, patients, classes)
        logits = features @ weight.T + bias
        said = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        np.testing.assert_allclose(said, linear(features, truth, patients, features, classes), atol=1e-6)
    weight, bias, _ = _fit(features, 2 * (features[:, 0] > 0), patients, 4, None)
    assert weight[[1, 3]].any() == False  # noqa: E712
    assert bias[[1, 3]].tolist() == [-10, -10]
    weight, bias, _ = _fit(features, np.full(40, 1.0), patients, 2, None)
    assert not weight.any()
    assert bias[1] > bias[0]
