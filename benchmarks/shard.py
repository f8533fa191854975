"""What a process holds of a run, and what a step costs, with whole weights (DDP) and with `train.shard` (FSDP2): measured.

python benchmarks/shard.py                                   # ViT of width 512, videomae and discovr, on 1, 2 and 4 processes of this machine (gloo)
python benchmarks/shard.py --width 768 --processes 2

Clips are small: it is the weights that are looked at, not what a pass keeps of its samples. Held: weights, gradients before the update, and the
optimiser's averages, counted from the tensors. Peak: of the process' memory during a step, above what it had before the run was built (Linux).
"""

import argparse
import os
import socket
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.distributed.tensor import DTensor

from recipes.config import Layer, recipe_yaml, resolve, yaml_layer
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.jobs.pretrain import build_objective, complete
from recipes.objective import Batch, Progress
from recipes.training.optim import make_optimiser
from recipes.training.passes import learn
from recipes.training.phases import Phases
from recipes.training.processes import make_accelerator
from recipes.training.sharding import weights_of

FRAMES, SIZE, STEPS = 4, 64, 3


def held(tensors: list[Tensor]) -> int:
    """Bytes of the parts that are here."""
    return sum((tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes for tensor in tensors)


def resident(which: str) -> int:
    """Bytes of memory of this process, now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:")) * 1024


def measure(rank: int, processes: int, port: int, recipe: str, width: int, shard: bool, place: str) -> None:
    """One process of a group; the first leaves (weights, gradients, averages, peak, seconds of a step) in `place`."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    clip = {"frames": FRAMES, "size": SIZE, "stride": 1}
    said = Layer("benchmark", {"clip": clip, "train": {"batch_size": 2, "precision": "fp32", "shard": shard}})
    resolved = complete(resolve([yaml_layer(recipe_yaml(recipe)), said]))
    config = resolved.config
    accelerator = make_accelerator(config)
    before = resident("VmRSS")
    encoder = fresh_videomae(Geometry(frames=FRAMES, size=SIZE), seed=0, hidden_size=width, num_hidden_layers=12, num_attention_heads=8,
                             intermediate_size=4 * width, patch_size=16, tubelet_size=2)  # fmt: skip
    objective = build_objective(resolved, encoder).train()
    weights = weights_of(objective, accelerator.device, shard=shard)
    optimiser = weights.prepare(accelerator, make_optimiser(weights.learner, config.optim))
    clips = {view: torch.randn(2, FRAMES, 3, SIZE, SIZE) for view in objective.views}
    samples = Batch(clips, torch.arange(2) + 2 * rank)
    learned = [parameter for parameter in weights.learner.parameters() if parameter.requires_grad]
    gradients, took = 0, 0.0
    for number in range(STEPS):
        if number == STEPS - 1:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is forgotten
        began = time.perf_counter()
        weights.learner.before_step(Progress(number, STEPS + 1, 0.0))
        learn(accelerator, weights, samples, config.train, Phases(accelerator.device), last=True)
        gradients = held([parameter.grad for parameter in learned if parameter.grad is not None])
        optimiser.step()
        optimiser.zero_grad()
        weights.after_step(Progress(number + 1, STEPS + 1, 0.0))
        took = time.perf_counter() - began
    raw = getattr(optimiser, "optimizer", optimiser)
    averages = held([value for state in raw.state.values() for value in state.values() if value.ndim])
    if rank == 0:
        found = (held(list(weights.learner.parameters())), gradients, averages, resident("VmHWM") - before, took)
        Path(place).write_text(" ".join(map(str, found)), encoding="ascii")
    if processes > 1:
        dist.destroy_process_group()


def measured(processes: int, *asked: object) -> list[float]:
    """As `measure` leaves it."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port, place = free.getsockname()[1], f"{folder}/found"
        free.close()
        mp.start_processes(measure, args=(processes, port, *asked, place), nprocs=processes, start_method="spawn")
        return list(map(float, Path(place).read_text(encoding="ascii").split()))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512, help="of the encoder")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--recipes", nargs="+", default=["videomae", "discovr"])
    asked = parser.parse_args()
    os.environ.setdefault(
        "MALLOC_MMAP_THRESHOLD_", "65536"
    )  # what is freed goes back to the system at once, and leaves the peak
    print(
        "| recipe | processes | sharded | weights (MB) | gradients | averages | together | peak of a step | s a step |"
    )
    print("|" + " --- |" * 9)
    for recipe in asked.recipes:
        for processes in asked.processes:
            for shard in [False, True][: 1 + (processes > 1)]:
                *memory, seconds = measured(processes, recipe, asked.width, shard)
                memory.insert(3, sum(memory[:3]))
                cells = [
                    recipe,
                    str(processes),
                    "yes" if shard else "no",
                    *(f"{count / 1e6:.0f}" for count in memory),
                    f"{seconds:.2f}",
                ]
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
