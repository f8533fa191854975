"""What alignment with words gains on the phantoms, in answers that no label taught: phases, tools, views, retrieval; and what temporal heads add.

    python benchmarks/alignment.py --work /tmp/alignment --workers 2 --json figures.json
    python benchmarks/alignment.py --work /tmp/alignment --workers 16 --limit 230 --json figures.json       # keeps what is finished by then

Makes a surgical phantom (an official part of its procedures is tested) and two echo phantoms (one teaches, one is tested), and aligns `vfm-tiny` and
`vfm-tiny-text` with their texts, a trial for each recipe and seed:

    start      both towers and projections as they begin: unaligned
    clip       all texts: two transcripts, key steps, abstracts
    hecvl, peskavlp     the same, by levels
    surgvlp    narrations alone: both transcripts; asr_a alone; asr_b alone (the same loss, whose third term then has nothing to compare)
    ophclip    texts of a third of the procedures; with the others as silent videos, and without them
    captions, reports   of the echo phantom, by clip

and asks each on the tested procedures or patients. `heads` are trained over frozen descriptions: causal and offline, classes balanced or not. Trials
run beside each other, each one thread of a process of its own, on a GPU if there is one; those that are finished are not made again. Seeds are
averaged; intervals are bootstraps over procedures (patients) of that average, differences are paired. --only NAME ...: these groups alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import cv2
import torch
from alignment_answers import DONE, Folder, questions

from domains.base import load_domain
from domains.echo import phantom as echo
from domains.layouts import open_layout
from domains.layouts.annotated import RECORDINGS
from domains.prepare.ingest import prepare
from domains.prepare.privacy import load_key
from domains.store.annotated import read_split, texts
from domains.store.prepared import Prepared
from domains.surgical import phantom as surgical
from recipes.bench.trial import device_name
from recipes.config import Layer, Resolved, parse_assignments, recipe_yaml, resolve, yaml_layer
from recipes.encoders import build_encoder
from recipes.evaluate.features import clip_of
from recipes.evaluate.written import write_descriptions
from recipes.finetune import defaults
from recipes.jobs.moments import finetune_moments
from recipes.jobs.pretrain import pretrain
from recipes.jobs.retrieval import retrieval
from recipes.jobs.zero_shot import Rules, zero_shot
from recipes.training.reporter import SilentReporter

NARRATED = "narrated"  # a split: of the training part, the procedures that ophclip has words of
NOBODY = "nobody"  # a second source without a word about what is taught: surgvlp asks for two


@dataclass(frozen=True)
class Trial:
    """One process: a group and a seed.

    world: whose data. recipe: "" for heads and descriptions. settings: key=value. after: a trial that it needs.
    """

    group: str
    seed: int
    world: str
    recipe: str = ""
    settings: tuple[str, ...] = ()
    after: str = ""

    @property
    def name(self) -> str:
        """Of its run."""
        return f"{self.group}-{self.seed}"


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


# --- data


def make_data(plan: Plan) -> None:
    """The phantoms, prepared; what is there is kept."""
    asked, workers = plan.asked, plan.asked.workers
    store = {"store": {"size": asked.size + 16}}  # crops of the recipes are then of about the size that is seen
    if not (plan.data("surgical") / "prepared.json").is_file():
        source = plan.work / "surgical" / "source"
        surgical.synthesise(source, asked.procedures, asked.phantom_seed, pace=asked.pace, workers=workers)
        _add_narrated(source / RECORDINGS)
        domain = load_domain("surgical").changed(store)
        prepare(
            source,
            plan.data("surgical"),
            domain,
            key=plan.key,
            workers=workers,
            overwrite=True,
            layout=open_layout(source),
        )
    for number, (world, patients) in enumerate((("echo", asked.patients), ("echo-test", asked.patients // 2))):
        if not (plan.data(world) / "prepared.json").is_file():
            source = plan.work / world / "source"
            echo.synthesise(source, patients, asked.phantom_seed + 1000 * number, workers=workers)
            domain = load_domain("echo").changed(store)
            prepare(source, plan.data(world), domain, key=plan.key, workers=workers, overwrite=True)
    _write_texts(plan)


def _add_narrated(path: Path) -> None:
    """A split whose training part is every third procedure that teaches."""
    with path.open(encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    taught = [line for line in lines if line[2] == "train"]
    some = {line[0] for line in taught[::3]}
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
        NARRATED: [line for line in said if some[line[0]] == "train"],
    }
    for name, lines in tables.items():
        plan.text(name).parent.mkdir(parents=True, exist_ok=True)
        with plan.text(name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(("video_id", "start", "end", "text", "source", "level"))
            csv.writer(file).writerows((store.video_id(row), *rest) for row, *rest in lines)


def check_settings(plan: Plan) -> None:
    """What a folder holds was made with one set of settings."""
    plan.work.mkdir(parents=True, exist_ok=True)
    named = ("procedures", "pace", "patients", "phantom_seed", "steps", "batch", "lr", "size", "frames", "every", "set")
    own, path = {name: getattr(plan.asked, name) for name in named}, plan.work / "settings.json"
    if path.is_file() and (other := json.loads(path.read_text(encoding="utf-8"))) != own:
        changed = ", ".join(name for name in named if other.get(name) != own[name])
        raise SystemExit(f"{plan.work} was begun with another --{changed}: use another --work")
    path.write_text(json.dumps(own), encoding="utf-8")


# --- trials


def trials_of(plan: Plan) -> list[Trial]:
    """Seed by seed: what is compared has about the same number of seeds, whatever the limit."""
    official, untaught = ("data.split=official",), ("train.steps=1", "optim.lr=1e-12")
    spoken = {name: f"text.files=[{plan.text(name)}]" for name in ("both", "asr_a", "asr_b", NARRATED)}
    silent = (spoken[NARRATED], "objective.bank=64")  # some dozens of videos are silent, each a sample of an epoch
    reported = {name: f"text.files=[{plan.source(name)}]" for name in ("captions", "reports")}
    kinds: list[tuple[str, str, str, tuple[str, ...]]] = [
        ("surgvlp-both", "surgical", "surgvlp", (*official, spoken["both"])),
        *((f"surgvlp-{one}", "surgical", "surgvlp", (*official, spoken[one], f"objective.sources=[{one}]")) for one in ("asr_a", "asr_b")),
        ("clip", "surgical", "clip", official),
        ("captions", "echo", "clip", (reported["captions"],)),
        ("ophclip-silent", "surgical", "ophclip", (*official, *silent)),
        ("ophclip-narrated", "surgical", "ophclip", (f"data.split={NARRATED}", *silent)),
        ("reports", "echo", "clip", (reported["reports"],)),
        ("start", "surgical", "clip", (*official, *untaught)),
        ("echo-start", "echo", "clip", (reported["captions"], *untaught)),
    ]  # fmt: skip
    heads = [f"head-{kind}-{way}" for kind in ("causal", "offline") for way in ("balanced", "plain")]
    found = [Trial("described", 0, "surgical")]
    for seed in range(plan.seeds):
        found += [Trial(group, seed, world, recipe, settings) for group, world, recipe, settings in kinds]
        found += [Trial("described-clip", 0, "surgical", after="clip-0")] if seed == 0 else []
        found += [Trial(head, seed, "surgical", after="described-0") for head in heads]
        found += [Trial(f"{head}-clip", seed, "surgical", after="described-clip-0") for head in heads[::2]]
    further = [(recipe, seed) for seed in range(plan.seeds) for recipe in ("hecvl", "peskavlp")]
    found += [Trial(recipe, seed, "surgical", recipe, official) for recipe, seed in further]
    wanted = plan.asked.only
    return [one for one in found if not wanted or any(one.group.startswith(name) for name in wanted)]


def carry_out(trial: Trial, plan: Plan) -> None:
    """In a process of its own; writes DONE last."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    if trial.group.startswith("head-") or plan.asked.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before anything asks for one: a head is too small for it
    began, run = time.monotonic(), plan.run(trial.name)
    if trial.group.startswith("described"):
        describe(trial, plan)
    elif trial.group.startswith("head-"):
        train_head(trial, plan)
    else:
        align(trial, plan)
        ask(trial, plan)
    run.mkdir(parents=True, exist_ok=True)
    (run / DONE).write_text(json.dumps({"seconds": round(time.monotonic() - began, 1)}), encoding="utf-8")


def align(trial: Trial, plan: Plan) -> None:
    """vfm pretrain --recipe RECIPE --text ..."""
    asked = plan.asked
    words = [
        f"domain={trial.world}", f"data.path={plan.data(trial.world)}", "data.workers=0", f"clip.frames={asked.frames}",
        f"clip.size={asked.size}", f"train.seed={trial.seed}", f"train.steps={asked.steps}", f"train.batch_size={asked.batch}",
        f"optim.lr={asked.lr:g}", "train.save_every=1000000", "train.monitor_every=1000000", "train.epochs=1000", *trial.settings,
    ]  # fmt: skip
    words += plan.asked.set
    layers = [
        yaml_layer(recipe_yaml(trial.recipe)),
        Layer("domain", load_domain(trial.world).run_layer()),
        Layer("benchmark", parse_assignments(words)),
    ]
    pretrain(resolve(layers), plan.run(trial.name), overwrite=True, key=plan.key, reporter=SilentReporter())
    for folder in ("checkpoints", "tensorboard"):
        shutil.rmtree(plan.run(trial.name) / folder, ignore_errors=True)


def ask(trial: Trial, plan: Plan) -> None:
    """What the towers say of procedures, or patients, that nobody taught them of; predictions are left in the run."""
    run, kind = plan.run(trial.name), Rules(baselines=(), draws=2)
    if trial.world == "surgical":
        data, moments = plan.data("surgical"), replace(kind, split="official", every=plan.asked.every)
        zero_shot(run, data, None, "phase", moments, out=run / "phase")
        zero_shot(run, data, None, "tool", moments, out=run / "tool")
        retrieval(
            run,
            data,
            levels=("clip",),
            sources=("asr_a",),
            baselines=(),
            split="official",
            clips=1,
            draws=2,
            out=run / "texts",
        )
        retrieval(run, data, levels=("keystep",), baselines=(), split="official", clips=2, draws=2, out=run / "steps")
        return
    data = plan.data("echo-test")
    zero_shot(run, data, plan.source("labels", "echo-test"), "view", kind, key=plan.key, out=run / "view")
    for name in ("captions", "reports"):
        table = plan.source(name, "echo-test")
        retrieval(run, data, texts=(table,), baselines=(), clips=2, draws=2, key=plan.key, out=run / f"{name}")


def describe(trial: Trial, plan: Plan) -> None:
    """What an encoder says of every second, once for all heads."""
    config = of_head(trial, plan).config
    store, encoder = Prepared.open(config.data.path), build_encoder(config.encoder, config.clip)
    rows = [row for row, part in enumerate(read_split(store, "official")) if part]
    write_descriptions(
        encoder, store, rows, clip_of(encoder.geometry), config.task.temporal.rate, Path(config.task.temporal.features)
    )


def train_head(trial: Trial, plan: Plan) -> None:
    """vfm finetune --task phase --head HEAD"""
    finetune_moments(of_head(trial, plan), plan.run(trial.name), overwrite=True, reporter=SilentReporter())


def of_head(trial: Trial, plan: Plan) -> Resolved:
    """The run of a head, over vfm-tiny or (group ...-clip) the first run of clip; a trial that only describes is any of its heads."""
    encoder = str(plan.run("clip-0")) if trial.group.endswith("-clip") else "vfm-tiny"
    head, way = trial.group.split("-")[1:3] if trial.group.startswith("head-") else ("causal", "balanced")
    words = [
        f"data.path={plan.data('surgical')}", "domain=surgical", f"encoder.name={encoder}", f"clip.frames={plan.asked.frames}",
        f"clip.size={plan.asked.size}", "task.name=phase", "task.split=official", f"task.temporal.head={head}", "task.temporal.absent=called",
        f"task.balance={str(way == 'balanced').lower()}", f"task.temporal.features={plan.work / 'features'}", f"train.seed={trial.seed}",
    ]  # fmt: skip
    layers = [defaults(of_moments=True), Layer("domain", load_domain("surgical").run_layer())]
    return resolve([*layers, Layer("benchmark", parse_assignments(words))])


def carry_out_all(trials: Sequence[Trial], plan: Plan, deadline: float) -> None:
    """Each in a process of its own, so many at a time; what runs at the deadline is ended, and not done."""
    spawn = multiprocessing.get_context("fork")  # everything is loaded, and no GPU was touched
    waiting = [trial for trial in trials if not plan.done(trial.name)]
    running: dict[BaseProcess, Trial] = {}
    failed: set[str] = set()
    while (waiting or running) and time.monotonic() < deadline:
        for trial in [one for one in waiting if not one.after or plan.done(one.after)][
            : plan.asked.workers - len(running)
        ]:
            waiting.remove(trial)
            process = spawn.Process(target=carry_out, args=(trial, plan))
            process.start()
            running[process] = trial
        if not running:  # what is left waits for what failed
            break
        wait([process.sentinel for process in running], timeout=max(0.0, min(5.0, deadline - time.monotonic())))
        for process in [one for one in running if not one.is_alive()]:
            trial = running.pop(process)
            process.join()
            good = plan.done(trial.name)
            failed |= set() if good else {trial.name}
            print(
                f"{time.strftime('%X')} {trial.name}: {'done' if good else 'failed'}; {len(running) + len(waiting)} left",
                flush=True,
            )
    for process in running:
        process.kill()
        process.join()
    if running or waiting:
        print(f"not finished: {', '.join(one.name for one in [*running.values(), *waiting])}", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/vfm-alignment"))
    parser.add_argument("--procedures", type=int, default=64)
    parser.add_argument("--pace", type=float, default=18.0, help="of the procedures; 18: about two minutes")
    parser.add_argument("--patients", type=int, default=64, help="echo: that teach; half as many are tested")
    parser.add_argument("--phantom-seed", type=int, default=41)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--every", type=float, default=2.0, help="zero-shot: seconds from one moment to the next")
    parser.add_argument("--set", action="append", default=[], help="key=value for every alignment")
    parser.add_argument("--only", nargs="*", default=[], help="groups by the beginnings of their names")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds for everything but the answers")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    asked = parser.parse_args()
    began = time.monotonic()
    plan = Plan(asked.work.absolute(), asked.seeds, asked)
    check_settings(plan)
    make_data(plan)
    print(f"data are ready after {time.monotonic() - began:.0f} s", flush=True)
    carry_out_all(trials_of(plan), plan, began + asked.limit)
    figures = [found for one in questions(plan) if (found := one.answer(plan)) is not None]
    print(f"\n{time.monotonic() - began:.0f} s in all")
    if asked.json is not None:
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(asked).items()}
        runs = sorted(path.name for path in (plan.work / "runs").iterdir() if plan.done(path.name))
        seconds = {name: json.loads((plan.run(name) / DONE).read_text(encoding="utf-8"))["seconds"] for name in runs}
        found = {"settings": settings, "device": device_name(), "trial_seconds": seconds, "answers": figures}
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
