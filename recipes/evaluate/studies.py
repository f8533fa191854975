"""Whole studies as the loop takes samples, what a head says of them, and what it is measured against: single clips, and their mean."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.base import AugmentPolicies, ClipSettings
from domains.store.clips import Clip, draw_views, sample_seed
from domains.store.prepared import Prepared
from domains.store.splits import patient_folds
from domains.store.studies import Studies
from recipes.evaluate.compare import Labelled, out_of_fold
from recipes.evaluate.described import Described, Descriptions
from recipes.evaluate.linear import INNER_FOLDS, linear
from recipes.evaluate.metrics import Array, metrics_of
from recipes.finetune.study import FIRST, UNKNOWN, VIEW, StudyObjective
from recipes.finetune.study_clips import STUDY
from recipes.finetune.task import TARGET
from recipes.finetune.temporal import DESCRIPTIONS, INSIDE
from recipes.training.data import ClipData

TAUGHT = 4000  # clips that a baseline's probe learns from, spread over the training studies
FEWEST = 5  # training patients with clips of a view for it to have a probe of its own


@dataclass(frozen=True)
class Views:
    """Views of recordings: their names, and of (recordings,) the view of each row of the manifest, UNKNOWN where it is not known."""

    names: tuple[str, ...]
    of: NDArray[np.int64]

    @classmethod
    def unknown(cls, prepared: Prepared) -> Views:
        """Of nothing."""
        return cls((), np.full(len(prepared), UNKNOWN))


class StudyData(ClipData):
    """A sample is a study: descriptions (L, D), inside (L,), view (L,), first (L, outputs), target.

    L: clips of the largest study, at most `clips`. A smaller study is filled up; of a larger one clips are drawn from (seed, epoch, study, draw), and
    `drop` of them are left out, but never all. Order, epochs and draws are those of `ClipData`.

    studies: those that are learned from. first (recordings, outputs): what probes say of their clips that saw none of their patients, a row of it a
    row of the manifest.
    """

    def __init__(
        self,
        described: Described,
        studies: Studies,
        views: Views,
        first: NDArray[np.float32],
        *,
        clips: int,
        drop: float = 0.0,
        seed: int = 0,
        draws: int = 1,
    ) -> None:
        heads = [rows[0] for rows in studies.rows]
        super().__init__(
            described.prepared, heads, {}, ClipSettings(), AugmentPolicies(), seed=seed, clips_per_video=draws
        )
        self.described, self.studies, self.view, self.first, self.drop = described, studies, views, first, drop
        self.length = min(clips, max(len(rows) for rows in studies.rows))

    def fingerprint(self) -> str:
        """Of the recordings of all studies, and of their labels."""
        rows = [row for own in self.studies.rows for row in own]
        both = self.prepared.fingerprint(rows).encode() + np.ascontiguousarray(self.studies.values).tobytes()
        return hashlib.blake2b(both, digest_size=8).hexdigest()

    def drawn(self, epoch: int, where: int, draw: int) -> tuple[int, NDArray[np.int64]]:
        """(the sample's number, the recordings that are learned from this time, in order)."""
        number = sample_seed(self.seed, epoch, self.studies.names[where], draw)
        random, rows = np.random.default_rng(number), np.array(self.studies.rows[where])
        order = random.permutation(len(rows))
        left = max(1, int((random.random(len(rows)) >= self.drop).sum()))
        return number, np.sort(rows[order[: min(left, self.length)]])

    def read(self, row: int, epoch: int, where: int, draw: int) -> dict[str, Any]:
        """See `ClipData.read`."""
        number, rows = self.drawn(epoch, where, draw)
        fill = self.length - len(rows)
        return {
            "views": {},
            "seed": number,
            "targets": {
                DESCRIPTIONS: np.pad(self.described.read(rows.tolist()), ((0, fill), (0, 0))),
                INSIDE: (np.arange(self.length) < len(rows)).astype(np.float32),
                VIEW: np.pad(self.view.of[rows], (0, fill), constant_values=UNKNOWN),
                FIRST: np.pad(self.first[rows], ((0, fill), (0, 0))),
                TARGET: self.studies.values[where],
            },
        }


class StudyClips(StudyData):
    """A sample is a study, and for the encoder that learns with the head its clips: one of each recording, drawn as for `ClipData`; a batch holds the
    clips of all its studies in a row, however many each has. `views`: the one that is drawn, `clip`.

    first (recordings, outputs): what is added to what the head's probe says (`StudyClipsObjective`).
    """

    def __init__(
        self,
        described: Described,
        studies: Studies,
        told: Views,
        first: NDArray[np.float32],
        views: Mapping[str, Clip],
        clip: ClipSettings,
        *,
        clips: int,
        drop: float = 0.0,
        seed: int = 0,
        draws: int = 1,
    ) -> None:
        super().__init__(described, studies, told, first, clips=clips, drop=drop, seed=seed, draws=draws)
        self.views, self.clip = dict(views), clip

    def read(self, row: int, epoch: int, where: int, draw: int) -> dict[str, Any]:
        """See `ClipData.read`; `clips` in place of views."""
        number, rows = self.drawn(epoch, where, draw)
        value, seed = self.studies.values[where], self.seed
        return {
            "clips": [
                {
                    "views": draw_views(self.prepared, one, self.views, self.clip, self.policies, seed, epoch, draw),
                    "seed": number,
                    "row": one,
                    "targets": {VIEW: self.view.of[one], FIRST: self.first[one], TARGET: value},
                    "failures": [],
                }
                for one in rows.tolist()
            ]
        }

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """See `ClipData.collate`: clips of all studies, with the number of their study among the targets."""
        failures = [reason for sample in samples for reason in sample["failures"]]
        if not all("clips" in sample for sample in samples):
            return {"failures": failures}
        clips = [
            {**clip, "targets": {**clip["targets"], STUDY: np.int64(number)}}
            for number, sample in enumerate(samples)
            for clip in sample["clips"]
        ]
        return {**super().collate(clips), "failures": failures}


@dataclass(frozen=True)
class Answer:
    """What a head says of a study: prediction () or (C,); of its K clips the weight (K,), of sum 1, and what each says alone, (K,) or (K, C)."""

    prediction: Array
    weights: Array
    alone: Array


def answers(
    objective: StudyObjective, described: Descriptions, rows: Sequence[Sequence[int]], views: Views
) -> list[Answer]:
    """Of each study, given by its recordings: all of them, whatever their number. Its mode is restored afterwards."""
    was_training = objective.training
    objective.eval()
    found = [Answer(*objective.predict(described.read(own), views.of[list(own)])) for own in rows]
    objective.train(was_training)
    return found


@dataclass(frozen=True)
class Baselines:
    """predictions: name -> (n,) or (n, C) of the test studies; titles: name -> words. best: views, the one that single clips did best by first."""

    predictions: dict[str, Array]
    titles: dict[str, str]
    best: tuple[str, ...]


def baselines(
    described: Described, train: Studies, validation: Studies, test: Studies, views: Views, kind: str, classes: int
) -> Baselines:
    """What single clips can do: linear probes of the same descriptions (`recipes.evaluate.linear`), learned from the training studies.

    constant  the training median, or the frequencies of the classes
    single    one clip a study: of the view whose clips predict best among the training and validation patients (cross-validated); where a study
              has none of it, of the next best. Without views, its first clip
    mean      one probe of all clips; its answers, averaged over the study
    views     a probe for each view; their answers, averaged over the study. EchoPrime's fixed weights, all alike
    """
    probes = {"": _probe(described, train, None, views, test.rows, kind, classes)}
    for number, name in enumerate(views.names):
        if (
            len(
                {
                    who
                    for who, rows in zip(train.patients, train.rows, strict=True)
                    if any(views.of[list(rows)] == number)
                }
            )
            >= FEWEST
        ):
            probes[name] = _probe(described, train, number, views, test.rows, kind, classes)
    constant = _constant(train, kind, classes)
    best = _ranked(described, (train, validation), [name for name in probes if name], views, kind, classes)

    def over(rows: Sequence[int], which: str) -> Array:
        if which == "mean":
            return np.mean([probes[""][row] for row in rows], axis=0)
        names = {row: views.names[views.of[row]] for row in rows if views.of[row] != UNKNOWN}
        if which == "views":
            said = [probes[name][row] for row, name in names.items() if name in probes]
            return np.mean(said, axis=0) if said else constant
        for wanted in best:
            for row, name in names.items():
                if name == wanted:
                    return probes[name][row]
        return probes[""][rows[0]]

    titles = {"constant": "no encoder (commonest class)" if classes else "no encoder (training median)"}
    titles["single"] = f"best single clip ({best[0]})" if best else "one clip"
    titles["mean"] = "mean of the clips' answers (one probe)"
    if len(best) > 1:
        titles["views"] = "mean of the clips' answers (a probe a view)"
    found = {name: np.stack([over(rows, name) for rows in test.rows]) for name in titles if name != "constant"}
    return Baselines({"constant": np.stack([constant] * len(test)), **found}, titles, best)


def _constant(train: Studies, kind: str, classes: int) -> Array:
    if kind == "regression":
        return np.asarray(np.median(train.values), np.float64)
    return np.bincount(train.values.astype(int), minlength=classes) / len(train)


def _probe(
    described: Described,
    train: Studies,
    view: int | None,
    views: Views,
    asked: Sequence[Sequence[int]],
    kind: str,
    classes: int,
) -> dict[int, Array]:
    """Row -> answer, of all rows of `asked` that are of `view` (None: of any), by a probe of the training clips of it."""

    def of_it(row: int) -> bool:
        return view is None or bool(views.of[row] == view)

    taught = [
        (row, value, patient)
        for rows, value, patient in zip(train.rows, train.values, train.patients, strict=True)
        for row in rows
        if of_it(row)
    ]
    taught = [taught[at] for at in np.unique(np.linspace(0, len(taught) - 1, TAUGHT).round().astype(int))]
    rows, values, patients = zip(*taught, strict=True)
    query = [row for own in asked for row in own if of_it(row)]
    if not query:
        return {}
    known, wanted = (described.read(which).astype(np.float64) for which in (rows, query))
    if len(set(values)) < 2:
        said = np.tile(_constant(train, kind, classes), (len(query), *([1] if classes else [])))
    else:
        said = linear(known, np.array(values, np.float64), list(patients), wanted, classes)
    return dict(zip(query, said, strict=True))


def _ranked(
    described: Described, taught: Sequence[Studies], names: Sequence[str], views: Views, kind: str, classes: int
) -> tuple[str, ...]:
    """Views by the headline figure of a single clip a study, the best first: of the training and validation studies, each predicted by a probe that
    saw none of its patients."""
    headline, scores = metrics_of(kind)[0], {}
    for name in names:
        number = views.names.index(name)
        ones = [
            (next(row for row in rows if views.of[row] == number), value, patient)
            for part in taught
            for rows, value, patient in zip(part.rows, part.values, part.patients, strict=True)
            if any(views.of[list(rows)] == number)
        ]
        rows, values, patients = zip(*ones, strict=True)
        fold = patient_folds(patients, min(INNER_FOLDS, len(set(patients))), 0)
        truth = np.array(values, np.float64)
        labelled = Labelled(kind, truth, tuple(map(str, range(classes))), patients, patients, fold)
        said = out_of_fold(linear, described.read(rows).astype(np.float64), labelled)
        figure = float(headline.of(truth, said, np.ones((1, len(truth))))[0])
        scores[name] = -figure if headline.higher_is_better else figure
    return tuple(sorted(scores, key=lambda name: (scores[name], name)))
