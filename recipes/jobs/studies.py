"""`vfm finetune --level study`: many clips of one study to one answer.

The encoder looks once at every recording; what it says is written beside the run and read by every head. That is all (`encoder.mode` frozen), or a
beginning: then the encoder learns with the head, and the clips of a study go through it in every step.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from domains.errors import ConfigError, StorageError
from domains.store.annotated import labels_of
from domains.store.labels import read_labels
from domains.store.prepared import Prepared
from domains.store.studies import label_studies, rows_by_study
from recipes.config import Resolved, RunConfig, TaskRunSettings, TemporalSettings
from recipes.encoders import VideoEncoder, build_encoder, open_encoder
from recipes.evaluate.attention import ATTENTION, PICTURES, Seen, draw_study, in_words, write_attention
from recipes.evaluate.compare import Labelled, score
from recipes.evaluate.described import Described, Descriptions, describe_recordings
from recipes.evaluate.evaluation import Evaluation
from recipes.evaluate.features import Failure, clip_of
from recipes.evaluate.metrics import metrics_of
from recipes.evaluate.outputs import PREDICTIONS, write_evaluation
from recipes.evaluate.statistics import DRAWS, paired, patient_weights
from recipes.evaluate.studies import Answer, Views, answers, baselines
from recipes.finetune.best import Best
from recipes.finetune.head import load_study_head
from recipes.finetune.material import task_of_run
from recipes.finetune.study import StudyObjective
from recipes.jobs.finished import save_model, write_record, writing_model
from recipes.jobs.moments import FEATURES, said_by
from recipes.jobs.seen import meetings, who, write_seen
from recipes.jobs.study_head import adapts, build_head, samples, sayings
from recipes.jobs.study_material import Material, describe, features_of, left_out, probed, told_views
from recipes.objective import Progress
from recipes.report.studies import SHOWN, write_study_report
from recipes.runs.status import recorded
from recipes.training.loop import TrainResult, train
from recipes.training.reporter import Reporter
from recipes.training.run import RunFolder


def finetune_studies(
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
    """Learn one answer to all clips of a study from the training patients, keep the epoch that is best on the validation patients, and predict the
    test patients once. Returns `out`, which then holds

        encoder/ (adapters merged), adapter/, base/ (as `recipes.jobs.finetune`), head.safetensors, head.json, evaluation.json, predictions.csv
        (a line a study), attention.csv (a line a clip), studies/STUDY.png, scatter.png or confusion.png, report.html

    and beside it `features/`, what the encoder said (`recipes.evaluate.described`). Raises VfmError subclasses; see `recipes.training.loop.train`.
    """
    config = resolved.config
    check_study(config)
    task, prepared = task_of_run(config), Prepared.open(config.data.path)
    table = labels_of(prepared, config.task.labels)
    labels = read_labels(table, task, prepared, key)
    studies = label_studies(labels, prepared, config.task.name)
    told = told_views(config, prepared, table, key)
    encoder = build_encoder(config.encoder, config.clip, online=online, seed=config.train.seed)
    begun = encoder
    if adapts(
        config
    ):  # as long as it has learned nothing it says what a frozen one does, which is written once for both
        frozen = config.encoder.model_copy(update={"mode": "frozen"})
        begun = build_encoder(frozen, config.clip, online=online, seed=config.train.seed)
    resume = resume or from_step is not None
    run = RunFolder.create(out, resolved, overwrite=overwrite, resume=resume, from_step=from_step)
    try:
        if resume and run.finished and from_step is None:
            reporter.note(f"{out} is finished; nothing to resume")
            return out
        with recorded(run.path):
            material = describe(config, begun, prepared, task, labels, studies, told, run.path, reporter)
            del begun
            objective, material, first = build_head(config, encoder, material, reporter)
            tell(config, material, encoder, reporter)
            best = Best(run.path / "best")
            if from_step is not None:
                best.forget_after(from_step)
            data, described = samples(config, objective, material, first), sayings(config, encoder, material)
            met = [row for part in (material.train, material.validation) for rows in part.rows for row in rows]
            write_seen(run.path, prepared, met, config.task.name)
            check = Validation(objective, material, best, described)
            result = train(objective, data, config, run, reporter, resume=resume, from_step=from_step, validate=check)
            finish(run, objective, encoder, material, config, result, best, reporter)
    finally:
        run.unlock()
    return out


def check_study(config: RunConfig) -> None:
    """Raises ConfigError for settings that a task of studies would not use."""
    if config.task.temporal != TemporalSettings():
        what = "'task.temporal' (--head) is for tasks of moments, and this one is of studies"
        raise ConfigError(what, do="Leave it out")
    if not adapts(config) and config.task.lr_head != TaskRunSettings().lr_head:
        what = "'task.lr_head' is not used by a head over studies whose encoder is frozen"
        raise ConfigError(what, do="Set optim.lr: only the head learns")
    if not adapts(config) and config.train.piece is not None:
        what = "'train.piece' bounds the clips that an encoder learns from at once, and encoder.mode is frozen"
        raise ConfigError(what, do="Leave it out, or let the encoder learn: --mode lora")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("a head over studies is learned by one process", do="Run it without torchrun or --processes")


def tell(config: RunConfig, material: Material, encoder: VideoEncoder, reporter: Reporter) -> None:
    """What the run is about to do, and what about it may surprise."""
    people, task = who(material.prepared), config.task.name
    said = ", ".join(
        f"{name} {len(part)} studies of {len(set(part.patients))} {people}" for name, part in material.parts.items()
    )
    sizes = [len(rows) for part in material.parts.values() for rows in part.rows]
    views = {"none": "views not told", "labels": "views by labels", "probe": "views by a probe"}[material.mode]
    reporter.note(f"{task}: {said}; {min(sizes)} to {max(sizes)} clips a study, {views}")
    if adapts(config):
        most = config.train.batch_size * min(config.task.study.clips, max(sizes))
        held = min(most, config.train.piece or most)
        reporter.note(
            f"the encoder learns with the head ({config.encoder.mode}); at most {held} of {most} clips in it at once"
        )
    if material.labels.unmatched:
        reporter.warn(f"{material.labels.unmatched} label rows match no recording")
    if max(sizes) == 1:
        reporter.warn("no study has more than one clip: there is nothing to weigh")
    absent = set(range(len(material.labels.classes))) - set(material.train.values.astype(int).tolist())
    if material.labels.classes and absent:
        names = ", ".join(material.labels.classes[number] for number in sorted(absent))
        reporter.warn(f"no training study of class {names}: it will never be predicted")
    if encoder.random_start:
        reporter.note(f"{config.encoder.name} starts from random weights: expect little without pretraining")


@dataclass
class Validation:
    """Called by the loop at the end of every epoch: error on the validation studies, as for tasks of recordings; the best weights are kept."""

    objective: StudyObjective
    material: Material
    best: Best
    described: Descriptions

    def __call__(self, progress: Progress) -> Mapping[str, float]:
        part = self.material.validation
        found = answers(self.objective, self.described, part.rows, self.material.views)
        said, truth = np.stack([one.prediction for one in found]), part.values.astype(np.float64)
        headline = metrics_of(self.material.task.kind)[0]
        figure = float(headline.of(truth, said, np.ones((1, len(truth))))[0])
        if self.material.task.kind == "regression":
            figures, measure = {"val_mae": figure}, figure
        else:
            likely = said[np.arange(len(truth)), truth.astype(int)]
            measure = float(-np.log(np.maximum(likely, 1e-9)).mean())
            figures = {"val_accuracy": figure, "val_log_loss": measure}
        self.best.offer(self.objective, measure, progress.step, progress.epoch)
        return figures


def evaluate_test(found: list[Answer], material: Material, config: RunConfig) -> tuple[Evaluation, list[Seen]]:
    """The answers to the test studies, next to the trivial one, to single clips and to their mean."""
    test, task, classes = material.test, material.task, material.labels.classes
    beside = baselines(
        material.described, material.train, material.validation, test, material.views, task.kind, len(classes)
    )
    truth = test.values.astype(np.float64)
    labelled = Labelled(task.kind, truth, classes, test.patients, test.names, np.full(len(test), config.task.fold))
    predictions = {**beside.predictions, "study": np.stack([one.prediction for one in found])}
    width = dict.fromkeys(predictions, material.described.channels) | {"constant": 0}
    learned = f", encoder adapted ({config.encoder.mode})" if adapts(config) else ""
    titles = {**beside.titles, "study": f"attention over all clips{learned}"}
    rows = score(labelled, predictions, "single", titles=titles, dimensions=width, seed=config.train.seed)
    headline = metrics_of(task.kind)[0]
    weights = patient_weights(test.patients, DRAWS, config.train.seed)
    notes = [f"Taught by the labels of {len(set(material.train.patients))} {who(material.prepared)}"]
    if len(beside.best) > 1:
        notes.append(
            f"Single clips of the training and validation patients predict best in the order {', '.join(beside.best)}"
        )
    evaluation = Evaluation(
        protocol="study", task=config.task.name, unit=task.unit, labelled=labelled, video_ids=test.names, rows=tuple(rows), reference="single",
        folds=config.task.folds, clips=config.task.clips_per_video, seed=config.train.seed, draws=DRAWS, excluded=material.failed,
        unmatched=material.labels.unmatched, unlabelled=material.labels.unlabelled, split=config.task.split,
        recordings=sum(len(own) for own in test.rows),
    )  # fmt: skip
    for name in ("mean", "views"):
        if name in predictions:
            apart = paired(headline, truth, predictions["study"], predictions[name], weights)
            notes.append(f"Against the {titles[name]}: {evaluation.interval(apart, headline, signed=True)}")
    if learned:
        notes.append("Single clips and their means are told by linear probes of the encoder as the run began")
    notes += meetings(config.encoder.name, material.prepared, test.patients)
    values = [classes[int(value)] if classes else f"{value:.6g}" for value in test.values.tolist()]
    seen = [Seen(*one) for one in zip(test.names, test.patients, test.rows, found, values, strict=True)]
    return replace(evaluation, notes=tuple(notes)), seen


def worst_to_best(evaluation: Evaluation, count: int) -> list[int]:
    """Places of at most `count` studies, the worst predicted first, evenly spread down to the best."""
    said, truth = evaluation.rows[-1].prediction, evaluation.labelled.truth
    error = np.abs(said - truth) if said.ndim == 1 else 1 - said[np.arange(len(truth)), truth.astype(int)]
    order = np.argsort(-error, kind="stable")
    places: list[int] = order[np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))].tolist()
    return places


def finish(
    run: RunFolder,
    objective: StudyObjective,
    encoder: VideoEncoder,
    material: Material,
    config: RunConfig,
    result: TrainResult,
    best: Best,
    reporter: Reporter,
) -> None:
    """Go back to the best epoch, write the model, and ask the test studies."""
    chosen = best.load(objective)
    trained = {"trained_parameters": sum(p.numel() for p in objective.parameters() if p.requires_grad)}
    objective.to("cpu")
    with writing_model(run):
        save_model(run.path, objective, encoder, config)
    said, views = material.described, material.views
    if adapts(config):
        trained["parameters"] = sum(p.numel() for p in objective.parameters())
        objective, material, said, views = asked_again(run, material, config, reporter)
    evaluation, seen = evaluate_test(answers(objective, said, material.test.rows, views), material, config)
    prepared = material.prepared
    with writing_model(run):
        write_evaluation(evaluation, run.path)
        write_attention(seen, prepared, views, material.labels.classes, run.path / ATTENTION)
        shown = [seen[place] for place in worst_to_best(evaluation, SHOWN)]
        (run.path / PICTURES).mkdir(exist_ok=True)
        for one in shown:
            draw_study(one, prepared, views, run.path / PICTURES / f"{one.study}.png")
        write_study_report(
            evaluation, shown, len(seen), prepared, run.path, title=f"{config.task.name} of whole studies",
            adapted=adapts(config),
        )  # fmt: skip
        write_record(
            run,
            config,
            result,
            chosen,
            evaluation.verdict(),
            reporter,
            level="study",
            views=material.mode,
            **trained,
            patients={
                "train": len(set(material.train.patients)),
                "validation": len(set(material.validation.patients)),
                "test": len(set(material.test.patients)),
            },
        )


def asked_again(
    run: RunFolder, material: Material, config: RunConfig, reporter: Reporter
) -> tuple[StudyObjective, Material, Described, Views]:
    """A model that was saved, as `vfm predict` opens it, and what its encoder says of the test recordings: (the head, the material without recordings
    that cannot be read any more, descriptions, views as the head takes them)."""
    objective, encoder = load_study_head(run.path), open_encoder(str(run.path))
    rows = sorted(row for own in material.test.rows for row in own)
    said, failed = describe_recordings(
        encoder, material.prepared, rows, clip_of(encoder.geometry), config.task.clips_per_video, features_of(config, run.path),
        said_by(reporter, "test recordings"),
    )  # fmt: skip
    material = left_out(material, failed, reporter)
    rows = sorted(row for own in material.test.rows for row in own)
    views = probed(objective, said, rows) if material.mode == "probe" else material.views
    return objective, material, said, views


def predict_studies(
    run: Path, prepared: Prepared, out: Path, reporter: Reporter, *, views: Views | None = None
) -> tuple[list[Seen], tuple[Failure, ...]]:
    """What a finished run says of the studies of another folder: `out`/predictions.csv, a line a study, and `out`/attention.csv, a line a clip.

    views: as labels tell them, for a head that was taught so; without, they are not known to it. Descriptions are kept in `out`/features. Returns
    the studies, and the recordings that could not be read. Raises ModelError for a run that is not finished, ConfigError for views of other names,
    StorageError.
    """
    objective, encoder = load_study_head(run), open_encoder(str(run))
    s = objective.settings
    if views is not None and views.names != s.view_names:
        raise ConfigError(f"the head knows the views {', '.join(s.view_names) or '(none)'}, in this order", where=run)
    described, failed = describe_recordings(
        encoder, prepared, range(len(prepared)), clip_of(encoder.geometry), s.clips_per_video, out / FEATURES, said_by(reporter, "recordings")
    )  # fmt: skip
    lost = {prepared.index_of(failure.video_id) for failure in failed}
    told = [(study, tuple(row for row in rows if row not in lost)) for study, rows in rows_by_study(prepared).items()]
    told = [(study, rows) for study, rows in told if rows]
    if s.views == "probe":
        views = probed(objective, described, [row for _, rows in told for row in rows])
    views = views or Views.unknown(prepared)
    found = answers(objective, described, [rows for _, rows in told], views)
    seen = [Seen(study, prepared.patients[rows[0]], rows, one) for (study, rows), one in zip(told, found, strict=True)]
    write_attention(seen, prepared, views, s.classes, out / ATTENTION)
    try:
        with (out / PREDICTIONS).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["study", "patient", "prediction", *(f"p_{name}" for name in s.classes)])
            for one in seen:
                likely = [f"{p:.4f}" for p in one.answer.prediction] if s.classes else []
                writer.writerow([one.study, one.patient, in_words(one.answer.prediction, s.classes), *likely])
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror})", where=out, do="Free some space") from None
    return seen, failed
