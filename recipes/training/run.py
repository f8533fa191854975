"""The folder that a run leaves behind."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from domains.errors import ConfigError, StorageError
from domains.schema import parse
from recipes.config import Resolved, RunConfig
from recipes.runs.run import ORIGINS

PACKAGES = ("vfm", "torch", "transformers", "peft", "accelerate", "numpy", "opencv-python-headless", "pydicom", "av")


class RunFolder:
    """config.resolved.yaml, env.json, metrics.jsonl, checkpoints/, tensorboard/, encoder/; one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def encoder(self) -> Path:
        """Folder of the finished encoder."""
        return self.path / "encoder"

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / "record.json").is_file()

    @classmethod
    def create(cls, path: Path, resolved: Resolved, *, overwrite: bool = False, resume: bool = False) -> RunFolder:
        """Make (or, to resume, open) a run folder and take its lock.

        Raises ConfigError for a folder that is not empty (without overwrite), that is no run (with resume), or whose settings differ from
        those of the run that is to go on; StorageError where it cannot be written.
        """
        run = cls(path)
        used = path.exists() and any(path.iterdir()) if path.is_dir() or not path.exists() else True
        if path.exists() and not path.is_dir():
            raise ConfigError("is a file, not a folder", where=path, do="Choose another --out")
        if resume and used:
            run.lock()
            run.check_same(resolved)
            return run
        if used and not overwrite:
            raise ConfigError(
                "the output folder is not empty",
                where=path,
                do="Use --resume to go on, --overwrite to start again, or another --out",
            )
        if used and not is_run(path):
            raise ConfigError(
                "holds other things than a vfm run; it is not overwritten", where=path, do="Choose another --out"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            run.lock()
            for entry in path.iterdir():
                if entry.name != ".lock":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            (path / "config.resolved.yaml").write_text(resolved.to_yaml(), encoding="utf-8")
            (path / ORIGINS).write_text(json.dumps(resolved.origins, indent=2) + "\n", encoding="utf-8")
            (path / "env.json").write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise StorageError(f"cannot be written ({error.strerror})", where=path) from None
        return run

    def check_same(self, resolved: Resolved) -> None:
        """A run is resumed with the settings that it began with; how it is loaded and logged may change."""
        from recipes.config import flatten, yaml_layer

        file = self.path / "config.resolved.yaml"
        if not file.is_file():
            raise ConfigError("not a vfm run (no config.resolved.yaml); nothing to resume", where=self.path)
        # Settings that an earlier vfm did not have are at their defaults.
        before = dict(flatten(parse(RunConfig, yaml_layer(file).values, file).model_dump(mode="json")))
        now = dict(flatten(resolved.config.model_dump(mode="json")))
        free = {"data.workers", "train.save_every", "train.keep", "train.log_every", "train.monitor_every"}
        for key in sorted(set(before) | set(now)):
            if before.get(key) != now.get(key) and key not in free:
                raise ConfigError(
                    f"'{key}' was {before.get(key)!r} when the run began and is {now.get(key)!r} now",
                    where=self.path,
                    do="Resume with the same settings, or start another run with --init-from",
                )

    def lock(self) -> None:
        """One process (group) a folder. Raises ConfigError.

        A POSIX lock: it ends with this process, however it ends, and loader processes do not inherit it.
        """
        try:
            self._lock = (self.path / ".lock").open("w")
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise ConfigError(
                "another process is running in this folder", where=self.path, do="Wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise StorageError(f"cannot be written ({error.strerror})", where=self.path) from None

    def unlock(self) -> None:
        """Let others in."""
        if self._lock is not None:
            (self.path / ".lock").unlink(missing_ok=True)  # while held: nobody may lock a file that is about to go
            self._lock.close()
            self._lock = None

    def append_metrics(self, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All lines; one that was cut off by a kill is left out."""
        rows = []
        if (self.path / "metrics.jsonl").is_file():
            for line in (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    continue
        return rows

    def rewind_metrics(self, step: int) -> None:
        """Drop what was logged after `step`: those steps are run again."""
        rows = [row for row in self.metrics() if row["step"] <= step]
        draft = self.path / "metrics.jsonl.tmp"
        draft.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        draft.replace(self.path / "metrics.jsonl")


def is_run(path: Path) -> bool:
    """Whether a folder was made by vfm."""
    return (path / "config.resolved.yaml").is_file() or {entry.name for entry in path.iterdir()} <= {".lock"}


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
        "cpus": os.cpu_count(),
        "gpus": gpus,
        "threads": torch.get_num_threads(),
        "packages": versions,
    }
