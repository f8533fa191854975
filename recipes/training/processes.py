"""How the processes of a run share its work: precision, accelerator, and a run that goes on with another number of them.

Sample k of the endless stream belongs to step k // G, G being the global batch: batch_size * accumulate * processes. Whoever computes a step
takes the same samples, so a run may go on with any number of processes that G can be divided by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator

from domains.errors import ConfigError
from recipes.config import RunConfig
from recipes.training.run import RunFolder


def mixed_precision(setting: str) -> str:
    """Accelerate's word for a precision; auto: bf16 where the hardware multiplies it natively, which a CPU may do as well."""
    if setting != "auto":
        return {"fp32": "no", "bf16": "bf16"}[setting]
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "no"


def make_accelerator(config: RunConfig) -> Accelerator:
    """Accelerate, on the GPU where there is one; processes come from torchrun, accelerate launch, or `--processes`."""
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    AcceleratorState._reset_state()  # a process may train again, at another precision: `vfm demo`, a notebook
    adapters = "lora" in (config.encoder.mode, config.text.mode)
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=adapters)
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=mixed_precision(config.train.precision),
        kwargs_handlers=[ddp],
    )


def total_steps(config: RunConfig, samples: int, world: int) -> int:
    """Optimiser steps of a run over `samples` an epoch."""
    per_step = config.train.batch_size * config.train.accumulate * world
    return config.train.steps or max(1, math.ceil(config.train.epochs * samples / per_step))


def shared_anew(config: RunConfig, run: RunFolder, processes: int) -> RunConfig:
    """`config` of a run that goes on, for this many processes: the global batch stays what the run began with.

    A process gets as many samples in a forward pass as before, or the most below that which divide its share, and accumulates the rest.
    Raises ConfigError where the processes cannot share the global batch.
    """
    begun = run.shape()
    if begun is None:
        return config
    whole = begun.batch_size * begun.accumulate * begun.processes
    if whole % processes:
        what = f"{processes} processes cannot share the {whole} samples of a step that the run began with"
        do = f"Resume with --processes {begun.processes}, or another number that divides {whole}"
        raise ConfigError(what, where=run.path, do=do)
    each = whole // processes
    batch = next(size for size in range(min(config.train.batch_size, each), 0, -1) if each % size == 0)
    train = config.train.model_copy(update={"batch_size": batch, "accumulate": each // batch})
    return config.model_copy(update={"train": train})


def check_data(before: Mapping[str, Any], now: str, run: RunFolder) -> None:
    """Raises ConfigError where samples would be others than those the run began with. before: a checkpoint's state."""
    if before["data"] != now:
        what = "these are other recordings or texts than when the run began"
        raise ConfigError(what, where=run.path, do="Start another run with --init-from")
