"""What a report is made of, and what is read back from a run's folder for it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domains.store.labels import Labels
from domains.store.manifest import EXCLUDED
from domains.store.prepared import Prepared
from recipes.evaluate.evaluation import Evaluation
from recipes.evaluate.features import Features


@dataclass(frozen=True)
class Contents:
    """Everything that a page tells. All but `prepared` may be left out; the page then lacks that part and says nothing
    of it.

    Attributes
        prepared: the data. title: heading of the page.
        run: a run folder, for the training curves, the settings and the environment.
        evaluations: tables in the order they are shown; the last row of each is the encoder in question.
        features: row name -> features of all videos, for the map and the neighbours; the last is the encoder in
        question.
        titles: row name -> words.
        labels: task -> labels, to colour the map and to caption clips. units: task -> unit.
        phantom: whether the recordings are synthetic, which the page then says at the top.
        notes: caveats that only the caller knows.
        seed: of the choice of clips shown and of the map.
    """

    prepared: Prepared
    title: str
    run: Path | None = None
    evaluations: Sequence[Evaluation] = ()
    features: Mapping[str, Features] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Labels] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    phantom: bool = False
    notes: Sequence[str] = ()
    seed: int = 0


def read_excluded(prepared: Prepared) -> list[dict[str, str]]:
    """The rows of excluded.csv: source (a pseudonym), category, reason."""
    try:
        with (prepared.folder / EXCLUDED).open(encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))
    except OSError:
        return []


def label_of(labels: Labels, index: int, unit: str = "") -> str | None:
    """The label of video `index` in words; None where it has none."""
    places = (labels.index == index).nonzero()[0]
    if not len(places):
        return None
    value = labels.values[places[0]]
    if labels.classes:
        return labels.classes[int(value)]
    return f"{value:.0f} {unit}".strip() if abs(value) >= 10 else f"{value:.2g} {unit}".strip()
