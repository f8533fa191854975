"""What the egocentric recipes are for, asked of the egocentric phantom.

    python benchmarks/egocentric.py --out /tmp/egocentric --workers 2 --limit 600

makes the phantom and prepares it in --out (kept there: a second call goes on), learns on the training part of its split and asks its test part:

    location    rooms of teammates at the middle of a clip, linear probe of frozen features, mAP and macro F1: vfm-tiny as it ships, after
                `cecl`, and after `cecl` with every recording at another moment (data.synchronous=false), the control
    retrieval   narrations among clips and clips among narrations, EPIC's mAP and nDCG by verbs and nouns: `egonce`, and the same with narrations
                in the same words as positives (positives=words), and with none but a sample's own (positives=own), InfoNCE; `clip`, which
                leaves out pairs of the same words or overlapping times, and learns its temperature
    direction   each action against its opposite alone (half is chance), linear probe: vfm-tiny and `chirality` over it; and the case that the
                recipe is for, an image encoder that sees frames by themselves (a small DINOv2, by `simclr` on the same recordings, from random
                weights) and `chirality` over that

Both sides of a comparison learn for the same steps from the same weights. --limit: seconds of the whole; what the phantom leaves of it is
shared among the trainings by what a step of each takes (at most --steps), and two fifths are kept for the questions. Trainings that are in --out are
kept, as they were made. Figures of several --seeds are averaged; intervals are bootstraps over events of that average, and differences are paired.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

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
from recipes.evaluate.zero_shot import mean_of
from recipes.jobs.evaluate import clip_seen
from recipes.jobs.instants import Asked, folds_of
from recipes.jobs.pretrain import pretrain
from recipes.jobs.retrieval import embed_pairs, relevance_of
from recipes.training.reporter import SilentReporter

KEY = b"k" * 32
CLIP = ("clip.frames=8", "clip.size=64", "clip.rate=4")
COMMON = ("data.workers=0", "train.precision=fp32", "monitor.clips=8")
IMAGE = "image"  # the run that makes an image encoder


@dataclass(frozen=True)
class Run:
    """question: of QUESTIONS. recipe, settings (key=value): of the training. start: the encoder, or a run."""

    question: str
    recipe: str
    settings: tuple[str, ...] = ("train.batch_size=32",)
    start: str = TINY


QUESTIONS = ("location", "retrieval", "direction")
CECL = (
    "train.batch_size=32",
    "objective.standardise=true",
    "optim.lr=5e-4",
)  # of hundreds of steps, not of many thousands
LARGE = "train.batch_size=64"  # narrations repeat in it: each meets 1.3 others of the same act
RUNS: dict[str, Run] = {  # those of one question and start learn for as many steps
    "cecl": Run("location", "cecl", CECL),
    "asynchronous": Run("location", "cecl", (*CECL, "data.synchronous=false")),
    "egonce": Run("retrieval", "egonce", (LARGE,)),
    "words": Run("retrieval", "egonce", (LARGE, "objective.positives=words")),
    "infonce": Run("retrieval", "egonce", (LARGE, "objective.positives=own")),
    "clip": Run("retrieval", "clip", (LARGE,)),
    "chirality": Run("direction", "chirality"),
    IMAGE: Run("direction", "simclr", ("train.batch_size=32", "optim.lr=5e-4"), "dinov2"),
    "chirality-image": Run("direction", "chirality", start=IMAGE),
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


def layers(name: str, out: Path, data: Path, split: str, seed: int) -> list[Layer]:
    """The settings of a run, but for its steps."""
    run = RUNS[name]
    start = str(folder(out, run.start, seed)) if run.start in RUNS else run.start
    start = str(image_model(out / "dinov2")) if start == "dinov2" else start
    words = [f"data.path={data}", f"data.split={split}", f"encoder.name={start}", *CLIP, *COMMON, *run.settings]
    return [
        yaml_layer(recipe_yaml(run.recipe)),
        Layer("egocentric", {"domain": "egocentric", **load_domain("egocentric").run_layer()}),
        Layer("benchmark", parse_assignments(words)),
    ]


def image_model(place: Path) -> Path:
    """A small DINOv2 with random weights, the same for every run."""
    if not (place / "config.json").is_file():
        torch.manual_seed(0)
        shape = {
            "hidden_size": 192,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "image_size": 64,
            "patch_size": 16,
        }
        transformers.Dinov2Model(transformers.Dinov2Config(**shape)).save_pretrained(place)
    return place


def folder(out: Path, name: str, seed: int) -> Path:
    """Of a run."""
    return out / f"{name}-{seed}"


def trained(
    out: Path, prepared: Prepared, split: str, names: Sequence[str], steps: int, ends: float, seeds: int
) -> dict[str, int]:
    """The runs, in --out: for how many steps each learned. ends: until when (s, of `time.monotonic`); runs that are there are kept."""
    data = prepared.folder
    planned = {name: out / f"{name}.steps" for name in names}
    counts = {name: int(path.read_text()) for name, path in planned.items() if path.is_file()}
    missing = [name for name in names if name not in counts]
    took: dict[tuple[str, str], float] = {}
    alike = {name: (RUNS[name].question, RUNS[name].start) for name in names}
    for seed, name in ((seed, name) for seed in range(seeds) for name in names):
        if name in missing and seed == 0:
            if alike[name] not in took:
                tried = with_steps(layers(name, out, data, split, 0), TRIED, 0, log_every=1)
                took[alike[name]] = step_seconds(tried, online=False)
            share = max(0.0, ends - time.monotonic()) / (len(missing) - missing.index(name)) / seeds
            same = [counts[other] for other in counts if other in missing and alike[other] == alike[name]]
            counts[name] = same[0] if same else max(2, min(steps, int(share / took[alike[name]])))
            planned[name].write_text(str(counts[name]))
        run = folder(out, name, seed)
        if not (run / "encoder" / "config.json").is_file():
            resolved = with_steps(layers(name, out, data, split, seed), counts[name], seed, log_every=20)
            pretrain(resolved, run, overwrite=True, key=KEY, reporter=SilentReporter())
            print(f"{time.strftime('%X')} {run.name}", file=sys.stderr, flush=True)
    return counts


def asked_of(
    prepared: Prepared,
    split: str,
    task: str,
    asking: Asking,
    encoders: Mapping[str, Sequence[str]],
    references: Sequence[str],
) -> list[tuple[Line, ...]]:
    """A linear probe of moments, by encoder (name -> where the weights of its seeds are): the rows, against each of the references."""
    labels = read_moments(prepared, task_of(prepared, "egocentric", task), None, KEY)
    fold_of = folds_of(prepared, labels.rows, 2, 0, split)
    opened = {place: open_encoder(place, frames=8, size=64) for places in encoders.values() for place in places}
    clip = clip_seen(next(iter(opened.values())), prepared, "egocentric").model_copy(update={"rate": 4.0})
    units, _ = units_of(prepared, labels, clip, asking, fold_of)
    with ExitStack() as stack:
        extractors = {place: stack.enter_context(embedding(one)) for place, one in opened.items()}
        features, kept, _ = read_units(prepared, units, clip, extractors, None)
    asked = Asked.of(prepared, labels, [units[place] for place in kept], fold_of, asking)
    told = {place: asked.scorer(asked.predict("linear", values)) for place, values in features.items()}
    scorers: dict[str, tuple[str, Scorer]] = {"without looking": ("without looking", asked.scorer(asked.prior()))}
    scorers |= {name: (name, mean_of([told[place] for place in places])) for name, places in encoders.items()}
    events = [prepared.patients[one.row] for one in asked.units]
    return [lines_of(scorers, asked.metrics, events, name, draws=DRAWS, seed=0) for name in references]


def retrieved(
    prepared: Prepared, split: str, runs: Mapping[str, Sequence[Path]], references: Sequence[str]
) -> list[tuple[Line, ...]]:
    """mAP and nDCG, the mean of both ways, a clip at a time: a text asks for every clip that it was said of."""
    scorers: dict[str, tuple[str, Scorer]] = {}
    events: list[str] = []
    for name, places in runs.items():
        of_seeds = []
        for place in places:
            found = embed_pairs(
                place, prepared, texts=(), asked=AskedTexts(levels=("clip",)), fresh=0, split=split, clips=1, key=KEY, domain="egocentric",
                online=False, progress=None,
            )  # fmt: skip
            alike = relevance_of(found)
            clips, texts = unit(found.shown[:, 0]), unit(found.words[:, 0])
            own = dict(reversed(found.pairs.said.tolist()))
            said = [own[moment] for moment in range(len(clips))]
            there, back = graded_figures(clips, texts, alike), graded_figures(texts[said], clips, alike.T[said])
            of_seeds.append(averaged({m.name: (there[m.name] + back[m.name]) / 2 for m in GRADED}))
            events = [prepared.patients[row] for row, _, _ in found.pairs.moments]
        scorers[name] = (name, mean_of(of_seeds))
    return [lines_of(scorers, GRADED, events, name, draws=DRAWS, seed=0) for name in references]


def averaged(values: Mapping[str, Array]) -> Scorer:
    """The scorer of figures (n,) of questions, by name."""
    return lambda metric, weights: metric.of(values[metric.name], values[metric.name], weights)


def tables(prepared: Prepared, split: str, out: Path, questions: Sequence[str], seeds: int) -> list[Table]:
    """The questions."""
    places = {name: [folder(out, name, seed) for seed in range(seeds)] for name in RUNS}
    weights = {name: [str(place) for place in found] for name, found in places.items()}
    found: list[Table] = []
    if "location" in questions:
        encoders = {TINY: [TINY], "cecl": weights["cecl"], "asynchronous": weights["asynchronous"]}
        against = asked_of(prepared, split, "mates", Asking(every=4.0), encoders, (TINY, "asynchronous"))
        found += [
            Table(f"rooms of teammates, against {whom}", metric, lines)
            for metric in ("map", "macro_f1")
            for whom, lines in zip((TINY, "the control"), against, strict=True)
        ]
    if "retrieval" in questions:
        runs = {name: places[name] for name, run in RUNS.items() if run.question == "retrieval"}
        against = retrieved(prepared, split, runs, ("infonce", "clip"))
        found += [
            Table(f"retrieval by verbs and nouns, against {whom}", metric, lines)
            for metric in ("map", "ndcg")
            for whom, lines in zip(("infonce", "clip"), against, strict=True)
        ]
    if "direction" in questions:
        for start, ways in (
            (TINY, {TINY: [TINY], "chirality": weights["chirality"]}),
            (IMAGE, {IMAGE: weights[IMAGE], "chirality": weights["chirality-image"]}),
        ):
            (lines,) = asked_of(prepared, split, "verb", Asking(opposites=True), ways, (start,))
            found.append(Table(f"actions against their opposites, over {start}", "opposites", lines))
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
    parser.add_argument("--seed", type=int, default=0, help="of the phantom")
    parser.add_argument("--seeds", type=int, default=1, help="of each training")
    parser.add_argument("--only", nargs="*", default=QUESTIONS, choices=QUESTIONS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(asked.workers)
    prepared = material(asked.out, asked.events, asked.people, asked.seconds, asked.seed, asked.workers)
    split = next(iter(prepared.info["layout"]["splits"]))
    made = time.monotonic()
    ends = made + (1 - FOR_QUESTIONS) * max(0.0, began + asked.limit - made)
    names = [name for name, run in RUNS.items() if run.question in asked.only]
    steps = trained(asked.out, prepared, split, names, asked.steps, ends, asked.seeds)
    found = tables(prepared, split, asked.out, asked.only, asked.seeds)
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
