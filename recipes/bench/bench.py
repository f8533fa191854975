"""`vfm bench`: every recipe with the same encoder, budget and evaluation, over several seeds. Killed at any point, the same call goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from domains.base import ClipSettings, Domain
from domains.errors import ConfigError
from domains.schema import parse
from domains.store.prepared import Prepared
from recipes.bench.kept import Kept, Opened, Wanted, keep
from recipes.bench.outcome import REFERENCE, Outcome, Question, Subject, answer
from recipes.bench.page import write_outcome
from recipes.bench.parallel import Job, make_trials, threads_of
from recipes.bench.plan import Plan, open_plan
from recipes.bench.tasks import BenchTask, read_tasks, wanted_of
from recipes.bench.trial import Trial, keep_features, make_trial, read_trial
from recipes.config import Layer, parse_assignments, recipe_yaml, yaml_layer
from recipes.encoders import open_encoder
from recipes.evaluate.baselines import random_like
from recipes.evaluate.compare import check_fractions, protocol_of
from recipes.evaluate.features import clip_of, embedding
from recipes.evaluate.metrics import Array
from recipes.evaluate.pixels import pixel_features
from recipes.jobs.seen import who
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
    clip = clip_settings(plan, domain)
    tasks = read_tasks(prepared, plan, clip, key)
    wanted = wanted_of(tasks.values(), plan.clips, clip)
    for protocol in plan.protocols:
        protocol_of(protocol)
    for known in tasks.values():
        check_fractions(*known.folded, plan.fractions)
    open_plan(out, plan, overwrite=overwrite)
    with ThreadPoolExecutor(1) as aside:  # what trials are compared with is computed beside trials that are elsewhere
        baselines = aside.submit(_baselines, plan, prepared, wanted, out, online=online)
        if workers > 1:
            threads = threads_of(workers)
            jobs = [
                Job(out, recipe, seed, layers[recipe], plan.budget, plan.data, wanted, threads, key, online)
                for recipe, seed in plan.trials()
                if read_trial(out, recipe, seed) is None
            ]
            make_trials(jobs, workers, reporter)
        features = baselines.result()
    trials: dict[str, list[Trial]] = {recipe: [] for recipe in plan.recipes}
    learned: dict[str, list[Kept]] = {}
    for number, (recipe, seed) in enumerate(plan.trials(), start=1):
        trial = read_trial(out, recipe, seed, failed=workers > 1)
        if trial is None:
            reporter.note(f"trial {number} of {len(plan.trials())}: {recipe}, seed {seed}")
            trial = make_trial(
                out, recipe, seed, layers[recipe], plan.budget, key=key, online=online, reporter=reporter
            )
        trials[recipe].append(trial)
        if not trial.failed:
            learned.setdefault(recipe, []).append(keep_features(out, trial, prepared, wanted))
    outcome = _ask(plan, tasks, features, learned, trials, who(prepared), workers, reporter)
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


def _baselines(plan: Plan, prepared: Prepared, wanted: Wanted, out: Path, *, online: bool) -> dict[str, Kept]:
    """Pixel statistics, random weights, and the unadapted encoder; computed once."""

    @contextmanager
    def opened() -> Iterator[Opened]:
        clip = wanted.clip
        unadapted = open_encoder(plan.encoder, frames=clip.frames, size=clip.size, online=online)
        unadapted.set_geometry(unadapted.geometry.model_copy(update={"rate": clip.rate, "stride": clip.stride}))
        with embedding(random_like(unadapted)) as random, embedding(unadapted) as generic:
            yield {PIXELS: pixel_features, RANDOM: random, REFERENCE: generic}, clip_of(unadapted.geometry)

    return keep(out / "features", (PIXELS, RANDOM, REFERENCE), opened, prepared, wanted)


def _ask(
    plan: Plan,
    tasks: dict[str, BenchTask],
    baselines: dict[str, Kept],
    learned: dict[str, list[Kept]],
    trials: dict[str, list[Trial]],
    people: str,
    workers: int,
    reporter: Reporter,
) -> Outcome:
    """All questions of those recordings and moments that could be read for every row."""
    rows = list(baselines.items())
    rows += [(recipe, one) for recipe, each in learned.items() for one in each]
    questions: list[tuple[Question, Subject]] = []
    values: list[list[Array]] = [[] for _ in rows]  # of each row, for each question
    for task, known in tasks.items():
        subject, features = known.asked_of([one for _, one in rows])
        for protocol in plan.protocols:
            for fraction in sorted(plan.fractions, reverse=True):
                questions.append((Question(task, protocol, fraction, known.unit), subject))
                for found, one in zip(values, features, strict=True):
                    found.append(one)
    features_of: dict[str, list[list[Array]]] = {}
    for (name, _), found in zip(rows, values, strict=True):
        features_of.setdefault(name, []).extend([found] * (plan.seeds if name in baselines else 1))
    titles = {PIXELS: "pixel statistics", RANDOM: "random weights", REFERENCE: f"unadapted ({Path(plan.encoder).name})"}
    titles |= {recipe: Path(recipe).stem for recipe in learned}
    notes = (*notes_of(plan, people), *(note for known in tasks.values() for note in known.notes))
    made = {recipe: tuple(each) for recipe, each in trials.items()}
    return answer(questions, features_of, titles, made, notes=notes, people=people, workers=workers, reporter=reporter)


def notes_of(plan: Plan, people: str) -> tuple[str, ...]:
    """What a reader must know."""
    seeds = "one seed: nothing is known of how much another would differ" if plan.seeds == 1 else f"{plan.seeds} seeds"
    met = (
        f"recipes learned from the training part of the split '{plan.split}' alone"
        if plan.split
        else f"recipes learned from all recordings, without labels; those of the tested {people} are among them"
    )
    return (f"{plan.budget:g} s of {plan.device} a trial, {seeds}", met)


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
