"""`vfm evaluate`: how well frozen features predict a task of people the probe has not seen, next to what is trivial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domains.base import ClipSettings, TaskSettings, load_domain
from domains.errors import ConfigError, DataError
from domains.store.annotated import labels_of, read_split, task_of
from domains.store.labels import Labels, read_labels
from domains.store.prepared import Prepared
from domains.store.splits import patient_folds
from recipes.encoders import open_encoder
from recipes.encoders.base import VideoEncoder
from recipes.evaluate.baselines import BASELINES, check_baselines, random_like
from recipes.evaluate.compare import TEACHES, Labelled, check, compare, protocol_of
from recipes.evaluate.evaluation import Evaluation
from recipes.evaluate.features import Extractor, Features, ReadProgress, clip_of, embedding, extract_all
from recipes.evaluate.outputs import write_evaluation
from recipes.evaluate.pixels import pixel_features
from recipes.evaluate.statistics import DRAWS
from recipes.jobs.seen import meetings
from recipes.jobs.start import Start, start_of

TITLES = {"pixels": "pixel statistics", "random": "random weights", "generic": "generic", "adapted": "adapted"}


@dataclass(frozen=True)
class Gathered:
    """Features of every row of the comparison, for the same videos; the encoder in question is the last.

    Attributes
        features: row name -> Features, all with the same index.
        titles: row name -> words for a table.
        reference: the row that differences are taken against; None where nothing is left to compare with.
        clip, clips: geometry and number of the clips that each video's features are averaged over.
        notes: what a reader must know.
    """

    features: dict[str, Features]
    titles: dict[str, str]
    reference: str | None
    clip: ClipSettings
    clips: int
    notes: tuple[str, ...]


def gather(
    encoder: str | Path,
    prepared: Prepared,
    index: NDArray[np.int64] | None = None,
    *,
    baselines: tuple[str, ...] = BASELINES,
    clips: int = 3,
    online: bool = False,
    progress: ReadProgress | None = None,
) -> Gathered:
    """Features of videos `index` (None: all) by `encoder` and the baselines; several evaluations can share them.

    encoder: a run, a folder with an encoder, or a hub name. Raises ModelError, and DataError where no video can be
    read.
    """
    check_baselines(baselines)
    start = start_of(encoder)
    opened = open_encoder(str(encoder), online=online)
    clip = clip_seen(opened, prepared)
    rows = np.arange(len(prepared)) if index is None else index
    encoders, titles, notes = compared_with(str(encoder), opened, start, baselines, online)
    with ExitStack() as stack:
        extractors: dict[str, Extractor] = {"pixels": pixel_features} if "pixels" in baselines else {}
        for name, one in encoders.items():
            extractors[name] = stack.enter_context(embedding(one))
        features = extract_all(extractors, prepared, rows, clip, clips, progress=progress)
    reference = next((name for name in ("generic", "random", "pixels") if name in list(features)[:-1]), None)
    return Gathered(features, titles, reference, clip, clips, notes)


def compared_with(
    name: str, opened: VideoEncoder, start: Start | None, baselines: tuple[str, ...], online: bool
) -> tuple[dict[str, VideoEncoder], dict[str, str], tuple[str, ...]]:
    """The encoders of the comparison in order, their titles, and notes on what is shown once or not at all."""
    titles, notes = dict(TITLES), []
    encoders: dict[str, VideoEncoder] = {}
    random_start = start is not None and start.random
    if "random" in baselines and not (random_start and "generic" in baselines):
        encoders["random"] = random_like(opened)
    if start is None:
        titles["generic"] = f"generic ({Path(name).name})"
        return {**encoders, "generic": opened}, titles, ()
    if "generic" in baselines:
        encoders["generic"] = start.open(opened.geometry, online=online)
        titles["generic"] = start.row
        if random_start:
            notes.append(
                f"{start.title} starts from random weights: the random and the generic row are one and the same"
            )
    if start.init_from:
        notes.append(
            f"{Path(name).name} went on from the weights of {Path(start.init_from).name}: their training counts too"
        )
    encoders["adapted"] = opened
    titles["adapted"] = f"adapted ({Path(name).name})"
    return encoders, titles, tuple(notes)


def clip_seen(encoder: VideoEncoder, prepared: Prepared, domain: str | None = None) -> ClipSettings:
    """The clip that an encoder is shown of these recordings: of its own rate, or, where no run of ours adapted it, of the domain's."""
    clip = clip_of(encoder.geometry)
    if clip.rate is not None:
        return clip
    usual = prepared_clip(prepared, domain)
    return clip.model_copy(update={"rate": usual.rate, "stride": usual.stride})


def prepared_clip(prepared: Prepared, domain: str | None = None) -> ClipSettings:
    """How the domain of a prepared folder samples clips; the defaults where its YAML is not at hand."""
    try:
        return load_domain(domain or prepared.domain).clip
    except ConfigError:
        if domain is not None:
            raise
        return ClipSettings()


def evaluate(
    protocol: str,
    encoder: str | Path,
    data: Prepared | str | Path,
    labels: str | Path | None,
    task: str,
    *,
    baselines: tuple[str, ...] = BASELINES,
    folds: int = 5,
    split: str = "",
    clips: int = 3,
    seed: int = 0,
    draws: int = DRAWS,
    key: bytes | None = None,
    domain: str | None = None,
    out: Path | None = None,
    online: bool = False,
    progress: ReadProgress | None = None,
    gathered: Gathered | None = None,
) -> Evaluation:
    """Probe frozen features of `encoder` and of the baselines by patient-grouped cross-validation, or on an official split.

    protocol: knn or linear. data: a prepared folder. labels: None: those that came with a public data set. task: a task
    of the data set or of the domain (`domain`: a YAML of one's own, else the one that the folder was prepared for).
    split: an official split of the data set; its training and validation parts teach, its test part is asked.
    key: needed where labels name original identifiers. gathered: features
    from an earlier `gather`, else they are computed here. out: predictions.csv, evaluation.json and a picture are
    written there.

    Raises ConfigError, DataError (labels that match nothing, one class only, fewer patients than folds) and
    ModelError.
    """
    protocol_of(protocol)
    if folds < 2:
        raise ConfigError(f"{folds} folds leave nothing to learn from", do="Use 2 or more")
    prepared = data if isinstance(data, Prepared) else Prepared.open(data)
    settings, found = read_task(prepared, labels, task, domain, key)
    fold_of = folds_of(prepared, found, folds, seed, split)  # too few patients is said before anything is computed
    if gathered is None:
        gathered = gather(
            encoder, prepared, found.index, baselines=baselines, clips=clips, online=online, progress=progress
        )
    read = next(iter(gathered.features.values()))
    labelled, kept = labelled_by(found, settings.kind, prepared, read.index.tolist(), fold_of, task)
    features = {name: one.at(kept) for name, one in gathered.features.items()}
    rows = compare(protocol, features, labelled, gathered.reference, titles=gathered.titles, draws=draws, seed=seed)
    wanted = {prepared.video_id(int(row)) for row in found.index}
    tested = [patient for patient, asked in zip(labelled.patients, labelled.tested, strict=True) if asked]
    evaluation = Evaluation(
        protocol=protocol,
        task=task,
        unit=settings.unit,
        labelled=labelled.at(labelled.tested),
        video_ids=tuple(prepared.video_id(int(row)) for row in kept[labelled.tested]),
        rows=tuple(rows),
        reference=gathered.reference,
        folds=1 if split else folds,
        clips=gathered.clips,
        seed=seed,
        draws=draws,
        excluded=tuple(failure for failure in read.failed if failure.video_id in wanted),
        unmatched=found.unmatched,
        unlabelled=found.unlabelled,
        split=split,
        notes=gathered.notes + said_of(split, labelled) + meetings(encoder, prepared, tested),
    )
    if out is not None:
        write_evaluation(evaluation, out)
    return evaluation


def read_task(
    prepared: Prepared, labels: str | Path | None, task: str, domain: str | None, key: bytes | None
) -> tuple[TaskSettings, Labels]:
    """The task and its labels. Raises ConfigError: unknown task; DataError: labels that leave nothing to learn."""
    settings = task_of(prepared, domain or prepared.domain, task)
    found = read_labels(labels_of(prepared, labels), settings, prepared, key)
    check(settings.kind, found.values.astype(float), found.classes, task)
    return settings, found


def folds_of(prepared: Prepared, found: Labels, folds: int, seed: int, split: str) -> dict[int, int]:
    """The fold of every labelled row; on an official split, the test part is one fold and the rest teaches.

    Raises ConfigError for an unknown split, DataError where patients are too few or stand on both sides.
    """
    rows = found.index.tolist()
    if not split:
        return dict(zip(rows, patient_folds(found.patients, folds, seed).tolist(), strict=True))
    parts = read_split(prepared, split)
    place = {row: 0 if parts[row] == "test" else TEACHES for row in rows if parts[row]}
    for fold, name in ((0, "test"), (TEACHES, "train or val")):
        if fold not in place.values():
            what = f"no labelled recording is in the part '{name}' of the split '{split}'"
            raise DataError(what, where=prepared.place, do="Leave --split out")
    return place


def said_of(split: str, labelled: Labelled) -> tuple[str, ...]:
    """What a reader must know of an official split."""
    if not split:
        return ()
    tested = int(labelled.tested.sum())
    return (
        f"Official split '{split}': {len(labelled) - tested} recordings teach (train and val), {tested} are tested",
    )


def labelled_by(
    found: Labels, kind: str, prepared: Prepared, readable: Iterable[int], fold_of: Mapping[int, int], task: str
) -> tuple[Labelled, NDArray[np.int64]]:
    """The labelled videos that have a fold and are among the `readable` manifest rows, and their rows. Raises DataError where none is."""
    read = set(readable) & fold_of.keys()
    keep = np.array([row in read for row in found.index.tolist()], bool)
    if not keep.any():
        raise DataError("none of the labelled videos could be read", where=prepared.place)
    patients = [patient for patient, kept in zip(found.patients, keep, strict=True) if kept]
    truth = found.values[keep].astype(np.float64)
    check(kind, truth, found.classes, task)
    studies = prepared.column("study")
    index = found.index[keep]
    labelled = Labelled(
        kind=kind,
        truth=truth,
        classes=found.classes,
        patients=tuple(patients),
        studies=tuple(studies[row] for row in index.tolist()),
        fold=np.array([fold_of[row] for row in index.tolist()], np.int64),
    )
    return labelled, index
