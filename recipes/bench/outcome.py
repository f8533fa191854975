"""The table of a comparison: figures over patients and seeds, and what each recipe gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from recipes.bench.asking import Ask, predictions
from recipes.bench.trial import Trial
from recipes.evaluate.metrics import Array, Metric
from recipes.evaluate.scored import Scorer
from recipes.evaluate.seeds import Drawn, seed_draws
from recipes.evaluate.statistics import DRAWS, Difference, Interval
from recipes.training.reporter import Reporter, SilentReporter

REFERENCE = "generic"


@dataclass(frozen=True)
class Question:
    """What is asked of the features: a task by a protocol, the probe learning from a share of the labels."""

    task: str
    protocol: str
    fraction: float
    unit: str

    @property
    def title(self) -> str:
        """As a heading."""
        share = "" if self.fraction == 1 else f", {self.fraction:.0%} of the labels"
        return f"{self.task}, {self.protocol}{share}"


class Subject(Protocol):
    """What a question is about: labelled recordings (`recipes.bench.tasks.Recordings`) or moments of them (`recipes.jobs.instants.Asked`)."""

    @property
    def counted(self) -> str:
        """What `units` are: "videos", "moments"."""

    @property
    def units(self) -> Sequence[object]:
        """What is tested."""

    @property
    def headline(self) -> Metric:
        """The figure that answers are of."""

    @property
    def tested_patients(self) -> Sequence[str]:
        """(u,) of what the headline counts, in the order of a scorer's weights."""

    def predict(self, protocol: str, features: Array, *, fraction: float, seed: int) -> Array:
        """Out of fold, from features (n, D); the probe learns from the labels of a share of the teaching patients, chosen by `seed`."""

    def scorer(self, prediction: Array) -> Scorer:
        """Of what `predict` said."""


@dataclass(frozen=True)
class Answer:
    """One row's answer.

    Attributes
        figure: mean over seeds, interval over patients and seeds.
        seeds: the figure of each seed.
        difference: against the unadapted encoder with as many labels, None for itself.
        whole: against the unadapted encoder with all labels; None where the probe had all of them.
        first: of a recipe, against the recipe that is first by rank, of as many seeds as both have; None for that recipe itself and for baselines.
    """

    figure: Interval
    seeds: tuple[float, ...]
    difference: Difference | None
    whole: Difference | None = None
    first: Difference | None = None


@dataclass(frozen=True)
class Outcome:
    """All rows and questions.

    Attributes
        rows: name -> title; baselines first, then recipes, best first.
        questions: in the order asked. headline: the figure of each that answers are of.
        answers: (row, question number) -> Answer.
        trials: of every recipe, failed ones too.
        patients, units: how many each question was answered on; units are (number, "videos" or "moments").
        people: what a patient is called here.
        notes: what a reader must know.
    """

    rows: dict[str, str]
    questions: tuple[Question, ...]
    headline: tuple[Metric, ...]
    answers: Mapping[tuple[str, int], Answer]
    trials: Mapping[str, tuple[Trial, ...]]
    patients: tuple[int, ...]
    units: tuple[tuple[int, str], ...]
    notes: tuple[str, ...] = ()
    people: str = "patients"

    @property
    def recipes(self) -> list[str]:
        """Those with an answer, best first."""
        return [name for name in self.rows if name in self.trials]

    def gains(self, recipe: str) -> list[Question]:
        """Questions that a recipe answers better than the unadapted encoder, by more than the interval."""
        return [
            question
            for number, question in enumerate(self.questions)
            if (found := self.answers[recipe, number].difference) is not None and found.better
        ]

    def rivals(self) -> list[str]:
        """Recipes that answer no question worse than the first by more than the interval."""
        return [
            name
            for name in self.recipes[1:]
            if not any(
                (found := self.answers[name, number].first) is not None and found.worse
                for number in range(len(self.questions))
            )
        ]

    def failed(self) -> dict[str, str]:
        """Recipe -> why it has no row."""
        return {
            name: next(one.failed for one in trials if one.failed)
            for name, trials in self.trials.items()
            if name not in self.rows and trials
        }

    def verdict(self) -> str:
        """What was gained, and which recipe to take."""
        gained = [name for name in self.recipes if self.gains(name)]
        said = (
            f"{len(gained)} of {len(self.recipes)} recipes beat the unadapted encoder on at least one of {len(self.questions)} questions by more "
            f"than the interval"
        )
        if not self.recipes:
            return said
        said += f"; first by rank over all questions: {self.rows[self.recipes[0]]}"
        if len(self.recipes) == 1:
            return said
        rivals = ", ".join(self.rows[name] for name in self.rivals())
        return f"{said}; worse than it on no question by more than the interval: {rivals or 'none'}"

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-ready."""
        return {
            "questions": [
                {**asdict(question), "figure": metric.name, "patients": patients, counted: units}
                for question, metric, patients, (units, counted) in zip(
                    self.questions, self.headline, self.patients, self.units, strict=True
                )
            ],
            "rows": [
                {
                    "name": name,
                    "title": title,
                    "trials": [asdict(one) for one in self.trials.get(name, ())],
                    "answers": [asdict(self.answers[name, number]) for number in range(len(self.questions))],
                }
                for name, title in self.rows.items()
            ],
            "failed": self.failed(),
            "notes": list(self.notes),
            "verdict": self.verdict(),
        }


def answer(
    questions: Sequence[tuple[Question, Subject]],
    features: Mapping[str, Sequence[Sequence[Array]]],
    titles: Mapping[str, str],
    trials: Mapping[str, tuple[Trial, ...]],
    *,
    notes: tuple[str, ...] = (),
    people: str = "patients",
    draws: int = DRAWS,
    seed: int = 0,
    workers: int = 1,
    reporter: Reporter | None = None,
) -> Outcome:
    """Ask every row every question, `workers` probes at a time.

    features: row -> for each seed, for each question, (n, D) of its subject; baselines have the same ones for every seed. The seeds of a row also
    choose which labels a share of them is, the same for all rows.
    """
    scorers = _scorers(questions, features, workers, reporter or SilentReporter())
    headline = [subject.headline for _, subject in questions]
    drawn = [
        {
            name: Drawn.of(
                headline[number],
                [scorers[name, number, place] for place in range(len(each))],
                subject.tested_patients,
                draws,
                seed,
            )
            for name, each in features.items()
        }
        for number, (_, subject) in enumerate(questions)
    ]
    order = _ranked([name for name in features if name in trials], drawn, headline)
    whole_of = {
        (question.task, question.protocol): found[REFERENCE]
        for (question, _), found in zip(questions, drawn, strict=True)
        if question.fraction == 1
    }

    def against(found: Drawn, other: Drawn | None) -> Difference | None:
        if other is None or other is found:
            return None
        return found.against(other, seed_draws(min(len(found.each), len(other.each)), draws, seed))

    answers: dict[tuple[str, int], Answer] = {}
    for number, (question, _) in enumerate(questions):
        whole = whole_of.get((question.task, question.protocol)) if question.fraction < 1 else None
        for name, found in drawn[number].items():
            answers[name, number] = Answer(
                found.over_seeds(seed_draws(len(found.each), draws, seed)),
                found.each,
                difference=against(found, drawn[number][REFERENCE]),
                whole=against(found, whole),
                first=against(found, drawn[number][order[0]]) if name in trials else None,
            )
    return Outcome(
        rows={name: titles[name] for name in [*(name for name in features if name not in trials), *order]},
        questions=tuple(question for question, _ in questions),
        headline=tuple(headline),
        answers=answers,
        trials=trials,
        patients=tuple(len(set(subject.tested_patients)) for _, subject in questions),
        units=tuple((len(subject.units), subject.counted) for _, subject in questions),
        notes=notes,
        people=people,
    )


def _scorers(
    questions: Sequence[tuple[Question, Subject]],
    features: Mapping[str, Sequence[Sequence[Array]]],
    workers: int,
    reporter: Reporter,
) -> dict[tuple[str, int, int], Scorer]:
    """(row, question number, seed) -> the scorer of its answer. Where nothing depends on the seed, the probe is fitted once."""
    asks: list[Ask] = []
    asked_at: dict[tuple[str, int, int], int] = {}
    for number, (question, subject) in enumerate(questions):
        for name, each in features.items():
            for seed, of_seed in enumerate(each):
                if seed and question.fraction == 1 and of_seed[number] is each[0][number]:
                    asked_at[name, number, seed] = asked_at[name, number, 0]
                    continue
                asked_at[name, number, seed] = len(asks)
                asks.append(Ask(subject, question.protocol, of_seed[number], question.fraction, seed))
    said = predictions(asks, workers, reporter)
    scorers = [ask.subject.scorer(one) for ask, one in zip(asks, said, strict=True)]
    return {which: scorers[place] for which, place in asked_at.items()}


def _ranked(names: Sequence[str], drawn: Sequence[Mapping[str, Drawn]], headline: Sequence[Metric]) -> list[str]:
    """Recipes by their mean rank over all questions, best first. drawn: of each question, row -> its figure."""
    total = dict.fromkeys(names, 0)
    for of_question, metric in zip(drawn, headline, strict=True):
        sign = -1 if metric.higher_is_better else 1
        values = {name: sign * float(np.mean(of_question[name].each)) for name in names}
        for place, name in enumerate(sorted(names, key=values.__getitem__)):
            total[name] += place
    return sorted(names, key=lambda name: (total[name], name))
