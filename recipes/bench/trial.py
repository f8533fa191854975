"""One trial: a recipe and a seed, given the budget; what it cost, and the features of what it learned."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from domains.errors import AlarmError, ConfigError, DataError, ModelError, StorageError, TrainingError
from domains.store.prepared import Prepared
from recipes.bench.kept import Kept, Opened, Wanted, keep
from recipes.config import Layer, Resolved, resolve
from recipes.encoders import open_encoder
from recipes.encoders.base import VideoEncoder
from recipes.evaluate.features import ReadProgress, clip_of, embedding
from recipes.jobs.pretrain import complete, pretrain
from recipes.runs.metrics import read_json, read_metrics
from recipes.training.reporter import Reporter, SilentReporter
from recipes.training.run import replace

WARM, MEASURED = 3, 9  # steps of a measurement: those that are not counted, and those that are
# What is wrong with a recipe or its trial: said in the table, while the others go on. A disk that is full stops everything.
OF_A_RECIPE = (ConfigError, TrainingError, AlarmError, ModelError, DataError)


@dataclass(frozen=True)
class Trial:
    """How a trial ended.

    Attributes
        recipe, seed: which it is.
        steps: that the budget was enough for.
        step_seconds: of the device for one of them, as measured before.
        device_seconds: that all of them took.
        clips: samples seen.
        loss: the last that was logged.
        failed: why there is no encoder; "" where there is one.
    """

    recipe: str
    seed: int
    steps: int = 0
    step_seconds: float = 0.0
    device_seconds: float = 0.0
    clips: int = 0
    loss: float | None = None
    failed: str = ""

    @property
    def name(self) -> str:
        """Of its run folder and files."""
        return trial_name(self.recipe, self.seed)


def trial_name(recipe: str, seed: int) -> str:
    """`discovr-0`; a YAML of one's own by its stem."""
    return f"{Path(recipe).stem}-{seed}"


def read_trial(folder: Path, recipe: str, seed: int, *, failed: bool = False) -> Trial | None:
    """The trial as it ended; None where it has not. One that failed counts as none, unless `failed`."""
    values = read_json(folder / "trials" / f"{trial_name(recipe, seed)}.json")
    return Trial(**values) if values and (failed or not values.get("failed")) else None


def make_trial(
    folder: Path,
    recipe: str,
    seed: int,
    layers: list[Layer],
    budget: float,
    *,
    key: bytes | None = None,
    online: bool,
    reporter: Reporter,
) -> Trial:
    """Train one recipe for `budget` seconds of the device; goes on where it was interrupted. What is wrong with the recipe alone is the outcome.

    layers: defaults < recipe < domain < the command line; without steps and seed. key: for texts and labels that name original identifiers.
    """
    try:
        trial = _train(folder, recipe, seed, layers, budget, key, online=online, reporter=reporter)
    except OF_A_RECIPE as error:
        trial = Trial(recipe, seed, failed=str(error))
        reporter.warn(f"{trial.name}: {error}")
    _write(folder / "trials" / f"{trial.name}.json", trial)
    return trial


def _train(
    folder: Path,
    recipe: str,
    seed: int,
    layers: list[Layer],
    budget: float,
    key: bytes | None,
    *,
    online: bool,
    reporter: Reporter,
) -> Trial:
    run = folder / "runs" / trial_name(recipe, seed)
    measured = _Measured.of(folder, recipe)
    if measured is None:
        began = with_steps(layers, WARM + MEASURED, seed, log_every=1)
        measured = _Measured(step_seconds(began, key, online=online))
        measured.keep(folder, recipe)
    steps = max(1, int(budget / measured.step_seconds))
    resolved = with_steps(layers, steps, seed)
    reporter.note(f"{run.name}: {steps} steps of {measured.step_seconds:.3g} s")
    pretrain(resolved, run, resume=True, online=online, key=key, reporter=reporter)
    rows = read_metrics(run)
    train = resolved.config.train
    spent = sum(row.get("device_seconds", 0.0) for row in rows)
    for kept in ("checkpoints", "tensorboard"):  # the encoder is what is compared; a trial is not gone on with
        shutil.rmtree(run / kept, ignore_errors=True)
    loss = next((float(row["loss"]) for row in reversed(rows) if "loss" in row), None)
    clips = steps * train.batch_size * train.accumulate
    return Trial(recipe, seed, steps, measured.step_seconds, round(spent, 2), clips, loss)


def with_steps(layers: list[Layer], steps: int, seed: int, log_every: int | None = None) -> Resolved:
    """The run of a trial: as its recipe has it, for so many steps."""
    train = {"steps": steps, "seed": seed, "save_every": max(50, steps // 4), "keep": 1}
    if log_every is not None:
        train |= {"log_every": log_every, "monitor_every": 10**9, "save_every": 10**9}
    return complete(resolve([*layers, Layer("vfm bench", {"train": train})]))


def step_seconds(resolved: Resolved, key: bytes | None = None, *, online: bool) -> float:
    """Seconds of the device for a step of a run: the median of a few, without those that warm up and without waiting for data."""
    with tempfile.TemporaryDirectory(prefix="vfm-bench-") as folder:
        run = Path(folder) / "run"
        pretrain(resolved, run, online=online, key=key, reporter=SilentReporter())
        rows = [row for row in read_metrics(run) if "device_seconds" in row]
    return max(1e-6, statistics.median(row["device_seconds"] for row in rows[WARM:]))


@dataclass(frozen=True)
class _Measured:
    """What a recipe's step costs: measured once, the same for all its seeds."""

    step_seconds: float

    @classmethod
    def of(cls, folder: Path, recipe: str) -> _Measured | None:
        values = read_json(folder / "trials" / f"{Path(recipe).stem}.cost.json")
        return cls(**values) if values else None

    def keep(self, folder: Path, recipe: str) -> None:
        _write(folder / "trials" / f"{Path(recipe).stem}.cost.json", self)


def _write(path: Path, what: Trial | _Measured) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, json.dumps(asdict(what), indent=2) + "\n")
    except OSError as error:
        do = "Free some space; the same command goes on"
        raise StorageError(f"cannot be written ({error.strerror})", where=path, do=do) from None


def keep_features(
    folder: Path, trial: Trial, prepared: Prepared, wanted: Wanted, progress: ReadProgress | None = None
) -> Kept:
    """Features of what a trial learned; computed once."""

    @contextmanager
    def opened() -> Iterator[Opened]:
        encoder: VideoEncoder = open_encoder(folder / "runs" / trial.name)
        with embedding(encoder) as extractor:
            yield {trial.name: extractor}, clip_of(encoder.geometry)

    return keep(folder / "features", [trial.name], opened, prepared, wanted, progress)[trial.name]


def device_name() -> str:
    """What the budget is counted on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
