"""Splits by patient: no patient is ever on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from domains.errors import DataError


def _ranked(patients: Sequence[str], seed: int, use: str) -> list[str]:
    """The different patients in an order that depends on seed and names only, so that adding videos changes nothing."""

    def rank(patient: str) -> bytes:
        return hashlib.blake2b(f"{use}/{seed}/{patient}".encode(), digest_size=16).digest()

    return sorted(set(patients), key=rank)


def patient_folds(patients: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold, in [0, folds), of every row; `patients` names the patient of each. Folds differ by at most one patient.

    Raises DataError where there are fewer patients than folds.
    """
    ranked = _ranked(patients, seed, "fold")
    if len(ranked) < folds:
        raise DataError(f"{len(ranked)} patients cannot be split into {folds} folds", do=_fewer(len(ranked)))
    fold = {patient: number % folds for number, patient in enumerate(ranked)}
    return np.array([fold[patient] for patient in patients], np.int64)


def _fewer(patients: int) -> str:
    if patients < 2:
        return "Label recordings of more patients"
    return f"Use at most {patients} folds, or label recordings of more patients"


def choose_patients(patients: Sequence[str], fraction: float, seed: int) -> set[str]:
    """A share of the different patients. A smaller fraction of the same seed is a subset of a larger one.

    Raises DataError where the share is less than one patient.
    """
    ranked = _ranked(patients, seed, "choose")
    count = int(len(ranked) * fraction + 0.5)
    if count < 1:
        do = "Use a larger fraction" if ranked else "Label some recordings"
        raise DataError(f"{fraction:g} of {len(ranked)} patients is not one patient", do=do)
    return set(ranked[:count])
