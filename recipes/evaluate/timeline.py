"""What was said of whole procedures, moment by moment, and how good it is: figures per video, intervals over patients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.base import TaskSettings
from recipes.evaluate.evaluation import compared, intervals, said_with
from recipes.evaluate.features import Failure
from recipes.evaluate.metrics import Array, Metric
from recipes.evaluate.phases import (
    CONVENTIONS,
    PHASES,
    Absent,
    Moments,
    figures_of_videos,
    mean_over_videos,
    table_of_videos,
)
from recipes.evaluate.presence import ap_over_all, ap_table, components
from recipes.evaluate.statistics import (
    DRAWS,
    LEVEL,
    Difference,
    Interval,
    bootstrap,
    paired,
    patient_weights,
)


@dataclass(frozen=True)
class Timeline:
    """One procedure. times (T,) s; truth (T,) class numbers or (T, C) of 0 and 1, UNLABELLED where nothing is known; said: row name -> probabilities
    (T, C)."""

    video_id: str
    patient: str
    times: Array
    truth: Moments
    said: Mapping[str, Array]


@dataclass(frozen=True)
class MomentRow:
    """One line of the comparison, as `recipes.evaluate.compare.Row`; figures are means over videos."""

    name: str
    title: str
    figures: dict[str, Interval]
    difference: dict[str, Difference] | None


@dataclass(frozen=True)
class Measured:
    """What is measured of each video: its metrics, the headline first, and row name -> metric -> (V,) or (V, K) of classes."""

    metrics: tuple[Metric, ...]
    values: dict[str, dict[str, Array]]


@dataclass(frozen=True)
class MomentEvaluation:
    """The outcome of a task of moments on procedures that were held out.

    task, settings, classes: what was asked. rows: the last is the model in question; reference: the row that differences are taken against. absent,
    relaxed: see `recipes.evaluate.phases`. rate: moments a second. excluded: videos that could not be read. notes: what a reader must know.
    """

    task: str
    settings: TaskSettings
    classes: tuple[str, ...]
    timelines: tuple[Timeline, ...]
    titles: Mapping[str, str]
    reference: str
    absent: Absent = "dropped"
    relaxed: float = 0.0
    rate: float = 1.0
    seed: int = 0
    draws: int = DRAWS
    folds: int = 1
    split: str = ""
    excluded: tuple[Failure, ...] = ()
    unmatched: int = 0
    notes: tuple[str, ...] = ()

    @cached_property
    def measured(self) -> Measured:
        """Figures of every video."""
        names = list(self.titles)
        if self.settings.kind == "phases":
            return measure_phases(self.timelines, names, len(self.classes), self.absent, self.relaxed)
        return measure_presence(self.timelines, names, self.classes, self.settings)

    @cached_property
    def rows(self) -> tuple[MomentRow, ...]:
        """Figures, intervals and paired differences."""
        measured, count = self.measured, len(self.timelines)
        weights, truth = (
            patient_weights([one.patient for one in self.timelines], self.draws, self.seed),
            np.zeros(count),
        )
        found = []
        for name, title in self.titles.items():
            values, other = measured.values[name], measured.values[self.reference]
            against = {m.name: paired(m, truth, values[m.name], other[m.name], weights) for m in measured.metrics}
            figures = {m.name: bootstrap(m, truth, values[m.name], weights) for m in measured.metrics}
            found.append(MomentRow(name, title, figures, None if name == self.reference else against))
        return tuple(found)

    @property
    def headline(self) -> Metric:
        """The figure that the verdict is about."""
        return self.measured.metrics[0]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells, ready to print."""
        head = ["", *(f"{metric.title} (%)" for metric in self.measured.metrics)]
        return head, [
            [row.title, *(said_with(row.figures[m.name], m) for m in self.measured.metrics)] for row in self.rows
        ]

    def verdict(self) -> str:
        """One sentence: whether the model beats the reference by more than the interval."""
        last, metric = self.rows[-1], self.headline
        assert last.difference is not None  # the model in question is not its own reference
        found, patients = last.difference[metric.name], len({one.patient for one in self.timelines})
        return (
            f"{last.title} {compared(found)} {self.titles[self.reference]}: {self.task} {metric.title} "
            f"{said_with(last.figures[metric.name], metric)}, paired difference {said_with(found, metric, signed=True)} "
            f"({len(self.timelines)} videos, {patients} patients, means of videos, {LEVEL:.0%} intervals)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the predictions, JSON-ready."""
        return {
            "protocol": "finetune",
            "task": self.task,
            "kind": self.settings.kind,
            "unit": "",
            "classes": list(self.classes),
            "videos": len(self.timelines),
            "moments": sum(len(one.times) for one in self.timelines),
            "rate": self.rate,
            "patients": len({one.patient for one in self.timelines}),
            "counted_per": "video",
            "headline": self.headline.name,
            "reference": self.reference,
            "folds": self.folds,
            "split": self.split,
            "seed": self.seed,
            "bootstrap": {"draws": self.draws, "over": "patients", "level": LEVEL},
            "rows": [
                {
                    "name": row.name,
                    "title": row.title,
                    "figures": intervals(row.figures),
                    "difference": None if row.difference is None else intervals(row.difference),
                }
                for row in self.rows
            ],
            **(self._of_phases() if self.settings.kind == "phases" else self._of_presence()),
            "verdict": self.verdict(),
            "excluded": [dataclasses.asdict(failure) for failure in self.excluded],
            "unmatched_label_rows": self.unmatched,
            "notes": list(self.notes),
        }

    def _of_phases(self) -> dict[str, Any]:
        """What is told of phases besides: each phase, each procedure, and what the other conventions would have made of the same predictions."""
        last, count, ones = self.rows[-1].name, len(self.classes), np.ones((1, len(self.timelines)))
        truths, called = [one.truth for one in self.timelines], called_by(self.timelines, last)
        _, parts = table_of_videos(truths, called, count, self.absent)
        each = {
            name: {
                figure: _plain(mean_over_videos(ones, values[:, number], ones)[0]) for figure, values in parts.items()
            }
            for number, name in enumerate(self.classes)
        }
        others = {
            convention: _plain(np.nanmean(table_of_videos(truths, called, count, convention)[0]["macro_f1"]))
            for convention in CONVENTIONS
        }
        return {
            "absent_phases": self.absent, "relaxed_seconds": self.relaxed, "of_each_class": each, "macro_f1_by_convention": others,
            "of_each_video": self._of_each_video(),
        }  # fmt: skip

    def _of_each_video(self) -> dict[str, Any]:
        """Video -> row -> figure: what the means, and any paired comparison with another run, are made of."""
        values = self.measured.values
        return {
            one.video_id: {
                row: {name: _plain(of_videos[place]) for name, of_videos in found.items()}
                for row, found in values.items()
            }
            for place, one in enumerate(self.timelines)
        }

    def _of_presence(self) -> dict[str, Any]:
        """What is told of presence besides: each class, per video and over the moments of all."""
        last, found = self.rows[-1].name, {}
        whole = components(self.classes, self.settings.parts, self.settings.nothing)[-1]
        truths, scores = known_of(self.timelines, last)
        table, pooled = ap_table(truths, scores), ap_over_all(truths, scores)
        ones = np.ones((1, len(self.timelines)))
        for number, name in enumerate(self.classes):
            of_videos = mean_over_videos(ones, table[:, number], ones)[0]
            found[name] = {
                "ap": _plain(of_videos), "ap_over_all": _plain(pooled[number]), "null": bool(whole.null[number]),
            }  # fmt: skip
        over_all = pooled[~whole.null]
        known = over_all[np.isfinite(over_all)]
        return {"of_each_class": found, "map_over_all": _plain(known.mean() if len(known) else math.nan)}


def called_by(timelines: Sequence[Timeline], name: str) -> list[Moments]:
    """(T,) likeliest class numbers of every video."""
    return [one.said[name].argmax(axis=1) for one in timelines]


def known_of(timelines: Sequence[Timeline], name: str) -> tuple[list[NDArray[np.bool_]], list[Array]]:
    """Truth and scores of the moments that are labelled, of every video."""
    known = [(one.truth >= 0).all(axis=1) for one in timelines]
    truths = [one.truth[kept] > 0 for one, kept in zip(timelines, known, strict=True)]
    return truths, [one.said[name][kept] for one, kept in zip(timelines, known, strict=True)]


def measure_phases(
    timelines: Sequence[Timeline], names: Sequence[str], classes: int, absent: Absent, relaxed: float
) -> Measured:
    """Strict figures; where `relaxed` seconds are given, then those as well."""
    truths, times = [one.truth for one in timelines], [one.times for one in timelines]
    loose, values = tuple(_relaxed(metric, relaxed) for metric in PHASES), {}
    for name in names:
        called = called_by(timelines, name)
        values[name] = figures_of_videos(truths, called, times, classes, absent)
        if relaxed:
            forgiven = figures_of_videos(truths, called, times, classes, absent, relaxed)
            values[name] |= {f"relaxed_{figure}": of_videos for figure, of_videos in forgiven.items()}
    return Measured((*PHASES, *(loose if relaxed else ())), values)


def _relaxed(metric: Metric, seconds: float) -> Metric:
    title = f"{metric.title}, relaxed {seconds:g} s"
    return dataclasses.replace(metric, name=f"relaxed_{metric.name}", title=title)


def measure_presence(
    timelines: Sequence[Timeline], names: Sequence[str], classes: Sequence[str], settings: TaskSettings
) -> Measured:
    """Mean average precision; of classes that are made of parts, of the whole first and then of every component, null classes apart."""
    metrics: list[Metric] = []
    values: dict[str, dict[str, Array]] = {name: {} for name in names}
    found = components(classes, settings.parts, settings.nothing)
    for component in [found[-1], *found[:-1]]:
        for word, kept in (("", ~component.null), ("null", component.null)):
            if not kept.any():
                continue
            name = "_".join(part for part in ("map", component.name, word) if part)
            title = " ".join(part for part in ("mAP", component.name, f"({word})" if word else "") if part)
            metrics.append(Metric(name, title, mean_over_videos, higher_is_better=True, percent=True))
            for row in names:
                truths, scores = known_of(timelines, row)
                seen = [component.of(truth.astype(float))[:, kept] > 0 for truth in truths]
                values[row][name] = ap_table(seen, [component.of(score)[:, kept] for score in scores])
    return Measured(tuple(metrics), values)


def headline_of(timelines: Sequence[Timeline], name: str, classes: Sequence[str], settings: TaskSettings, absent: Absent) -> float:  # fmt: skip
    """The headline of one row, without interval; not a number where it has no meaning."""
    if settings.kind == "phases":
        measured = measure_phases(timelines, [name], len(classes), absent, 0.0)
    else:
        measured = measure_presence(timelines, [name], classes, settings)
    ones = np.ones((1, len(timelines)))
    return float(mean_over_videos(ones, measured.values[name][measured.metrics[0].name], ones)[0])


def _plain(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
