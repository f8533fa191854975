"""`vfm evaluate findings`: how right the findings are that `vfm report` would draft, against the studies' own reports."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Container, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from domains.errors import ConfigError, MediaError, StorageError
from domains.schema import nearest
from domains.store.studies import rows_by_study
from recipes.evaluate.collection import Collection
from recipes.evaluate.drafted import COUNTS, METRICS, USUAL, Commonest, Drafted, Tally, by_chance, scorer_of
from recipes.evaluate.evaluation import intervals, said_with
from recipes.evaluate.features import Failure, ReadProgress, describing
from recipes.evaluate.findings import Shape
from recipes.evaluate.knn import unit
from recipes.evaluate.metrics import Array
from recipes.evaluate.scored import Line, Scored, lines_of, write_scored
from recipes.evaluate.statistics import DRAWS, LEVEL
from recipes.evaluate.towers import vectors_at
from recipes.jobs.findings import Clips, Evidence, asked_in
from recipes.jobs.seen import meetings, who
from recipes.jobs.start import Start, start_of

CHANCES = 20  # draws of random studies
BASELINES = ("commonest", "random", "generic")
DRAFTS = "drafts"
# Rows: name -> title, and one set of drafts of the studies, or several whose counts are averaged.
Made = dict[str, tuple[str, Sequence[Sequence[Drafted]]]]
STATEMENTS = "statements.csv"


def evaluate_findings(
    index: Path,
    texts: Sequence[str | Path] = (),
    *,
    count: int = 5,
    least: int = 2,
    baselines: tuple[str, ...] = BASELINES,
    seed: int = 0,
    draws: int = DRAWS,
    collection_data: str | Path | None = None,
    model: str | Path | None = None,
    key: bytes | None = None,
    out: Path | None = None,
    online: bool = False,
    progress: ReadProgress | None = None,
) -> Scored:
    """Draft every study of an embedded collection that has a report from studies of other patients, and compare with its own report.

    texts, count, least, collection_data, model, key: as for `recipes.jobs.findings.draft_reports`. baselines: commonest, what most other patients'
    reports say, as many statements as the draft has; random, as many other studies, CHANCES times; generic, drafts by the encoder that the
    collection's run started from. Differences are against the first of these. out: predictions.csv (counts of each study), evaluation.json,
    figures.png, and statements.csv are written there. progress(clips done, of all) of the generic encoder.

    Raises ConfigError, DataError (no reports, too few patients, another folder), ModelError, StorageError.
    """
    if odd := [name for name in baselines if name not in BASELINES]:
        raise ConfigError(f"no baseline '{odd[0]}'", do=nearest(odd[0], list(BASELINES)))
    evidence = Evidence.open(index, texts, collection_data, key)
    collection, prepared = evidence.collection, evidence.prepared
    named = model or collection.about.model
    studies, notes = list(evidence.reports), list[str]()
    reports, patients = list(evidence.reports.values()), [evidence.patient_of[study] for study in studies]
    drafts, common = drafts_of(evidence, count, least), Commonest(reports, patients, least)
    made: Made = {}
    if "commonest" in baselines:
        said = [common.of(patient, len(draft)) for patient, draft in zip(patients, drafts, strict=True)]
        made["commonest"] = ("what most other reports say, as many statements", [said])
    if "random" in baselines:
        each = [np.random.default_rng([seed, draw]) for draw in range(CHANCES)]
        chances = [by_chance(reports, patients, count, least, random) for random in each]
        made["random"] = (f"random studies ({CHANCES} draws)", chances)
    if "generic" in baselines and (start := start_of(named)) is not None:
        other = embedded_by(start, evidence, named, online, progress)
        made["generic"] = (start.row, [drafts_of(replace(evidence, collection=other), count, least)])
    elif "generic" in baselines:
        notes.append(f"{Path(named).name} is no run: there is no encoder that it started from to compare with")
    made[DRAFTS] = (f"drafts ({Path(named).name})", [drafts])
    compared = Compared(Tally(reports), made, patients, draws, seed)
    against = compared.against()
    personal, written = sum(one.personal for one in reports), sum(len(one.said) for one in reports)
    reached = sum(common.says(shape, whose) for one, whose in zip(reports, patients, strict=True) for shape in one.said)
    people = who(prepared)
    scored = Scored(
        protocol="findings",
        task="statements",
        metrics=METRICS,
        lines=compared.lines(),
        asked=(DRAFTS,),
        how=(
            f"of each study, what its {count} most similar studies of other {people} say alike ({least} {people} or more), against its own report",
            "a statement is right if the own report makes it, numbers apart; figures are over all statements of all studies",
            f"unusual: statements that fewer than {USUAL:.0%} of the {len(reports)} reports make",
            "numbers held: right statements whose ranges hold the own report's numbers; width: of those ranges, as a share of all reports' range",
        ),
        size=f"{len(studies)} studies, {len(set(patients))} {people}, {LEVEL:.0%} intervals over {people}",
        settings={
            "studies": len(studies), "patients": len(set(patients)), "count": count, "least": least, "seed": seed, "chances": CHANCES,
            "statements": written, "statements_within_reach": reached, "may_name_somebody": personal,
            "against": {name: intervals(line.difference or {}) for name, line in against.items()},
            "bootstrap": {"draws": draws, "over": "patients", "level": LEVEL},
        },
        predictions=compared.predictions(studies),
        excluded=tuple(Failure(video, why) for video, why in collection.about.left_out.items()),
        notes=(
            *notes,
            *map(_paired, against.values()),
            f"{reached} of {written} statements of own reports are also made by {least} or more other {people}: no draft can have the rest",
            *((f"{personal} statements that may name somebody are not counted",) if personal else ()),
            *meetings(named, prepared, patients),
        ),
        drawn=("f1", "unusual_f1", "held", "width"),
        filed={"sections": compared.sections(common)},
    )  # fmt: skip
    if out is not None:
        write_scored(scored, out)
        _write_statements(out / STATEMENTS, compared, common)
    return scored


def drafts_of(evidence: Evidence, count: int, least: int) -> list[Drafted]:
    """What is drafted of each study that has a report, in their order."""
    members = rows_by_study(evidence.prepared)
    found: list[Drafted] = []
    for study, patient in evidence.patient_of.items():
        asked = asked_in(evidence.collection, evidence.prepared, members[study])
        draft = evidence.draft(study, patient, asked, count, least)
        found.append({one.shape: one.spans for one in draft.findings})
    return found


def embedded_by(
    start: Start, evidence: Evidence, model: str | Path, online: bool, progress: ReadProgress | None
) -> Collection:
    """The same clips of the collection as the encoder that its run started from describes them. Raises ModelError, MediaError."""
    collection, prepared = evidence.collection, evidence.prepared
    with ExitStack() as stack:
        geometry = Clips(collection, prepared, model, online, stack).model.encoder.geometry
    places = [(prepared.index_of(video), collection.stretches(video)[0]) for video in evidence.study_of]
    vectors: dict[str, Array] = {}
    with describing(start.open(geometry, online=online)) as describe:
        answers = vectors_at(lambda clips: unit(describe(clips)), prepared, places, collection.about.clip, progress)
        for video, answer in zip(evidence.study_of, answers, strict=True):
            if isinstance(answer, MediaError):
                raise answer
            vectors[video] = answer
    return collection.of_others(vectors)


@dataclass(frozen=True)
class Compared:
    """Rows of drafts of the same studies, whose patients are `patients` (n,)."""

    tally: Tally
    made: Made
    patients: Sequence[str]
    draws: int
    seed: int

    def lines(self, among: Container[Shape] | None = None, names: Sequence[str] = ()) -> tuple[Line, ...]:
        """The rows, or those of `names`, with differences against the first. among: of these statements alone."""
        scorers = {name: (self.made[name][0], scorer_of(self.counts(name, among))) for name in names or self.made}
        return lines_of(scorers, METRICS, self.patients, next(iter(scorers)), draws=self.draws, seed=self.seed)

    def counts(self, name: str, among: Container[Shape] | None = None) -> dict[str, Array]:
        """See `Tally.of`."""
        each = [self.tally.of(drafts, among) for drafts in self.made[name][1]]
        return {one: np.mean([counts[one] for counts in each], axis=0) for one in COUNTS}

    def against(self) -> dict[str, Line]:
        """By baseline, the row of the drafts with its paired differences against that baseline."""
        return {name: self.lines(names=(name, DRAFTS))[-1] for name in self.made if name != DRAFTS}

    def sections(self, common: Commonest) -> list[dict[str, Any]]:
        """Figures by section, JSON-ready. A heading that too few patients' reports have for it to be repeated is null, all of them together."""
        headed: dict[str, set[str]] = defaultdict(set)
        for (heading, _), whose in common.patients.items():
            headed[heading] |= whose
        named: dict[str | None, set[Shape]] = defaultdict(set)
        for shape in common.patients:
            named[shape[0] if len(headed[shape[0]]) >= common.least else None].add(shape)
        return [
            {
                "section": heading,
                "rows": [{"name": line.name, "figures": intervals(line.figures)} for line in self.lines(shapes)],
            }
            for heading, shapes in named.items()
        ]

    def predictions(self, studies: Sequence[str]) -> tuple[list[str], list[list[str]]]:
        """A line for each study and row: counts without a word, of random studies their mean."""
        found = []
        for name in self.made:
            counts = self.counts(name)
            found += [
                [name, study, patient, *(f"{counts[one][place]:g}" for one in COUNTS)]
                for place, (study, patient) in enumerate(zip(studies, self.patients, strict=True))
            ]
        return ["row", "study", "patient", *COUNTS], found


def _paired(line: Line) -> str:
    """Of the drafts against one baseline."""
    differences = line.difference or {}
    said = [f"{m.title} {said_with(differences[m.name], m, signed=True)}" for m in METRICS]
    return f"paired differences of {line.title} against {line.against}: {', '.join(said)}"


def _write_statements(path: Path, compared: Compared, common: Commonest) -> None:
    """A line a statement that enough patients' reports make for it to be repeated: in how many reports it is, in how many drafts, in both, and where
    its numbers are held. Raises StorageError."""
    (drafts,) = compared.made[DRAFTS][1]
    lines = [
        [*shape, reports, drafted, right, held if "#" in shape[1] else ""]
        for shape, (reports, drafted, right, held) in sorted(compared.tally.by_statement(drafts).items())
        if common.says(shape)
    ]
    try:
        with path.open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([["section", "statement", "reports", "drafts", "right", "held"], *lines])
    except OSError as error:
        raise StorageError(f"{error.strerror}", where=path, do="Run it again once there is room") from None
