"""How every fine-tuning run ends, whatever its head answers for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from domains.errors import StorageError
from recipes.config import RunConfig
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
