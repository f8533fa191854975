"""The data of benchmarks/alignment.py: phantoms, splits, tables of texts. It loads no torch: processes that make phantoms load it again."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domains.base import load_domain
from domains.echo import phantom as echo
from domains.layouts import open_layout
from domains.layouts.annotated import RECORDINGS
from domains.prepare.ingest import prepare
from domains.prepare.privacy import load_key
from domains.store.annotated import read_split, texts
from domains.store.prepared import Prepared
from domains.surgical import phantom as surgical

NARRATED = "narrated"  # a split: of the training part, the procedures that ophclip has words of
NOBODY = "nobody"  # a second source without a word about what is taught: surgvlp asks for two
DONE = "done.json"
AROUND = 16  # pixels: crops of the recipes are then of about the size that is seen


@dataclass(frozen=True)
class Folder:
    """Where data and trials are. A trial is called group-seed."""

    work: Path
    seeds: int

    def data(self, world: str) -> Path:
        """A prepared folder."""
        return self.work / world / "prepared"

    def run(self, name: str) -> Path:
        """Of a trial."""
        return self.work / "runs" / name

    def done(self, name: str) -> bool:
        """Whether a trial is."""
        return (self.run(name) / DONE).is_file()


@dataclass(frozen=True)
class Plan(Folder):
    """Where things are, and what is asked of every trial."""

    asked: argparse.Namespace

    def text(self, name: str) -> Path:
        """A table of texts of the surgical phantom."""
        return self.work / "texts" / f"{name}.csv"

    def source(self, name: str, world: str = "echo") -> Path:
        """A table that an echo phantom brought."""
        return self.work / world / "source" / f"{name}.csv"

    @property
    def key(self) -> bytes:
        """Of all pseudonyms."""
        return load_key(self.work / "key", create=True)


def make_data(plan: Plan) -> None:
    """The phantoms, prepared; what is there is kept."""
    asked, workers = plan.asked, plan.asked.workers
    store = {"store": {"size": asked.size + AROUND}}
    if not (plan.data("surgical") / "prepared.json").is_file():
        place = plan.work / "surgical"
        make_procedures(
            place,
            asked.procedures,
            asked.phantom_seed,
            asked.operations,
            asked.narrated,
            asked.pace,
            asked.size,
            plan.key,
            workers,
        )
    for number, (world, patients) in enumerate((("echo", asked.patients), ("echo-test", asked.patients // 2))):
        if not (plan.data(world) / "prepared.json").is_file():
            source = plan.work / world / "source"
            echo.synthesise(source, patients, asked.phantom_seed + 1000 * number, workers=workers)
            domain = load_domain("echo").changed(store)
            prepare(source, plan.data(world), domain, key=plan.key, workers=workers, overwrite=True)
    _write_texts(plan)


def make_procedures(
    place: Path,
    procedures: int,
    seed: int,
    operations: Sequence[str],
    narrated: int,
    pace: float,
    size: int,
    key: bytes,
    workers: int,
) -> None:
    """The surgical phantom in `place`/source, and prepared beside it for clips of `size`."""
    source = place / "source"
    surgical.synthesise(source, procedures, seed, operations=operations, pace=pace, workers=workers)
    _add_narrated(source / RECORDINGS, len(operations), narrated)
    domain = load_domain("surgical").changed({"store": {"size": size + AROUND}})
    prepare(source, place / "prepared", domain, key=key, workers=workers, overwrite=True, layout=open_layout(source))


def _add_narrated(path: Path, kinds: int, each: int) -> None:
    """A split whose training part is of every kind of operation the first `each` procedures that teach, or with 0 every third."""
    with path.open(encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    taught = [line for line in lines if line[2] == "train"]
    rounds = {line[0]: number // kinds for number, line in enumerate(taught)}  # in every one each kind once
    some = {name for name, turn in rounds.items() if (turn < each if each else turn % 3 == 0)}
    rows = [[*line, line[2] if line[2] != "train" or line[0] in some else ""] for line in lines]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*head, NARRATED], *rows])


def _write_texts(plan: Plan) -> None:
    """Tables of the texts that a trial may know: of one transcriber, of both, of the narrated procedures."""
    store = Prepared.open(plan.data("surgical"))
    said = [tuple(line) for line in texts(store)]
    parts, some = (read_split(store, name) for name in ("official", NARRATED))
    tested = parts.index("test")
    nobody = (tested, 0.0, 1.0, "nothing", NOBODY, "clip")
    spoken = [line for line in said if line[5] == "clip"]
    tables = {
        "both": spoken,
        **{source: [*(line for line in spoken if line[4] == source), nobody] for source in ("asr_a", "asr_b")},
        NARRATED: [_titled(line, plan) for line in said if some[line[0]] == "train"],
    }
    for name, lines in tables.items():
        plan.text(name).parent.mkdir(parents=True, exist_ok=True)
        with plan.text(name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(("video_id", "start", "end", "text", "source", "level"))
            csv.writer(file).writerows((store.video_id(row), *rest) for row, *rest in lines)


def _titled(line: tuple[Any, ...], plan: Plan) -> tuple[Any, ...]:
    """Of several kinds of operations an abstract is cut down to its title, which says which one it is."""
    if len(plan.asked.operations) == 1 or line[5] != "abstract":
        return line
    return (*line[:3], line[3].split(".")[0], *line[4:])


def check_settings(plan: Plan) -> None:
    """What a folder holds was made with one set of settings."""
    plan.work.mkdir(parents=True, exist_ok=True)
    named = (
        "procedures",
        "operations",
        "narrated",
        "pace",
        "patients",
        "phantom_seed",
        "steps",
        "batch",
        "lr",
        "size",
        "frames",
        "every",
        "set",
    )
    own, path = {name: getattr(plan.asked, name) for name in named}, plan.work / "settings.json"
    if path.is_file() and (other := json.loads(path.read_text(encoding="utf-8"))) != own:
        changed = ", ".join(name for name in named if other.get(name) != own[name])
        raise SystemExit(f"{plan.work} was begun with another --{changed}: use another --work")
    path.write_text(json.dumps(own), encoding="utf-8")
