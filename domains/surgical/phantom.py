"""The surgical phantom: operations that never were, as videos with phases, tools, triplets, narrations, and views of the room.

Same seed, same bytes, whatever the number of workers. No patient, no licence, no network. It is written in the layout `annotated`
(domains/layouts/annotated.py), as a laboratory would write its own.
"""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import yaml

from domains.errors import StorageError
from domains.layouts.annotated import ABOUT, RECORDINGS, SPANS, TEXTS
from domains.layouts.cholec import NULL, PARTS, TRIPLETS
from domains.layouts.cholec80 import TOOLS
from domains.surgical.film import VIEW, Film
from domains.surgical.narration import narrate
from domains.surgical.operation import Operation
from domains.surgical.operations import OPERATIONS, known_operations
from domains.surgical.operations.cholecystectomy import CHOLECYSTECTOMY
from domains.surgical.procedure import Procedure

FPS = 5  # frames a second of the videos: motion looks cut up, but is true at every frame
PACE = 9.0  # how many times faster than an operation: four minutes for forty
QUALITY = "25"  # constant rate factor of H.264
TESTED, VALIDATED = 0.25, 0.15  # shares of the procedures
GALLBLADDERS = (CHOLECYSTECTOMY.name,)

Progress = Callable[[int, int], None]
Row = Sequence[Any]


@dataclass(frozen=True)
class PhantomResult:
    """What was written: procedures, seconds of video, spans, texts."""

    procedures: int
    seconds: float
    spans: int
    texts: int


@dataclass(frozen=True)
class _Task:
    out: str
    seed: int
    number: int
    operation: str
    pace: float
    silent: bool
    several: bool  # kinds of operations


def synthesise(
    out: str | Path,
    procedures: int,
    seed: int = 0,
    *,
    operations: Sequence[str] = GALLBLADDERS,
    pace: float = PACE,
    silent: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> PhantomResult:
    """Write `procedures` videos below `out`, with dataset.yaml, recordings.csv, spans.csv and texts.csv.

    Spans: phase, tool, triplet, and out_of_body ("trocar" on the way, "room" outside). Texts: two transcripts (sources asr_a, asr_b), key steps and
    an abstract. operations: names in OPERATIONS; of several, every part of the split has each about as often, and a span `operation` says which one
    it is. pace: times faster than an operation. silent: that many of the training procedures have no text. progress(done, total) counts procedures.
    Raises ConfigError for an operation that is not known, StorageError.
    """
    out = Path(out)
    operations = tuple(one.name for one in known_operations(operations))
    parts = split(procedures, seed)
    mute = set([number for number, part in enumerate(parts) if part == "train"][:silent])
    kinds = kinds_of(parts, operations, seed)
    tasks = [
        _Task(str(out), seed, number, kinds[number], pace, number in mute, len(operations) > 1)
        for number in range(procedures)
    ]
    spans: list[Row] = []
    texts: list[Row] = []
    seconds = 0.0
    try:
        (out / "videos").mkdir(parents=True, exist_ok=True)
        for done, (length, own_spans, own_texts) in enumerate(_each(tasks, workers), 1):
            seconds, spans, texts = seconds + length, spans + own_spans, texts + own_texts
            if progress is not None:
                progress(done, procedures)
        recordings = [(name_of(number), f"procedure {number}", part) for number, part in enumerate(parts)]
        _write(out / RECORDINGS, ("recording", "group", "official"), recordings)
        _write(out / SPANS, ("recording", "start", "end", "label", "value"), spans)
        _write(out / TEXTS, ("recording", "start", "end", "text", "source", "level"), texts)
        (out / ABOUT).write_text(yaml.safe_dump(about(operations), sort_keys=False, width=140), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the phantom cannot be written ({error.strerror})", where=out) from None
    return PhantomResult(procedures, seconds, len(spans), len(texts))


def about(operations: Sequence[str] = GALLBLADDERS) -> dict[str, Any]:
    """`dataset.yaml`."""
    known = known_operations(operations)
    phases = [phase for one in known for phase in one.phases]
    triplets = list(dict.fromkeys([*TRIPLETS, *(action for one in known for action in one.spoken if action)]))
    tasks: dict[str, dict[str, Any]] = {"phase": {"kind": "phases", "column": "phase", "classes": phases}}
    for label, names in {"tool": TOOLS, "triplet": triplets, "out_of_body": ("trocar", "room")}.items():
        tasks[label] = {"kind": "presence", "column": label, "classes": list(names)}
    tasks["triplet"] |= {"parts": list(PARTS["triplet"]), "nothing": list(NULL["triplet"])}
    if len(known) > 1:
        tasks["operation"] = {"kind": "phases", "column": "operation", "classes": list(operations)}
    return {"title": "Surgical phantom", "domain": "surgical", "grouped_by": "procedures", "tasks": tasks}


def kinds_of(parts: Sequence[str], operations: Sequence[str], seed: int) -> list[str]:
    """The operation of each procedure: within a part of the split, every so many in turn are one of each, in an order drawn anew."""
    rng = np.random.default_rng([seed, 1 << 21])
    kinds = [""] * len(parts)
    for part in dict.fromkeys(parts):
        waiting: list[str] = []
        for number in (number for number, own in enumerate(parts) if own == part):
            waiting = waiting or [operations[place] for place in rng.permutation(len(operations))]
            kinds[number] = waiting.pop()
    return kinds


def split(procedures: int, seed: int) -> list[str]:
    """The official part of each procedure; of four and more one at least is tested, of seven and more one validates."""
    tested = round(TESTED * procedures)
    validated = round(VALIDATED * procedures)
    parts = ["test"] * tested + ["val"] * validated + ["train"] * (procedures - tested - validated)
    order = np.random.default_rng([seed, 1 << 20]).permutation(procedures)
    return [parts[place] for place in order]


def name_of(number: int) -> str:
    """The path of a video below the data set."""
    return f"videos/procedure_{number:04d}.mp4"


def _each(tasks: list[_Task], workers: int) -> Iterable[tuple[float, list[Row], list[Row]]]:
    if workers == 1:
        yield from map(_write_procedure, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_write_procedure, tasks)


def _write_procedure(task: _Task) -> tuple[float, list[Row], list[Row]]:
    """One video; (seconds, rows of spans.csv, rows of texts.csv)."""
    cv2.setNumThreads(1)
    operation = OPERATIONS[task.operation]
    procedure, film = make(task.seed, task.number, task.pace, operation)
    name = name_of(task.number)
    write_video(Path(task.out) / name, film)
    words = narrate(operation, procedure, np.random.default_rng([task.seed, task.number, 1]), silent=task.silent)
    texts: list[Row] = [(name, f"{one.start:g}", f"{one.end:g}", one.text, one.source, one.level) for one in words]
    spans: list[Row] = [(name, *row) for row in spans_of(procedure)]
    if task.several:
        spans.append((name, "0", f"{procedure.seconds:g}", "operation", task.operation))
    return procedure.seconds, spans, texts


def make(seed: int, number: int, pace: float = PACE, operation: Operation = CHOLECYSTECTOMY) -> tuple[Procedure, Film]:
    """Procedure `number` of a seed: what happens, and its frames."""
    rng = np.random.default_rng([seed, number])
    procedure = operation.draw(rng, pace)
    return procedure, Film(operation, procedure, rng, FPS)


def spans_of(procedure: Procedure) -> list[Row]:
    """(start, end, label, value) of all that is labelled."""
    rows: list[Row] = [(one.start, one.end, "phase", one.value) for one in procedure.phases]
    rows += [(act.start, act.end, "tool", act.tool) for act in procedure.acts]
    rows += [(act.start, act.end, "triplet", act.action) for act in procedure.acts if act.action]
    rows += [(one.start, one.end, "out_of_body", one.value) for one in procedure.outside]
    return [(f"{start:g}", f"{end:g}", label, value) for start, end, label, value in rows]


def write_video(path: Path, frames: Iterable[Any]) -> None:
    """H.264 in MP4 at FPS. Raises OSError."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.height, stream.width = VIEW
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        # Without its assembly: that reads memory which nobody wrote, and the same frames do not always give the same bytes.
        stream.options = {"preset": "veryfast", "crf": QUALITY, "g": str(10 * FPS), "x264-params": "asm=0"}
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def _write(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
