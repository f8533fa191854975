"""`vfm pretrain`: from a prepared folder and an encoder to the encoder adapted to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from domains.errors import DataError, StorageError
from domains.schema import parse
from domains.store.annotated import read_split
from domains.store.prepared import Prepared
from recipes.config import Resolved, RunConfig
from recipes.encoders import build_encoder
from recipes.encoders.adapt import save_adapter
from recipes.encoders.base import VideoEncoder
from recipes.jobs.seen import write_seen
from recipes.objective import Objective
from recipes.pretrain import method
from recipes.runs.curves import draw_curves
from recipes.runs.metrics import CLOCKS, series_of
from recipes.runs.status import recorded
from recipes.training.data import ClipData
from recipes.training.launch import is_main
from recipes.training.loop import TrainResult, train
from recipes.training.reporter import Reporter
from recipes.training.run import RunFolder, replace


def complete(resolved: Resolved) -> Resolved:
    """The method's own settings checked and filled in, so that config.resolved.yaml holds every one of them. Raises ConfigError."""
    kind = method(resolved.config.method)
    settings = parse(kind.Settings, resolved.config.objective, f"objective ({kind.name})")
    config = resolved.config.model_copy(update={"objective": settings.model_dump(mode="json")})
    return Resolved(config, resolved.origins)


def build_objective(resolved: Resolved, encoder: VideoEncoder) -> Objective:
    """The method of a run around its encoder; its own new parts follow from the run's seed."""
    kind = method(resolved.config.method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(resolved.config.train.seed)
        return kind(encoder, parse(kind.Settings, resolved.config.objective, f"objective ({kind.name})"))


def pretrain(
    resolved: Resolved,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    online: bool = False,
    reporter: Reporter,
) -> Path:
    """Continue the training of an encoder on unlabelled recordings. Returns the folder of the adapted encoder, `out/encoder`.

    Raises VfmError subclasses; see `recipes.training.loop.train`.
    """
    resolved = complete(resolved)
    config = resolved.config
    prepared = Prepared.open(config.data.path)
    encoder = build_encoder(config.encoder, config.clip, online=online, seed=config.train.seed)
    objective = build_objective(resolved, encoder)
    run = RunFolder.create(out, resolved, overwrite=overwrite, resume=resume) if is_main() else RunFolder(out)
    try:
        if resume and run.finished:
            reporter.note(f"{out} is finished; nothing to resume")
            return run.encoder
        if encoder.random_start:
            reporter.note("vfm-tiny starts from random weights: no pretrained weights ship with vfm yet")
        data = ClipData(
            prepared, rows_of(prepared, config.data.split), objective.views, config.clip, config.augment,
            seed=config.train.seed, clips_per_video=config.data.clips_per_video,
        )  # fmt: skip
        if is_main():
            write_seen(run.path, prepared, data.rows)
        with recorded(run.path, main=is_main()):
            result = train(objective, data, config, run, reporter, resume=resume)
            if is_main():
                finish(run, objective, prepared, config, result)
    finally:
        run.unlock()
    return run.encoder


def rows_of(prepared: Prepared, split: str) -> Sequence[int]:
    """Rows that are learned from: all, or the training part of an official split. Raises ConfigError, DataError."""
    if not split:
        return range(len(prepared))
    rows = [row for row, part in enumerate(read_split(prepared, split)) if part == "train"]
    if not rows:
        what = f"no recording is in the training part of the split '{split}'"
        raise DataError(what, where=prepared.folder, do="Leave data.split out")
    return rows


def finish(run: RunFolder, objective: Objective, prepared: Prepared, config: RunConfig, result: TrainResult) -> None:
    """Leave the encoder in transformers' format, the curves as a picture, and a record of what was done."""
    encoder = objective.final_encoder()
    try:
        encoder.save(run.encoder)
        if encoder.adapter:
            save_adapter(encoder, run.path / "adapter")
        draw_curves({"": series_of(run.metrics(), skip=CLOCKS)}, run.path / "curves.png")
        record: dict[str, Any] = {
            "method": objective.name,
            "paper": objective.paper,
            "start": config.encoder.name,
            "init_from": config.encoder.init_from,
            "random_start": encoder.random_start,
            "data": prepared.summary(),
            "steps": result.steps,
            "samples": result.samples,
            "replaced": result.replaced,
            "seconds": round(result.seconds, 1),
            "losses": dict(result.losses),
            "monitors": dict(result.monitors),
        }
        # last and whole: with it, the run is finished
        replace(run.path / "record.json", json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise StorageError(
            f"the finished encoder cannot be written ({error.strerror})",
            where=run.path,
            do="Free some space, then --resume",
        ) from None
