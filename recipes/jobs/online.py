"""Online kNN: what a task's labels say of the encoder while it trains. They are looked at and never learned from, and the run's record says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from domains.errors import ConfigError, DataError
from domains.store.annotated import read_split, split_names
from domains.store.labels import Labels
from domains.store.prepared import Prepared
from domains.store.splits import choose_patients, patient_folds
from recipes.config import RunConfig
from recipes.encoders.base import VideoEncoder
from recipes.evaluate.compare import Labelled, check, out_of_fold
from recipes.evaluate.knn import knn
from recipes.evaluate.metrics import Array, metrics_of
from recipes.jobs.evaluate import read_task
from recipes.jobs.seen import Looked
from recipes.training.monitors import FixedClips

FOLDS = 5
FIGURES = {"regression": ("mae", "r2"), "classification": ("accuracy", "balanced_accuracy")}


@dataclass(frozen=True)
class OnlineKnn:
    """Called with an encoder every `monitor.knn.every` steps, on every rank: the figures of a kNN that predicts each patient from the others.

    One middle clip of each recording, features and neighbours as in `vfm evaluate knn`, folds by patient.
    """

    task: str
    unit: str
    labelled: Labelled
    rows: NDArray[np.int64]
    clips: FixedClips

    @classmethod
    def of(cls, config: RunConfig, prepared: Prepared, key: bytes | None) -> OnlineKnn | None:
        """As a run's settings say; None where no labels are to be looked at.

        The test part of an official split is left alone: of data.split, else of the first split that the data set has. Raises ConfigError and
        DataError for labels that cannot be used.
        """
        wanted = config.monitor.knn
        if not wanted.task:
            return None
        settings, labels = read_task(prepared, wanted.labels or None, wanted.task, config.domain, key)
        keep = allowed(prepared, labels, config.data.split)
        keep = fewer(labels, keep, wanted.videos, config.train.seed)
        truth = labels.values[keep].astype(np.float64)
        check(settings.kind, truth, labels.classes, wanted.task)
        patients = tuple(patient for patient, kept in zip(labels.patients, keep, strict=True) if kept)
        if len(set(patients)) < 2:
            what = f"online kNN needs labels of two patients or more, and has those of {len(set(patients))}"
            raise DataError(what, where=prepared.place, do="Label more patients, or leave monitor.knn out")
        rows = labels.index[keep]
        folds = patient_folds(patients, min(FOLDS, len(set(patients))), config.train.seed)
        labelled = Labelled(settings.kind, truth, labels.classes, patients, patients, folds)
        return cls(wanted.task, settings.unit, labelled, rows, FixedClips(prepared, rows.tolist(), config.clip))

    def __call__(self, encoder: VideoEncoder, device: torch.device) -> dict[str, float]:
        """knn_mae and knn_r2, or knn_accuracy and knn_balanced_accuracy."""
        features, read = self.clips.features(encoder.describe, encoder.geometry, device)
        kept = np.isin(self.rows, read)
        labelled = self.labelled.at(kept)
        if len(set(labelled.fold.tolist())) < 2:
            return {}
        if not features.isfinite().all():
            return {f"knn_{name}": float("nan") for name in FIGURES[labelled.kind]}
        return self.figures(labelled, out_of_fold(knn, features.double().numpy(), labelled))

    def figures(self, labelled: Labelled, prediction: Array) -> dict[str, float]:
        """Of predictions for all of `labelled`."""
        every = np.ones((1, len(labelled)))
        return {
            f"knn_{metric.name}": float(metric.of(labelled.truth, prediction, every)[0])
            for metric in metrics_of(labelled.kind)
            if metric.name in FIGURES[labelled.kind]
        }

    def trivial(self) -> dict[str, float]:
        """The figures of an answer that looks at no recording: the others' median, or how often each class occurs among them."""

        def constant(train: Array, truth: Array, patients: list[str], query: Array, classes: int) -> Array:
            if not classes:
                return np.full(len(query), np.median(truth))
            return np.tile(np.bincount(truth.astype(int), minlength=classes) / len(truth), (len(query), 1))

        nothing = np.zeros((len(self.labelled), 1))
        return self.figures(self.labelled, out_of_fold(constant, nothing, self.labelled))

    @property
    def looked(self) -> Looked:
        """Whose labels."""
        return Looked(self.task, frozenset(self.labelled.patients))

    def said(self) -> str:
        """What a run says of it at its start."""
        trivial = ", ".join(f"{name} {value:.3g}" for name, value in self.trivial().items())
        size = f"{len(self.rows)} recordings of {len(set(self.labelled.patients))} patients"
        return f"online kNN looks at labels of {self.task} ({size}), which the record says; a constant answer has {trivial}"


def allowed(prepared: Prepared, labels: Labels, split: str) -> NDArray[np.bool_]:
    """(n,) which labels may be looked at. Raises ConfigError where all are of the test part."""
    name = split or next(iter(split_names(prepared)), "")
    if not name:
        return np.ones(len(labels), bool)
    parts = read_split(prepared, name)
    keep = np.array([parts[row] != "test" for row in labels.index.tolist()], bool)
    if not keep.any():
        what = f"every labelled recording is in the test part of the split '{name}', which a run does not look at"
        raise ConfigError(what, where=prepared.place, do="Leave monitor.knn out, or give labels of other recordings")
    return keep


def fewer(labels: Labels, keep: NDArray[np.bool_], most: int, seed: int) -> NDArray[np.bool_]:
    """About `most` of the kept labels, of whole patients; at least two patients."""
    patients = np.array(labels.patients)
    if keep.sum() <= most:
        return keep
    people = sorted(set(patients[keep].tolist()))
    share = max(most / int(keep.sum()), 2 / len(people))
    chosen = choose_patients(people, min(1.0, share), seed)
    return keep & np.isin(patients, sorted(chosen))
