"""How every fine-tuning run ends, whatever its head answers for."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from domains.errors import StorageError
from recipes.config import RunConfig
from recipes.encoders import BUILT_IN, VideoEncoder, save_adapter
from recipes.encoders.base import quiet
from recipes.finetune.head import save_head
from recipes.finetune.study import StudyObjective
from recipes.finetune.task import TaskObjective
from recipes.runs.metrics import read_lines
from recipes.runs.run import ALARMS
from recipes.runs.status import RECORD
from recipes.training.loop import TrainResult
from recipes.training.reporter import Reporter
from recipes.training.run import RunFolder, replace


@contextlib.contextmanager
def writing_model(run: RunFolder) -> Iterator[None]:
    """The block writes what a finished run leaves. Raises StorageError where the disk does not take it."""
    try:
        yield
    except OSError as error:
        what = f"the finished model cannot be written ({error.strerror})"
        raise StorageError(what, where=run.path, do="Free some space, then --resume") from None


def save_model(
    folder: Path, objective: TaskObjective | StudyObjective, encoder: VideoEncoder, config: RunConfig
) -> None:
    """encoder/ is usable alone; adapter/ goes onto the encoder that the run started from, which base/ holds where no
    folder or hub name does."""
    encoder.save(folder / "encoder")
    save_head(objective, folder)
    if not encoder.adapter:
        return
    if config.encoder.name in BUILT_IN:
        with quiet():
            copy.deepcopy(encoder.adapter[0]).unload().save_pretrained(folder / "base")
        encoder.adapter[0].peft_config["default"].base_model_name_or_path = str(folder / "base")
    save_adapter(encoder, folder / "adapter")


def write_record(
    run: RunFolder,
    config: RunConfig,
    result: TrainResult,
    chosen: Mapping[str, Any],
    verdict: str,
    reporter: Reporter,
    **own: Any,
) -> None:
    """record.json, last and whole: with it, the run is finished. chosen: the epoch of the weights; own: what only this kind of task has to say."""
    record = {
        "task": config.task.name,
        "start": config.encoder.name,
        "mode": config.encoder.mode,
        **own,
        "best": {key: chosen[key] for key in ("step", "epoch", "score")},
        "steps": result.steps,
        "replaced": result.replaced,
        "seconds": round(result.seconds, 1),
        "verdict": verdict,
        "monitors": dict(result.monitors),
        "alarms": read_lines(run.path / ALARMS),
    }
    replace(run.path / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    reporter.note(f"best epoch {chosen['epoch']:.1f}; {verdict}")
