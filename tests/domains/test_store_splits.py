import numpy as np
import pytest

from domains.errors import DataError
from domains.store.splits import choose_patients, patient_folds

PATIENTS = [f"p{number}" for number in range(23)]


def test_no_patient_is_in_two_folds_and_folds_are_even():
    rows = [PATIENTS[number % 23] for number in range(200)]
    folds = patient_folds(rows, 5, seed=0)
    assert folds.shape == (200,)
    by_patient = {patient: {int(f) for f, p in zip(folds, rows, strict=True) if p == patient} for patient in PATIENTS}
    assert all(len(found) == 1 for found in by_patient.values())
    sizes = np.bincount([found.pop() for found in by_patient.values()])
    assert sizes.tolist() == [5, 5, 5, 4, 4]


def test_folds_depend_on_the_seed_and_not_on_the_order_of_rows():
    folds = patient_folds(PATIENTS, 5, seed=0)
    assert (patient_folds(PATIENTS[::-1], 5, seed=0) == folds[::-1]).all()
    assert (patient_folds(PATIENTS, 5, seed=1) != folds).any()


def test_more_folds_than_patients_is_an_error_that_says_so():
    with pytest.raises(DataError, match="3 patients cannot be split into 5 folds"):
        patient_folds(["a", "b", "c", "a"], 5, seed=0)


def test_a_smaller_share_is_part_of_a_larger_one():
    small, large = choose_patients(PATIENTS, 0.2, seed=3), choose_patients(PATIENTS * 2, 0.6, seed=3)
    assert len(small) == 5
    assert len(large) == 14
    assert small < large
    assert choose_patients(PATIENTS, 1.0, seed=3) == set(PATIENTS)
    assert choose_patients(PATIENTS, 0.2, seed=4) != small


def test_a_share_of_less_than_one_patient_is_an_error():
    with pytest.raises(DataError, match="is not one patient"):
        choose_patients(PATIENTS[:4], 0.1, seed=0)
