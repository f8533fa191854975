"""The trials of benchmarks/alignment.py: which there are, what one does, and many beside each other."""

from __future__ import annotations

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
from alignment_data import DONE, NARRATED, Plan

from domains.base import load_domain
from domains.store.annotated import read_split
from domains.store.prepared import Prepared
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


def trials_of(plan: Plan) -> list[Trial]:
    """Seed by seed: what is compared has about the same number of seeds, whatever the limit."""
    official, untaught = ("data.split=official",), ("train.steps=1", "optim.lr=1e-12")
    spoken = {name: f"text.files=[{plan.text(name)}]" for name in ("both", "asr_a", "asr_b", NARRATED)}
    # Some dozens of videos are silent, each a sample of an epoch; on top of as many narrations and titles as there are without them.
    silent = (
        spoken[NARRATED], "objective.bank=64", f"train.batch_size={round(plan.asked.batch * 4 / 3)}", "objective.share_titles=0.1875",
    )  # fmt: skip
    reported = {name: f"text.files=[{plan.source(name)}]" for name in ("captions", "reports")}
    kinds: list[tuple[str, str, str, tuple[str, ...]]] = [
        ("surgvlp-anchored", "surgical", "surgvlp", (*official, spoken["both"], "objective.sources=[asr_a]")),
        *(
            (f"few-{kind}", "surgical", "surgvlp", (f"data.split={NARRATED}", *own))
            for kind, own in (
                ("anchored", (spoken["both"], "objective.sources=[asr_a]")),
                ("both", (spoken["both"],)),
                *((one, (spoken[one], f"objective.sources=[{one}]")) for one in ("asr_a", "asr_b")),
            )
        ),
        *((f"surgvlp-{one}", "surgical", "surgvlp", (*official, spoken[one], f"objective.sources=[{one}]")) for one in ("asr_a", "asr_b")),
        ("clip", "surgical", "clip", official),
        ("captions", "echo", "clip", (reported["captions"],)),
        ("ophclip-silent", "surgical", "ophclip", (*official, *silent)),
        ("ophclip-off", "surgical", "ophclip", (*official, *silent, "objective.weight_silent=0")),
        ("ophclip-narrated", "surgical", "ophclip", (f"data.split={NARRATED}", spoken[NARRATED], "objective.bank=64")),
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
    for seed in range(plan.seeds):
        found += [Trial(recipe, seed, "surgical", recipe, official) for recipe in ("hecvl", "peskavlp")]
        found += [Trial("surgvlp-both", seed, "surgical", "surgvlp", (*official, spoken["both"]))]
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
        if len(plan.asked.operations) > 1:
            zero_shot(run, data, None, "operation", moments, out=run / "operation")
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
