"""`vfm finetune`: from an encoder and some labelled recordings to a model that predicts the label of new ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from domains.errors import ConfigError
from recipes.config import Resolved, RunConfig, StudySettings, TemporalSettings
from recipes.encoders import VideoEncoder, build_encoder, open_encoder
from recipes.evaluate.compare import Labelled, score
from recipes.evaluate.evaluation import Evaluation
from recipes.evaluate.metrics import Array, metrics_of
from recipes.evaluate.outputs import write_evaluation
from recipes.evaluate.predict import predict
from recipes.evaluate.statistics import DRAWS
from recipes.finetune.best import Best
from recipes.finetune.material import Material, read_material, task_of_run
from recipes.finetune.task import TARGET, TaskObjective, head_settings
from recipes.jobs.finished import save_model, write_record, writing_model
from recipes.jobs.seen import write_seen
from recipes.objective import Progress
from recipes.runs.status import recorded
from recipes.training.data import ClipData
from recipes.training.launch import is_main
from recipes.training.loop import TrainResult, train
from recipes.training.reporter import Reporter
from recipes.training.run import RunFolder


def build_task(config: RunConfig, material: Material, *, online: bool = False) -> TaskObjective:
    """The encoder with its adapters, and a new head for the targets; all new weights follow from the run's seed."""
    wanted, task = config.task, material.task
    settings = head_settings(
        wanted.name,
        "regression" if task.kind == "regression" else "classification",  # one of moments never comes here
        task.unit,
        material.labels.classes,
        material.truth(material.split.train),
        loss=wanted.loss,
        balance=wanted.balance,
        dropout=wanted.dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        encoder = build_encoder(config.encoder, config.clip, online=online, seed=config.train.seed)
        return TaskObjective(encoder, settings, head_scale=wanted.lr_head / config.optim.lr)


def finetune(
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
    """Learn `task.name` from the training patients' labels, keep the epoch that is best on the validation patients, and
    predict the test patients once. Returns `out`, which then holds

        encoder/ (adapters merged), adapter/ (peft; mode lora), base/ (where the start has no folder of its own),
        head.safetensors, head.json, predictions.csv, evaluation.json, scatter.png or confusion.png

    A task of moments (phases, presence) leaves what `recipes.jobs.moments` says, one of studies what `recipes.jobs.studies` says. from_step: go on
    from the checkpoint of that step. key: needed where the labels name original identifiers. Raises VfmError subclasses; see
    `recipes.training.loop.train`.
    """
    config = resolved.config
    check_settings(config)
    if task_of_run(config).of_moments:
        if config.task.level == "study":
            what = f"'{config.task.name}' is a task of moments, and a study has one answer"
            raise ConfigError(what, do="Leave --level out")
        from recipes.jobs.moments import finetune_moments

        return finetune_moments(
            resolved, out, key=key, overwrite=overwrite, resume=resume, from_step=from_step, online=online, reporter=reporter
        )  # fmt: skip
    if config.task.level == "study":
        from recipes.jobs.studies import finetune_studies

        return finetune_studies(
            resolved, out, key=key, overwrite=overwrite, resume=resume, from_step=from_step, online=online, reporter=reporter
        )  # fmt: skip
    if config.task.study != StudySettings():
        what = "'task.study' is for tasks of whole studies, and this one is of recordings"
        raise ConfigError(what, do="Add --level study, or leave it out")
    if config.task.temporal != TemporalSettings():
        what = f"'task.temporal' (--head) is for tasks of moments, and '{config.task.name}' is one of whole recordings"
        raise ConfigError(what, do="Leave it out")
    material = read_material(config, key)
    objective = build_task(config, material, online=online)
    resume = resume or from_step is not None
    run = RunFolder(out)
    if is_main():
        run = RunFolder.create(out, resolved, overwrite=overwrite, resume=resume, from_step=from_step)
    try:
        if resume and run.finished and from_step is None:
            reporter.note(f"{out} is finished; nothing to resume")
            return out
        with recorded(run.path, main=is_main()):
            tell(config, material, objective.encoder, reporter)
            best = Best(run.path / "best")
            if is_main() and from_step is not None:
                best.forget_after(from_step)
            split = material.split
            data = ClipData(
                material.prepared,
                material.rows(split.train).tolist(),
                objective.views,
                config.clip,
                config.augment,
                seed=config.train.seed,
                clips_per_video=config.data.clips_per_video,
                targets={TARGET: material.truth(split.train)},
            )
            if is_main():
                # Validation patients chose the epoch: they count as met.
                write_seen(run.path, material.prepared, material.rows(split.train | split.validation), config.task.name)
            check = Validation(objective, material, best)
            result = train(objective, data, config, run, reporter, resume=resume, from_step=from_step, validate=check)
            if is_main():
                finish(run, objective, material, config, result, best, reporter)
    finally:
        run.unlock()
    return out


def check_settings(config: RunConfig) -> None:
    """Raises ConfigError for what is set and would not be used."""
    if config.monitor.knn.task:
        what = "'monitor.knn' is for pretraining; fine-tuning is watched by its validation patients"
        raise ConfigError(what, do="Leave it out")
    if config.data.split:
        raise ConfigError(
            "'data.split' is for pretraining", do=f"Fine-tuning has task.split={config.data.split} (--split)"
        )
    if config.pretext:
        raise ConfigError("'pretext' is for pretraining; fine-tuning learns from labels alone", do="Leave it out")
    if config.data.source.path:
        what = "'data.source' is for pretraining that adapts between domains (comix)"
        raise ConfigError(what, do="Leave it out; fine-tuning learns from task.labels")


def tell(config: RunConfig, material: Material, encoder: VideoEncoder, reporter: Reporter) -> None:
    """What the run is about to do, and what about it may surprise."""
    split = material.split
    parts = {"training": split.train, "validation": split.validation, "test": split.test}
    said = ", ".join(
        f"{name} {int(m.sum())} videos of {len(set(material.patients(m)))} patients" for name, m in parts.items()
    )
    reporter.note(f"{config.task.name}: {said}")
    if material.labels.unmatched:
        reporter.warn(f"{material.labels.unmatched} label rows match no recording")
    if material.task.kind == "classification":
        absent = sorted(
            set(range(len(material.labels.classes))) - set(material.truth(split.train).astype(int).tolist())
        )
        if absent:
            names = ", ".join(material.labels.classes[number] for number in absent)
            reporter.warn(f"no training video of class {names}: it will never be predicted")
    if encoder.random_start:
        reporter.note(f"{config.encoder.name} starts from random weights: expect little without pretraining")


@dataclass
class Validation:
    """Called by the loop at the end of every epoch: error on the validation patients; the best weights are kept.

    The score is the mean absolute error, or for classes the log loss, which unlike the accuracy of a few patients has
    no ties.
    """

    objective: TaskObjective
    material: Material
    best: Best

    def __call__(self, progress: Progress) -> Mapping[str, float]:
        part = self.material.split.validation
        device = next(self.objective.parameters()).device
        found = predict(self.objective, self.material.prepared, self.material.rows(part), 1, device)
        value_of = dict(zip(self.material.rows(part).tolist(), self.material.truth(part), strict=True))
        truth = np.array([value_of[row] for row in found.index.tolist()])
        headline = metrics_of(self.material.task.kind)[0]
        figure = float(headline.of(truth, found.values, np.ones((1, len(truth))))[0])
        if self.material.task.kind == "regression":
            figures, measure = {"val_mae": figure}, figure
        else:
            likely = found.values[np.arange(len(truth)), truth.astype(int)]
            measure = float(-np.log(np.maximum(likely, 1e-9)).mean())
            figures = {"val_accuracy": figure, "val_log_loss": measure}
        self.best.offer(self.objective, measure, progress.step, progress.epoch)
        return figures


def evaluate_test(objective: TaskObjective, material: Material, config: RunConfig, device: torch.device) -> Evaluation:
    """The test patients, predicted once, next to the trivial answer: training median, or class frequencies."""
    wanted, prepared, labels = config.task, material.prepared, material.labels
    part = material.split.test
    found = predict(objective, prepared, material.rows(part), wanted.clips_per_video, device)
    place = {row: position for position, row in enumerate(labels.index.tolist())}
    kept = np.array([place[row] for row in found.index.tolist()])
    studies = prepared.column("study")
    labelled = Labelled(
        kind=material.task.kind,
        truth=labels.values[kept].astype(np.float64),
        classes=labels.classes,
        patients=tuple(labels.patients[position] for position in kept),
        studies=tuple(studies[row] for row in found.index.tolist()),
        fold=np.full(len(kept), wanted.fold),
    )
    predictions = {"constant": constant(material, len(kept)), "finetuned": found.values}
    titles = {"constant": "no encoder (training median)", "finetuned": f"fine-tuned ({config.encoder.mode})"}
    if labels.classes:
        titles["constant"] = "no encoder (commonest class)"
    dimensions = {"constant": 0, "finetuned": objective.encoder.description}
    rows = score(labelled, predictions, "constant", titles=titles, dimensions=dimensions, seed=config.train.seed)
    taught = len(set(material.patients(material.split.train)))
    return Evaluation(
        protocol="finetune",
        task=wanted.name,
        unit=material.task.unit,
        labelled=labelled,
        video_ids=tuple(prepared.video_id(row) for row in found.index.tolist()),
        rows=tuple(rows),
        reference="constant",
        folds=wanted.folds,
        clips=wanted.clips_per_video,
        seed=config.train.seed,
        draws=DRAWS,
        excluded=found.failed,
        unmatched=labels.unmatched,
        unlabelled=labels.unlabelled,
        split=wanted.split,
        notes=(f"Taught by the labels of {taught} patients ({wanted.label_fraction:.0%} of the training patients)",),
    )


def constant(material: Material, count: int) -> Array:
    """The answer that needs no encoder, `count` times: median of the training targets, or their class frequencies."""
    truth = material.truth(material.split.train)
    if material.task.kind == "regression":
        return np.full(count, np.median(truth))
    frequency = np.bincount(truth.astype(int), minlength=len(material.labels.classes)) / len(truth)
    return np.tile(frequency, (count, 1))


def finish(
    run: RunFolder,
    objective: TaskObjective,
    material: Material,
    config: RunConfig,
    result: TrainResult,
    best: Best,
    reporter: Reporter,
) -> None:
    """Go back to the best epoch, write the model, and ask the test patients."""
    chosen = best.load(objective)
    device = next(objective.parameters()).device
    evaluation = evaluate_test(objective, material, config, device)
    for failure in evaluation.excluded:
        reporter.warn(f"test video {failure.video_id} could not be read and is in no figure: {failure.reason}")
    with writing_model(run):
        save_model(run.path, objective, objective.encoder, config)
        write_evaluation(evaluation, run.path)
        write_record(
            run,
            config,
            result,
            chosen,
            evaluation.verdict(),
            reporter,
            trained_parameters=sum(p.numel() for p in objective.parameters() if p.requires_grad),
            parameters=sum(p.numel() for p in objective.parameters()),
            patients={
                name: len(set(material.patients(getattr(material.split, name))))
                for name in ("train", "validation", "test", "unused")
            },
        )


def load_model(run: Path) -> TaskObjective:
    """A finished fine-tuning run, ready to `predict`. Raises ModelError."""
    from recipes.finetune.head import load_head

    return load_head(open_encoder(str(run)), run)
