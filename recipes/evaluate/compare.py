"""Several kinds of features, one protocol, one table: who predicts better, and is it more than chance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domains.errors import ConfigError, DataError
from domains.schema import nearest
from domains.store.splits import choose_patients
from recipes.evaluate.knn import knn
from recipes.evaluate.linear import linear
from recipes.evaluate.metrics import Array, metrics_of
from recipes.evaluate.statistics import DRAWS, Difference, Interval, bootstrap, paired, patient_weights

Protocol = Callable[[Array, Array, list[str], Array, int], Array]
TEACHES = -1
PROTOCOLS: dict[str, Protocol] = {"knn": knn, "linear": linear}


@dataclass(frozen=True)
class Labelled:
    """Videos with labels, cut into folds by patient.

    Attributes
        kind: "regression" or "classification".
        truth: (n,) values, or class numbers.
        classes: names; empty for regression.
        patients, studies: (n,) pseudonyms.
        fold: (n,) the fold in which a video is predicted; TEACHES for one that is never predicted (official splits).
    """

    kind: str
    truth: Array
    classes: tuple[str, ...]
    patients: tuple[str, ...]
    studies: tuple[str, ...]
    fold: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.truth)

    def at(self, kept: NDArray[np.bool_]) -> Labelled:
        """Some of the videos."""

        def cut(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(name for name, keep in zip(names, kept, strict=True) if keep)

        patients, studies = cut(self.patients), cut(self.studies)
        return Labelled(self.kind, self.truth[kept], self.classes, patients, studies, self.fold[kept])

    @property
    def tested(self) -> NDArray[np.bool_]:
        """(n,) the videos that are predicted."""
        return self.fold != TEACHES

    @property
    def by_study(self) -> bool:
        """Whether the label belongs to the study: one value for all its videos, and some study with several."""
        return len(set(self.studies)) < len(self) and len(set(zip(self.studies, self.truth, strict=True))) == len(
            set(self.studies)
        )


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Attributes
        name: "pixels", "random", "generic" or "adapted"; title: as a table says it.
        dimension: D of the features.
        prediction: (n,) or (n, C), out of fold, one per video.
        figures: metric -> interval, in the headline unit (study or video).
        per_video: the same figures over videos.
        difference: metric -> paired difference against the reference; None for the reference itself.
    """

    name: str
    title: str
    dimension: int
    prediction: Array
    figures: dict[str, Interval]
    per_video: dict[str, Interval]
    difference: dict[str, Difference] | None


def protocol_of(name: str) -> Protocol:
    """A protocol by name; raises ConfigError with the nearest one."""
    if name not in PROTOCOLS:
        raise ConfigError(f"no protocol '{name}'", do=nearest(name, list(PROTOCOLS)))
    return PROTOCOLS[name]


def check(kind: str, truth: Array, classes: Sequence[str], task: str) -> None:
    """Raises DataError where the labels leave nothing to predict."""
    if kind == "classification" and len(np.unique(truth)) < 2:
        only = classes[int(truth[0])] if len(truth) else "none"
        raise DataError(
            f"all {len(truth)} labelled videos are of one class ('{only}')",
            where=f"task {task}",
            do="Label at least two classes",
        )
    if kind == "regression" and len(np.unique(truth)) < 2:
        raise DataError(
            f"all {len(truth)} labels have the same value",
            where=f"task {task}",
            do="There is nothing to learn from them",
        )


def out_of_fold(
    protocol: Protocol, features: Array, labelled: Labelled, *, fraction: float = 1.0, seed: int = 0
) -> Array:
    """(n,) or (n, C): every video predicted by a model that saw no video of its patient; not a number for those that only teach.

    fraction: share of the patients of each fold's training part whose labels are used, chosen by `seed`. Raises DataError where that is nobody.
    """
    classes = len(labelled.classes) if labelled.kind == "classification" else 0
    prediction = np.full((len(labelled), classes) if classes else len(labelled), np.nan)
    for fold in np.unique(labelled.fold[labelled.tested]):
        held = labelled.fold == fold
        taught = teaching(labelled.patients, held, fraction, seed)
        patients = [who for who, teaches in zip(labelled.patients, taught, strict=True) if teaches]
        prediction[held] = protocol(features[taught], labelled.truth[taught], patients, features[held], classes)
    return prediction


def check_fractions(patients: Sequence[str], fold: NDArray[np.int64], fractions: Iterable[float]) -> None:
    """fold (n,), TEACHES for what is never predicted. Raises DataError where a share of the patients that teach for some fold is nobody."""
    for fraction in fractions:
        for one in np.unique(fold[fold != TEACHES]):
            teaching(patients, fold == one, fraction)


def teaching(
    patients: Sequence[str], held: NDArray[np.bool_], fraction: float = 1.0, seed: int = 0
) -> NDArray[np.bool_]:
    """(n,) what teaches where `held` (n,) is asked: all else, or that of a share of its patients, chosen by `seed`.

    Raises DataError where that is nobody.
    """
    if fraction == 1:
        return ~held
    chosen = choose_patients([who for who, out in zip(patients, held, strict=True) if not out], fraction, seed)
    return ~held & np.array([who in chosen for who in patients])


def per_study(labelled: Labelled, prediction: Array) -> tuple[Array, Array, list[str]]:
    """(truth, prediction, patient) of every study: the mean over its videos; probabilities are averaged as well."""
    _, first, member = np.unique(np.asarray(labelled.studies), return_index=True, return_inverse=True)
    total = np.zeros((len(first), *prediction.shape[1:]))
    np.add.at(total, member, prediction)
    count = np.bincount(member).reshape(-1, *([1] * (prediction.ndim - 1)))
    return labelled.truth[first], total / count, [labelled.patients[i] for i in first]


@dataclass(frozen=True)
class Units:
    """What the headline figures count, studies or videos: their truth and patients."""

    labelled: Labelled
    truth: Array
    patients: Sequence[str]

    @classmethod
    def of(cls, labelled: Labelled) -> Units:
        """Studies where the label belongs to them (`Labelled.by_study`), else videos."""
        if not labelled.by_study:
            return cls(labelled, labelled.truth, labelled.patients)
        truth, _, patients = per_study(labelled, labelled.truth)
        return cls(labelled, truth, patients)

    def predicted(self, prediction: Array) -> Array:
        """Predictions of videos -> of the units."""
        return per_study(self.labelled, prediction)[1] if self.labelled.by_study else prediction


def score(
    labelled: Labelled,
    predictions: Mapping[str, Array],
    reference: str | None,
    *,
    titles: Mapping[str, str],
    dimensions: Mapping[str, int],
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Row]:
    """Figures, intervals and paired differences of predictions for the same videos, one row each, in order."""
    metrics = metrics_of(labelled.kind)
    units = Units.of(labelled)
    truth, weights = units.truth, patient_weights(units.patients, draws, seed)
    video_weights = patient_weights(labelled.patients, draws, seed)
    rows = []
    for name, prediction in predictions.items():
        predicted = units.predicted(prediction)
        against = None
        if reference is not None and name != reference:
            other = units.predicted(predictions[reference])
            against = {m.name: paired(m, truth, predicted, other, weights) for m in metrics}
        rows.append(
            Row(
                name=name,
                title=titles[name],
                dimension=dimensions[name],
                prediction=prediction,
                figures={m.name: bootstrap(m, truth, predicted, weights) for m in metrics},
                per_video={m.name: bootstrap(m, labelled.truth, prediction, video_weights) for m in metrics},
                difference=against,
            )
        )
    return rows


def compare(
    protocol: str,
    features: Mapping[str, Array],
    labelled: Labelled,
    reference: str | None,
    *,
    titles: Mapping[str, str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Row]:
    """One protocol on several kinds of features (name -> (n, D)) of the same labelled videos; the rows are of those that are tested."""
    predict, tested = protocol_of(protocol), labelled.tested
    predictions = {name: out_of_fold(predict, values, labelled)[tested] for name, values in features.items()}
    dimensions = {name: values.shape[1] for name, values in features.items()}
    named = titles or {name: name for name in features}
    return score(
        labelled.at(tested), predictions, reference, titles=named, dimensions=dimensions, draws=draws, seed=seed
    )
