"""`vfm bench`: every recipe with the same encoder, budget and evaluation, over several seeds. Killed at any point, the same call goes on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domains.base import ClipSettings, Domain
from domains.errors import ConfigError, DataError
from domains.schema import parse
from domains.store.prepared import Prepared
from recipes.bench.outcome import REFERENCE, Outcome, Question, answer
from recipes.bench.page import write_outcome
from recipes.bench.parallel import Job, make_trials, threads_of
from recipes.bench.plan import Plan, open_plan
from recipes.bench.trial import Trial, keep_features, load_features, make_trial, read_trial, save_features
from recipes.config import Layer, parse_assignments, recipe_yaml, yaml_layer
from recipes.encoders import open_encoder
from recipes.evaluate.baselines import random_like
from recipes.evaluate.compare import Labelled, protocol_of
from recipes.evaluate.features import Extractor, Features, clip_of, embedding, extract_all
from recipes.evaluate.pixels import pixel_features
from recipes.jobs.evaluate import folds_of, labelled_by, read_task
from recipes.training.reporter import Reporter

PIXELS, RANDOM = "pixels", "random"


def bench(
    plan: Plan,
    out: Path,
    domain: Domain,
    *,
    key: bytes | None = None,
    overwrite: bool = False,
    online: bool = False,
    workers: int = 1,
    reporter: Reporter,
) -> Outcome:
    """Make every trial of `plan` that is not there yet, `workers` at a time, ask all questions, and leave table and picture in `out`.

    A recipe that cannot run is in the outcome with its reason, and is tried again by the next call. Raises ConfigError (labels, tasks, a folder that
    holds another comparison) before anything is trained; Interrupted and StorageError, after which the same call goes on.
    """
    prepared = Prepared.open(plan.data)
    layers = {recipe: layers_of(plan, recipe, domain) for recipe in plan.recipes}
    labelled = {task: _read(prepared, plan, task, key) for task in plan.tasks}
    wanted = np.unique(np.concatenate([index for _, index, _ in labelled.values()]))
    for protocol in plan.protocols:
        protocol_of(protocol)
    open_plan(out, plan, overwrite=overwrite)
    with ThreadPoolExecutor(1) as aside:  # what trials are compared with is computed beside trials that are elsewhere
        baselines = aside.submit(_baselines, plan, prepared, wanted, out, domain, online=online)
        if workers > 1:
            threads = threads_of(workers)
            jobs = [
                Job(out, recipe, seed, layers[recipe], plan.budget, plan.data, wanted, plan.clips, threads, key, online)
                for recipe, seed in plan.trials()
                if read_trial(out, recipe, seed) is None
            ]
            make_trials(jobs, workers, reporter)
        features = baselines.result()
    trials: dict[str, list[Trial]] = {recipe: [] for recipe in plan.recipes}
    for number, (recipe, seed) in enumerate(plan.trials(), start=1):
        trial = read_trial(out, recipe, seed, failed=workers > 1)
        if trial is None:
            reporter.note(f"trial {number} of {len(plan.trials())}: {recipe}, seed {seed}")
            trial = make_trial(
                out, recipe, seed, layers[recipe], plan.budget, key=key, online=online, reporter=reporter
            )
        trials[recipe].append(trial)
        if not trial.failed:
            keep_features(out, trial, prepared, wanted, plan.clips)
    found = {recipe: [t for t in each if not t.failed] for recipe, each in trials.items()}
    learned = {
        recipe: [keep_features(out, t, prepared, wanted, plan.clips) for t in each]
        for recipe, each in found.items()
        if each
    }
    outcome = _ask(plan, labelled, features, learned, trials)
    write_outcome(outcome, out)
    return outcome


def layers_of(plan: Plan, recipe: str, domain: Domain) -> list[Layer]:
    """The settings of a recipe's trials, but for steps and seed. Raises ConfigError."""
    common = {"data": {"path": plan.data, "split": plan.split}, "encoder": {"name": plan.encoder}}
    return [
        yaml_layer(recipe_yaml(recipe), f"recipe {recipe}"),
        Layer(f"domain {domain.name}", {"domain": plan.domain, **domain.run_layer()}),
        Layer("vfm bench", common),
        Layer("command line", parse_assignments(plan.settings)),
    ]


def clip_settings(plan: Plan, domain: Domain) -> ClipSettings:
    """The clips of every trial that does not decide on others, and so of what stands beside them."""
    layers = [Layer("", domain.run_layer()), Layer("command line", parse_assignments(plan.settings))]
    values = {key: value for layer in layers for key, value in layer.values.get("clip", {}).items()}
    return parse(ClipSettings, values, "clip")


def _read(prepared: Prepared, plan: Plan, task: str, key: bytes | None) -> tuple[Labelled, NDArray[np.int64], str]:
    """A task's labels in folds, their manifest rows, and the unit of the task."""
    settings, found = read_task(prepared, plan.labels, task, plan.domain, key)
    fold_of = folds_of(prepared, found, plan.folds, 0, plan.split)
    labelled, index = labelled_by(found, settings.kind, prepared, found.index.tolist(), fold_of, task)
    return labelled, index, settings.unit


def _baselines(
    plan: Plan, prepared: Prepared, wanted: NDArray[np.int64], out: Path, domain: Domain, *, online: bool
) -> dict[str, Features]:
    """Pixel statistics, random weights, and the unadapted encoder; computed once."""
    files = {name: out / "features" / f"{name}.safetensors" for name in (PIXELS, RANDOM, REFERENCE)}
    known = {name: load_features(path, wanted) for name, path in files.items()}
    if any(one is None for one in known.values()):
        clip = clip_settings(plan, domain)
        unadapted = open_encoder(plan.encoder, frames=clip.frames, size=clip.size, online=online)
        unadapted.set_geometry(unadapted.geometry.model_copy(update={"rate": clip.rate, "stride": clip.stride}))
        with embedding(random_like(unadapted)) as random, embedding(unadapted) as generic:
            extractors: dict[str, Extractor] = {PIXELS: pixel_features, RANDOM: random, REFERENCE: generic}
            known |= extract_all(extractors, prepared, wanted, clip_of(unadapted.geometry), plan.clips)
        for name, path in files.items():
            save_features(path, _there(known[name]))
    return {name: _there(one) for name, one in known.items()}


def _ask(
    plan: Plan,
    labelled: dict[str, tuple[Labelled, NDArray[np.int64], str]],
    baselines: dict[str, Features],
    learned: dict[str, list[Features]],
    trials: dict[str, list[Trial]],
) -> Outcome:
    """All questions of those videos that could be read for every row."""
    readable = set.intersection(
        *(set(one.index.tolist()) for one in [*baselines.values(), *(f for each in learned.values() for f in each)])
    )
    questions: list[tuple[Question, Labelled]] = []
    rows: list[NDArray[np.int64]] = []
    for task, (known, index, unit) in labelled.items():
        kept = np.array([row in readable for row in index.tolist()], bool)
        if not kept.any():
            raise DataError("none of the labelled videos could be read", where=plan.data)
        for protocol in plan.protocols:
            for fraction in sorted(plan.fractions, reverse=True):
                questions.append((Question(task, protocol, fraction, unit), known.at(kept)))
                rows.append(index[kept])
    values = {name: _for_each(one, rows) for name, one in baselines.items()}
    features = {name: [each] * plan.seeds for name, each in values.items()}
    features |= {recipe: [_for_each(one, rows) for one in each] for recipe, each in learned.items()}
    titles = {PIXELS: "pixel statistics", RANDOM: "random weights", REFERENCE: f"unadapted ({Path(plan.encoder).name})"}
    titles |= {recipe: Path(recipe).stem for recipe in learned}
    return answer(
        questions, features, titles, {recipe: tuple(each) for recipe, each in trials.items()}, notes=notes_of(plan)
    )


def notes_of(plan: Plan) -> tuple[str, ...]:
    """What a reader must know."""
    seeds = "one seed: nothing is known of how much another would differ" if plan.seeds == 1 else f"{plan.seeds} seeds"
    met = (
        f"recipes learned from the training part of the split '{plan.split}' alone"
        if plan.split
        else "recipes learned from all recordings, without labels; those of the tested patients are among them"
    )
    return (f"{plan.budget:g} s of {plan.device} a trial, {seeds}", met)


def _for_each(features: Features, rows: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float64]]:
    """The features of each question's videos."""
    return [features.at(index) for index in rows]


def _there(features: Features | None) -> Features:
    assert features is not None
    return features


def check_recipes(names: Sequence[str]) -> list[str]:
    """Recipes by name or YAML, each once. Raises ConfigError for one that there is not, and for two of one name."""
    stems: dict[str, str] = {}
    for name in names:
        recipe_yaml(name)
        stem = Path(name).stem
        if stem in stems:
            raise ConfigError(f"two recipes are called '{stem}'", do="Name each once")
        stems[stem] = name
    return list(stems.values())
