"""What a fine-tuning run learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domains.base import TaskSettings
from domains.errors import ConfigError
from domains.store.annotated import labels_of, read_split, task_of
from domains.store.labels import Labels, read_labels
from domains.store.prepared import Prepared
from recipes.config import RunConfig
from recipes.finetune.split import Split, official_split, split_patients

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Material:
    """What a run learns from: the store, the task, its labels, and who teaches, validates and tests."""

    prepared: Prepared
    task: TaskSettings
    labels: Labels
    split: Split

    def rows(self, part: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Manifest rows of one part of the split."""
        return self.labels.index[part]

    def truth(self, part: NDArray[np.bool_]) -> Array:
        """Labels of one part."""
        return self.labels.values[part].astype(np.float64)

    def patients(self, part: NDArray[np.bool_]) -> list[str]:
        """Patients of one part, one entry a video."""
        return [patient for patient, kept in zip(self.labels.patients, part, strict=True) if kept]


def task_of_run(config: RunConfig) -> TaskSettings:
    """The task that a run is about. Raises ConfigError for a missing or unknown one."""
    if not config.task.name:
        do = "Fine-tuning needs a task and its labels: --task ef --labels labels.csv"
        raise ConfigError("'task.name' is not set", do=do)
    return task_of(Prepared.open(config.data.path), config.domain, config.task.name)


def read_material(config: RunConfig, key: bytes | None) -> Material:
    """Raises ConfigError for a missing or unknown task or split, DataError for labels that cannot be used."""
    task, prepared = task_of_run(config), Prepared.open(config.data.path)
    labels = read_labels(labels_of(prepared, config.task.labels), task, prepared, key)
    split = split_of(config, prepared, labels.index.tolist(), labels.patients)
    return Material(prepared, task, labels, split)


def split_of(config: RunConfig, prepared: Prepared, rows: list[int], patients: list[str]) -> Split:
    """The official split that is asked for, else folds of patients. Raises ConfigError, DataError."""
    wanted, seed = config.task, config.train.seed
    if wanted.split:
        official = read_split(prepared, wanted.split)
        parts = [official[row] for row in rows]
        return official_split(patients, parts, wanted.folds, wanted.label_fraction, seed)
    return split_patients(patients, wanted.folds, wanted.fold, wanted.label_fraction, seed)
