"""`vfm finetune` of a task of moments: the phase, or what is in view, at every second of whole procedures.

The encoder stays as it is. It looks once at every moment, at a clip that ends there; what it says is written beside the run and read by every head.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from domains.base import TaskSettings
from domains.errors import ConfigError, DataError, StorageError
from domains.store.moments import UNLABELLED, MomentLabels, read_moments
from domains.store.prepared import Prepared
from recipes.config import Resolved, RunConfig, TaskRunSettings
from recipes.encoders import VideoEncoder, build_encoder, open_encoder
from recipes.evaluate.features import Failure, clip_of
from recipes.evaluate.momentary import frequencies, linear_probe, probed
from recipes.evaluate.procedures import ProcedureData, spread_of
from recipes.evaluate.ribbons import write_moments, write_table
from recipes.evaluate.timeline import MomentEvaluation, Timeline, headline_of
from recipes.evaluate.written import Told, Written, write_descriptions
from recipes.finetune.best import Best
from recipes.finetune.head import load_temporal_head, save_head
from recipes.finetune.material import split_of, task_of_run
from recipes.finetune.temporal import TemporalHeadSettings, TemporalObjective, balanced
from recipes.jobs.finished import write_record, writing_model
from recipes.jobs.seen import meetings, who, write_seen
from recipes.objective import Progress
from recipes.runs.status import recorded
from recipes.training.loop import TrainResult, train
from recipes.training.reporter import Reporter
from recipes.training.run import RunFolder

FEATURES = "features"
TITLES = {"majority": "the commonest answer", "linear": "a linear probe of single moments"}
Truths = dict[int, NDArray[np.int64]]


@dataclass(frozen=True)
class Procedures:
    """What a run learns from. train, validation, test: row -> what is true at its moments, of procedures that no other part has."""

    prepared: Prepared
    task: TaskSettings
    labels: MomentLabels
    written: Written
    train: Truths
    validation: Truths
    test: Truths
    failed: tuple[Failure, ...]

    def patients(self, part: Truths) -> int:
        """How many people a part is of."""
        return len({self.prepared.patients[row] for row in part})


def finetune_moments(
    resolved: Resolved,
    out: Path,
    *,
    key: bytes | None = None,
    overwrite: bool = False,
    resume: bool = False,
    from_step: int | None = None,
    online: bool = False,
    reporter: Reporter,
) -> Path:
    """Learn a task of moments from the spans of the training procedures, keep the epoch that is best on the validation procedures, and predict the
    test procedures once. Returns `out`, which then holds

        encoder/, head.safetensors, head.json, evaluation.json, predictions/VIDEO.csv, ribbons/VIDEO.png, of phases confusion.png

    and beside it `features/`, what the encoder said (`recipes.evaluate.written`). Raises VfmError subclasses; see `recipes.training.loop.train`.
    """
    config = resolved.config
    check_moments(config)
    task, prepared = task_of_run(config), Prepared.open(config.data.path)
    labels = read_moments(prepared, task, config.task.labels, key)
    rows = labels.rows
    split = split_of(config, prepared, rows, [prepared.patients[row] for row in rows])
    parts = [
        [row for row, kept in zip(rows, mask.tolist(), strict=True) if kept]
        for mask in (split.train, split.validation, split.test)
    ]
    encoder = build_encoder(config.encoder, config.clip, online=online, seed=config.train.seed)
    resume = resume or from_step is not None
    run = RunFolder.create(out, resolved, overwrite=overwrite, resume=resume, from_step=from_step)
    try:
        if resume and run.finished and from_step is None:
            reporter.note(f"{out} is finished; nothing to resume")
            return out
        with recorded(run.path):
            material = describe(config, encoder, prepared, labels, parts, run.path, reporter)
            objective = build_head(config, material)
            tell(config, material, encoder, reporter)
            best = Best(run.path / "best")
            if from_step is not None:
                best.forget_after(from_step)
            temporal, train_settings = config.task.temporal, config.train
            data = ProcedureData(
                material.written, material.train, temporal.window, seed=train_settings.seed, draws=config.data.clips_per_video
            )  # fmt: skip
            write_seen(run.path, prepared, [*material.train, *material.validation], config.task.name)
            check = Validation(objective, material, best, config)
            result = train(objective, data, config, run, reporter, resume=resume, from_step=from_step, validate=check)
            finish(run, objective, encoder, material, config, result, best, reporter)
    finally:
        run.unlock()
    return out


def check_moments(config: RunConfig) -> None:
    """Raises ConfigError for settings that a task of moments would not use."""
    plain, asked = TaskRunSettings(), config.task
    for name in ("loss", "lr_head", "clips_per_video"):
        if getattr(asked, name) != getattr(plain, name):
            what = f"'task.{name}' is for tasks of whole recordings, and '{asked.name}' is one of moments"
            raise ConfigError(what, do="Leave it out; its own settings are in task.temporal and optim")
    if config.encoder.mode != "frozen":
        what = f"encoder.mode is {config.encoder.mode}: a temporal head reads what a frozen encoder has said"
        do = "Leave --mode out. To adapt the encoder first: vfm pretrain, then --encoder RUN"
        raise ConfigError(what, do=do)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("a temporal head is learned by one process", do="Run it without torchrun or --processes")


def describe(
    config: RunConfig,
    encoder: VideoEncoder,
    prepared: Prepared,
    labels: MomentLabels,
    parts: list[list[int]],
    run: Path,
    reporter: Reporter,
) -> Procedures:
    """Have the encoder say its part of every moment, and set beside it what is true. Raises DataError where a part of the split has nothing."""
    temporal = config.task.temporal
    place = Path(temporal.features) if temporal.features else run.parent / FEATURES
    written, failed = write_descriptions(
        encoder, prepared, sorted(row for part in parts for row in part), clip_of(encoder.geometry), temporal.rate, place, said_by(reporter)
    )  # fmt: skip
    lost = {failure.video_id for failure in failed}
    for failure in failed:
        reporter.warn(f"video {failure.video_id} could not be read and is left out: {failure.reason}")
    found: list[Truths] = []
    for name, part in zip(("training", "validation", "test"), parts, strict=True):
        truths = {
            row: labels.targets(row, written.moments(row)[0]) for row in part if prepared.video_id(row) not in lost
        }
        truths = {row: truth for row, truth in truths.items() if (truth != UNLABELLED).any()}
        if not truths:
            what = f"no {name} procedure has a labelled moment"
            raise DataError(what, where=prepared.place, do="Label more of them, or choose another split")
        found.append(truths)
    return Procedures(prepared, labels.task, labels, written, found[0], found[1], found[2], failed)


def said_by(reporter: Reporter, what: str = "moments") -> Told:
    """How far the encoder is, as lines."""

    def told(done: int, total: int, left: float) -> None:
        minutes = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
        reporter.note(f"describing {what}: {done:,} of {total:,} ({done / total:.0%}), about {minutes} left")

    return told


def build_head(config: RunConfig, material: Procedures) -> TemporalObjective:
    """A new head for what the training procedures hold; its weights follow from the run's seed."""
    temporal, task, classes = config.task.temporal, material.task, material.labels.classes
    truths = list(material.train.values())
    weights = balanced(truths, task.kind, len(classes)) if config.task.balance else ()
    settings = TemporalHeadSettings.model_validate({
        "task": config.task.name, "kind": task.kind, "classes": classes, "parts": task.parts, "nothing": task.nothing,
        "head": temporal.head, "rate": temporal.rate, "channels": material.written.channels, "stages": temporal.stages,
        "layers": temporal.layers, "width": temporal.width, "dropout": config.task.dropout, "smooth": temporal.smooth,
        "smooth_limit": temporal.smooth_limit, "class_weights": weights,
    })  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        objective = TemporalObjective(settings)
    mean, deviation = spread_of(material.written, list(material.train))
    objective.head.mean.copy_(torch.from_numpy(mean))
    objective.head.deviation.copy_(torch.from_numpy(deviation))
    return objective


def tell(config: RunConfig, material: Procedures, encoder: VideoEncoder, reporter: Reporter) -> None:
    """What the run is about to do, and what about it may surprise."""
    parts = {"training": material.train, "validation": material.validation, "test": material.test}
    people = who(material.prepared)
    said = ", ".join(f"{name} {len(part)} videos of {material.patients(part)} {people}" for name, part in parts.items())
    moments = sum(len(truth) for part in parts.values() for truth in part.values())
    reporter.note(f"{config.task.name}: {said}; {moments:,} moments, {config.task.temporal.rate:g} a second")
    if material.labels.unmatched:
        reporter.warn(f"{material.labels.unmatched} label rows match no recording")
    share = frequencies(list(material.train.values()), len(material.labels.classes))
    if absent := [name for name, there in zip(material.labels.classes, share, strict=True) if not there]:
        reporter.warn(f"no training moment of {', '.join(absent)}: it will never be predicted")
    if encoder.random_start:
        reporter.note(f"{config.encoder.name} starts from random weights: expect little without pretraining")


@dataclass
class Validation:
    """Called by the loop at the end of every epoch: the headline figure of the validation procedures; the best weights are kept."""

    objective: TemporalObjective
    material: Procedures
    best: Best
    config: RunConfig

    def __call__(self, progress: Progress) -> Mapping[str, float]:
        lines = timelines(self.material, self.material.validation, {"head": self.objective})
        material = self.material
        figure = headline_of(lines, "head", material.labels.classes, material.task, self.config.task.temporal.absent)
        figure = figure if math.isfinite(figure) else 0.0
        self.best.offer(self.objective, 1 - figure, progress.step, progress.epoch)
        return {"val_macro_f1" if material.task.kind == "phases" else "val_map": figure}


def timelines(material: Procedures, part: Truths, objectives: Mapping[str, TemporalObjective]) -> list[Timeline]:
    """The procedures of a part as heads see them."""
    found = []
    modes = {name: objective.training for name, objective in objectives.items()}
    for objective in objectives.values():
        objective.eval()
    for row, truth in part.items():
        table = material.written.read(row)
        said = {name: objective.predict(table) for name, objective in objectives.items()}
        times = material.written.moments(row)[0]
        found.append(
            Timeline(material.prepared.video_id(row), material.prepared.patients[row], times, truth, said)
        )  # fmt: skip
    for name, objective in objectives.items():
        objective.train(modes[name])
    return found


def evaluate_test(objective: TemporalObjective, material: Procedures, config: RunConfig) -> MomentEvaluation:
    """The test procedures, predicted once, next to the commonest answer and to a linear probe that sees single moments."""
    temporal, classes = config.task.temporal, material.labels.classes
    share = frequencies(list(material.train.values()), len(classes))
    probe = linear_probe(material.written, material.train, material.validation, len(classes))
    lines = []
    for line, row in zip(timelines(material, material.test, {"head": objective}), material.test, strict=True):
        said = {
            "majority": np.tile(share, (len(line.times), 1)), "linear": probed(probe, material.written.read(row)), **line.said,
        }  # fmt: skip
        lines.append(Timeline(line.video_id, line.patient, line.times, line.truth, said))
    tested = [line.patient for line in lines]
    ids = {material.prepared.video_id(row) for row in material.test}
    return MomentEvaluation(
        task=config.task.name,
        settings=material.task,
        classes=classes,
        timelines=tuple(lines),
        titles={**TITLES, "head": f"the {temporal.head} head"},
        reference="linear",
        absent=temporal.absent,
        relaxed=temporal.relaxed if material.task.kind == "phases" else 0.0,
        rate=temporal.rate,
        seed=config.train.seed,
        folds=config.task.folds,
        split=config.task.split,
        excluded=tuple(failure for failure in material.failed if failure.video_id not in ids),
        unmatched=material.labels.unmatched,
        notes=(
            f"Taught by the labels of {material.patients(material.train)} {who(material.prepared)}",
            *meetings(config.encoder.name, material.prepared, tested),
        ),
    )


def finish(
    run: RunFolder,
    objective: TemporalObjective,
    encoder: VideoEncoder,
    material: Procedures,
    config: RunConfig,
    result: TrainResult,
    best: Best,
    reporter: Reporter,
) -> None:
    """Go back to the best epoch, write the model, and ask the test procedures."""
    chosen = best.load(objective)
    evaluation = evaluate_test(objective, material, config)
    with writing_model(run):
        encoder.save(run.path / "encoder")
        save_head(objective, run.path)
        write_moments(evaluation, run.path)
        write_record(
            run,
            config,
            result,
            chosen,
            evaluation.verdict(),
            reporter,
            head=config.task.temporal.head,
            trained_parameters=sum(p.numel() for p in objective.parameters()),
            patients={
                "train": material.patients(material.train),
                "validation": material.patients(material.validation),
                "test": material.patients(material.test),
            },
        )


def predict_moments(
    run: Path, prepared: Prepared, rows: list[int], out: Path, reporter: Reporter
) -> tuple[str, tuple[Failure, ...]]:
    """What a finished run says of other recordings: `out`/VIDEO.csv, a line a moment. Returns its task, and those that could not be read.

    Descriptions are kept in `out`/features. Raises ModelError for a run that is not finished, DataError, StorageError.
    """
    objective, encoder = load_temporal_head(run), open_encoder(str(run))
    settings = objective.settings
    written, failed = write_descriptions(
        encoder, prepared, rows, clip_of(encoder.geometry), settings.rate, out / FEATURES, said_by(reporter)
    )
    lost = {failure.video_id for failure in failed}
    for row in rows:
        if (video_id := prepared.video_id(row)) in lost:
            continue
        times, said = written.moments(row)[0], objective.predict(written.read(row))
        shape = (len(times),) if settings.kind == "phases" else said.shape
        line = Timeline(video_id, prepared.patients[row], times, np.full(shape, UNLABELLED), {"head": said})
        try:
            write_table(line, "head", settings.classes, out / f"{video_id}.csv")
        except OSError as error:
            raise StorageError(f"cannot be written ({error.strerror})", where=out, do="Free some space") from None
    return settings.task, failed
