"""`vfm evaluate zero-shot`: a task that is described in words, next to chance; no label is learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.base import ClipSettings
from domains.errors import ConfigError, DataError, MediaError
from domains.prompts import prompts_of
from domains.schema import nearest
from domains.store.annotated import read_split, task_of
from domains.store.clips import centred_starts, hidden_frames, spread_starts
from domains.store.frames import Frames
from domains.store.labels import Labels
from domains.store.moments import UNLABELLED, MomentLabels, moments, read_moments
from domains.store.prepared import Prepared
from recipes.encoders.aligned import Aligned, open_aligned
from recipes.evaluate.compare import Units, per_study
from recipes.evaluate.features import Failure, ReadProgress
from recipes.evaluate.metrics import CLASSIFICATION, Array, Metric
from recipes.evaluate.phases import PHASES, Absent, confusion_counts
from recipes.evaluate.presence import components
from recipes.evaluate.scored import Scored, Scorer, lines_of, write_scored
from recipes.evaluate.statistics import DRAWS, LEVEL
from recipes.evaluate.towers import Place, comparing, vectors_at
from recipes.evaluate.zero_shot import (
    SHARPNESS,
    classifier,
    presence_metrics,
    probabilities,
    score_phases,
    score_presence,
    score_recordings,
)
from recipes.jobs.evaluate import clip_seen, labelled_by, read_task
from recipes.jobs.seen import meetings, who

# Projections that were never trained call each class by another at random; it takes some of them for a mean near chance.
UNALIGNED = 20
TITLES = {
    "unaligned": f"unaligned (mean of {UNALIGNED} untrained projections)",
    "chance": "chance (every class as likely)",
    "common": "the most common class, always",
    "zero-shot": "zero-shot",
}
BASELINES = tuple(TITLES)[:-1]
CLIPS, EVERY = 3, 1.0
ABSENT: dict[Absent, str] = {
    "dropped": "is left out of its mean",
    "called": "counts 0 in it where it was called, and else is left out (scikit-learn's macro average)",
    "zero": "counts 0 in it",
}


@dataclass(frozen=True)
class Rules:
    """How a zero-shot evaluation is done. None: as is usual; a value for a task of another kind is refused.

    baselines: rows beside it. split: an official split, whose test part alone is asked. seed, draws: of guesses and of the bootstrap.
    clips: of each recording, for tasks of recordings [3]. every: seconds from one moment to the next, for tasks of moments [1]. absent, relaxed: of
    phases, see `recipes.evaluate.phases` [called; 0].
    """

    baselines: tuple[str, ...] = BASELINES
    split: str = ""
    seed: int = 0
    draws: int = DRAWS
    clips: int | None = None
    every: float | None = None
    absent: Absent | None = None
    relaxed: float | None = None

    def check(self, task: str, kind: str) -> None:
        """Raises ConfigError for a baseline that there is not, and for what would change nothing."""
        if odd := [name for name in self.baselines if name not in BASELINES]:
            raise ConfigError(f"no baseline '{odd[0]}'", do=nearest(odd[0], list(BASELINES)))
        if kind == "regression":
            what = f"'{task}' is a number, and has no classes to describe in words"
            raise ConfigError(what, do="Use: vfm evaluate linear")
        meant = {
            "clips": ("classification",), "every": ("phases", "presence"), "absent": ("phases",), "relaxed": ("phases",),
        }  # fmt: skip
        for name, kinds in meant.items():
            if getattr(self, name) is not None and kind not in kinds:
                raise ConfigError(
                    f"'{task}' is a task of kind {kind}, for which {name} means nothing", do="Leave it out"
                )


@dataclass(frozen=True)
class _Found:
    """What one kind of task gives; see `Scored`. patients: of each unit."""

    scorers: dict[str, Scorer]
    metrics: tuple[Metric, ...]
    patients: list[str]
    units: str
    how: tuple[str, ...]
    settings: dict[str, Any]
    head: list[str]
    lines: list[list[str]]
    excluded: tuple[Failure, ...]
    confusion: NDArray[np.int64] | None = None  # (C, C), true classes in rows


def zero_shot(
    run: str | Path,
    data: Prepared | str | Path,
    labels: str | Path | None,
    task: str,
    rules: Rules | None = None,
    *,
    prompts: Path | None = None,
    key: bytes | None = None,
    domain: str | None = None,
    out: Path | None = None,
    online: bool = False,
    progress: ReadProgress | None = None,
) -> Scored:
    """Call recordings, or moments of them, by the class whose prompts are nearest.

    run: one that aligned clips and texts. labels: None: those of the public data set; they are compared with, and nothing else. prompts: YAML of
    class -> texts; None: the domain's. progress(clips done, of all). out: predictions.csv and evaluation.json are written there.

    Raises ConfigError (no prompt for a class, a regression), DataError (labels that match nothing, nothing that can be read), ModelError.
    """
    rules = rules or Rules()
    prepared = data if isinstance(data, Prepared) else Prepared.open(data)
    named = domain or prepared.domain
    settings = task_of(prepared, named, task)
    rules.check(task, settings.kind)
    parts = read_split(prepared, rules.split) if rules.split else ["test"] * len(prepared)
    tested = {row for row, part in enumerate(parts) if part == "test"}
    held = (
        read_moments(prepared, settings, labels, key)
        if settings.of_moments
        else read_task(prepared, labels, task, domain, key)[1]
    )
    texts = prompts_of(held.classes, task, prompts, named)
    aligned = open_aligned(run, online=online)
    asking = _Asking(prepared, clip_seen(aligned.encoder, prepared, domain), aligned, texts, rules, progress)
    found = (
        _moments(asking, held, tested) if isinstance(held, MomentLabels) else _recordings(asking, held, tested, task)
    )
    scorers = {
        name: (title, found.scorers[name])
        for name, title in TITLES.items()
        if name in found.scorers and name in (*rules.baselines, "zero-shot")
    }
    people = who(prepared)
    scored = Scored(
        protocol="zero-shot",
        task=task,
        metrics=found.metrics,
        lines=lines_of(scorers, found.metrics, found.patients, next(iter(scorers)), draws=rules.draws, seed=rules.seed),
        asked=("zero-shot",),
        how=(_prompting(texts, prompts, named), *found.how, *_splitting(rules.split)),
        size=f"{found.units}, {len(set(found.patients))} {people}, {LEVEL:.0%} intervals over {people}",
        settings={
            "classes": list(held.classes),
            "prompts": {name: list(said) for name, said in zip(held.classes, texts, strict=True)},
            **found.settings,
            "split": rules.split,
            "patients": len(set(found.patients)),
            "seed": rules.seed,
            "bootstrap": {"draws": rules.draws, "over": "patients", "level": LEVEL},
        },
        predictions=(found.head, found.lines),
        excluded=found.excluded,
        notes=meetings(run, prepared, found.patients),
        confusion=None if found.confusion is None else (found.confusion, tuple(held.classes)),
    )
    if out is not None:
        write_scored(scored, out)
    return scored


@dataclass(frozen=True)
class _Asking:
    """The model, the recordings, and the classes in words."""

    prepared: Prepared
    clip: ClipSettings
    aligned: Aligned
    texts: Sequence[tuple[str, ...]]
    rules: Rules
    progress: ReadProgress | None

    def cosines(self, places: Sequence[Place]) -> tuple[dict[int, Array], tuple[Failure, ...]]:
        """row -> (clips, F, C), of the recordings that can be read; and the others. Raises DataError where that is all of them."""
        found, failed = {}, []
        fresh = UNALIGNED if "unaligned" in self.rules.baselines else 0
        with comparing(self.aligned, fresh) as towers:
            said = towers.texts([text for prompts in self.texts for text in prompts])
            cuts = np.cumsum([len(prompts) for prompts in self.texts])[:-1]
            classes = np.stack([classifier(np.split(said[:, way], cuts)) for way in range(1 + fresh)])  # (F, C, D)

            def compared(clips: Frames) -> Array:  # hours of video leave C numbers a clip, not D
                return np.einsum("nfd,fcd->nfc", towers.clips(clips), classes)

            answers = vectors_at(compared, self.prepared, places, self.clip, self.progress)
            for (row, _), cosines in zip(places, answers, strict=True):
                if isinstance(cosines, MediaError):
                    failed.append(Failure(self.prepared.video_id(row), cosines.reason))
                else:
                    found[row] = cosines
        if not found:
            why = f"; the first: {failed[0].reason}" if failed else ""
            raise DataError(f"none of {len(places)} recordings could be read{why}", where=self.prepared.place)
        return found, tuple(failed)


def _recordings(asking: _Asking, held: Labels, tested: set[int], task: str) -> _Found:
    """A class of each recording: cosines are averaged over its clips."""
    prepared, clips = asking.prepared, asking.rules.clips or CLIPS
    rows = [row for row in held.index.tolist() if row in tested]
    places = [(row, spread_starts(prepared, row, asking.clip, clips)) for row in rows]
    found, failed = asking.cosines(places)
    labelled, kept = labelled_by(held, "classification", prepared, found, dict.fromkeys(rows, 0), task)
    cosines = np.stack([found[int(row)].mean(axis=0) for row in kept])  # (n, F, C)
    counted = "study" if labelled.by_study else "recording"
    lines = [
        [
            prepared.video_id(int(row)),
            held.classes[int(truth)],
            held.classes[int(said.argmax())],
            *(f"{p:.4f}" for p in said),
        ]
        for row, truth, said in zip(kept, labelled.truth, probabilities(cosines[:, 0]), strict=True)
    ]
    return _Found(
        scorers=score_recordings(Units.of(labelled), cosines, asking.rules.seed),
        metrics=CLASSIFICATION,
        patients=per_study(labelled, labelled.truth)[2] if labelled.by_study else list(labelled.patients),
        units=f"{len(kept)} recordings, counted per {counted}",
        how=(f"the mean cosine of {clips} clips of {asking.clip.frames} frames spread evenly over each recording",),
        settings={"recordings": len(kept), "counted_per": counted, "clips_per_video": clips},
        head=["video_id", "truth", "prediction", *(f"p_{name}" for name in held.classes)],
        lines=lines,
        excluded=failed,
        confusion=confusion_counts(labelled.truth.astype(np.int64), cosines[:, 0].argmax(axis=1), len(held.classes)),
    )


def _moments(asking: _Asking, held: MomentLabels, tested: set[int]) -> _Found:
    """What is so at moments, each seen in the clip whose middle it is; figures of each recording, then their mean."""
    prepared, rules, phases = asking.prepared, asking.rules, held.task.kind == "phases"
    every, absent, relaxed = rules.every or EVERY, rules.absent or "called", rules.relaxed or 0.0
    times: dict[int, Array] = {}
    truths: dict[int, NDArray[np.int64]] = {}
    places: list[Place] = []
    withheld = 0
    for row in held.rows:
        if row not in tested:
            continue
        seconds, frames = moments(prepared.length(row), prepared.fps(row), 1 / every)
        truth = held.targets(row, seconds)
        seen = ~hidden_frames(prepared.outside(row), prepared.length(row))[frames]  # a blank frame shows nothing
        asked = (truth != UNLABELLED) & seen if phases else seen
        withheld += int(((truth != UNLABELLED) & ~seen if phases else ~seen).sum())
        if not asked.any():
            continue
        if phases:  # they stay in their places: what stands on two sides of them is no change of phase
            times[row], truths[row] = seconds, np.where(asked, truth, UNLABELLED)
        else:
            times[row], truths[row] = seconds[asked], truth[asked]
        places.append((row, centred_starts(frames[asked], prepared.fps(row), asking.clip)))
    if not places:
        what = f"no moment of the recordings that are asked has a label of '{held.task.column}'"
        raise DataError(what, where=prepared.place)
    found, failed = asking.cosines(places)
    rows = list(found)
    truth_of, cosines = [truths[row] for row in rows], [found[row] for row in rows]
    settings: dict[str, Any] = {"recordings": len(rows), "every": every, "withheld": withheld}
    shown = f"one clip of {asking.clip.frames} frames about every {every:g} s"
    if withheld:
        shown += f" ({withheld} whose frame is withheld are not asked)"
    metrics: tuple[Metric, ...]
    confusion: NDArray[np.int64] | None = None
    if phases:
        scorers = score_phases(truth_of, cosines, [times[row] for row in rows], absent, relaxed, rules.seed)
        strict = f"relaxed by {relaxed:g} s at changes of phase" if relaxed else "strict at changes of phase"
        how = (
            f"{shown} that has a label; accuracy and macro F1 of each recording, then their mean",
            f"a class that a recording has not {ABSENT[absent]}; {strict}",
        )
        known = np.concatenate([truth[truth != UNLABELLED] for truth in truth_of])
        called = np.concatenate([said[:, 0].argmax(axis=1) for said in cosines])
        confusion = confusion_counts(known, called, len(held.classes))
        metrics, settings = PHASES, {**settings, "absent": absent, "relaxed": relaxed}
    else:
        parts = components(held.classes, held.task.parts, held.task.nothing)
        scorers, metrics = score_presence(truth_of, cosines, parts, rules.seed), presence_metrics(parts)
        how = (
            f"{shown}; average precision of each class in each recording that has it, averaged over recordings, then over classes",
            "a class that no recording has, and one that stands for nothing, is in no mean",
        )
    return _Found(
        scorers=scorers,
        metrics=metrics,
        patients=[prepared.patients[row] for row in rows],
        units=f"{sum(map(len, cosines))} moments of {len(rows)} recordings",
        how=how,
        settings=settings,
        head=["video_id", "seconds", "truth", "prediction", *(f"cosine_{name}" for name in held.classes)],
        lines=[
            line for row in rows for line in _lines(held, prepared.video_id(row), times[row], truths[row], found[row])
        ],
        excluded=failed,
        confusion=confusion,
    )


def _lines(
    held: MomentLabels, video_id: str, times: Array, truth: NDArray[np.int64], cosines: Array
) -> list[list[str]]:
    """Lines of predictions.csv of one recording, one a moment."""
    phases = truth.ndim == 1
    kept = np.flatnonzero(truth != UNLABELLED) if phases else np.arange(len(truth))

    def true(moment: int) -> str:
        if phases:
            return held.classes[int(truth[moment])]
        return ";".join(held.classes[number] for number in np.flatnonzero(truth[moment]))

    return [
        [video_id, f"{times[moment]:g}", true(moment), held.classes[int(said.argmax())], *(f"{c:.4f}" for c in said)]
        for moment, said in zip(kept.tolist(), cosines[:, 0], strict=True)
    ]


def _prompting(texts: Sequence[tuple[str, ...]], prompts: Path | None, domain: str) -> str:
    counts = sorted({len(said) for said in texts})
    many = (
        f"{counts[0]} to {counts[-1]} prompts"
        if len(counts) > 1
        else "one prompt"
        if counts[0] == 1
        else f"{counts[0]} prompts"
    )
    whose = prompts.name if prompts is not None else f"those of domain {Path(domain).stem}"
    return f"{len(texts)} classes of {many} each ({whose}), averaged; the largest of softmax({SHARPNESS:g} x cosine); no label was learned from"


def _splitting(split: str) -> tuple[str, ...]:
    return (f"the test part of the official split '{split}' alone",) if split else ()
