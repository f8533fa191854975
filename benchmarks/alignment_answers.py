"""The answers of benchmarks/alignment.py: what its trials said, read from the tables that they left; intervals, differences, tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from alignment_data import Folder

from domains.store.annotated import tasks
from domains.store.prepared import Prepared
from recipes.evaluate.metrics import CLASSIFICATION, Array, Metric
from recipes.evaluate.phases import PHASES, mean_over_videos, table_of_videos
from recipes.evaluate.presence import ap_table
from recipes.evaluate.retrieval import METRICS as RETRIEVAL
from recipes.evaluate.retrieval import Ranked
from recipes.evaluate.scored import Line, Scorer, lines_of
from recipes.evaluate.statistics import DRAWS
from recipes.evaluate.zero_shot import mean_of

TOOL = Metric("map", "mAP", mean_over_videos, higher_is_better=True, percent=True)
VIEW = (CLASSIFICATION[0], CLASSIFICATION[2])
WAYS = ("clip to text", "text to clip")
SURGICAL = (
    "surgvlp-both", "surgvlp-anchored", "surgvlp-asr_a", "surgvlp-asr_b", "few-both", "few-anchored", "few-asr_a", "few-asr_b",
    "clip", "hecvl", "peskavlp", "ophclip-silent", "ophclip-off", "ophclip-narrated",
)  # fmt: skip
ECHO = {"start": "echo-start", "captions": "captions", "reports": "reports"}
# What differs in one thing: the same steps, and the seeds that both have.
PAIRS = (
    ("surgvlp-anchored", "surgvlp-asr_a"), ("surgvlp-anchored", "surgvlp-asr_b"), ("surgvlp-both", "surgvlp-asr_a"),
    ("surgvlp-both", "surgvlp-asr_b"), ("few-anchored", "few-asr_a"), ("few-anchored", "few-asr_b"), ("few-both", "few-asr_a"),
    ("few-both", "few-asr_b"), ("ophclip-silent", "ophclip-off"),
    ("ophclip-silent", "ophclip-narrated"),
)  # fmt: skip


@dataclass(frozen=True)
class Read:
    """What a run says of every unit, and whose units they are."""

    scorer: Scorer
    patients: list[str]


Reader = Callable[[Path], Read]  # of a run folder


def lines_in(path: Path) -> list[dict[str, str]]:
    """Of predictions.csv."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def by_video(path: Path) -> list[tuple[str, list[dict[str, str]]]]:
    """Video and its lines, in order of video."""
    found: dict[str, list[dict[str, str]]] = {}
    for line in lines_in(path):
        found.setdefault(line["video_id"], []).append(line)
    return sorted(found.items())


def of_values(values: Mapping[str, Array]) -> Scorer:
    """Of figures of every video."""
    return lambda metric, weights: metric.of(values[metric.name], values[metric.name], weights)


def classes_in(lines: Sequence[Mapping[str, str]]) -> list[str]:
    """Those that predictions.csv has a column of, in order."""
    return [name.removeprefix("cosine_") for name in lines[0] if name.startswith("cosine_")]


def read_moments(run: Path, task: str = "phase", *, common: bool = False) -> Read:
    """One class of every moment. common: in place of what the run said, the commonest class of all that are asked."""
    videos = by_video(run / task / "predictions.csv")
    classes = classes_in(videos[0][1])
    truths, said = (
        [np.array([classes.index(line[column]) for line in lines]) for _, lines in videos]
        for column in ("truth", "prediction")
    )
    if common:
        most = int(np.bincount(np.concatenate(truths)).argmax())
        said = [np.full(len(truth), most) for truth in truths]
    return Read(of_values(table_of_videos(truths, said, len(classes), "called")[0]), [video for video, _ in videos])


def read_tool(run: Path) -> Read:
    """Average precision of every tool in every procedure."""
    videos = by_video(run / "tool" / "predictions.csv")
    classes = classes_in(videos[0][1])
    truths = [
        np.array([[name in line["truth"].split(";") for name in classes] for line in lines]) for _, lines in videos
    ]
    said = [np.array([[float(line[f"cosine_{name}"]) for name in classes] for line in lines]) for _, lines in videos]
    return Read(of_values({TOOL.name: ap_table(truths, said)}), [video for video, _ in videos])


def read_view(run: Path, store: Prepared) -> Read:
    """The view of every recording."""
    lines = sorted(lines_in(run / "view" / "predictions.csv"), key=lambda line: line["video_id"])
    classes = sorted({line["truth"] for line in lines})
    truth = np.array([classes.index(line["truth"]) for line in lines], float)
    said = np.array([[float(line[f"p_{name}"]) for name in classes] for line in lines])
    return Read(lambda metric, weights: metric.of(truth, said, weights), whose(lines, store))


def read_ranks(run: Path, about: str, way: str, store: Prepared) -> Read:
    """The rank of every question."""
    lines = [line for line in lines_in(run / about / "predictions.csv") if line["question"] == way]
    return Read(Ranked.of(np.array([float(line["rank"]) for line in lines])).scorer(), whose(lines, store))


def read_head(run: Path, row: str) -> Read:
    """row: head, linear, majority."""
    found = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["of_each_video"]
    names = sorted(found)
    values = {m.name: np.array([found[name][row][m.name] for name in names], float) for m in PHASES}
    return Read(of_values(values), names)


def whose(lines: Sequence[Mapping[str, str]], store: Prepared) -> list[str]:
    """The patient of every line."""
    return [store.patients[store.index_of(line["video_id"])] for line in lines]


@dataclass(frozen=True)
class Asking:
    """One question. rows: name -> the group of its trials, and how they are read; the first is the reference."""

    question: str
    metrics: Sequence[Metric]
    rows: Mapping[str, tuple[str, Reader]]
    same_seeds: bool = False

    def answer(self, folder: Folder) -> dict[str, Any] | None:
        """Of the trials that are done, seeds averaged; None where there is nothing to compare."""
        seeds = {
            row: [seed for seed in range(folder.seeds) if folder.done(f"{group}-{seed}")]
            for row, (group, _) in self.rows.items()
        }
        if self.same_seeds:
            shared = set.intersection(*map(set, seeds.values()))
            seeds = {row: sorted(shared) for row in seeds}
        seeds = {row: own for row, own in seeds.items() if own}
        reference = next(iter(self.rows))
        if reference not in seeds or len(seeds) < 2:
            return None
        read = {
            row: [self.rows[row][1](folder.run(f"{self.rows[row][0]}-{seed}")) for seed in own]
            for row, own in seeds.items()
        }
        who = read[reference][0].patients
        assert all(one.patients == who for each in read.values() for one in each), (
            f"{self.question}: not the same units"
        )
        scorers = {row: (row, mean_of([one.scorer for one in each])) for row, each in read.items()}
        lines, ones = lines_of(scorers, self.metrics, who, reference, draws=DRAWS, seed=0), np.ones((1, len(who)))
        print(f"\n{self.question} ({len(who)} units of {len(set(who))} tested; differences against {reference})")
        show(lines, self.metrics, seeds)
        return {
            "question": self.question, "tested": len(set(who)), "units": len(who), "reference": reference,
            "rows": [
                {
                    "row": line.name,
                    "seeds": seeds[line.name],
                    "of_each_seed": {m.name: [float(one.scorer(m, ones)[0]) for one in read[line.name]] for m in self.metrics},
                    "figures": {name: [one.value, one.low, one.high] for name, one in line.figures.items()},
                    "difference": {name: [one.value, one.low, one.high] for name, one in (line.difference or {}).items()},
                }
                for line in lines
            ],
        }  # fmt: skip


def show(lines: Iterable[Line], metrics: Sequence[Metric], seeds: Mapping[str, Sequence[int]]) -> None:
    """The table of a question."""
    for line in lines:
        cells = []
        for m in metrics:
            scale, found = (100 if m.percent else 1), line.figures[m.name]
            cell = f"{m.title} {scale * found.value:.1f} [{scale * found.low:.1f}, {scale * found.high:.1f}]"
            if line.difference is not None:
                gain = line.difference[m.name]
                mark = "better" if gain.better else "worse" if gain.worse else "="
                cell += f" {scale * gain.value:+.1f} [{scale * gain.low:+.1f}, {scale * gain.high:+.1f}] {mark}"
            cells.append(cell)
        print(f"  {line.name:18s} {len(seeds[line.name])} seeds  " + " | ".join(cells), flush=True)


def questions(folder: Folder) -> Iterator[Asking]:
    """Of the surgical phantom, of the echo phantom, of temporal heads."""
    store, tested = (Prepared.open(folder.data(world)) for world in ("surgical", "echo-test"))
    kinds: list[tuple[str, Sequence[Metric], Reader]] = [
        ("zero-shot phase", PHASES[:2], read_moments), ("zero-shot tool", (TOOL,), read_tool),
    ]  # fmt: skip
    if "operation" in tasks(store):
        kinds.append(("zero-shot operation", PHASES[:2], partial(read_moments, task="operation")))
    for about, name in (("texts", "narrations (asr_a)"), ("steps", "key steps")):
        kinds += [
            (f"retrieval of {name}, {way}", RETRIEVAL, partial(read_ranks, about=about, way=way, store=store))
            for way in WAYS
        ]
    for name, metrics, reader in kinds:
        yield Asking(name, metrics, {row: (row, reader) for row in ("start", *SURGICAL)})
        if reader is read_moments:
            common = {"commonest phase": ("start", partial(read_moments, common=True))}
            yield Asking(name, metrics, {**common, **{row: (row, reader) for row in SURGICAL}})
        for one, other in PAIRS:
            yield Asking(name, metrics, {other: (other, reader), one: (one, reader)}, same_seeds=True)
    of_view = partial(read_view, store=tested)
    yield Asking("zero-shot view", VIEW, {row: (group, of_view) for row, group in ECHO.items()})
    for about in ("captions", "reports"):
        for way in WAYS:
            ranks = partial(read_ranks, about=about, way=way, store=tested)
            yield Asking(
                f"echo: retrieval of {about}, {way}", RETRIEVAL, {row: (group, ranks) for row, group in ECHO.items()}
            )
    for encoder, end in (("vfm-tiny", ""), ("clip-0", "-clip")):
        yield from of_heads(encoder, end)


def of_heads(encoder: str, end: str) -> Iterator[Asking]:
    """Against both baselines, and with classes as they occur."""
    base, head = f"head-causal-balanced{end}", partial(read_head, row="head")
    baselines = {row: (base, partial(read_head, row=row)) for row in ("majority", "linear")}
    rows = {
        f"{kind}, {way}": f"head-{kind}-{way}{end}" for kind in ("causal", "offline") for way in ("balanced", "plain")
    }
    heads = {row: (group, head) for row, group in rows.items()}
    title = f"phase head over {encoder}"
    yield Asking(title, PHASES[:2], {**baselines, **heads})
    yield Asking(title, PHASES[:2], {"linear": baselines["linear"], **heads})
    for kind in ("causal", "offline"):
        pair = {row: heads[row] for row in (f"{kind}, balanced", f"{kind}, plain")}
        yield Asking(f"{title}: balance", PHASES[:2], pair, same_seeds=True)
