"""The table of a comparison: figures over patients and seeds, and what each recipe gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.bench.trial import Trial
from recipes.evaluate.compare import Labelled, Units, out_of_fold, protocol_of
from recipes.evaluate.metrics import Array, Metric, metrics_of
from recipes.evaluate.seeds import over_seeds, paired_over_seeds, seed_draws
from recipes.evaluate.statistics import DRAWS, Difference, Interval

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


@dataclass(frozen=True)
class Answer:
    """One row's answer.

    Attributes
        figure: mean over seeds, interval over patients and seeds.
        seeds: the figure of each seed.
        difference: against the unadapted encoder with as many labels, None for itself.
        whole: against the unadapted encoder with all labels; None where the probe had all of them.
    """

    figure: Interval
    seeds: tuple[float, ...]
    difference: Difference | None
    whole: Difference | None = None


@dataclass(frozen=True)
class Outcome:
    """All rows and questions.

    Attributes
        rows: name -> title; baselines first, then recipes, best first.
        questions: in the order asked. headline: the figure of each that answers are of.
        answers: (row, question number) -> Answer.
        trials: of every recipe, failed ones too.
        patients, videos: how many each question was answered on.
        notes: what a reader must know.
    """

    rows: dict[str, str]
    questions: tuple[Question, ...]
    headline: tuple[Metric, ...]
    answers: Mapping[tuple[str, int], Answer]
    trials: Mapping[str, tuple[Trial, ...]]
    patients: tuple[int, ...]
    videos: tuple[int, ...]
    notes: tuple[str, ...] = ()

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

    def failed(self) -> dict[str, str]:
        """Recipe -> why it has no row."""
        return {
            name: next(one.failed for one in trials if one.failed)
            for name, trials in self.trials.items()
            if name not in self.rows and trials
        }

    def verdict(self) -> str:
        """One sentence."""
        gained = [name for name in self.recipes if self.gains(name)]
        best = f"; first by rank over all questions: {self.recipes[0]}" if self.recipes else ""
        return (
            f"{len(gained)} of {len(self.recipes)} recipes beat the unadapted encoder on at least one of {len(self.questions)} questions by more "
            f"than the interval{best}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-ready."""
        return {
            "questions": [
                {**asdict(question), "figure": metric.name, "patients": patients, "videos": videos}
                for question, metric, patients, videos in zip(
                    self.questions, self.headline, self.patients, self.videos, strict=True
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
    questions: Sequence[tuple[Question, Labelled]],
    features: Mapping[str, Sequence[Sequence[Array]]],
    titles: Mapping[str, str],
    trials: Mapping[str, tuple[Trial, ...]],
    *,
    notes: tuple[str, ...] = (),
    draws: int = DRAWS,
    seed: int = 0,
) -> Outcome:
    """Ask every row every question.

    features: row -> for each seed, for each question, (n, D) of the labelled videos; baselines have the same ones for every seed. The seeds of a
    row also choose which labels a share of them is, the same for all rows.
    """
    answers: dict[tuple[str, int], Answer] = {}
    headline = [metrics_of(labelled.kind)[0] for _, labelled in questions]
    with_all_labels: dict[tuple[str, str], list[Array]] = {}
    for number, (question, labelled) in enumerate(questions):
        units = Units.of(labelled.at(labelled.tested), draws, seed)
        predicted = {
            name: _predictions(question, labelled, [one[number] for one in each], units)
            for name, each in features.items()
        }
        reference = predicted[REFERENCE]
        if question.fraction == 1:
            with_all_labels[question.task, question.protocol] = reference
        whole = with_all_labels.get((question.task, question.protocol)) if question.fraction < 1 else None
        for name, found in predicted.items():
            asked = _Asked(headline[number], units, found, seed_draws(len(found), draws, seed))
            answers[name, number] = Answer(
                asked.figure(),
                asked.each(),
                None if name == REFERENCE else asked.against(reference),
                None if whole is None else asked.against(whole),
            )
    order = _ranked([name for name in features if name in trials], answers, headline)
    rows = {name: titles[name] for name in [*(name for name in features if name not in trials), *order]}
    tested = [labelled.at(labelled.tested) for _, labelled in questions]
    people, videos = (tuple(len(set(one.patients)) for one in tested), tuple(len(one) for one in tested))
    return Outcome(
        rows, tuple(question for question, _ in questions), tuple(headline), answers, trials, people, videos, notes
    )


@dataclass(frozen=True)
class _Asked:
    """One row's predictions for one question, one for each seed, and the draws that they are judged by."""

    metric: Metric
    units: Units
    found: Sequence[Array]
    taken: NDArray[np.int64]

    def figure(self) -> Interval:
        return over_seeds(self.metric, self.units.truth, self.found, self.units.weights, self.taken)

    def each(self) -> tuple[float, ...]:
        ones = np.ones((1, len(self.units.truth)))
        return tuple(float(self.metric.of(self.units.truth, one, ones)[0]) for one in self.found)

    def against(self, others: Sequence[Array]) -> Difference:
        """Seed by seed; `others` may have more of them than this row, some of whose trials failed."""
        others = others[: len(self.found)]
        return paired_over_seeds(self.metric, self.units.truth, self.found, others, self.units.weights, self.taken)


def _predictions(question: Question, labelled: Labelled, features: Sequence[Array], units: Units) -> list[Array]:
    """Of the units, one for each seed. Where nothing depends on the seed, the probe is fitted once."""
    protocol = protocol_of(question.protocol)
    found: list[Array] = []
    for seed, values in enumerate(features):
        if seed and question.fraction == 1 and values is features[0]:
            found.append(found[0])
            continue
        predicted = out_of_fold(protocol, values, labelled, fraction=question.fraction, seed=seed)
        found.append(units.predicted(predicted[labelled.tested]))
    return found


def _ranked(names: Sequence[str], answers: Mapping[tuple[str, int], Answer], headline: Sequence[Metric]) -> list[str]:
    """Recipes by their mean rank over all questions, best first."""
    total = dict.fromkeys(names, 0)
    for number, metric in enumerate(headline):
        sign = -1 if metric.higher_is_better else 1
        values = {name: sign * answers[name, number].figure.value for name in names}
        for place, name in enumerate(sorted(names, key=values.__getitem__)):
            total[name] += place
    return sorted(names, key=lambda name: (total[name], name))
