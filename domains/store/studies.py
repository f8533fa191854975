"""Studies: all recordings of one examination, and the one label that holds for them together."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domains.errors import DataError
from domains.store.labels import Labels
from domains.store.prepared import Prepared


@dataclass(frozen=True)
class Studies:
    """Labelled studies, in order of their first recording.

    names: (n,) pseudonyms. rows: of each, all its recordings in the prepared folder, in order, labelled one by one or not.
    values: (n,) float64 for regression, int64 class numbers for classification. patients: (n,) pseudonyms.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    values: NDArray[np.float64] | NDArray[np.int64]
    patients: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def rows_by_study(prepared: Prepared) -> dict[str, tuple[int, ...]]:
    """Study pseudonym -> its recordings, in order."""
    found: dict[str, list[int]] = defaultdict(list)
    for row, study in enumerate(prepared.column("study")):
        found[study].append(row)
    return {study: tuple(rows) for study, rows in found.items()}


def label_studies(labels: Labels, prepared: Prepared, task: str) -> Studies:
    """Labels of recordings, studies or patients (`domains.store.labels.read_labels`) -> of studies.

    A study with a label for some of its recordings has it for all. Raises DataError where recordings of one study have different labels: what is
    asked of each recording by itself (a view) is no question about a study.
    """
    members = rows_by_study(prepared)
    study_of = {row: study for study, rows in members.items() for row in rows}
    value_of: dict[str, float] = {}
    for row, value in zip(labels.index.tolist(), labels.values.tolist(), strict=True):
        study = study_of[row]
        if value_of.setdefault(study, value) != value:
            what = f"recordings of study {study} have different labels"
            do = "A label of single recordings is learned without --level study"
            raise DataError(what, where=f"task {task}", do=do)
    names = tuple(study for study in members if study in value_of)
    found = [value_of[study] for study in names]
    values: NDArray[np.float64] | NDArray[np.int64] = (
        np.array(found, np.int64) if labels.classes else np.array(found, np.float64)
    )
    rows = tuple(members[study] for study in names)
    return Studies(names, rows, values, tuple(prepared.patients[own[0]] for own in rows))
