"""What an evaluation found: the table, in words, and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.evaluate.compare import Labelled, Row
from recipes.evaluate.features import Failure
from recipes.evaluate.metrics import Metric, metrics_of
from recipes.evaluate.statistics import LEVEL, Difference, Interval


@dataclass(frozen=True)
class Evaluation:
    """The outcome of one protocol on one task.

    Attributes
        protocol: "knn", "linear", or "finetune" (the test set of a fine-tuned model).
        task, unit: name of the task, and the unit of a regression target.
        labelled: truth, patients, studies and folds of the videos that were predicted, in the order of `video_ids`.
        rows: pixel statistics, random, generic, adapted, as far as asked for. The last is the encoder in question.
        reference: name of the row that differences are taken against; None where there is none.
        folds, clips, seed, draws: how it was done. split: the official split, "" for folds of patients.
        excluded: videos that could not be read; they are in no figure.
        unmatched, unlabelled: label rows without a recording, and without a value.
        notes: what a reader must know to read the table rightly.
        recordings: None where an entry of `labelled` is a video. Else an entry is a study, `video_ids` are theirs, and this counts their recordings.
    """

    protocol: str
    task: str
    unit: str
    labelled: Labelled
    video_ids: tuple[str, ...]
    rows: tuple[Row, ...]
    reference: str | None
    folds: int
    clips: int
    seed: int
    draws: int
    excluded: tuple[Failure, ...] = ()
    unmatched: int = 0
    unlabelled: int = 0
    split: str = ""
    notes: tuple[str, ...] = ()
    recordings: int | None = None

    @property
    def of_studies(self) -> bool:
        """Whether an entry is a study, predicted as a whole."""
        return self.recordings is not None

    @property
    def kind(self) -> str:
        """ "regression" or "classification"."""
        return self.labelled.kind

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The figures of the table, the headline first."""
        return metrics_of(self.kind)

    @property
    def headline(self) -> Metric:
        """The figure that the verdict is about."""
        return self.metrics[0]

    @property
    def counted(self) -> str:
        """What the headline figures count: "study" (mean over the predictions for its videos) or "video"."""
        return "study" if self.of_studies or self.labelled.by_study else "video"

    @property
    def patients(self) -> int:
        """Patients with at least one labelled, readable video."""
        return len(set(self.labelled.patients))

    @property
    def beaten_by_pixels(self) -> bool:
        """Whether pixel statistics do better than the last row, by the plain figures."""
        if "pixels" not in {row.name for row in self.rows[:-1]}:
            return False
        name = self.headline.name
        gain = self.row("pixels").figures[name].value - self.rows[-1].figures[name].value
        return gain > 0 if self.headline.higher_is_better else gain < 0

    def row(self, name: str) -> Row:
        """A row by name; raises KeyError."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def number(self, value: float, metric: Metric, *, signed: bool = False) -> str:
        """See `said`."""
        return said(value, metric, signed=signed)

    def interval(self, found: Interval, metric: Metric, *, signed: bool = False) -> str:
        """See `said_with`."""
        return said_with(found, metric, signed=signed)

    def column(self, metric: Metric) -> str:
        """Column heading with its unit."""
        unit = "%" if metric.percent else self.unit if metric.has_unit else ""
        return f"{metric.title} ({unit})" if unit else metric.title

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells, ready to print: each figure with its interval, and the headline's paired difference."""
        head = ["features", *(self.column(metric) for metric in self.metrics)]
        lines = [[row.title, *(self.interval(row.figures[m.name], m) for m in self.metrics)] for row in self.rows]
        if self.reference is not None:
            head.append(f"{self.headline.title} against {self.row(self.reference).title}")
            for line, row in zip(lines, self.rows, strict=True):
                line.append("reference" if row.difference is None else self._difference(row))
        return head, lines

    def _difference(self, row: Row) -> str:
        if row.difference is None:
            return ""
        found = row.difference[self.headline.name]
        word = "better" if found.better else "worse" if found.worse else "no clear difference"
        return f"{self.interval(found, self.headline, signed=True)} {word}"

    def verdict(self) -> str:
        """One sentence: whether the last row beats the reference by more than the interval."""
        last, metric = self.rows[-1], self.headline
        figure = f"{self.task} {metric.title} {self.interval(last.figures[metric.name], metric)}"
        pixels = ""
        if self.beaten_by_pixels:
            pixels = (
                f" Pixel statistics alone reach {self.number(self.row('pixels').figures[metric.name].value, metric)}."
            )
        if last.difference is None or self.reference is None:
            return f"{last.title}: {figure} ({self.size()}).{pixels}"
        found = last.difference[metric.name]
        return (
            f"{last.title} {compared(found)} {self.row(self.reference).title}: {figure}, "
            f"paired difference {self.interval(found, metric, signed=True)} ({self.size()}).{pixels}"
        )

    def size(self) -> str:
        """How much the figures rest on."""
        people = f"{self.patients} patients, counted per {self.counted}, {LEVEL:.0%} intervals"
        if self.of_studies:
            return f"{len(self.video_ids)} studies of {self.recordings} videos, {people}"
        return f"{len(self.video_ids)} videos, {people}"

    def to_dict(self) -> dict[str, Any]:
        """Everything but the predictions, JSON-ready; a figure without meaning is null."""
        rows = [
            {
                "name": row.name,
                "title": row.title,
                "dimension": row.dimension,
                "figures": intervals(row.figures),
                "per_video": intervals(row.per_video),
                "difference": None if row.difference is None else intervals(row.difference),
            }
            for row in self.rows
        ]
        return {
            "protocol": self.protocol,
            "task": self.task,
            "kind": self.kind,
            "unit": self.unit,
            "classes": list(self.labelled.classes),
            "videos": len(self.video_ids) if self.recordings is None else self.recordings,
            "patients": self.patients,
            "studies": len(set(self.labelled.studies)),
            "counted_per": self.counted,
            "headline": self.headline.name,
            "reference": self.reference,
            "folds": self.folds,
            "split": self.split,
            "clips_per_video": self.clips,
            "seed": self.seed,
            "bootstrap": {"draws": self.draws, "over": "patients", "level": LEVEL},
            "rows": rows,
            "verdict": self.verdict(),
            "excluded": [dataclasses.asdict(failure) for failure in self.excluded],
            "unmatched_label_rows": self.unmatched,
            "unlabelled_rows": self.unlabelled,
            "notes": list(self.notes),
        }

    def predictions(self) -> tuple[list[str], list[list[str]]]:
        """One line per video (of studies: per study) and row of the table: encoder, pseudonyms, fold, truth, prediction, and a probability per
        class.
        """
        classes = self.labelled.classes if self.kind == "classification" else ()
        each = [] if self.of_studies else ["video_id"]
        head = ["encoder", *each, "patient", "study", "fold", "truth", "prediction", *(f"p_{c}" for c in classes)]
        lines = []
        for row in self.rows:
            for place, video_id in enumerate(self.video_ids):
                who = (self.labelled.patients[place], self.labelled.studies[place], str(int(self.labelled.fold[place])))
                lines.append([row.name, *([video_id] if each else []), *who, *self._outcome(row, place)])
        return head, lines

    def _outcome(self, row: Row, place: int) -> Sequence[str]:
        truth, found = self.labelled.truth[place], row.prediction[place]
        if self.kind == "regression":
            return [f"{truth:.6g}", f"{found:.6g}"]
        names = self.labelled.classes
        return [names[int(truth)], names[int(np.argmax(found))], *(f"{p:.4f}" for p in found)]


def said(value: float, metric: Metric, *, signed: bool = False) -> str:
    """A figure as a person reads it: percent for shares, two decimals for correlations, the unit's own scale otherwise."""
    if not math.isfinite(value):
        return "n/a"
    value, places = (100 * value, 1) if metric.percent else (value, 2)
    return f"{value:+.{places}f}" if signed else f"{value:.{places}f}"


def said_with(found: Interval, metric: Metric, *, signed: bool = False) -> str:
    """`5.21 [4.80, 5.66]`."""
    value, low, high = (said(v, metric, signed=signed) for v in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def compared(found: Difference) -> str:
    """What a paired difference says, in words that stand between the two names."""
    return "beats" if found.better else "is worse than" if found.worse else "cannot be told apart from"


def intervals(found: Mapping[str, Interval]) -> dict[str, dict[str, Any]]:
    """JSON-ready; what has no meaning is null."""

    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        name: {key: plain(v) for key, v in dataclasses.asdict(interval).items()} for name, interval in found.items()
    }
