"""What a comparison of recipes is: written down when it begins, held to when it goes on."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from domains.errors import ConfigError, StorageError
from domains.schema import Strict, parse
from recipes.runs.metrics import read_json
from recipes.training.run import replace

PLAN = "bench.json"
# What may be extended when a comparison goes on: trials that are finished stay as they are.
OPEN = {"recipes", "seeds", "tasks", "protocols", "fractions", "labels", "every"}


class Plan(Strict):
    """One comparison.

    Everything that would make two trials unlike each other, beside recipe and seed, is the same for all.
    """

    domain: str
    data: str
    fingerprint: str = Field(description="of the prepared recordings that are learned from")
    encoder: str = Field(description="which all trials begin with")
    weights: str = Field(
        default="", description="which of its weights, where it is built in: another version has others"
    )
    recipes: list[str]
    seeds: PositiveInt
    budget: PositiveFloat = Field(description="seconds of the device that each trial may learn for")
    device: str
    tasks: list[str]
    labels: str | None
    protocols: list[str]
    fractions: list[float] = Field(description="shares of the teaching patients whose labels the probes use")
    folds: PositiveInt
    split: str
    clips: PositiveInt
    every: PositiveFloat | None = Field(
        default=None, description="seconds from one clip to the next, of tasks of presence; None: a clip's length"
    )
    settings: list[str] = Field(description="key=value, of every trial")

    def trials(self) -> list[tuple[str, int]]:
        """(recipe, seed) in the order in which they are made: every recipe once, then again with the next seed."""
        return [(recipe, seed) for seed in range(self.seeds) for recipe in self.recipes]


def open_plan(folder: Path, asked: Plan, *, overwrite: bool = False) -> Plan:
    """Begin a comparison in `folder`, or go on with the one that is there. Returns what is to be done.

    Raises ConfigError where the folder holds something else, or a comparison that differs in what cannot be extended; StorageError.
    """
    known = folder.is_dir() and (folder / PLAN).is_file()
    if folder.exists() and not known and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("holds something else than a comparison", where=folder, do="Choose another --out")
    if known and not overwrite:
        before = parse(Plan, read_json(folder / PLAN), folder / PLAN)
        for name in sorted(Plan.model_fields.keys() - OPEN):
            old, new = getattr(before, name), getattr(asked, name)
            if old != new:
                what = f"the comparison there has {name} {_word(old)}, and this one {_word(new)}"
                raise ConfigError(what, where=folder, do="Choose another --out, or --overwrite to begin again")
    if known and overwrite:
        clear(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace(folder / PLAN, json.dumps(asked.model_dump(), indent=2) + "\n")
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror})", where=folder) from None
    return asked


def clear(folder: Path) -> None:
    """Remove what a comparison made, and nothing else."""
    import shutil

    for name in ("runs", "features", "trials"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in (folder / PLAN, *folder.glob("results.*")):
        path.unlink(missing_ok=True)


def _word(value: object) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else f"'{value}'"
