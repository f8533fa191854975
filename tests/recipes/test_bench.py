"""`vfm bench`: the same for every recipe, intervals over patients and seeds, and a call that goes on."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from objective_factory import SMALL, small_encoder
from store_factory import Made, make_prepared

from domains.base import load_domain
from domains.errors import ConfigError, DataError, TrainingError
from recipes.bench import asking, kept, parallel, trial
from recipes.bench import bench as module
from recipes.bench.asking import Ask, predictions
from recipes.bench.bench import bench, check_recipes
from recipes.bench.outcome import Outcome, Question, answer
from recipes.bench.page import table_of
from recipes.bench.plan import Plan
from recipes.bench.tasks import Recordings
from recipes.bench.trial import Trial
from recipes.evaluate import linear as probe
from recipes.evaluate.compare import Labelled
from recipes.evaluate.metrics import metrics_of
from recipes.evaluate.scored import Scorer
from recipes.evaluate.seeds import Drawn, seed_draws
from recipes.runs.metrics import read_json, read_metrics
from recipes.training.interrupt import Interrupted
from recipes.training.reporter import SilentReporter

ECHO = load_domain("echo").model_copy(
    update={"clip": load_domain("echo").clip.model_copy(update={"frames": 4, "size": 32})}
)
MAE = metrics_of("regression")[0]
AS_SHIPPED = {name: getattr(probe, name) for name in ("INVERSE_STRENGTHS", "INNER_FOLDS")}


def recipe(folder: Path, name: str, method: str, **objective: object) -> str:
    """A small recipe as a YAML of one's own."""
    path = folder / f"{name}.yaml"
    path.write_text(
        json.dumps({"method": method, "objective": {**SMALL[method], **objective}, "train": {"batch_size": 4}})
    )
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def few_strengths() -> Iterator[None]:
    """Of what a linear probe tries: most of the time of a bench of this size would go there. How it chooses: test_evaluate_protocols.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.evaluate.linear.INVERSE_STRENGTHS", np.array([0.01, 1.0]))
        patch.setattr("recipes.evaluate.linear.INNER_FOLDS", 3)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    root = tmp_path_factory.mktemp("bench")
    found = make_prepared(root / "prepared", videos=30, patients=15, size=40, frames=20)
    small_encoder().save(root / "encoder")
    return root, found


def plan_of(made: tuple[Path, Made], **changes: object) -> Plan:
    root, found = made
    recipes = [recipe(root, "contrast", "simclr"), recipe(root, "pixels-only", "videomae")]
    values = {
        "domain": "echo", "data": str(found.prepared.folder), "fingerprint": found.prepared.fingerprint(), "encoder": str(root / "encoder"),
        "recipes": recipes, "seeds": 2, "budget": 0.2, "device": "CPU", "tasks": ["ef", "view"], "labels": str(found.labels),
        "protocols": ["linear"], "fractions": [0.5, 1.0], "folds": 3, "split": "", "clips": 1,
        "settings": ["data.workers=0", "train.precision=fp32"],
    }  # fmt: skip
    return Plan(**{**values, **changes})


@pytest.fixture(scope="module")
def done(made: tuple[Path, Made], tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, Outcome]:
    plan, out = plan_of(made), tmp_path_factory.mktemp("out") / "bench"
    return plan, out, bench(plan, out, ECHO, reporter=SilentReporter())


def test_a_figure_over_seeds_is_the_mean_and_its_interval_covers_patients_and_seeds() -> None:
    truth, patients = np.arange(8.0), [f"p{n // 2}" for n in range(8)]

    def drawn(*errors: float) -> Drawn:  # a seed's error, whoever is drawn
        scorers = [
            partial(lambda said, metric, weights: metric.of(truth, said, weights), truth + one) for one in errors
        ]
        return Drawn.of(MAE, scorers, patients, 500)

    taken = seed_draws(2, 500)
    found = drawn(1.0, 3.0).over_seeds(taken)
    assert (found.value, found.low, found.high) == (2.0, 1.0, 3.0)  # both seeds the one, or both the other
    alone = drawn(1.0).over_seeds(seed_draws(1, 500))
    assert (alone.value, alone.low, alone.high) == (1.0, 1.0, 1.0)
    gain = drawn(1.0, 3.0).against(drawn(4.0, 4.0, 9.0), taken)  # of a third seed nothing is known here
    assert (gain.value, gain.low, gain.high, gain.better, gain.worse) == (-2.0, -3.0, -1.0, True, False)
    one_less = drawn(4.0, 4.0, 9.0).against(drawn(1.0, 3.0), taken)  # nor is it when it is this one's
    assert (one_less.value, one_less.low, one_less.high, one_less.worse) == (2.0, 1.0, 3.0, True)
    same = drawn(1.0, 3.0).against(drawn(1.0, 3.0), taken)
    assert (same.value, same.low, same.high, same.better) == (0.0, 0.0, 0.0, False)


def test_every_trial_is_made_and_every_question_answered(done: tuple[Plan, Path, Outcome]) -> None:
    plan, out, outcome = done
    assert not outcome.failed()
    assert [question.title for question in outcome.questions] == [
        "ef, linear", "ef, linear, 50% of the labels", "view, linear", "view, linear, 50% of the labels",
    ]  # fmt: skip
    assert list(outcome.rows)[:3] == ["pixels", "random", "generic"]
    assert set(outcome.recipes) == set(plan.recipes)
    for name in plan.recipes:
        trials = outcome.trials[name]
        assert [trial.seed for trial in trials] == [0, 1]
        assert all(trial.steps == max(1, int(plan.budget / trial.step_seconds)) for trial in trials)
        assert len({trial.step_seconds for trial in trials}) == 1  # measured once
        rows = [read_metrics(out / "runs" / trial.name) for trial in trials]
        assert [t.device_seconds for t in trials] == [round(sum(r["device_seconds"] for r in each), 2) for each in rows]
        for number in range(4):
            found = outcome.answers[name, number]
            assert found.figure.value == pytest.approx(np.mean(found.seeds))
            assert found.figure.low <= found.figure.value <= found.figure.high
            assert (found.whole is None) == (number % 2 == 0)
    reference = outcome.answers["generic", 0]
    assert reference.difference is None
    assert len(set(reference.seeds)) == 1  # nothing of it depends on the seed ...
    assert len(set(outcome.answers["generic", 1].seeds)) == 2  # ... but for the labels that are left
    first, second = (read_json(out / "runs" / f"contrast-{seed}" / "record.json") for seed in (0, 1))
    assert first["losses"] != second["losses"]


class Said:
    """Eight recordings of four patients, and features that are the answer."""

    counted, headline = "videos", MAE
    units = tuple(range(8))
    tested_patients = tuple(f"p{n // 2}" for n in range(8))

    def predict(self, protocol: str, features: np.ndarray, *, fraction: float, seed: int) -> np.ndarray:
        return features[:, 0]

    def scorer(self, prediction: np.ndarray) -> Scorer:
        return partial(lambda said, metric, weights: metric.of(np.arange(8.0), said, weights), prediction)


def test_recipes_are_compared_with_the_first_of_them_too() -> None:
    """Two questions by hand: `sure` errs least on both, `even` as little on one and perhaps on the other, `far` more on one, whoever is drawn."""
    truth, uneven = np.arange(8.0)[:, None], np.array([0.0, 0, 0, 0, 0, 0, 4, 4])[:, None]
    errors = {
        "generic": (9.0, 9.0), "sure": (1.0, 1.0), "even": (1.0, 1.0 + uneven), "far": (3.0, 1.0), "alone": (2.0, 2.0),
    }  # fmt: skip
    features = {name: [[truth + one for one in both]] * 2 for name, both in errors.items()}
    features["alone"] = features["alone"][:1]  # its other trial failed
    trials = {name: tuple(Trial(name, seed) for seed in range(2)) for name in errors if name != "generic"}
    asked = [(Question(name, "linear", 1.0, "%"), Said()) for name in ("ef", "esv")]
    outcome = answer(asked, features, {name: name for name in errors}, trials)
    assert outcome.recipes[0] == "sure"
    found = {name: [outcome.answers[name, number].first for number in range(2)] for name in errors}
    assert found["sure"] == found["generic"] == [None, None]
    shown = {
        name: [(round(d.value, 6), d.better, d.worse) for d in each if d is not None]
        for name, each in found.items()
        if name in outcome.recipes[1:]
    }
    assert shown == {
        "even": [(0.0, False, False), (1.0, False, False)],
        "far": [(2.0, False, True), (0.0, False, False)],
        "alone": [(1.0, False, True), (1.0, False, True)],
    }
    assert outcome.rivals() == ["even"]
    assert outcome.verdict().endswith(
        "; first by rank over all questions: sure; worse than it on no question by more than the interval: even"
    )
    head, lines = table_of(outcome, 0)[1:]
    assert head[-1] == "against sure"
    assert {line[0]: line[-1] for line in lines} == {
        "generic": "",
        "sure": "reference",
        "even": "+0.00 [+0.00, +0.00]",
        "far": "+2.00 [+2.00, +2.00] * worse",
        "alone": "+1.00 [+1.00, +1.00] * worse",
    }
    one = answer(
        asked,
        {name: features[name] for name in ("generic", "far")},
        {"generic": "generic", "far": "far"},
        {"far": trials["far"]},
    )
    assert one.verdict().endswith("first by rank over all questions: far")
    assert table_of(one, 0)[1][-1] == "against unadapted"


def test_trials_side_by_side_are_those_of_one_after_the_other(done: tuple[Plan, Path, Outcome], tmp_path: Path) -> None:
    plan, out, alone = done
    together = tmp_path / "together"
    asked = plan.model_copy(update={"seeds": 1})
    (together / "trials").mkdir(parents=True)
    (together / "bench.json").write_text(asked.model_dump_json())
    for cost in (out / "trials").glob("*.cost.json"):  # as many steps as there
        shutil.copy(cost, together / "trials")
    assert not bench(asked, together, ECHO, workers=2, reporter=SilentReporter()).failed()
    outcome = bench(asked, together, ECHO, reporter=SilentReporter())  # asked here, where the probes try less
    for name in plan.recipes:
        assert [trial.steps for trial in outcome.trials[name]] == [alone.trials[name][0].steps]
        trial = outcome.trials[name][0].name
        assert read_json(together / "runs" / trial / "record.json")["losses"] == pytest.approx(
            read_json(out / "runs" / trial / "record.json")["losses"], rel=1e-4
        )
        assert outcome.answers[name, 0].seeds[0] == pytest.approx(alone.answers[name, 0].seeds[0], rel=1e-3)


def test_answers_side_by_side_are_those_of_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(0)
    patients = tuple(f"p{n // 2}" for n in range(24))
    labelled = Labelled(
        "classification", np.arange(24) % 3, ("a", "b", "c"), patients, patients, np.arange(24) // 2 % 3
    )
    asks = [
        Ask(Recordings(labelled), protocol, numbers.normal(size=(24, 4)), fraction, seed)
        for protocol, fraction, seed in (("knn", 1.0, 0), ("linear", 1.0, 0), ("knn", 0.5, 1), ("linear", 0.5, 2))
    ]
    reporter = SilentReporter()
    monkeypatch.setattr(asking, "EVERY", 0.0)
    for name, value in AS_SHIPPED.items():  # as it is in another process
        monkeypatch.setattr(probe, name, value)
    np.testing.assert_allclose(predictions(asks, 2, reporter), predictions(asks, 1, SilentReporter()), atol=1e-6)
    assert reporter.notes[0].startswith("1 of 4 answers are there, about ")
    nobody = Recordings(dataclasses.replace(labelled, patients=("p0",) * 24, fold=np.zeros(24, int)))
    for workers in (1, 2):  # what one of them raises ends it
        with pytest.raises(DataError):
            predictions([Ask(nobody, "knn", asks[0].features, 0.5, 0)], workers, reporter)


def test_trials_elsewhere_are_given_the_key(
    made: tuple[Path, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables of texts may name original identifiers, whoever makes the trial."""
    keys: list[bytes | None] = []

    def make_trial(folder: Path, recipe: str, seed: int, *_: object, key: bytes | None, **__: object) -> Trial:
        keys.append(key)
        return Trial(recipe, seed, failed="not made here")

    def make_trials(jobs: list[parallel.Job], workers: int, reporter: SilentReporter) -> None:
        for job in jobs:
            parallel.work(job, lambda: None)
        raise TrainingError("enough")

    monkeypatch.setattr(parallel, "make_trial", make_trial)
    monkeypatch.setattr(module, "make_trials", make_trials)
    with pytest.raises(TrainingError, match="enough"):
        bench(plan_of(made), tmp_path / "out", ECHO, key=b"k" * 32, workers=2, reporter=SilentReporter())
    assert keys == [b"k" * 32] * 4


def test_it_leaves_a_table_a_picture_and_no_checkpoints(done: tuple[Plan, Path, Outcome]) -> None:
    plan, out, outcome = done
    assert (out / "results.png").read_bytes().startswith(b"\x89PNG")
    table = (out / "results.csv").read_text().splitlines()
    assert len(table) == 1 + len(outcome.rows)
    assert next(csv.reader(table))[:5] == [
        "features", "steps", "device s", "ef, linear: MAE (%)", "ef, linear: against unadapted",
    ]  # fmt: skip
    written = read_json(out / "results.json")
    assert written["verdict"] == outcome.verdict()
    assert any("tested patients" in note for note in written["notes"])
    assert not list((out / "runs").glob("*/checkpoints"))
    assert len(list((out / "runs").glob("*/encoder/model.safetensors"))) == len(plan.trials())


def test_the_same_call_does_nothing_again(done: tuple[Plan, Path, Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, out, outcome = done
    monkeypatch.setattr(module, "make_trial", lambda *_, **__: pytest.fail("made again"))
    monkeypatch.setattr(kept, "extract_all", lambda *_, **__: pytest.fail("read again"))
    again = bench(plan, out, ECHO, reporter=SilentReporter())
    assert again.to_dict() == outcome.to_dict()


def test_it_goes_on_where_it_was_interrupted_and_grows(
    made: tuple[Path, Made], done: tuple[Plan, Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first, _ = done
    out = tmp_path / "bench"
    shutil.copytree(first, out)
    more = plan_of(made, seeds=3, tasks=["ef"], fractions=[1.0])
    made_now: list[tuple[str, int]] = []
    real = module.make_trial

    def once(folder: Path, recipe: str, seed: int, *rest: object, **options: object) -> Trial:
        if made_now:
            raise Interrupted(15, 3, folder)
        made_now.append((recipe, seed))
        return real(folder, recipe, seed, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "make_trial", once)
    with pytest.raises(Interrupted):
        bench(more, out, ECHO, reporter=SilentReporter())
    assert made_now == [(more.recipes[0], 2)]
    monkeypatch.setattr(module, "make_trial", real)
    outcome = bench(more, out, ECHO, reporter=SilentReporter())
    assert [trial.seed for trial in outcome.trials[more.recipes[1]]] == [0, 1, 2]
    assert len(outcome.answers[more.recipes[1], 0].seeds) == 3


def test_a_recipe_that_cannot_run_does_not_end_the_others(made: tuple[Path, Made], tmp_path: Path) -> None:
    wrong = recipe(tmp_path, "wrong", "simclr", temperature=-1)
    plan = plan_of(
        made, recipes=[wrong, recipe(tmp_path, "contrast", "simclr")], seeds=1, tasks=["ef"], fractions=[1.0]
    )
    outcome = bench(plan, tmp_path / "out", ECHO, reporter=SilentReporter())
    assert list(outcome.failed()) == [wrong]
    assert "temperature" in outcome.failed()[wrong]
    assert [Path(name).stem for name in outcome.recipes] == ["contrast"]


def test_labels_that_leave_nothing_to_ask_end_it_before_anything_is_trained(
    made: tuple[Path, Made], tmp_path: Path
) -> None:
    for fraction in (0.01, 0.04):
        with pytest.raises(DataError, match=f"{fraction} of 10 patients is not one patient"):
            bench(plan_of(made, fractions=[fraction, 1.0]), tmp_path / "out", ECHO, reporter=SilentReporter())
    assert not (tmp_path / "out").exists()


def test_another_comparison_is_not_mixed_in(
    made: tuple[Path, Made], done: tuple[Plan, Path, Outcome], tmp_path: Path
) -> None:
    _, out, _ = done
    with pytest.raises(ConfigError, match=r"has budget '0\.2', and this one '5\.0'"):
        bench(plan_of(made, budget=5), out, ECHO, reporter=SilentReporter())
    with pytest.raises(
        ConfigError, match=r"has weights '', and this one '0123456789ab'"
    ):  # vfm-tiny of another version
        bench(plan_of(made, weights="0123456789ab"), out, ECHO, reporter=SilentReporter())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        bench(plan_of(made), tmp_path, ECHO, reporter=SilentReporter())
    with pytest.raises(ConfigError, match="no recipe 'discover'"):
        check_recipes(["discover"])
    with pytest.raises(ConfigError, match="two recipes are called 'simclr'"):
        check_recipes(["simclr", str(tmp_path / "simclr.yaml")])


def test_the_key_reaches_what_reads_texts_and_labels(
    made: tuple[Path, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[object] = []
    whole = trial.pretrain

    def watched(*words: object, **how: object) -> Path:
        keys.append(how.get("key"))
        return whole(*words, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(trial, "pretrain", watched)
    plan = plan_of(made, seeds=1, recipes=[recipe(made[0], "contrast", "simclr")], fractions=[1.0], budget=0.01)
    bench(plan, tmp_path / "bench", ECHO, key=b"k" * 32, reporter=SilentReporter())
    assert keys == [b"k" * 32] * 2  # to measure a step, and to train
