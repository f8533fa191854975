"""Adaptation between domains: the labelled folder beside the one that a run adapts to, and the classifier that it leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from domains.errors import ConfigError, DataError
from domains.store.annotated import labels_of, read_split, task_of
from domains.store.labels import Labels, read_labels
from domains.store.prepared import Prepared
from recipes.config import Resolved, RunConfig
from recipes.encoders.base import VideoEncoder
from recipes.finetune.task import TaskHeadSettings, TaskObjective
from recipes.objective import LABEL, Objective
from recipes.training.data import ClipData, PairedData

# Its order of samples is another one than the target's: of two folders of one size, each would meet the same of the other in every epoch.
OTHER_SEED = 1_000_003


@dataclass(frozen=True)
class Source:
    """The labelled folder: the recordings that are learned from, their labels, and of which task they are."""

    prepared: Prepared
    labels: Labels
    task: str

    @classmethod
    def of(cls, config: RunConfig, kind: type[Objective], key: bytes | None) -> Source | None:
        """As `data.source` has it; None for a method that learns from one folder. key: where the labels name original identifiers.

        Raises ConfigError where settings and method do not go together, DataError where the labels cannot be learned from.
        """
        wanted = config.data.source
        if not kind.labelled:
            if wanted.path or wanted.task or wanted.labels or wanted.split:
                what = f"'data.source' is for methods that adapt between domains, and '{kind.name}' is none"
                raise ConfigError(what, do="Leave it out, or use --recipe comix")
            return None
        missing = next((name for name in ("path", "task") if not getattr(wanted, name)), None)
        if missing is not None:
            do = "Name a labelled folder and what its labels say: data.source.path=./labelled data.source.task=view data.source.labels=labels.csv"
            raise ConfigError(
                f"'{kind.name}' learns from labels of another domain, and 'data.source.{missing}' is not set", do=do
            )
        prepared = Prepared.open(wanted.path)
        task = task_of(prepared, prepared.domain, wanted.task)
        if task.kind != "classification":
            what = f"'{kind.name}' learns classes, and {wanted.task} is a number"
            raise ConfigError(what, where="data.source.task", do="Choose a task with classes, e.g. view")
        labels = read_labels(labels_of(prepared, wanted.labels), task, prepared, key)
        labels = of_split(labels, prepared, wanted.split)
        if len(np.unique(labels.values)) < 2:
            what = f"the {len(labels)} labelled recordings all have the same {wanted.task}"
            raise DataError(what, where=prepared.place, do="Label recordings of other classes too")
        return cls(prepared, labels, wanted.task)

    def filled_in(self, resolved: Resolved) -> Resolved:
        """`resolved` with the classes of the labels, which the head and a later `--resume` need. Raises ConfigError where others were named."""
        found, said = list(self.labels.classes), list(resolved.config.objective.get("classes") or [])
        if said and said != found:
            what = f"'objective.classes' is {', '.join(said)}, and the labels have {', '.join(found)}"
            raise ConfigError(what, where=self.prepared.place, do="Leave it out: it follows from the labels")
        objective = {**resolved.config.objective, "classes": found}
        return Resolved(resolved.config.model_copy(update={"objective": objective}), resolved.origins)

    def beside(self, own: ClipData, objective: Objective, config: RunConfig) -> ClipData:
        """The stream of both folders: a recording of each in every sample."""
        source = ClipData(
            self.prepared, self.rows, objective.labelled, config.clip, config.augment, seed=config.train.seed + OTHER_SEED,
            clips_per_video=config.data.clips_per_video, targets={LABEL: self.labels.values},
        )  # fmt: skip
        return PairedData(own, source)

    @property
    def rows(self) -> Sequence[int]:
        """Of its manifest, that are learned from."""
        rows: list[int] = self.labels.index.tolist()
        return rows

    def said(self) -> str:
        """What a run says of it at its start."""
        whom = f"{len(self.labels)} recordings of {len(set(self.labels.patients))} patients"
        return f"labels of {self.task} ({', '.join(self.labels.classes)}) of {whom} in {self.prepared.place} are learned from"


def of_split(labels: Labels, prepared: Prepared, split: str) -> Labels:
    """Only those of the training part of an official split; all where none is named. Raises ConfigError, DataError."""
    if not split:
        return labels
    parts = read_split(prepared, split)
    keep = np.array([parts[row] == "train" for row in labels.index.tolist()], bool)
    if not keep.any():
        what = f"no labelled recording is in the training part of the split '{split}'"
        raise DataError(what, where=prepared.place, do="Leave data.source.split out")
    patients = [patient for patient, kept in zip(labels.patients, keep, strict=True) if kept]
    values = labels.values[keep]
    return Labels(
        labels.index[keep], values, labels.classes, patients, labels.unmatched, labels.unlabelled, labels.joined_on
    )


def as_task(encoder: VideoEncoder, head: nn.Linear, task: str, classes: Sequence[str]) -> TaskObjective:
    """A classifier of `encoder.describe` in the form that `finetune.head` keeps, and `load_model` opens."""
    settings = TaskHeadSettings(task=task, kind="classification", classes=tuple(classes))
    objective = TaskObjective(encoder, settings)
    objective.head.load_state_dict(head.state_dict())
    return objective
