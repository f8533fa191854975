"""What a run over whole studies learns from: studies split by patient, what the encoder says of their recordings, and which view each is of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from domains.base import TaskSettings
from domains.errors import ConfigError, DataError
from domains.store.annotated import task_of
from domains.store.labels import Labels, has_label, read_labels
from domains.store.prepared import Prepared
from domains.store.studies import Studies
from recipes.config import RunConfig
from recipes.encoders import VideoEncoder
from recipes.evaluate.described import Described, describe_recordings
from recipes.evaluate.features import Failure, clip_of
from recipes.evaluate.linear import linear_classifier
from recipes.evaluate.stacked import Even
from recipes.evaluate.studies import TAUGHT, Views
from recipes.finetune.material import split_of
from recipes.finetune.study import StudyObjective
from recipes.jobs.moments import FEATURES, said_by
from recipes.training.reporter import Reporter

Weights = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Material:
    """What a run learns from. train, validation, test: studies whose patients no other part has, without recordings that could not be read.

    mode: what tells views (`task.study.views`, decided). views: as labels tell them; with a probe, as it tells them, once it is fitted.
    """

    prepared: Prepared
    task: TaskSettings
    labels: Labels
    described: Described
    mode: str
    views: Views
    train: Studies
    validation: Studies
    test: Studies
    failed: tuple[Failure, ...]

    @property
    def parts(self) -> dict[str, Studies]:
        """By name."""
        return {"training": self.train, "validation": self.validation, "test": self.test}


def told_views(config: RunConfig, prepared: Prepared, table: Path, key: bytes | None) -> tuple[str, Views]:
    """(what tells views: probe, labels or none, and the views as labels tell them). Raises ConfigError, DataError where they are asked for and not
    there."""
    wanted, name = config.task.study.views, config.task.study.view_task
    if wanted == "none":
        return "none", Views.unknown(prepared)
    try:
        task = task_of(prepared, config.domain, name)
        there = task.kind == "classification" and has_label(table, task)
    except ConfigError:
        if wanted != "auto":
            raise
        there = False
    if not there:
        if wanted == "auto":
            return "none", Views.unknown(prepared)
        what = f"no labels of '{name}', by which the views of clips are told"
        do = "Add that column, name another with task.study.view_task, or task.study.views=none"
        raise DataError(what, where=table, do=do)
    found = read_labels(table, task, prepared, key)
    views = Views.unknown(prepared).of
    views[found.index] = found.values.astype(np.int64)
    return "labels" if wanted == "labels" else "probe", Views(found.classes, views)


def features_of(config: RunConfig, run: Path) -> Path:
    """Where what encoders said of recordings is kept."""
    return Path(config.task.study.features) if config.task.study.features else run.parent / FEATURES


def describe(
    config: RunConfig,
    encoder: VideoEncoder,
    prepared: Prepared,
    task: TaskSettings,
    labels: Labels,
    studies: Studies,
    told: tuple[str, Views],
    run: Path,
    reporter: Reporter,
) -> Material:
    """Split the studies by patient, and have the encoder say its part of every recording. Raises DataError where a part of the split has nothing."""
    split = split_of(config, prepared, [rows[0] for rows in studies.rows], list(studies.patients))
    wanted = np.flatnonzero(split.train | split.validation | split.test)
    rows = sorted(row for number in wanted for row in studies.rows[number])
    described, failed = describe_recordings(
        encoder, prepared, rows, clip_of(encoder.geometry), config.task.clips_per_video, features_of(config, run),
        said_by(reporter, "recordings"),
    )  # fmt: skip
    lost = {prepared.index_of(failure.video_id) for failure in failed}
    for failure in failed:
        reporter.warn(f"video {failure.video_id} could not be read and is left out: {failure.reason}")
    parts = []
    for name, mask in (("training", split.train), ("validation", split.validation), ("test", split.test)):
        part = without(studies, mask, lost)
        if not len(part):
            what = f"no {name} study has a recording that can be read"
            raise DataError(what, where=prepared.place, do="Label more of them, or choose another split")
        parts.append(part)
    mode, views = told
    train, validation, test = parts
    return Material(prepared, task, labels, described, mode, views, train, validation, test, failed)


def without(studies: Studies, mask: NDArray[np.bool_], lost: set[int]) -> Studies:
    """The studies of a mask (n,), without recordings that are lost; one that has no other is none."""
    kept = [
        (number, rows)
        for number in np.flatnonzero(mask).tolist()
        if (rows := tuple(row for row in studies.rows[number] if row not in lost))
    ]
    at = [number for number, _ in kept]
    return Studies(
        tuple(studies.names[number] for number in at),
        tuple(rows for _, rows in kept),
        studies.values[at],
        tuple(studies.patients[number] for number in at),
    )


def left_out(material: Material, failed: tuple[Failure, ...], reporter: Reporter) -> Material:
    """Without test recordings that cannot be read any more. Raises DataError where none is left."""
    if not failed:
        return material
    for failure in failed:
        reporter.warn(f"test video {failure.video_id} cannot be read any more and is left out: {failure.reason}")
    lost = {material.prepared.index_of(failure.video_id) for failure in failed}
    test = without(material.test, np.ones(len(material.test), bool), lost)
    if not len(test):
        raise DataError(
            "no test study can be read any more", where=material.prepared.place, do="Mend it, then --resume"
        )
    return replace(material, test=test, failed=(*material.failed, *failed))


def view_probe(material: Material, rows: list[int], even: Even) -> tuple[Views, Weights | None]:
    """(views that training recordings are of, the probe's weights (V, D) and biases (V,)); no probe where they are of fewer than two."""
    labelled = [row for row in rows if material.views.of[row] >= 0]
    labelled = (
        [labelled[at] for at in np.unique(np.linspace(0, len(labelled) - 1, TAUGHT).round().astype(int))]
        if labelled
        else []
    )
    present = sorted({int(material.views.of[row]) for row in labelled})
    if len(present) < 2:
        return Views.unknown(material.prepared), None
    names = tuple(material.views.names[number] for number in present)
    truth = np.array([present.index(int(material.views.of[row])) for row in labelled])
    features = even(material.described.read(labelled))
    patients = [material.prepared.patients[row] for row in labelled]
    weight, bias, _ = linear_classifier(features, truth, patients, len(names))
    return Views(names, Views.unknown(material.prepared).of), (weight, bias)


def probed(objective: StudyObjective, described: Described, rows: list[int]) -> Views:
    """The likeliest view of each of `rows`, as the head's probe tells it."""
    views = Views.unknown(described.prepared).of
    said = []
    for piece in described.pieces(rows):
        likely = objective.head.view_of(torch.from_numpy(piece), torch.zeros(len(piece), dtype=torch.int64))
        assert likely is not None
        said.append(likely.argmax(dim=1).numpy())
    views[rows] = np.concatenate(said)
    return Views(objective.settings.view_names, views)
