"""What the egocentric recipes are for, asked of the egocentric phantom.

    python benchmarks/egocentric.py --out /tmp/egocentric --workers 2 --limit 600

makes the phantom and prepares it in --out (kept there: a second call goes on), learns on the training part of its split and asks its test part:

    location    rooms of teammates at the middle of a clip, linear probe of frozen features, mAP and macro F1: vfm-tiny as it ships, after
                `cecl`, and after `cecl` with every recording at another moment (data.synchronous=false), the control
    retrieval   narrations among clips and clips among narrations, EPIC's mAP and nDCG by verbs and nouns: `egonce` against `clip`
    direction   each action against its opposite alone (half is chance), linear probe: vfm-tiny and `chirality` over it

Both sides of a comparison learn for the same steps from the same weights. --limit: seconds of the whole; what the phantom leaves of it is
shared among the trainings by what a step of each takes (at most --steps), and two fifths are kept for the questions. Intervals are bootstraps over
events and differences are paired: one training of each, so they say nothing of other seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from domains.base import load_domain
from domains.egocentric.phantom import synthesise
from domains.layouts import open_layout
from domains.prepare.ingest import prepare
from domains.store.annotated import task_of
from domains.store.moments import read_moments
from domains.store.prepared import Prepared
from domains.store.texts import Asked as AskedTexts
from recipes.bench.trial import step_seconds, with_steps
from recipes.config import Layer, parse_assignments, recipe_yaml, yaml_layer
from recipes.encoders import TINY, open_encoder
from recipes.evaluate.features import embedding
from recipes.evaluate.knn import unit
from recipes.evaluate.metrics import Array
from recipes.evaluate.questions import Asking, read_units, units_of
from recipes.evaluate.relevance import GRADED, graded_figures
from recipes.evaluate.scored import Line, Scorer, lines_of
from recipes.evaluate.statistics import DRAWS
from recipes.jobs.evaluate import clip_seen
from recipes.jobs.instants import Asked, folds_of
from recipes.jobs.pretrain import pretrain
from recipes.jobs.retrieval import embed_pairs, relevance_of
from recipes.training.reporter import SilentReporter

KEY = b"k" * 32
CLIP = ("clip.frames=8", "clip.size=64", "clip.rate=4")
COMMON = ("data.workers=0", "train.precision=fp32", "monitor.clips=8")
# name -> recipe and what is set beside it; those of one letter learn for as many steps.
CECL = (
    "train.batch_size=32",
    "objective.standardise=true",
    "optim.lr=5e-4",
)  # of hundreds of steps, not of many thousands
RUNS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "cecl": ("m", "cecl", CECL),
    "asynchronous": ("m", "cecl", (*CECL, "data.synchronous=false")),
    "egonce": ("t", "egonce", ("train.batch_size=32",)),
    "clip": ("t", "clip", ("train.batch_size=32",)),
    "chirality": ("d", "chirality", ("train.batch_size=32",)),
}
TRIED = 6  # steps that tell how long one takes
FOR_QUESTIONS = 0.4


@dataclass(frozen=True)
class Table:
    """One comparison: rows in percent, with differences against the first of `lines` that has none."""

    title: str
    metric: str
    lines: tuple[Line, ...]

    def rows(self) -> list[dict[str, Any]]:
        """For a program."""
        found = []
        for line in self.lines:
            at = line.figures[self.metric]
            row: dict[str, Any] = {"row": line.title, "value": at.value, "low": at.low, "high": at.high}
            if line.difference is not None:
                by = line.difference[self.metric]
                row |= {"against": line.against, "difference": by.value, "from": by.low, "to": by.high}
            found.append(row)
        return found


def material(out: Path, events: int, people: int, seconds: float, seed: int, workers: int) -> Prepared:
    """The phantom, prepared; what is there already is kept."""
    source, store = out / "seen", out / "met"
    if not (store / "prepared.json").is_file():
        if not (source / "recordings.csv").is_file():
            synthesise(source, events, people, seed, seconds=seconds, workers=workers)
        layout = open_layout(source)
        prepare(source, store, load_domain("egocentric"), key=KEY, workers=workers, overwrite=True, layout=layout)
    return Prepared.open(store)


def layers(name: str, data: Path, split: str) -> list[Layer]:
    """The settings of a run, but for its steps."""
    _, recipe, own = RUNS[name]
    words = [f"data.path={data}", f"data.split={split}", f"encoder.name={TINY}", *CLIP, *COMMON, *own]
    return [
        yaml_layer(recipe_yaml(recipe)),
        Layer("egocentric", {"domain": "egocentric", **load_domain("egocentric").run_layer()}),
        Layer("benchmark", parse_assignments(words)),
    ]


def trained(
    out: Path, prepared: Prepared, split: str, steps: int, ends: float, seed: int
) -> tuple[dict[str, Path], dict[str, int]]:
    """The runs, and for how many steps each learned. ends: until when (s, of `time.monotonic`); runs that are there are kept."""
    planned = {name: out / f"{name}.steps" for name in RUNS}
    counts = {name: int(path.read_text()) for name, path in planned.items() if path.is_file()}
    missing = [name for name in RUNS if name not in counts]
    if missing:
        data = prepared.folder
        took = {}
        for name in missing:
            letter = RUNS[name][0]
            if letter not in took:
                took[letter] = step_seconds(
                    with_steps(layers(name, data, split), TRIED, seed, log_every=1), online=False
                )
        share = max(0.0, ends - time.monotonic()) / len(missing)
        for name in missing:
            counts[name] = max(2, min(steps, int(share / took[RUNS[name][0]])))
            planned[name].write_text(str(counts[name]))
    for name, count in counts.items():
        if not (out / name / "encoder" / "config.json").is_file():
            resolved = with_steps(layers(name, prepared.folder, split), count, seed, log_every=20)
            pretrain(resolved, out / name, overwrite=True, key=KEY, reporter=SilentReporter())
    return {name: out / name for name in RUNS}, counts


def asked_of(
    prepared: Prepared, split: str, task: str, asking: Asking, encoders: Mapping[str, str], references: Sequence[str]
) -> list[tuple[Line, ...]]:
    """A linear probe of moments, by encoder (name -> where its weights are): the rows, against each of the references."""
    labels = read_moments(prepared, task_of(prepared, "egocentric", task), None, KEY)
    fold_of = folds_of(prepared, labels.rows, 2, 0, split)
    opened = {name: open_encoder(place, frames=8, size=64) for name, place in encoders.items()}
    clip = clip_seen(next(iter(opened.values())), prepared, "egocentric").model_copy(update={"rate": 4.0})
    units, _ = units_of(prepared, labels, clip, asking, fold_of)
    with ExitStack() as stack:
        extractors = {name: stack.enter_context(embedding(one)) for name, one in opened.items()}
        features, kept, _ = read_units(prepared, units, clip, extractors, None)
    asked = Asked.of(prepared, labels, [units[place] for place in kept], fold_of, asking)
    scorers = {name: (name, asked.scorer(asked.predict("linear", values))) for name, values in features.items()}
    scorers = {"without looking": ("without looking", asked.scorer(asked.prior())), **scorers}
    events = [prepared.patients[one.row] for one in asked.units]
    return [lines_of(scorers, asked.metrics, events, name, draws=DRAWS, seed=0) for name in references]


def retrieved(prepared: Prepared, split: str, runs: Mapping[str, Path], reference: str) -> tuple[Line, ...]:
    """mAP and nDCG, the mean of both ways, a clip at a time: a text asks for every clip that it was said of."""
    scorers: dict[str, tuple[str, Scorer]] = {}
    events: list[str] = []
    for name, run in runs.items():
        found = embed_pairs(
            run, prepared, texts=(), asked=AskedTexts(levels=("clip",)), fresh=0, split=split, clips=1, key=KEY, domain="egocentric",
            online=False, progress=None,
        )  # fmt: skip
        alike = relevance_of(found)
        clips, texts = unit(found.shown[:, 0]), unit(found.words[:, 0])
        own = dict(reversed(found.pairs.said.tolist()))
        said = [own[moment] for moment in range(len(clips))]
        there, back = graded_figures(clips, texts, alike), graded_figures(texts[said], clips, alike.T[said])
        values = {metric.name: (there[metric.name] + back[metric.name]) / 2 for metric in GRADED}
        scorers[name] = (name, averaged(values))
        events = [prepared.patients[row] for row, _, _ in found.pairs.moments]
    return lines_of(scorers, GRADED, events, reference, draws=DRAWS, seed=0)


def averaged(values: Mapping[str, Array]) -> Scorer:
    """The scorer of figures (n,) of questions, by name."""
    return lambda metric, weights: metric.of(values[metric.name], values[metric.name], weights)


def tables(prepared: Prepared, split: str, runs: Mapping[str, Path]) -> list[Table]:
    """The three questions."""
    places = {"vfm-tiny": TINY, "cecl": str(runs["cecl"]), "asynchronous": str(runs["asynchronous"])}
    against = asked_of(prepared, split, "mates", Asking(every=4.0), places, ("vfm-tiny", "asynchronous"))
    found = [
        Table(f"rooms of teammates, against {whom}", metric, lines)
        for metric in ("map", "macro_f1")
        for whom, lines in zip(("vfm-tiny", "the control"), against, strict=True)
    ]
    texts = retrieved(prepared, split, {name: runs[name] for name in ("clip", "egonce")}, "clip")
    found += [Table("retrieval by verbs and nouns", metric, texts) for metric in ("map", "ndcg")]
    ways = {"vfm-tiny": TINY, "chirality": str(runs["chirality"])}
    (direction,) = asked_of(prepared, split, "verb", Asking(opposites=True), ways, ("vfm-tiny",))
    found.append(Table("actions against their opposites", "opposites", direction))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--events", type=int, default=24)
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=40.0, help="of an event")
    parser.add_argument("--steps", type=int, default=400, help="of each training, at most")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of the whole")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that make and prepare the phantom, and threads that learn"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(asked.workers)
    prepared = material(asked.out, asked.events, asked.people, asked.seconds, asked.seed, asked.workers)
    split = next(iter(prepared.info["layout"]["splits"]))
    made = time.monotonic()
    ends = made + (1 - FOR_QUESTIONS) * max(0.0, began + asked.limit - made)
    runs, steps = trained(asked.out, prepared, split, asked.steps, ends, asked.seed)
    found = tables(prepared, split, runs)
    took = {"phantom": made - began, "all": time.monotonic() - began}
    if asked.json:
        told = [{"title": table.title, "metric": table.metric, "rows": table.rows()} for table in found]
        print(json.dumps({"recordings": len(prepared), "steps": steps, "seconds": took, "tables": told}, indent=2))
        return
    print(
        f"{len(prepared)} recordings; steps: {steps}; {took['phantom']:.0f} s for the phantom, {took['all']:.0f} s in all"
    )
    for table in found:
        print(f"\n{table.title} ({table.metric}, %)")
        for row in table.rows():
            line = f"  {row['row']:16} {100 * row['value']:5.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
            if "difference" in row:
                line += f"   {100 * row['difference']:+.1f} [{100 * row['from']:+.1f}, {100 * row['to']:+.1f}]"
            print(line)


if __name__ == "__main__":
    main()
