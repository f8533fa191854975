"""One run folder, read; and all that lie under a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from domains.errors import ConfigError
from recipes.runs.metrics import METRICS, Row, is_number, last_row, read_json, read_lines, read_metrics
from recipes.runs.status import RECORD, STATUS, state_of

CONFIG, ORIGINS, CHANGES = "config.resolved.yaml", "origins.json", "changes.jsonl"
ENVIRONMENT = "env.json"  # versions and machine
ALARMS, EVALUATION, SEEN = "alarms.jsonl", "evaluation.json", "seen.json"
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where yaml was built with it


class Run:
    """A run folder as it lies there. Nothing is required of it but its config: a file that is missing or damaged is empty.

    Attributes
        path: the folder.
        config: nested settings, of whatever version wrote them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Run:
        """Raises ConfigError for what is no run folder."""
        if not path.exists():
            raise ConfigError("no such folder", where=path, do="See what there is: vfm runs ls FOLDER")
        if not is_run(path):
            raise ConfigError(f"not a vfm run (no {CONFIG})", where=path, do="See what there is: vfm runs ls FOLDER")
        return cls(path)

    @cached_property
    def config(self) -> dict[str, Any]:
        """See the class."""
        try:
            values = yaml.load((self.path / CONFIG).read_text(encoding="utf-8"), Loader=Loader)
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        return values if isinstance(values, dict) else {}

    def get(self, dotted: str) -> Any:
        """A setting; None where this run has none of that name."""
        value: Any = self.config
        for part in dotted.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    @cached_property
    def record(self) -> dict[str, Any]:
        """What a finished run says of itself."""
        return read_json(self.path / RECORD)

    @cached_property
    def status(self) -> dict[str, Any]:
        """What status.json says."""
        return read_json(self.path / STATUS)

    @cached_property
    def state(self) -> tuple[str, str]:
        """See `recipes.runs.status.state_of`."""
        return state_of(self.path)

    @cached_property
    def rows(self) -> list[Row]:
        """The lines of metrics.jsonl that have a step."""
        return [row for row in read_metrics(self.path) if is_number(row.get("step"))]

    @cached_property
    def last(self) -> Row:
        """The last line, read without the others."""
        return last_row(self.path)

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return int(self.last.get("step", 0))

    @property
    def total(self) -> int | None:
        """Steps of the whole run; None where nothing tells."""
        for value in (self.status.get("total"), self.record.get("steps"), self.get("train.steps")):
            if is_number(value):
                return int(value)
        # A run that began before it wrote this down: its epochs so far tell how many steps one has.
        step, epoch, epochs = self.last.get("step"), self.last.get("epoch"), self.get("train.epochs")
        if is_number(step) and is_number(epoch) and is_number(epochs) and epoch > 0:
            return max(int(step), round(step / epoch * epochs))
        return None

    @property
    def loss(self) -> float | None:
        """The last one that was logged."""
        value = self.last.get("loss")
        return float(value) if is_number(value) else None

    @property
    def recipe(self) -> str:
        """The method of pretraining, or the task."""
        task = self.get("task.name")
        return f"finetune {task}" if task else str(self.get("method") or "?")

    @property
    def encoder(self) -> str:
        """What it began with: the encoder's short name, and the run whose weights it took."""
        name = str(self.get("encoder.name") or "?")
        init = self.get("encoder.init_from")
        return Path(name).name + (f" from {Path(str(init)).name}" if init else "")

    @property
    def began(self) -> float:
        """When, in seconds since 1970: settings are written first and never again."""
        return modified(self.path / CONFIG)

    @property
    def heard(self) -> float:
        """When it last wrote a line."""
        return modified(self.path / METRICS) or self.began

    @property
    def alarms(self) -> list[Row]:
        """What monitors raised: step, monitor, value, limit, action, text."""
        return read_lines(self.path / ALARMS)

    @property
    def origins(self) -> dict[str, str] | None:
        """Setting -> where it came from; None for a run of a version that did not keep it."""
        if not (self.path / ORIGINS).is_file():
            return None
        found = {str(key): str(value) for key, value in read_json(self.path / ORIGINS).items()}
        for change in read_lines(self.path / CHANGES):
            found |= dict.fromkeys((key for key in change if key != "after"), "changed when it was resumed")
        return found

    @property
    def looked_at(self) -> list[tuple[str, int]]:
        """(task, patients) of labels that were looked at while it trained."""
        found = read_json(self.path / SEEN).get("looked")
        rows = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        return [(str(one.get("task", "?")), len(one.get("patients") or ())) for one in rows]

    @property
    def evaluations(self) -> list[tuple[str, dict[str, Any]]]:
        """(place, what evaluation.json says): its own, and those in folders right under it."""
        places = [self.path / EVALUATION, *sorted(self.path.glob(f"*/{EVALUATION}"))]
        return [(str(one.parent.relative_to(self.path)), found) for one in places if (found := read_json(one))]

    def size(self) -> int:
        """Bytes of all its files."""
        return bytes_of(self.path)

    def checkpoints(self) -> list[Checkpoint]:
        """Those that are there, old to new."""
        folder = self.path / "checkpoints"
        named = {path.name: text_of(path) for path in sorted(folder.glob("*")) if path.is_file()}
        found = []
        for path in sorted(folder.glob("step_*")):
            if path.is_dir() and (number := re.fullmatch(r"step_(\d+)", path.name)):
                marks = tuple(mark for mark, name in named.items() if name == path.name)
                found.append(Checkpoint(path.name, int(number[1]), bytes_of(path), is_whole(path), marks))
        return found


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder. whole: every file of its manifest is there with its size (hashes are compared on loading). marks: pointers to it,
    such as "latest"."""

    name: str
    step: int
    bytes: int
    whole: bool
    marks: tuple[str, ...]


def is_run(path: Path) -> bool:
    """Whether a folder is one of a run."""
    return (path / CONFIG).is_file()


def find_runs(folder: Path, depth: int = 4) -> Iterator[Path]:
    """Run folders at and under `folder`, `depth` levels down, in order. Runs within runs, hidden and linked folders, and prepared recordings are
    not looked into. Raises ConfigError where there is no such folder."""
    if not folder.is_dir():
        raise ConfigError("no such folder", where=folder, do="Name the folder that holds your runs")
    yield from _find(folder, depth)


def _find(folder: Path, depth: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
        return
    if depth < 0 or (folder / "prepared.json").is_file():
        return
    try:
        with os.scandir(folder) as entries:
            inside = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for name in sorted(inside):
        if not name.startswith("."):
            yield from _find(folder / name, depth - 1)


def is_whole(checkpoint: Path) -> bool:
    """See `Checkpoint`."""
    said = read_json(checkpoint / "manifest.json")
    try:
        return bool(said) and all((checkpoint / name).stat().st_size == file["bytes"] for name, file in said.items())
    except (OSError, KeyError, TypeError):
        return False


def bytes_of(folder: Path) -> int:
    """Bytes of the files under a folder; links count for nothing, and neither does what goes away meanwhile."""
    total = 0
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total


def modified(path: Path) -> float:
    """Seconds since 1970; 0 for what is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def text_of(path: Path) -> str:
    """The text of a small file; "" for any other."""
    try:
        return path.read_text(encoding="utf-8").strip() if path.stat().st_size < 200 else ""
    except (OSError, ValueError):
        return ""
