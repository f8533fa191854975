"""The tasks of a comparison: of whole recordings, and of moments of them. Each knows what must be read for it, and asks what could be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from domains.base import ClipSettings, TaskSettings
from domains.errors import ConfigError, DataError
from domains.store.annotated import task_of
from domains.store.labels import read_lines
from domains.store.moments import MomentLabels, read_moments
from domains.store.prepared import Prepared
from recipes.bench.kept import Kept, Place, Wanted
from recipes.bench.outcome import Subject
from recipes.bench.plan import Plan
from recipes.evaluate.compare import Labelled, Units, out_of_fold, protocol_of
from recipes.evaluate.metrics import Array, Metric, metrics_of
from recipes.evaluate.questions import Asking, Unit, check_asking, described, units_of
from recipes.evaluate.scored import Scorer
from recipes.jobs.evaluate import folds_of, labelled_by, read_task
from recipes.jobs.instants import Asked
from recipes.jobs.instants import folds_of as folds_of_moments


class BenchTask(Protocol):
    """A task with its labels in folds.

    unit: of a regression target. rows, places: recordings and clips of moments whose features it needs. notes: what a reader must know.
    """

    @property
    def unit(self) -> str: ...
    @property
    def rows(self) -> list[int]: ...
    @property
    def places(self) -> list[Place]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def folded(self) -> tuple[Sequence[str], NDArray[np.int64]]:
        """The patients and the fold of everything that is labelled, each (n,)."""

    def asked_of(self, kept: Sequence[Kept]) -> tuple[Subject, list[Array]]:
        """What can be asked of all of them, and the features (n, D) of each. Raises DataError where that is nothing."""


@dataclass(frozen=True)
class Recordings:
    """Labelled recordings as the subject of a question. Figures count studies where the label belongs to them, else videos."""

    labelled: Labelled
    counted: ClassVar[str] = "videos"

    @property
    def units(self) -> Sequence[int]:
        """Numbers of the videos that are tested."""
        return np.flatnonzero(self.labelled.tested).tolist()

    @property
    def headline(self) -> Metric:
        """See `recipes.bench.outcome.Subject`."""
        return metrics_of(self.labelled.kind)[0]

    @property
    def tested_patients(self) -> Sequence[str]:
        """See `recipes.bench.outcome.Subject`."""
        return self._tested.patients

    def predict(self, protocol: str, features: Array, *, fraction: float = 1.0, seed: int = 0) -> Array:
        """See `recipes.evaluate.compare.out_of_fold`."""
        return out_of_fold(protocol_of(protocol), features, self.labelled, fraction=fraction, seed=seed)

    def scorer(self, prediction: Array) -> Scorer:
        """Of predictions for all videos."""
        counted = self._tested
        truth, said = counted.truth, counted.predicted(prediction[self.labelled.tested])
        return lambda metric, weights: metric.of(truth, said, weights)

    @property
    def _tested(self) -> Units:
        return Units.of(self.labelled.at(self.labelled.tested))


@dataclass(frozen=True)
class RecordingTask:
    """A task of whole recordings; index (n,): the manifest rows of `labelled`."""

    labelled: Labelled
    index: NDArray[np.int64]
    unit: str
    place: str
    places: ClassVar[list[Place]] = []
    notes: ClassVar[tuple[str, ...]] = ()

    @property
    def rows(self) -> list[int]:
        """See BenchTask."""
        return self.index.tolist()

    @property
    def folded(self) -> tuple[Sequence[str], NDArray[np.int64]]:
        """See BenchTask."""
        return self.labelled.patients, self.labelled.fold

    def asked_of(self, kept: Sequence[Kept]) -> tuple[Subject, list[Array]]:
        """See BenchTask."""
        features = [one.recordings for one in kept if one.recordings is not None]
        readable = set.intersection(*(set(one.index.tolist()) for one in features))
        there = np.array([row in readable for row in self.rows], bool)
        if not there.any():
            raise DataError("none of the labelled videos could be read", where=self.place)
        return Recordings(self.labelled.at(there)), [one.at(self.index[there]) for one in features]


@dataclass(frozen=True)
class MomentTask:
    """A task of moments: asked: its questions, each a clip of the comparison's geometry."""

    prepared: Prepared
    labels: MomentLabels
    fold_of: Mapping[int, int]
    asked: Asked
    notes: tuple[str, ...]
    unit: ClassVar[str] = ""
    rows: ClassVar[list[int]] = []

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        labels: MomentLabels,
        fold_of: Mapping[int, int],
        clip: ClipSettings,
        asking: Asking,
        task: str,
    ) -> MomentTask:
        """Raises DataError where nothing can be asked."""
        units, passed = units_of(prepared, labels, clip, asking, fold_of)
        asked = Asked.of(prepared, labels, units, fold_of, asking)
        said = (*described(asking, labels.task, clip), *passed)
        return cls(prepared, labels, fold_of, asked, tuple(f"{task}: {one}" for one in said))

    @property
    def places(self) -> list[Place]:
        """See BenchTask."""
        return [_place(unit) for unit in self.asked.every]

    @property
    def folded(self) -> tuple[Sequence[str], NDArray[np.int64]]:
        """See BenchTask."""
        return self.asked.patients, self.asked.fold

    def asked_of(self, kept: Sequence[Kept]) -> tuple[Subject, list[Array]]:
        """See BenchTask."""
        lost = {place for one in kept for place, features in one.moments.items() if features is None}
        units = [unit for unit in self.asked.every if _place(unit) not in lost]
        if not units:
            raise DataError("none of the labelled moments could be read", where=self.prepared.place)
        asked = Asked.of(self.prepared, self.labels, units, self.fold_of, self.asked.asking)
        return asked, [np.array([one.moments[_place(unit)] for unit in units], np.float64) for one in kept]


def read_tasks(prepared: Prepared, plan: Plan, clip: ClipSettings, key: bytes | None) -> dict[str, BenchTask]:
    """All tasks of a comparison with their labels. clip: of the moments. Raises ConfigError, DataError."""
    settings = {task: task_of(prepared, plan.domain, task) for task in plan.tasks}
    if plan.every is not None and all(one.kind != "presence" for one in settings.values()):
        what = "--every is of tasks of what is there at each moment, and none is asked"
        raise ConfigError(what, do="Leave --every out")
    found: dict[str, BenchTask] = {}
    for task, one in settings.items():
        labels = table_for(plan.labels, one, settings.values())
        if one.of_moments:
            asking = Asking(every=plan.every if one.kind == "presence" else None)
            check_asking(asking, one, task)
            spans = read_moments(prepared, one, labels, key)
            fold_of = folds_of_moments(prepared, spans.rows, plan.folds, 0, plan.split)
            found[task] = MomentTask.of(prepared, spans, fold_of, clip, asking, task)
            continue
        _, known = read_task(prepared, labels, task, plan.domain, key)
        folds = folds_of(prepared, known, plan.folds, 0, plan.split)
        labelled, index = labelled_by(known, one.kind, prepared, known.index.tolist(), folds, task)
        found[task] = RecordingTask(labelled, index, one.unit, plan.data)
    return found


def table_for(labels: str | None, task: TaskSettings, tasks: Iterable[TaskSettings]) -> str | None:
    """The table that a task's labels are read from; None: those that came with the data set.

    Where tasks of recordings and of moments are asked together, a table is of the kind that its columns say: start and end are those of spans.
    """
    if labels is None or len({one.of_moments for one in tasks}) == 1:
        return labels
    columns = {name.lower() for name in read_lines(Path(labels))[0]}
    return labels if ({"start", "end"} <= columns) == task.of_moments else None


def wanted_of(tasks: Iterable[BenchTask], clips: int, clip: ClipSettings) -> Wanted:
    """What all tasks need, each once."""
    tasks = list(tasks)
    rows = sorted({row for task in tasks for row in task.rows})
    return Wanted(np.array(rows, np.int64), clips, tuple(sorted({p for task in tasks for p in task.places})), clip)


def _place(unit: Unit) -> Place:
    return unit.row, float(unit.starts[0])
