"""The folder that a run leaves behind."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from domains.errors import ConfigError, StorageError, VfmError
from domains.schema import parse, read_yaml
from recipes.config import Resolved, RunConfig
from recipes.encoders.loading import shipped_weights
from recipes.runs.metrics import METRICS, read_metrics
from recipes.runs.run import CHANGES, CONFIG, ENVIRONMENT, ORIGINS, is_run
from recipes.runs.status import LOCK, RECORD
from recipes.training.checkpoint import chosen, point_to
from recipes.training.lock import FolderLock

PACKAGES = ("vfm", "torch", "transformers", "peft", "accelerate", "numpy", "opencv-python-headless", "pydicom", "av")
# How a run is loaded, logged and kept, and how its global batch is shared, may change when it goes on.
FREE = {
    "data.workers", "train.save_every", "train.keep", "train.keep_every", "train.keep_best", "train.best_by", "train.log_every",
    "train.monitor_every", "train.batch_size", "train.profile", "train.shard",
}  # fmt: skip
# After a step that was not finite, which would not be finite again:
MENDING = {"optim.lr", "optim.final_lr", "optim.warmup", "optim.clip_norm", "train.precision"}
NOT_EMPTY = "the output folder is not empty"


class Shape(NamedTuple):
    """How the processes of a run shared its global batch when it began."""

    batch_size: int
    accumulate: int
    processes: int


class RunFolder:
    """config.resolved.yaml, env.json, metrics.jsonl, checkpoints/, tensorboard/, encoder/; one run at a time.

    broken/: the last step that was not finite (`recipes.training.broken`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = FolderLock(path)

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def encoder(self) -> Path:
        """Folder of the finished encoder."""
        return self.path / "encoder"

    @property
    def broken(self) -> Path:
        """Folder of the step that was not finite, if there was one."""
        return self.path / "broken"

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / RECORD).is_file()

    @classmethod
    def create(
        cls,
        path: Path,
        resolved: Resolved,
        *,
        overwrite: bool = False,
        resume: bool = False,
        from_step: int | None = None,
    ) -> RunFolder:
        """Make (or, to resume, open) a run folder and take its lock. from_step: it is to go on from this checkpoint, not from its last.

        Raises ConfigError for a folder that is not empty (without overwrite), that is no run (with resume), or whose settings differ from
        those of the run that is to go on; StorageError where it cannot be written.
        """
        run = cls(path)
        used = path.is_dir() and any(path.iterdir())
        if path.exists() and not path.is_dir():
            raise ConfigError("is a file, not a folder", where=path, do="Choose another --out")
        if used and not is_ours(path):
            if resume:
                raise ConfigError("not a vfm run (no config.resolved.yaml); nothing to resume", where=path)
            what = "holds other things than a vfm run; it is not overwritten" if overwrite else NOT_EMPTY
            raise ConfigError(what, where=path, do="Choose another --out")
        try:
            if used:  # before anything else is found wrong with a folder in which another run may be going on
                run.lock.take()
            if from_step is not None:
                chosen(run.checkpoints, from_step)
            if is_run(path) and resume:
                run.check_same(resolved, back=from_step is not None)
                return run
            if used and not overwrite and not resume:
                do = "Use --resume to go on, --overwrite to start again, or another --out"
                raise ConfigError(NOT_EMPTY, where=path, do=do)
            path.mkdir(parents=True, exist_ok=True)
            run.lock.take()
            run.begin(resolved)
        except OSError as error:
            run.unlock()
            raise StorageError(f"cannot be written ({error.strerror})", where=path) from None
        except VfmError:
            run.unlock()
            raise
        return run

    def begin(self, resolved: Resolved) -> None:
        """Empty the folder and write down what the run is. Raises OSError."""
        for entry in self.path.iterdir():
            if entry.name != LOCK:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (self.path / ORIGINS).write_text(json.dumps(resolved.origins, indent=2) + "\n", encoding="utf-8")
        (self.path / ENVIRONMENT).write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")
        replace(self.path / CONFIG, resolved.to_yaml())  # last: with it, the folder is a run

    def go_back(self, step: int) -> None:
        """Forget what came after the checkpoint of `step`: the run is there now. Raises StorageError."""
        point_to(self.checkpoints, step)
        (self.path / RECORD).unlink(missing_ok=True)  # it is no longer finished

    def check_same(self, resolved: Resolved, *, back: bool = False) -> None:
        """A run is resumed with the settings that it began with; how it is loaded and logged may change.

        After a step that was not finite, and where it goes `back`, so may those that could mend it. Raises ConfigError.
        """
        from recipes.config import flatten, yaml_layer

        file = self.path / CONFIG
        # Settings that an earlier vfm did not have are at their defaults.
        before = dict(flatten(parse(RunConfig, yaml_layer(file).values, file).model_dump(mode="json")))
        now = dict(flatten(resolved.config.model_dump(mode="json")))
        changed = [
            key for key in sorted(set(before) | set(now)) if before.get(key) != now.get(key) and not is_free(key)
        ]
        mends = bool(changed) and (back or self.broken.is_dir()) and set(changed) <= MENDING
        if changed and not mends:
            raise ConfigError(
                f"'{changed[0]}' was {before.get(changed[0])!r} when the run began and is {now.get(changed[0])!r} now",
                where=self.path,
                do="Resume with the same settings, or start another run with --init-from",
            )
        if mends:
            self.note_change({key: [before.get(key), now.get(key)] for key in changed}, resolved)

    def note_change(self, changed: dict[str, list[Any]], resolved: Resolved) -> None:
        """Settings that mend a run from here on: kept beside those that it began with, in changes.jsonl. Raises StorageError."""
        shape = self.shape()
        train = resolved.config.train.model_copy(
            update={"batch_size": shape.batch_size, "accumulate": shape.accumulate} if shape else {}
        )
        config = Resolved(resolved.config.model_copy(update={"train": train}), resolved.origins)
        try:
            with (self.path / CHANGES).open("a", encoding="utf-8") as file:
                file.write(
                    json.dumps({"after": [row["step"] for row in read_metrics(self.path)][-1:], **changed}) + "\n"
                )
            replace(self.path / CONFIG, config.to_yaml())
        except OSError as error:
            raise full(error, self.path) from None

    def shape(self) -> Shape | None:
        """How the run began; None where an older vfm has not written it down."""
        try:
            begun = json.loads((self.path / ENVIRONMENT).read_text(encoding="utf-8"))["processes"]
            file = self.path / CONFIG
            train = parse(RunConfig, read_yaml(file), file).train
        except (OSError, ValueError, KeyError):
            return None
        return Shape(train.batch_size, train.accumulate, int(begun))

    def unlock(self) -> None:
        """Let others in."""
        self.lock.release()

    def append_metrics(self, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl. Raises StorageError."""
        try:
            with (self.path / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise full(error, self.path) from None

    def rewind_metrics(self, step: int) -> None:
        """Drop what was logged after `step`: those steps are run again."""
        rows = [row for row in read_metrics(self.path) if row["step"] <= step]
        try:
            replace(self.path / METRICS, "".join(json.dumps(row) + "\n" for row in rows))
        except OSError as error:
            raise full(error, self.path) from None


def is_free(key: str) -> bool:
    """Whether a setting may change when a run goes on; looking at a run changes nothing of it."""
    return key in FREE or key.startswith("monitor.")


def replace(file: Path, text: str) -> None:
    """Write a text file whole or not at all. Raises OSError."""
    draft = file.with_name(file.name + ".tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def full(error: OSError, where: Path) -> StorageError:
    """The disk refused; the last checkpoint is whole."""
    return StorageError(
        f"cannot be written ({error.strerror})", where=where, do="Free some space, then continue with --resume"
    )


def is_ours(path: Path) -> bool:
    """Whether a folder was made by vfm for a run, be it that it was killed before it had written down what it would do."""
    begun = {LOCK, ENVIRONMENT, ORIGINS, f"{CONFIG}.tmp"}
    return is_run(path) or {entry.name for entry in path.iterdir()} <= begun


def environment() -> dict[str, Any]:
    """Versions and machine, without names of users or hosts."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "cpus": os.cpu_count(),
        "gpus": gpus,
        "threads": torch.get_num_threads(),
        "packages": versions,
        "built_in_weights": shipped_weights(),
    }
