"""What processes say to each other in a step: computed from the shapes, counted, and measured on a wire of their own; and the time of a step.

python benchmarks/scale.py                               # vfm-tiny, three recipes, 1, 2 and 4 processes, then 8 and 64 on paper
python benchmarks/scale.py --base --on-paper             # ViT-B, 16 x 224: the arithmetic alone

The wire is the loopback of a network namespace that the script makes for itself (as root, or where user namespaces are allowed); where it may
not, that column is empty. All processes share this machine's cores: seconds tell what exchanging costs, not how a cluster scales.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from recipes.config import Layer, RunConfig, recipe_yaml, resolve, yaml_layer
from recipes.encoders import build_encoder
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.jobs.pretrain import build_objective, complete
from recipes.objective import Batch, Objective, Progress
from recipes.pretrain.discovr import DISCOVR
from recipes.pretrain.simclr import SimCLR
from recipes.training.optim import make_optimiser
from recipes.training.passes import learn
from recipes.training.phases import Phases
from recipes.training.processes import make_accelerator
from recipes.training.sharding import Weights

RECIPES = ("videomae", "simclr", "discovr")
FLOAT = 4  # bytes; gradients and sums are exchanged in fp32
ALONE = "VFM_OWN_WIRE"


@dataclass(frozen=True)
class Exchange:
    """A kind of message of one step: `size` bytes of a process, `times` over. gather: everybody gets everybody's; else their sum."""

    what: str
    size: int
    times: int = 1
    gather: bool = False

    @property
    def payload(self) -> int:
        """Bytes that a process puts in."""
        return self.size * self.times

    def sent(self, processes: int) -> float:
        """Bytes that a process sends in a ring: a sum goes round twice in pieces, what is gathered once as a whole."""
        return self.payload * (processes - 1 if self.gather else 2 * (processes - 1) / processes)


def on_paper(objective: Objective, batch: int, processes: int) -> list[Exchange]:
    """Messages of one step of `batch` samples a process, from the shapes."""
    learned = sum(parameter.numel() for parameter in objective.parameters() if parameter.requires_grad)
    found = [Exchange("gradients", learned * FLOAT)]
    if isinstance(objective, SimCLR):
        z = batch * objective.settings.head_outputs * FLOAT
        found.append(Exchange("embeddings", z, 2, gather=True))
        found.append(Exchange("their gradients", z * processes, 2))
    if isinstance(objective, DISCOVR):
        s, width, grid = objective.settings, objective.encoder.width, objective.encoder.grid
        found.append(Exchange("Sinkhorn sums", s.prototypes * FLOAT, 2 * s.sinkhorn_iterations))
        found.append(Exchange("Sinkhorn scale and count", FLOAT, 4))
        found.append(Exchange("centres", (s.head_outputs + 1) * FLOAT, 2))
        if s.standardise:
            video = width * (2 if s.head_motion else 1)
            found.append(Exchange("means of places", grid[1] * grid[2] * (width + 1) * FLOAT, 2))
            # Mean and deviation, with their gradients: tokens of both branches and both students' heads; without: both teachers'.
            found += [Exchange("statistics", n * FLOAT, times) for n, times in ((width, 2 * 4 + 4 + 2), (video, 4 + 2))]
            found.append(Exchange("counts", FLOAT, 6))
    return found


class Counted:
    """Counts what this process hands to torch.distributed; DDP's gradients through its hook."""

    def __init__(self) -> None:
        self.sums = self.gathered = 0
        self.before = (dist.all_reduce, dist.all_gather)

    def sum(self, tensor: torch.Tensor, *rest: Any, **more: Any) -> Any:
        """See torch.distributed.all_reduce."""
        self.sums += tensor.nbytes
        return self.before[0](tensor, *rest, **more)

    def gather(self, parts: list[torch.Tensor], tensor: torch.Tensor, *rest: Any, **more: Any) -> Any:
        """See torch.distributed.all_gather."""
        self.gathered += tensor.nbytes
        return self.before[1](parts, tensor, *rest, **more)

    def bucket(self, _: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        """DDP's average, counted. At once: a callback of Python in gloo's threads can keep them from ending."""
        self.sums += bucket.buffer().nbytes
        average = bucket.buffer().div_(dist.get_world_size())
        self.before[0](average)
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(average)
        return done

    def payload(self) -> int:
        """Bytes put in so far."""
        return self.sums + self.gathered


def build(recipe: str, base: bool, batch: int) -> tuple[Objective, RunConfig]:
    """A recipe's objective around vfm-tiny or a ViT-B, and its settings."""
    clip = {"frames": 16, "size": 224 if base else 112, "stride": 2}
    said = Layer("benchmark", {"clip": clip, "train": {"batch_size": batch, "precision": "bf16" if base else "fp32"}})
    resolved = complete(resolve([yaml_layer(recipe_yaml(recipe)), said]))
    config = resolved.config
    encoder = build_encoder(config.encoder, config.clip)
    if base:
        encoder = fresh_videomae(Geometry(frames=16, size=224), seed=0, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
                                 intermediate_size=3072, patch_size=16, tubelet_size=2)  # fmt: skip
    return build_objective(resolved, encoder), config


def through(port: str = "lo") -> int | None:
    """Bytes that have gone through the loopback; None where it is not ours alone."""
    file = Path(f"/sys/class/net/{port}/statistics/tx_bytes")
    if not os.environ.get(ALONE):
        return None
    listed = Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines()
    line = next((one for one in listed if one.strip().startswith(f"{port}:")), None)
    return int(line.split(":")[1].split()[8]) if line else int(file.read_text(encoding="ascii"))


def measure(rank: int, processes: int, port: int, recipe: str, batch: int, steps: int, place: str) -> None:
    """One process of a group: does `steps` steps and leaves (seconds, payload, wire) of one in `place`, if it is the first."""
    warnings.simplefilter("ignore")
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    objective, config = build(recipe, False, batch)
    accelerator = make_accelerator(config)
    weights = Weights(objective.train(), accelerator.device)
    optimiser = weights.prepare(accelerator, make_optimiser(objective, config.optim))
    counted = Counted()
    if processes > 1:
        weights.wrapped.register_comm_hook(None, counted.bucket)
        dist.all_reduce, dist.all_gather = counted.sum, counted.gather  # type: ignore[assignment]
    draw = torch.Generator().manual_seed(rank)
    clips = {view: torch.randn(batch, 16, 3, 112, 112, generator=draw) for view in objective.views}
    samples = Batch(clips, torch.arange(batch) + rank * batch)

    def step(number: int) -> None:
        objective.before_step(Progress(number, steps + 1, 0.0))
        learn(accelerator, weights, samples, config.train, Phases(accelerator.device), last=True)
        optimiser.step()
        optimiser.zero_grad()
        objective.after_step(Progress(number + 1, steps + 1, 0.0))

    step(0)  # DDP rebuilds its buckets after the first
    accelerator.wait_for_everyone()
    before, wire, began = counted.payload(), through(), time.perf_counter()
    for number in range(1, steps + 1):
        step(number)
    put_in = (counted.payload() - before) / steps
    accelerator.wait_for_everyone()
    took = (time.perf_counter() - began) / steps
    if rank == 0:
        sent = -1.0 if wire is None or (now := through()) is None else (now - wire) / steps / processes
        Path(place).write_text(f"{took} {put_in} {sent}", encoding="ascii")
    if processes > 1:
        dist.destroy_process_group()


def measured(processes: int, *asked: Any) -> tuple[float, float, float]:
    """(seconds, bytes put in by a process, bytes sent by a process or -1) of a step."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port, place = free.getsockname()[1], f"{folder}/found"
        free.close()
        mp.start_processes(measure, args=(processes, port, *asked, place), nprocs=processes, start_method="fork")
        seconds, payload, sent = map(float, Path(place).read_text(encoding="ascii").split())
    return seconds, payload, sent


def on_its_own_wire() -> None:
    """Start this script again in a network namespace of its own, where that is allowed."""
    if os.environ.get(ALONE) is not None:
        return
    inside = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-n", "sh", "-c"]
    try:
        allowed = subprocess.run([*inside, "ip link set lo up"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if allowed:
        words = [*inside, 'ip link set lo up; exec "$@"', "sh", sys.executable, *sys.argv]
        os.execvpe(words[0], words, {**os.environ, ALONE: "1", "TORCH_CPP_LOG_LEVEL": "ERROR"})


def row(cells: list[str], line: Callable[[str], None] = print) -> None:
    """A line of a table."""
    line("| " + " | ".join(cells) + " |")


def megabytes(count: float) -> str:
    """Bytes in MB, 1e6."""
    return f"{count / 1e6:.3g}"


def tell_paper(recipe: str, base: bool, batch: int, gigabits: float) -> None:
    """A row for each number of processes: what a process sends in a step, and how long that takes on a link."""
    objective, _ = build(recipe, base, batch)
    for processes in (2, 4, 8, 64):
        found = on_paper(objective, batch, processes)
        gradients, others = found[0], found[1:]
        sent = sum(one.sent(processes) for one in found)
        row([
            recipe, str(processes), megabytes(gradients.sent(processes)), megabytes(sum(one.sent(processes) for one in others)),
            str(sum(one.times for one in others)), f"{sent * 8 / gigabits / 1e6:.2f}",
        ])  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", action="store_true", help="the arithmetic for ViT-B, 16 x 224")
    parser.add_argument("--on-paper", action="store_true", help="measure nothing")
    parser.add_argument("--batch", type=int, default=4, help="samples of a process")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--gigabits", type=float, default=400.0, help="a second, of the slowest link")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # also: a process that has started none can be forked
    if not asked.on_paper:
        on_its_own_wire()
        row(
            [
                "recipe",
                "processes",
                "s a step",
                "put in, paper (MB)",
                "counted",
                "sent, paper (MB)",
                "on the wire",
                "wire / paper",
            ]
        )
        row(["---"] * 8)
        for recipe in RECIPES:
            objective, _ = build(recipe, False, asked.batch)
            for processes in (1, 2, 4):
                seconds, payload, wire = measured(processes, recipe, asked.batch, asked.steps)
                found = on_paper(objective, asked.batch, processes) if processes > 1 else []
                paper = sum(one.sent(processes) for one in found)
                row([
                    recipe, str(processes), f"{seconds:.2f}", f"{sum(one.payload for one in found) / 1e6:.4f}", f"{payload / 1e6:.4f}",
                    megabytes(paper), megabytes(wire) if wire >= 0 else "", f"{wire / paper:.3f}" if paper and wire >= 0 else "",
                ])  # fmt: skip
        print()
    row(
        [
            "recipe",
            "processes",
            "gradients sent (MB)",
            "all else sent (MB)",
            "messages beside gradients",
            f"ms at {asked.gigabits:g} Gbit/s",
        ]
    )
    row(["---"] * 6)
    for recipe in RECIPES:
        tell_paper(recipe, asked.base, asked.batch, asked.gigabits)


if __name__ == "__main__":
    main()
