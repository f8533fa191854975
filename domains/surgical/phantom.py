"""The surgical phantom: cholecystectomies that never were, as videos with phases, tools, triplets, narrations, and views of the room.

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
from domains.layouts.cholec import NULL, PARTS, PHASES, TRIPLETS
from domains.layouts.cholec80 import TOOLS
from domains.surgical.film import VIEW, Film
from domains.surgical.narration import narrate
from domains.surgical.procedure import Procedure, draw_procedure

FPS = 5  # frames a second of the videos: motion looks cut up, but is true at every frame
PACE = 9.0  # how many times faster than an operation: four minutes for forty
QUALITY = "25"  # constant rate factor of H.264
TESTED, VALIDATED = 0.25, 0.15  # shares of the procedures

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
    pace: float
    silent: bool


def synthesise(
    out: str | Path,
    procedures: int,
    seed: int = 0,
    *,
    pace: float = PACE,
    silent: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> PhantomResult:
    """Write `procedures` videos below `out`, with dataset.yaml, recordings.csv, spans.csv and texts.csv.

    Spans: phase, tool, triplet, and out_of_body ("trocar" on the way, "room" outside). Texts: two transcripts (sources asr_a, asr_b), key steps and
    an abstract. pace: times faster than an operation. silent: that many of the training procedures have no text. progress(done, total) counts
    procedures. Raises StorageError.
    """
    out = Path(out)
    parts = split(procedures, seed)
    mute = set([number for number, part in enumerate(parts) if part == "train"][:silent])
    tasks = [_Task(str(out), seed, number, pace, number in mute) for number in range(procedures)]
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
        (out / ABOUT).write_text(yaml.safe_dump(about(), sort_keys=False, width=140), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the phantom cannot be written ({error.strerror})", where=out) from None
    return PhantomResult(procedures, seconds, len(spans), len(texts))


def about() -> dict[str, Any]:
    """`dataset.yaml`."""
    tasks: dict[str, dict[str, Any]] = {"phase": {"kind": "phases", "column": "phase", "classes": list(PHASES)}}
    for label, names in {"tool": TOOLS, "triplet": TRIPLETS, "out_of_body": ("trocar", "room")}.items():
        tasks[label] = {"kind": "presence", "column": label, "classes": list(names)}
    tasks["triplet"] |= {"parts": list(PARTS["triplet"]), "nothing": list(NULL["triplet"])}
    return {"title": "Surgical phantom", "domain": "surgical", "grouped_by": "procedures", "tasks": tasks}


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
    procedure, film = make(task.seed, task.number, task.pace)
    name = name_of(task.number)
    write_video(Path(task.out) / name, film)
    words = narrate(procedure, np.random.default_rng([task.seed, task.number, 1]), silent=task.silent)
    texts: list[Row] = [(name, f"{one.start:g}", f"{one.end:g}", one.text, one.source, one.level) for one in words]
    return procedure.seconds, [(name, *row) for row in spans_of(procedure)], texts


def make(seed: int, number: int, pace: float = PACE) -> tuple[Procedure, Film]:
    """Procedure `number` of a seed: what happens, and its frames."""
    rng = np.random.default_rng([seed, number])
    procedure = draw_procedure(rng, pace)
    return procedure, Film(procedure, rng, FPS)


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
