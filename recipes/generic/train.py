"""The run that makes the generic encoder: settings, what its monitors look at, and the loop that every run has."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file

from domains.base import ClipSettings, Domain, load_domain
from domains.errors import ModelError, VfmError
from domains.generic.render import View, render
from domains.generic.samples import generator, grid_points
from domains.generic.scene import draw_scene
from domains.prepare.ingest import prepare
from domains.prepare.privacy import load_key
from domains.store.prepared import Prepared
from recipes.config import Layer, Resolved, parse_assignments, resolve
from recipes.encoders import TINY_RANDOM, build_encoder, open_encoder
from recipes.generic.data import SHOWN, SceneData
from recipes.generic.objective import Beside, Generic
from recipes.training.checkpoint import TENSORS, candidates, restore
from recipes.training.loop import train
from recipes.training.reporter import SilentReporter, StepInfo
from recipes.training.run import RunFolder

LOOKED = 64  # scenes that monitors look at, of a series that is not learned from
LOOKED_SEED = 2**31
DOMAIN = """name: generic
title: Drawn scenes
about: Drawn scenes of the generic encoder, for its monitors.
store: {size: 112, quality: 92}
clip: {frames: 16, size: 112, stride: 1}
"""


def settings(size: int, out: Path) -> Layer:
    """The run as it was made for the weights that ship; hours on a CPU."""
    return Layer(
        "generic encoder",
        {
            "method": "generic", "domain": "generic", "encoder": {"name": TINY_RANDOM},
            "data": {"path": str(out / "looked" / "prepared"), "workers": 1},
            "clip": {"frames": 16, "size": size, "stride": 1},
            "optim": {"lr": 1.0e-3, "encoder_lr": 1.0, "final_lr": 1.0e-3, "warmup": 0.01, "weight_decay": 0.05, "betas": [0.9, 0.98],
                "clip_norm": 1.0},
            "train": {
                "steps": 20000, "batch_size": 32, "log_every": 20, "monitor_every": 500, "save_every": 100, "keep": 1, "precision": "fp32",
            },
            "monitor": {"clips": LOOKED, "rankme": {"drop": None}, "deviation": {"drop": None}},
        },
    )  # fmt: skip


class Lines(SilentReporter):
    """A line now and then."""

    def step(self, info: StepInfo) -> None:
        """See Reporter."""
        losses = " ".join(f"{name} {value:.3g}" for name, value in info.losses.items())
        print(
            f"step {info.step}/{info.total} {info.clips_per_second:.1f}/s {losses} {info.eta_seconds / 60:.0f} min left",
            flush=True,
        )

    def warn(self, text: str) -> None:
        """See Reporter."""
        print(f"warning: {text}", file=sys.stderr, flush=True)


def looked_at(folder: Path) -> Prepared:
    """Clips of scenes that are not learned from, prepared as any recording is."""
    prepared = folder / "prepared"
    if not (prepared / "prepared.json").is_file():
        sources, key = folder / "sources", load_key(folder / "key", create=True)
        for index in range(LOOKED):
            scene = draw_scene(generator(LOOKED_SEED, index))
            frames = render(scene, View(np.arange(16.0) - 8, seed=index), 112, grid_points(112, 16)).frames
            place = sources / f"scene{index:03d}"
            place.mkdir(parents=True, exist_ok=True)
            for number, frame in enumerate(frames):
                cv2.imwrite(str(place / f"frame_{number:04d}.png"), frame[..., ::-1])
        prepare(sources, prepared, generic_domain(folder), key=key, overwrite=True)
    return Prepared.open(prepared)


def generic_domain(folder: Path) -> Domain:
    """The declaration under which monitors' clips are prepared."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "generic.yaml").write_text(DOMAIN, encoding="utf-8")
    return load_domain(str(folder / "generic.yaml"))


def take_from(run: Path, objective: Generic) -> None:
    """Weights of the newest checkpoint of another run, heads included: none of them depends on the size of the picture. Raises ModelError."""
    checkpoints = RunFolder(run).checkpoints
    names = candidates(checkpoints)
    if not names:
        raise ModelError("the run has no checkpoint to begin with", where=run)
    restore(objective, load_file(checkpoints / names[0] / TENSORS[0]), run)


def objective_of(resolved: Resolved, size: int) -> Generic:
    """The encoder of a run and the heads that it learns with."""
    config = resolved.config
    encoder = build_encoder(config.encoder, ClipSettings(frames=16, size=size, stride=1), seed=config.train.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return Generic(encoder, Generic.Settings(**config.objective))


def together(asked: list[str], layers: list[Layer], size: int) -> Generic:
    """The objective of a run whose settings are `layers`, and of those that learn beside it: "NAME key=value ..." each."""
    first = objective_of(resolve(layers), size)
    others = {}
    for one in asked:
        name, *words = one.split()
        others[name] = objective_of(resolve([*layers, Layer(f"--also {name}", parse_assignments(words))]), size)
    if not others:
        return first
    beside = Beside(first.encoder, first.settings, others)
    beside.load_state_dict(first.state_dict(), strict=False)  # its heads as they were drawn
    return beside


def of_run(run: RunFolder, name: str = "") -> Path:
    """Where a run leaves its encoder, or that of the `name` that learned beside it."""
    return run.encoder.with_name(f"{run.encoder.name}-{name}") if name else run.encoder


def ship(encoders: Sequence[Path], folder: Path) -> None:
    """An encoder as it lies in the package: half precision, as `AutoModel.from_pretrained` and `open_encoder` read it. Of several, that began with
    one another's weights, their mean (Wortsman et al., Model soups, ICML 2022)."""
    opened = [open_encoder(one) for one in encoders]
    encoder, states = opened[0], [one.model.state_dict() for one in opened]
    encoder.model.load_state_dict(
        {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}
    )
    encoder.model.half()
    encoder.save(folder)


def main() -> None:
    """See scripts/generic_encoder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument(
        "--from", dest="start", type=Path, default=None, help="a run, finished or not, whose weights it begins with"
    )
    parser.add_argument(
        "--ship", type=Path, default=None, help="write the encoder of the finished run here, in half precision"
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="'NAME key=value ...'",
        help="another encoder that learns beside it from the same scenes, with these settings (encoder.*, objective.*) as well; again for more",
    )
    parser.add_argument(
        "--which", default="", metavar="NAME", help="with --ship: the one of --also NAME instead of the first"
    )
    parser.add_argument(
        "--mean",
        type=Path,
        action="append",
        default=[],
        metavar="ENCODER",
        help="with --ship: the mean of its weights and those of this run or folder; again for more",
    )
    parser.add_argument(
        "--shown",
        type=int,
        default=SHOWN,
        help="how often a scene comes before new ones; 1 beside a GPU with many cores",
    )
    parser.add_argument("settings", nargs="*", help="key=value")
    asked = parser.parse_intermixed_args()
    if asked.ship is not None:
        ship([of_run(RunFolder(asked.out / "run"), asked.which), *asked.mean], asked.ship)
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    prepared = looked_at(asked.out / "looked")
    layers = [settings(asked.size, asked.out), Layer("command line", parse_assignments(asked.settings))]
    resolved = resolve(layers)
    config, objective = resolved.config, together(asked.also, layers, asked.size)
    if asked.start is not None:
        take_from(asked.start, objective)
    run = RunFolder.create(
        asked.out / "run", resolved, resume=True
    )  # its last checkpoint, if it has one, is gone on with
    try:
        data = SceneData(prepared, config.clip, objective.encoder.patch, seed=config.train.seed, shown=asked.shown)
        try:
            train(objective, data, config, run, Lines(), resume=True)  # type: ignore[arg-type]
        finally:  # also of a run that is stopped: what it knows by then can be shipped
            objective.encoder.save(run.encoder)
            if isinstance(objective, Beside):
                for name, other in objective.learners.items():
                    other.encoder.save(of_run(run, name))
    except VfmError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    finally:
        run.unlock()
