"""`vfm pretrain`: from a prepared folder and an encoder to the encoder adapted to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from domains.errors import ConfigError, DataError, StorageError
from domains.schema import parse
from domains.store.actions import Actions
from domains.store.annotated import read_split
from domains.store.prepared import Prepared
from domains.store.region_map import check_region_maps
from domains.store.text_tables import read_texts
from domains.store.texts import Texts
from domains.store.views import moments_of, read_views
from recipes.config import Resolved, RunConfig, TextSettings
from recipes.encoders import build_encoder
from recipes.encoders.adapt import save_adapter
from recipes.encoders.aligned import save_aligned
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import build_text
from recipes.finetune.head import save_head
from recipes.jobs.adapt import Source, as_task
from recipes.jobs.online import OnlineKnn
from recipes.jobs.seen import looked_at, write_seen
from recipes.objective import Contrast, Objective
from recipes.parts.sensed import save_sensed
from recipes.pretrain import METHODS, added_tasks, build_method, method
from recipes.runs.curves import draw_curves
from recipes.runs.metrics import CLOCKS, read_lines, read_metrics, series_of
from recipes.runs.run import ALARMS, is_run
from recipes.runs.status import RECORD, recorded
from recipes.training.data import ClipData
from recipes.training.launch import is_main
from recipes.training.loop import TrainResult, train
from recipes.training.memory import largest_batch
from recipes.training.processes import make_accelerator
from recipes.training.reporter import Reporter
from recipes.training.run import RunFolder, replace
from recipes.training.texts import TextData
from recipes.training.together import TogetherData, clip_seconds


def complete(resolved: Resolved) -> Resolved:
    """The settings of the method and of pretext tasks checked and filled in, so that config.resolved.yaml holds every one of them.

    Raises ConfigError.
    """
    kind = method(resolved.config.method)
    settings = parse(kind.Settings, resolved.config.objective, f"objective ({kind.name})")
    tasks = added_tasks(resolved.config.pretext, kind.name)
    if tasks and resolved.config.train.piece is not None:
        what = "'train.piece' and 'pretext' do not go together: the heads of pretext tasks look at the whole batch"
        raise ConfigError(
            what, do="Leave one of them out; less memory: a smaller train.batch_size, or encoder.checkpointing=true"
        )
    pretext = {name: {"weight": weight, **own.model_dump(mode="json")} for name, (weight, own) in tasks.items()}
    origins = dict(resolved.origins)
    for name in resolved.config.pretext:
        if (origin := origins.pop(f"pretext.{name}", None)) is not None and name in pretext:  # said as a weight alone
            origins[f"pretext.{name}.weight"] = origin
    config = resolved.config.model_copy(update={"objective": settings.model_dump(mode="json"), "pretext": pretext})
    return Resolved(config, origins)


def build_objective(resolved: Resolved, encoder: VideoEncoder, *, online: bool = False) -> Objective:
    """The method of a run around its encoder (and text tower), with its pretext tasks; new parts follow from the run's seed."""
    config = resolved.config
    text = None
    if method(config.method).texts:
        text = build_text(config.text, online=online, seed=config.train.seed)
    encoder.context = encoder.trajectory = (
        None  # they read features of the encoder that they were trained on, which are about to change
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        objective = build_method(config.method, config.objective, config.pretext, encoder, text=text)
    if not objective.adapts and config.encoder.mode in ("lora", "last_k"):
        what = f"'encoder.mode' is {config.encoder.mode}, and '{objective.name}' trains nothing of the encoder itself"
        raise ConfigError(what, do="Leave encoder.mode out")
    return objective


def pretrain(
    resolved: Resolved,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    from_step: int | None = None,
    online: bool = False,
    auto_batch: bool = False,
    key: bytes | None = None,
    reporter: Reporter,
) -> Path:
    """Continue the training of an encoder on unlabelled recordings. Returns the folder of the adapted encoder, `out/encoder`.

    from_step: go on from the checkpoint of that step. auto_batch: with the largest batch that memory has room for (`--batch-size auto`); of a
    contrastive method, whose batch is part of the question, the largest `train.piece`. A run that goes on keeps what it began with. key:
    needed where labels that the run looks at (monitor.knn) or learns from (data.source), or texts, name original
    identifiers. Raises VfmError subclasses; see
    `recipes.training.loop.train`.
    """
    resume = resume or from_step is not None
    resolved = complete(resolved)
    config = resolved.config
    prepared = Prepared.open(config.data.path)
    spoken = texts_of(config, prepared, key)
    source = Source.of(config, method(config.method), key)
    if source is not None:
        resolved = source.filled_in(resolved)
        config = resolved.config
    if auto_batch and not (resume and is_run(out)):
        samples = epoch_of(config, prepared, spoken) * config.data.clips_per_video
        resolved = with_largest_batch(resolved, samples, online=online, reporter=reporter)
        config = resolved.config
    if any(view.regions for view in method(config.method).views.values()):
        check_region_maps(prepared, list(rows_of(prepared, config.data.split)), config.region_map, config.domain)
    probe = OnlineKnn.of(config, prepared, key)
    encoder = build_encoder(config.encoder, config.clip, online=online, seed=config.train.seed)
    objective = build_objective(resolved, encoder, online=online)
    run = RunFolder(out)
    if is_main():
        run = RunFolder.create(out, resolved, overwrite=overwrite, resume=resume, from_step=from_step)
    try:
        if resume and run.finished and from_step is None:
            reporter.note(f"{out} is finished; nothing to resume")
            return run.encoder
        with recorded(run.path, main=is_main()):
            if encoder.random_start:
                reporter.note(f"{config.encoder.name} starts from random weights")
            data = samples_of(config, prepared, objective, spoken)
            if source is not None:
                data = source.beside(data, objective, config)
            if is_main():
                also = [(source.prepared, source.rows, source.task)] if source is not None else []
                write_seen(run.path, prepared, data.rows, looked=probe.looked if probe is not None else None, also=also)
                for said in (probe, source):
                    if said is not None:
                        reporter.note(said.said())
                if spoken is not None:
                    reporter.note(in_words(spoken, data))
                if isinstance(data, TogetherData):
                    reporter.note(data.said())
            result = train(objective, data, config, run, reporter, resume=resume, from_step=from_step, probe=probe)
            if is_main():
                finish(run, objective, prepared, config, result, source, spoken, data.measured.counts)
    finally:
        run.unlock()
    return run.encoder


def with_largest_batch(resolved: Resolved, samples: int, *, online: bool, reporter: Reporter) -> Resolved:
    """`resolved` with the largest batch of this machine, the same on all processes; samples: of an epoch. Raises TrainingError where none fits."""
    config = resolved.config
    accelerator = make_accelerator(config)
    encoder = build_encoder(config.encoder, config.clip, online=online, seed=config.train.seed)
    trial = build_objective(resolved, encoder, online=online)
    contrast = isinstance(trial, Contrast)
    limit = config.train.batch_size if contrast else samples // (config.train.accumulate * accelerator.num_processes)
    bf16 = accelerator.mixed_precision == "bf16"
    own = largest_batch(trial, config, accelerator.device, bf16, max(1, limit))
    size = min(gather_object([own]))
    if contrast:
        change = {"piece": size if size < config.train.batch_size else None}
        reporter.note(f"{size} samples fit into memory at once, of a batch of {config.train.batch_size}")
    else:
        change = {"batch_size": size}
        reporter.note(
            f"batch size {size}: the largest that fits (recipe: {config.train.batch_size}); optim.lr stays {config.optim.lr:g}"
        )
    origins = {**resolved.origins, **{f"train.{name}": "--batch-size auto" for name in change}}
    return Resolved(config.model_copy(update={"train": config.train.model_copy(update=change)}), origins)


def texts_of(config: RunConfig, prepared: Prepared, key: bytes | None) -> Texts | None:
    """What was said of the recordings, for a method that learns from it. Raises ConfigError for one that does not and was told how, DataError."""
    kind = method(config.method)
    if kind.texts:
        if config.text.keep and not config.text.files:
            what = "'text.keep' names columns of text files, and there are none"
            raise ConfigError(what, do="Give files: --text captions.csv; or leave it out")
        return read_texts(config.text.files, prepared, key, keep=config.text.keep)
    if config.text != TextSettings():
        learners = ", ".join(one.name for one in METHODS if one.texts)
        do = f"Leave --text and text.* out, or use --recipe {learners}"
        raise ConfigError(f"'{kind.name}' does not learn from texts", do=do)
    return None


def samples_of(config: RunConfig, prepared: Prepared, objective: Objective, spoken: Texts | None) -> ClipData:
    """The stream that a run learns from: recordings, or what was said of them. Raises ConfigError, DataError."""
    rows, train = rows_of(prepared, config.data.split), config.train
    across = any(view.across for view in objective.views.values())
    if not config.data.synchronous and not across and (not objective.together or objective.text is not None):
        learners = ", ".join(one.name for one in METHODS if one.together and not one.texts)
        what = f"'{objective.name}' does not learn from several cameras at one moment"
        raise ConfigError(what, do=f"Leave data.synchronous out, or use --recipe {learners}")
    if objective.together and objective.text is None:
        return TogetherData(
            prepared, rows, objective.views, config.clip, config.augment, synchronous=config.data.synchronous, seed=train.seed,
            clips_per_video=config.data.clips_per_video, regions=config.region_map, signals=objective.signals,
        )  # fmt: skip
    if spoken is None or objective.text is None:
        return ClipData(
            prepared, rows, objective.views, config.clip, config.augment, seed=train.seed,
            clips_per_video=config.data.clips_per_video, regions=config.region_map, signals=objective.signals,
        )  # fmt: skip
    return TextData(
        prepared, rows, objective.views, config.clip, config.augment, texts=spoken, asked=objective.texts, reader=objective.text.reader,
        silent=objective.silent, shares=objective.shares, actions=Actions.of(prepared, spoken) if objective.acts else None, seed=train.seed,
        clips_per_video=config.data.clips_per_video, regions=config.region_map, synchronous=config.data.synchronous,
    )  # fmt: skip


def epoch_of(config: RunConfig, prepared: Prepared, spoken: Texts | None) -> int:
    """What an epoch draws `clips_per_video` samples of: texts, recordings of moments, or recordings."""
    rows, kind = rows_of(prepared, config.data.split), method(config.method)
    if spoken is not None:
        return len(spoken)
    if kind.together:
        moments = moments_of(prepared, read_views(prepared), rows, clip_seconds(config.clip, kind.views))
        return sum(len(moment.rows) for moment in moments)
    return len(rows)


def in_words(spoken: Texts, data: ClipData) -> str:
    """What a run says of its texts at its start; none of their words."""
    passed = "".join(f"; {count} {why}" for why, count in sorted(spoken.passed.items()))
    if isinstance(data, TextData) and data.actions is not None:
        passed += f"; {data.actions.said()}"
    return f"{data.count} samples from {len(spoken)} texts of {len(spoken.by_row)} recordings, by {len(spoken.sources)} sources{passed}"


def rows_of(prepared: Prepared, split: str) -> Sequence[int]:
    """Rows that are learned from: all, or the training part of an official split. Raises ConfigError, DataError."""
    if not split:
        return range(len(prepared))
    rows = [row for row, part in enumerate(read_split(prepared, split)) if part == "train"]
    if not rows:
        what = f"no recording is in the training part of the split '{split}'"
        raise DataError(what, where=prepared.place, do="Leave data.split out")
    return rows


def finish(
    run: RunFolder,
    objective: Objective,
    prepared: Prepared,
    config: RunConfig,
    result: TrainResult,
    source: Source | None,
    spoken: Texts | None = None,
    lines: Mapping[str, int] | None = None,
) -> None:
    """Leave the encoder in transformers' format (and what was trained to go with it), the curves as a picture, and a record of what was done.

    lines: of each signal in the time of a clip.
    """
    encoder = objective.final_encoder()
    try:
        encoder.save(run.encoder)
        if encoder.adapter:
            save_adapter(encoder, run.path / "adapter")
        alignment = objective.final_alignment()
        if alignment is not None and objective.text is not None:
            save_aligned(run.path, objective.text, alignment)
        if (sensed := objective.final_sensed()) is not None:
            save_sensed(run.path, sensed, (lines or {}).get(sensed.shape.signal))
        head = objective.final_head()
        if source is not None and head is not None:
            save_head(as_task(encoder, head, source.task, source.labels.classes), run.path)
        marks = [float(one["step"]) for one in read_lines(run.path / ALARMS)]
        draw_curves({"": series_of(read_metrics(run.path), skip=CLOCKS)}, run.path / "curves.png", marks)
        record: dict[str, Any] = {
            "method": objective.name,
            "paper": objective.paper,
            "pretext": config.pretext,
            "start": config.encoder.name,
            "init_from": config.encoder.init_from,
            "random_start": encoder.random_start,
            "data": prepared.summary(),
            "texts": {"tower": config.text.name, **spoken.summary()} if spoken is not None else None,
            "source": {"task": source.task, **source.prepared.summary()} if source is not None else None,
            "steps": result.steps,
            "samples": result.samples,
            "replaced": result.replaced,
            "seconds": round(result.seconds, 1),
            "losses": dict(result.losses),
            "monitors": dict(result.monitors),
            "alarms": read_lines(run.path / ALARMS),
            "labels_looked_at": [{"task": one.task, "patients": len(one.patients)} for one in looked_at(run.path)],
        }
        # last and whole: with it, the run is finished
        replace(run.path / RECORD, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise StorageError(
            f"the finished encoder cannot be written ({error.strerror})",
            where=run.path,
            do="Free some space, then --resume",
        ) from None
