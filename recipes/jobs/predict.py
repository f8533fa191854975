"""`vfm predict`: what a finished fine-tuning run says of recordings that nobody labelled."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from domains.errors import ConfigError, StorageError
from domains.store.prepared import Prepared
from recipes.evaluate.features import Failure, Features, ReadProgress, default_device
from recipes.evaluate.outputs import PREDICTIONS
from recipes.evaluate.predict import predict as predict_recordings
from recipes.finetune.head import MOMENTS, RECORDINGS, STUDIES, level_of, load_study_head
from recipes.finetune.task import TaskHeadSettings
from recipes.jobs.finetune import load_model
from recipes.jobs.moments import predict_moments
from recipes.jobs.studies import predict_studies
from recipes.training.reporter import Reporter
from recipes.training.run import replace

CLIPS = 3
UNFINISHED = ".unfinished"  # beside tables that are being written


@dataclass(frozen=True)
class Predicted:
    """task: of the run. recordings: that were predicted. failed: those that could not be read. where: predictions.csv, or a folder of VIDEO.csv."""

    task: str
    recordings: int
    failed: tuple[Failure, ...]
    where: Path


def predict(
    run: Path,
    data: Prepared | str | Path,
    out: Path,
    *,
    clips: int | None = None,
    overwrite: bool = False,
    reporter: Reporter,
    progress: ReadProgress | None = None,
) -> Predicted:
    """Apply a run to every recording of a prepared folder; no label is read.

    Of a task of moments (phases, presence) `out` gets VIDEO.csv for each recording, a line a moment, and keeps what the encoder said: a call that was
    stopped goes on. Of a task of whole recordings it gets predictions.csv; of a task of studies predictions.csv, a line a study, and attention.csv,
    a line a clip. clips: averaged of each recording, for tasks of whole recordings [3].

    Raises ModelError for what is no finished fine-tuning run, ConfigError, DataError where nothing can be read, StorageError.
    """
    level = level_of(run)
    if level != RECORDINGS and clips is not None:
        raise ConfigError(f"--clips is for tasks of single recordings, and this run is of {level}", do="Leave it out")
    prepared = data if isinstance(data, Prepared) else Prepared.open(data)
    rows = list(range(len(prepared)))
    with writing(out, overwrite):
        if level == STUDIES:
            _, failed = predict_studies(run, prepared, out, reporter)
            task = load_study_head(run).settings.task
            return Predicted(task, len(rows) - len(failed), failed, out / PREDICTIONS)
        if level == MOMENTS:
            task, failed = predict_moments(run, prepared, rows, out, reporter)
            return Predicted(task, len(rows) - len(failed), failed, out)
        model = load_model(run)
        found = predict_recordings(model, prepared, rows, clips or CLIPS, default_device(), progress)
        table = io.StringIO(newline="")
        csv.writer(table).writerows(lines_of(model.settings, prepared, found))
        try:
            replace(out / PREDICTIONS, table.getvalue())
        except OSError as error:
            raise StorageError(f"cannot be written ({error.strerror})", where=out, do="Free some space") from None
        return Predicted(model.settings.task, len(found.index), found.failed, out / PREDICTIONS)


@contextmanager
def writing(out: Path, overwrite: bool) -> Iterator[None]:
    """A folder for tables of predictions, without those of a call that was stopped or killed, or (overwrite) any others.

    Raises ConfigError where others are, StorageError.
    """
    mark = out / UNFINISHED
    if any(out.glob("*.csv")) and not overwrite and not mark.exists():
        raise ConfigError(
            "holds predictions already", where=out, do="Replace them with --overwrite, or choose another folder"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        mark.touch()
        for old in out.glob("*.csv"):
            old.unlink()
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror})", where=out, do="Free some space") from None
    yield
    mark.unlink(missing_ok=True)


def lines_of(settings: TaskHeadSettings, prepared: Prepared, found: Features) -> Iterator[list[str]]:
    """Head and lines of predictions.csv: a value in the target's unit, or a class and the probability of each."""
    classes = settings.classes if settings.kind == "classification" else ()
    yield ["video_id", "patient", "prediction", *(f"p_{name}" for name in classes)]
    for row, said in zip(found.index.tolist(), found.values, strict=True):
        shares = [f"{p:.4f}" for p in said] if classes else []
        yield [
            prepared.video_id(row),
            prepared.patients[row],
            classes[int(said.argmax())] if classes else f"{said:.6g}",
            *shares,
        ]
