"""How right drafted statements are: each study's draft against the statements of its own report, next to what is trivial.

A statement is right if the own report makes one of the same shape, whatever its numbers are. Its numbers are held if each lies in the range that was
drafted; a range says little if it is wide, so its width is given beside: as a share of the range that all reports have.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence

import numpy as np

from recipes.evaluate.findings import Report, Shape, Span, shared_findings, spans_of
from recipes.evaluate.metrics import Array, Metric
from recipes.evaluate.scored import Scorer

Drafted = Mapping[Shape, tuple[Span, ...]]  # the statements of one draft, and the range of each of their numbers
USUAL = 0.5  # a statement of fewer reports than this share is unusual
# What is counted of each study.
COUNTS = ("drafted", "own", "right", "unusual_drafted", "unusual_own", "unusual_right", "numbered", "held", "width")


def _share(below: Array, above: Array, weights: Array) -> Array:
    """Sum of `above` over sum of `below`, both (n,), under weights (R, n) -> (R,); NaN where there is nothing below."""
    total = weights @ below
    return np.divide(weights @ above, total, out=np.full(len(total), np.nan), where=total > 0)


def _figure(name: str, title: str, *, higher: bool = True) -> Metric:
    return Metric(name, title, _share, higher_is_better=higher, percent=True)


METRICS = (
    _figure("f1", "F1"),
    _figure("precision", "precision"),
    _figure("recall", "recall"),
    _figure("unusual_f1", "F1, unusual"),
    _figure("held", "numbers held"),
    _figure("width", "width of ranges", higher=False),
)


def scorer_of(counts: Mapping[str, Array]) -> Scorer:
    """The figures of METRICS, each over all statements together, from counts (n,) by name of COUNTS.

    precision = right / drafted    recall = right / own    F1 = 2 right / (drafted + own)    unusual: F1 of those statements alone
    numbers held = held / numbered    width = width / numbered
    """
    parts = {
        "f1": (counts["drafted"] + counts["own"], 2 * counts["right"]),
        "precision": (counts["drafted"], counts["right"]),
        "recall": (counts["own"], counts["right"]),
        "unusual_f1": (counts["unusual_drafted"] + counts["unusual_own"], 2 * counts["unusual_right"]),
        "held": (counts["numbered"], counts["held"]),
        "width": (counts["numbered"], counts["width"]),
    }
    return lambda metric, weights: metric.of(*parts[metric.name], weights)


class Tally:
    """Counts drafts of studies against their own reports (n).

    reports: of every study that is asked; what is unusual, and how wide numbers range, is told from them all.
    """

    def __init__(self, reports: Sequence[Report]) -> None:
        self.reports = reports
        made = defaultdict(list)
        for report in reports:
            for shape, one in report.said.items():
                made[shape].append(one)
        self.made_by = {shape: len(said) for shape, said in made.items()}
        self.unusual = {shape for shape, count in self.made_by.items() if count < USUAL * len(reports)}
        self._whole = {shape: spans_of(said) for shape, said in made.items()}

    def of(self, drafts: Sequence[Drafted], among: Container[Shape] | None = None) -> dict[str, Array]:
        """COUNTS -> (n,). among: these statements alone are counted; None: all.

        numbered: right statements that have a number. width: of each of them the mean over its numbers, summed.
        """
        found = {name: np.zeros(len(drafts)) for name in COUNTS}
        for place, (draft, report) in enumerate(zip(drafts, self.reports, strict=True)):
            for shape in {**draft, **report.said}:
                if among is not None and shape not in among:
                    continue
                drafted, own = shape in draft, shape in report.said
                for name, counted in (("drafted", drafted), ("own", own), ("right", drafted and own)):
                    found[name][place] += counted
                    found[f"unusual_{name}"][place] += counted and shape in self.unusual
                if drafted and own and draft[shape]:
                    found["numbered"][place] += 1
                    found["held"][place] += self.holds(draft[shape], report, shape)
                    found["width"][place] += self.width(draft[shape], shape)
        return found

    def by_statement(self, drafts: Sequence[Drafted]) -> dict[Shape, tuple[int, int, int, int]]:
        """Of each statement of a report: in how many reports it is, in how many drafts, rightly in how many, with ranges that hold in how many."""
        drafted, right, held = Counter[Shape](), Counter[Shape](), Counter[Shape]()
        for draft, report in zip(drafts, self.reports, strict=True):
            drafted.update(list(draft))
            both = [shape for shape in draft if shape in report.said]
            right.update(both)
            held.update(shape for shape in both if self.holds(draft[shape], report, shape))
        return {shape: (count, drafted[shape], right[shape], held[shape]) for shape, count in self.made_by.items()}

    def holds(self, spans: Sequence[Span], report: Report, shape: Shape) -> bool:
        """Whether each number of a report's statement lies in its range."""
        return all(low <= number <= high for (low, high), number in zip(spans, report.said[shape].numbers, strict=True))

    def width(self, spans: Sequence[Span], shape: Shape) -> float:
        """Of ranges, as a share of the range that all reports have; 0 where they all have the same number."""
        return float(
            np.mean([
                (high - low) / (most - least) if most > least else 0.0
                for (low, high), (least, most) in zip(spans, self._whole[shape], strict=True)
            ])
        )  # fmt: skip


class Commonest:
    """What reports of most patients say, with the range of its numbers: a draft that looks at no recording.

    patients: of each statement, whose reports make it.
    """

    def __init__(self, reports: Sequence[Report], patients: Sequence[str], least: int) -> None:
        made: dict[Shape, list[tuple[str, tuple[float, ...]]]] = defaultdict(list)
        for report, patient in zip(reports, patients, strict=True):
            for shape, one in report.said.items():
                made[shape].append((patient, one.numbers))
        self.least = least
        self.patients = {shape: {whose for whose, _ in said} for shape, said in made.items()}
        # Of each statement, whose each report is that makes it (m,), and with what numbers (m, numbers of the statement).
        self._made = {
            shape: (np.array([whose for whose, _ in said]), np.array([numbers for _, numbers in said]))
            for shape, said in made.items()
        }

    def says(self, shape: Shape, patient: str = "") -> bool:
        """Whether `least` patients or more make the statement, this one left out."""
        return len(self.patients[shape] - {patient}) >= self.least

    def of(self, patient: str, count: int) -> Drafted:
        """The `count` statements that most other patients' reports make, of those that `least` make; of equals the first by name."""
        said = [shape for shape in self.patients if self.says(shape, patient)]
        found = {}
        for shape in sorted(said, key=lambda shape: (-len(self.patients[shape] - {patient}), shape))[:count]:
            whose, numbers = self._made[shape]
            others = numbers[whose != patient]
            found[shape] = tuple(zip(others.min(axis=0).tolist(), others.max(axis=0).tolist(), strict=True))
        return found


def by_chance(
    reports: Sequence[Report], patients: Sequence[str], count: int, least: int, random: np.random.Generator
) -> list[Drafted]:
    """The drafts (n) from `count` studies of other patients, each study as likely."""
    whose = np.array(patients)
    found: list[Drafted] = []
    for patient in patients:
        others = np.flatnonzero(whose != patient)
        drawn = random.choice(others, min(count, len(others)), replace=False).tolist()
        said, _ = shared_findings([reports[at] for at in drawn], [patients[at] for at in drawn], least)
        found.append({one.shape: one.spans for one in said})
    return found
