"""`vfm report`: what the reports of the most similar studies say alike, with the clips that make them similar. For research; no diagnosis."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from domains.errors import ConfigError, DataError, MediaError, ModelError, StorageError
from domains.store.clips import frame_indices, starts_every
from domains.store.frames import Frames
from domains.store.prepared import Prepared
from domains.store.studies import rows_by_study
from domains.store.text_tables import read_texts
from domains.store.texts import Texts
from recipes.evaluate.collection import Collection
from recipes.evaluate.features import ReadProgress
from recipes.evaluate.findings import Finding, Report, shared_findings
from recipes.evaluate.similar import Asked, Neighbour, nearest_studies
from recipes.evaluate.towers import vectors_at
from recipes.jobs.search import Model, searching
from recipes.report.findings import DRAFT, draft_page
from recipes.report.page import write_page


@dataclass(frozen=True)
class Draft:
    """What is drafted of a study. withheld: statements that are not repeated, by reason. recordings: of the study, that could be read."""

    study: str
    recordings: int
    findings: tuple[Finding, ...]
    neighbours: tuple[Neighbour, ...]
    withheld: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the evidence."""
        return {
            "what": DRAFT,
            "study": self.study,
            "recordings": self.recordings,
            "findings": [
                {"section": one.section, "words": one.words, "said_by": len(one.reports), "of": len(self.neighbours), "neighbours": one.reports}
                for one in self.findings
            ],
            "neighbours": [
                {
                    "study": one.study,
                    "similarity": round(one.similarity, 4),
                    "clips": [
                        {
                            "video_id": pair.video_id, "frame": pair.frame, "like_video_id": pair.hit.video_id, "like_frame": pair.hit.frame,
                            "similarity": round(pair.hit.similarity, 4),
                        }
                        for pair in one.pairs
                    ],
                }
                for one in self.neighbours
            ],
            "withheld": dict(self.withheld),
        }  # fmt: skip


def draft_reports(
    index: Path,
    texts: Sequence[str | Path],
    out: Path,
    *,
    data: str | Path | None = None,
    studies: Sequence[str] = (),
    count: int = 5,
    least: int = 2,
    collection_data: str | Path | None = None,
    model: str | Path | None = None,
    key: bytes | None = None,
    overwrite: bool = False,
    online: bool = False,
    progress: ReadProgress | None = None,
) -> list[Draft]:
    """Draft findings for `studies` of the prepared folder `data`, from the reports of the studies of an embedded collection that are most like each.
    Writes `out`/STUDY.html and `out`/STUDY.json.

    texts: tables of reports of the collection's studies; none: those that came with it. data None: the collection's own folder, each study against
    all others. studies: pseudonyms; none: all. Studies of the same patient are never evidence, as far as the folders share their key. count: similar
    studies; least: patients whose reports must say a thing. collection_data, model: where they lie now, should it be elsewhere. Raises ConfigError,
    DataError, ModelError, StorageError.
    """
    evidence = Evidence.open(index, texts, collection_data, key)
    asked_of = evidence.prepared if data is None else Prepared.open(data)
    members = rows_by_study(asked_of)
    chosen = list(studies) or list(members)
    if unknown := [study for study in chosen if study not in members]:
        do = "Name a study by its pseudonym, the column study of a predictions.csv"
        raise DataError(f"no study '{unknown[0]}'", where=asked_of.place, do=do)
    check_out(out, overwrite)
    drafts = []
    with ExitStack() as stack:
        clips = Clips(evidence.collection, asked_of, model or evidence.collection.about.model, online, stack)
        for done, study in enumerate(chosen, 1):
            rows = members[study]
            drafts.append(evidence.draft(study, asked_of.patients[rows[0]], clips.of(rows), count, least))
            write_draft(drafts[-1], asked_of, evidence.prepared, evidence.collection, out)
            if progress is not None:
                progress(done, len(chosen))
    return drafts


@dataclass(frozen=True)
class Evidence:
    """Studies of an embedded collection that have a report: what drafts are made from.

    prepared: the collection's folder. reports, patient_of: of each study that has a report and a recording in the collection. study_of: of each such
    recording.
    """

    collection: Collection
    prepared: Prepared
    reports: Mapping[str, Report]
    patient_of: Mapping[str, str]
    study_of: Mapping[str, str]

    @classmethod
    def open(cls, index: Path, texts: Sequence[str | Path], data: str | Path | None, key: bytes | None) -> Evidence:
        """See `draft_reports`. Raises DataError where the folder is not the one that was embedded, or no study in it has a report."""
        collection = Collection.open(index)
        prepared = Prepared.open(data or collection.about.data)
        row_of = {prepared.video_id(row): row for row in range(len(prepared))}
        known = [video for video in collection.video_ids if video in row_of]
        if not known:
            what = f"none of its recordings is in {prepared.place}"
            do = "Give the folder that was embedded: --collection-data, or embed this one"
            raise DataError(what, where=index, do=do)
        written = reports_of(read_texts([str(path) for path in texts], prepared, key), prepared)
        studies = prepared.column("study")
        study_of = {video: study for video in known if (study := studies[row_of[video]]) in written}
        if not study_of:
            what = "no study of the collection has a report"
            raise DataError(what, where=index, do="Give reports of its studies: --text")
        patient_of = {study: prepared.patients[row_of[video]] for video, study in study_of.items()}
        reports = {study: Report.of(written[study]) for study in patient_of}
        return cls(collection, prepared, reports, patient_of, study_of)

    def draft(self, study: str, patient: str, asked: Sequence[Asked], count: int, least: int) -> Draft:
        """What is drafted of a study, of this collection or another, from the `count` studies of other patients that are most like its clips `asked`.
        Raises DataError where reports of fewer than `least` other patients are there, or nothing is asked."""
        others = {video: other for video, other in self.study_of.items() if self.patient_of[other] != patient}
        if len({self.patient_of[other] for other in others.values()}) < least:
            what = f"fewer than {least} other patients of the collection have a report"
            do = "Embed more studies that have one, or give their reports: --text"
            raise DataError(what, where=self.collection.folder, do=do)
        if not asked:
            do = "Draft for the others: name them with --study"
            raise DataError(f"no recording of study '{study}' can be read", do=do)
        near = nearest_studies(self.collection, others, asked, count)
        said, withheld = shared_findings(
            [self.reports[one.study] for one in near], [self.patient_of[one.study] for one in near], least
        )
        return Draft(study, len(asked), tuple(said), tuple(near), withheld)


def reports_of(texts: Texts, prepared: Prepared) -> dict[str, str]:
    """Study -> what was written of it as a whole, in order. Raises DataError where there is nothing."""
    studies = prepared.column("study")
    found: dict[str, dict[int, None]] = {}
    for index in range(len(texts)):
        if texts.span(index) is None:
            for row in texts.rows(index):
                found.setdefault(studies[row], {})[index] = None
    if not found:
        do = "Give a CSV with a column that names the study, and text: --text reports.csv"
        raise DataError("no text is about a whole study", where=prepared.place, do=do)
    return {study: "\n\n".join(texts.words(index) for index in own) for study, own in found.items()}


def check_least(count: int, least: int) -> None:
    """Raises ConfigError where so few studies cannot be of so many patients."""
    if least > count:
        raise ConfigError(f"--least {least} of {count} studies", do="Look at more similar studies: a larger --count")


def check_out(out: Path, overwrite: bool) -> None:
    """Raises ConfigError where there is something already."""
    if out.exists() and not overwrite and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            "there is something already", where=out, do="Replace it with --overwrite, or give another folder"
        )


def asked_in(collection: Collection, prepared: Prepared, rows: Sequence[int]) -> list[Asked]:
    """The clips of those of the recordings that are in the collection."""
    found = [Asked(video, *collection.stretches(video)) for video in (prepared.video_id(row) for row in rows)]
    return [one for one in found if len(one.frames)]


class Clips:
    """Vectors of the recordings that are asked about: from the collection where they are in it, else by its model, opened once it is needed."""

    def __init__(
        self, collection: Collection, prepared: Prepared, model: str | Path, online: bool, stack: ExitStack
    ) -> None:
        self.collection, self.prepared, self.name, self.online, self.stack = collection, prepared, model, online, stack
        self._model: Model | None = None

    def of(self, rows: Sequence[int]) -> list[Asked]:
        """Of the recordings of one study, without those that cannot be read."""
        about, found = self.collection.about, asked_in(self.collection, self.prepared, rows)
        kept = {one.video_id for one in found}
        missing = [
            (row, starts)
            for row in rows
            if self.prepared.video_id(row) not in kept
            and len(starts := starts_every(self.prepared, row, about.clip, about.every))
        ]
        if missing:
            said = vectors_at(self.model.clips, self.prepared, missing, about.clip)
            for (row, starts), answer in zip(missing, said, strict=True):
                if not isinstance(answer, MediaError):
                    found.append(Asked(self.prepared.video_id(row), starts, answer))
        return found

    @property
    def model(self) -> Model:
        """Raises ModelError for one that is not the collection's."""
        if self._model is None:
            self._model = self.stack.enter_context(searching(self.name, online=self.online))
            if self._model.fingerprint != self.collection.about.fingerprint:
                what = f"its weights are not those that embedded {self.collection.folder}: vectors of two models cannot be compared"
                raise ModelError(what, where=self.name, do="Give the one that did: --encoder, or embed again")
        return self._model


def write_draft(draft: Draft, asked_of: Prepared, reference: Prepared, collection: Collection, out: Path) -> None:
    """STUDY.html with the pictures in it, and STUDY.json. Raises StorageError."""
    clip = collection.about.clip

    def middle(prepared: Prepared, video_id: str, frame: float) -> Frames | None:
        with suppress(DataError, MediaError):
            row = prepared.index_of(video_id)
            seen = frame_indices(prepared.length(row), prepared.fps(row), clip, frame)
            return prepared.frames(row, [int(seen[len(seen) // 2])])[0]
        return None

    shown = [
        [
            (middle(asked_of, one.video_id, one.frame), middle(reference, one.hit.video_id, one.hit.frame))
            for one in near.pairs
        ]
        for near in draft.neighbours
    ]
    page = draft_page(
        draft.study, draft.findings, draft.neighbours, shown, draft.withheld, domain=asked_of.domain,
        strangers=asked_of.info.get("key") != reference.info.get("key"),
    )  # fmt: skip
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(draft.to_dict(), indent=2, ensure_ascii=False) + "\n"
        (out / f"{draft.study}.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror})", where=out, do="Free some space") from None
    write_page(out / f"{draft.study}.html", page)


def summary(drafts: Sequence[Draft]) -> dict[str, Any]:
    """Counts, without a word of any report."""
    withheld: Counter[str] = Counter()
    for one in drafts:
        withheld.update(one.withheld)
    nearest = [one.neighbours[0].similarity for one in drafts]
    return {
        "studies": len(drafts),
        "findings": sum(len(one.findings) for one in drafts),
        "withheld": dict(withheld),
        "nearest": round(float(np.mean(nearest)), 4) if nearest else math.nan,
    }
