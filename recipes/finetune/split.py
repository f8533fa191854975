"""Which patients teach, which choose the best epoch, and which are asked only at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domains.errors import ConfigError, DataError
from domains.store.splits import choose_patients, patient_folds


@dataclass(frozen=True)
class Split:
    """(n,) masks over labelled videos; no patient is in two of them.

    train: videos of the chosen share of the training patients. validation, test: all videos of their patients.
    unused: training patients beyond the chosen share, and videos of no part of an official split.
    """

    train: NDArray[np.bool_]
    validation: NDArray[np.bool_]
    test: NDArray[np.bool_]
    unused: NDArray[np.bool_]


def split_patients(patients: Sequence[str], folds: int, fold: int, fraction: float, seed: int) -> Split:
    """Fold `fold` is the test, the next one the validation; of the others' patients, `fraction` are used.

    Test and validation do not depend on `fraction`, and a smaller fraction is a subset of a larger one: label-
    efficiency curves compare like with like. Raises ConfigError for impossible folds, DataError for too few patients.
    """
    if folds < 3:
        what = f"'task.folds' is {folds}: training, validation and test need one each"
        raise ConfigError(what, do="Use 3 or more")
    if fold >= folds:
        raise ConfigError(f"'task.fold' is {fold} of {folds} folds, counted from 0", do=f"Use 0 to {folds - 1}")
    place = patient_folds(patients, folds, seed)
    test, validation = place == fold, place == (fold + 1) % folds
    rest = ~(test | validation)
    chosen = choose_patients([p for p, kept in zip(patients, rest, strict=True) if kept], fraction, seed)
    train = rest & np.array([patient in chosen for patient in patients], bool)
    return Split(train, validation, test, rest & ~train)


def official_split(patients: Sequence[str], parts: Sequence[str], folds: int, fraction: float, seed: int) -> Split:
    """The split of a public data set; `parts` says train, val, test or "" of each video.

    Where it has no validation part, one of `folds` folds of the training patients validates. Raises DataError where
    nobody is left to teach or to test.
    """
    place = np.array(parts)
    test, rest, validation = place == "test", place == "train", place == "val"
    for name, part in (("test", test), ("train", rest)):
        if not part.any():
            raise DataError(f"no labelled recording is in the part '{name}' of the split", do="Use another task.split")

    def people(mask: NDArray[np.bool_]) -> list[str]:
        return [patient for patient, kept in zip(patients, mask, strict=True) if kept]

    if not validation.any():
        validation[np.flatnonzero(rest)[patient_folds(people(rest), folds, seed) == 0]] = True
        rest &= ~validation
    chosen = choose_patients(people(rest), fraction, seed)
    train = rest & np.array([patient in chosen for patient in patients], bool)
    return Split(train, validation, test, ~(train | validation | test))
