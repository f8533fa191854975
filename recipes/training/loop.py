"""The one loop. It knows the Objective's contract and no method."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.distributed import DistError

from domains.errors import ConfigError, TrainingError
from recipes.config import RunConfig
from recipes.objective import Objective, Progress
from recipes.parts.distributed import world_size
from recipes.training.checkpoint import load_checkpoint, save_checkpoint
from recipes.training.data import ClipData, StreamSampler, batches_of, make_loader, to_batch
from recipes.training.interrupt import Interrupted, StopSignal
from recipes.training.monitors import CollapseMonitor
from recipes.training.optim import learning_rate, make_optimiser, set_learning_rate
from recipes.training.reporter import Reporter, StepInfo
from recipes.training.run import RunFolder

Validate = Callable[[Progress], Mapping[str, float]]


@dataclass(frozen=True)
class TrainResult:
    """What a run did: steps, seconds and samples of this process group (resumed parts included), last losses and monitors."""

    steps: int
    seconds: float
    samples: int
    replaced: int
    losses: Mapping[str, float]
    monitors: Mapping[str, float]


@dataclass
class Meter:
    """Sums since the last look. Tensors stay on the device until then: no synchronisation per step."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    forwards: int = 0
    clips: int = 0
    waited: float = 0.0
    since: float = field(default_factory=time.perf_counter)

    def add(self, losses: Mapping[str, Tensor], clips: int, waited: float) -> None:
        """One forward pass."""
        for name, value in losses.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.forwards, self.clips, self.waited = self.forwards + 1, self.clips + clips, self.waited + waited

    def means(self) -> dict[str, float]:
        """Mean of every loss."""
        return {name: float(value) / self.forwards for name, value in self.sums.items()}


def total_steps(config: RunConfig, samples: int, world: int) -> int:
    """Optimiser steps of a run over `samples` an epoch."""
    per_step = config.train.batch_size * config.train.accumulate * world
    return config.train.steps or max(1, math.ceil(config.train.epochs * samples / per_step))


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
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=config.encoder.mode == "lora")
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=mixed_precision(config.train.precision),
        kwargs_handlers=[ddp],
    )


def train(
    objective: Objective,
    data: ClipData,
    config: RunConfig,
    run: RunFolder,
    reporter: Reporter,
    *,
    resume: bool = False,
    validate: Validate | None = None,
) -> TrainResult:
    """Minimise `objective` over `data`.

    `validate` is called on the main process at the end of every epoch and of the run; the figures it returns are logged.
    Raises TrainingError (a loss that is not finite, too many unreadable samples), StorageError (a checkpoint cannot be written) and
    Interrupted; after each of them `resume=True` goes on from the last checkpoint, with the same result as if nothing had happened.
    """
    accelerator = make_accelerator(config)
    device = accelerator.device
    main = accelerator.is_main_process
    if not any(parameter.requires_grad for parameter in objective.parameters()):
        raise TrainingError("nothing to train: every parameter is frozen", do="Use another encoder.mode")
    objective.to(device).train()
    optimiser = make_optimiser(objective, config.optim)
    total = total_steps(config, len(data), accelerator.num_processes)
    # What the order of samples follows from, beside the settings: a run that goes on must find it as it was.
    stream = {"processes": accelerator.num_processes, "data": data.fingerprint()}
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "replaced": 0, "monitor_start": {}, **stream}
    if resume and (found := load_checkpoint(run.checkpoints, objective, optimiser, reporter.warn)) is not None:
        check_stream(found, stream, run)
        state = found
    if resume and main:  # also where the run died before its first checkpoint: it starts at step 0, and so does its log
        run.rewind_metrics(state["step"])
    accelerator.wait_for_everyone()
    wrapped, optimiser = accelerator.prepare(objective, optimiser, device_placement=[False, False])
    monitor = CollapseMonitor(data.prepared, data.rows, data.clip, reporter.warn) if main else None
    if monitor is not None:
        monitor.start.update(state["monitor_start"])
    loop = _Loop(
        accelerator, wrapped, objective, optimiser, data, config, run, reporter, monitor, total, state, validate
    )
    return loop.run_to_end()


def check_stream(before: Mapping[str, Any], now: Mapping[str, Any], run: RunFolder) -> None:
    """Raises ConfigError where samples would come in another order than the run began with."""
    if before["processes"] != now["processes"]:
        what = f"the run began with {before['processes']} processes and would go on with {now['processes']}"
        raise ConfigError(what, where=run.path, do=f"Resume with --processes {before['processes']}")
    if before["data"] != now["data"]:
        what = "the prepared folder holds other recordings than when the run began"
        raise ConfigError(what, where=run.path, do="Start another run with --init-from")


@dataclass
class _Loop:
    """The state of one call of `train`, so that each of its steps reads by itself."""

    accelerator: Accelerator
    wrapped: Any
    objective: Objective
    optimiser: Any
    data: ClipData
    config: RunConfig
    run: RunFolder
    reporter: Reporter
    monitor: CollapseMonitor | None
    total: int
    state: dict[str, Any]
    validate: Validate | None = None
    figures: dict[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)

    def run_to_end(self) -> TrainResult:
        """Every step from the one that is next to the last."""
        train, accelerator, first = self.config.train, self.accelerator, self.state["step"]
        sampler = StreamSampler(
            train.batch_size, train.accumulate, accelerator.process_index, accelerator.num_processes, first, self.total
        )
        loader = make_loader(self.data, sampler, self.config.data.workers, pin=accelerator.device.type == "cuda")
        board = open_board(self.run, first) if accelerator.is_main_process else None
        self.reporter.start(self.total, first)
        before, started = self.state["seconds"], time.perf_counter()
        with StopSignal() as stop, self.others_live(), batches_of(loader) as batches:
            meter = Meter()
            if first == 0:
                self.look(0)
            for step in range(first, self.total):
                self.step(step, batches, meter)
                self.at_epoch_end(step)
                self.state.update(step=step + 1, seconds=before + time.perf_counter() - started)
                if (step + 1) % train.log_every == 0 or step + 1 == self.total:
                    self.log(step + 1, meter, board)
                    meter = Meter()
                number = stop.agreed(accelerator.device)
                if number or (step + 1) % train.save_every == 0 or step + 1 == self.total:
                    self.save()
                if number:
                    raise Interrupted(number, step + 1, self.run.path)
        self.reporter.finish()
        if board is not None:
            board.close()
        samples = self.total * train.batch_size * train.accumulate * accelerator.num_processes
        return TrainResult(
            self.total, self.state["seconds"], samples, self.state["replaced"], self.losses, self.figures
        )

    def step(self, step: int, batches: Iterator[Mapping[str, Any]], meter: Meter) -> None:
        """One optimiser step."""
        config, accelerator = self.config, self.accelerator
        set_learning_rate(self.optimiser, learning_rate(config.optim, step, self.total))
        self.objective.before_step(self.progress(step))
        # Dropout draws from a generator that is a function of the step, so that a resumed run needs no saved generator state.
        torch.manual_seed(hash((config.train.seed, step, accelerator.process_index)) % 2**63)
        rows: list[int] = []
        for forward in range(config.train.accumulate):
            asked = time.perf_counter()
            collated = next(batches)
            waited = time.perf_counter() - asked
            self.count_failures(collated["failures"], step, lost="views" not in collated)
            batch = to_batch(collated, self.objective.encoder.geometry, accelerator.device)
            rows += collated["rows"].tolist()
            last = forward + 1 == config.train.accumulate
            with contextlib.nullcontext() if last else accelerator.no_sync(self.wrapped):
                losses = self.wrapped(batch)
                accelerator.backward(losses["loss"] / config.train.accumulate)
            meter.add(losses, len(batch) * accelerator.num_processes, waited)
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        norm = accelerator.clip_grad_norm_(parameters, config.optim.clip_norm or math.inf)
        if not math.isfinite(float(norm)):  # before the update: the weights are still good
            self.stop_not_finite(step, float(losses["loss"].detach()), rows)
        meter.add({"grad_norm": norm}, 0, 0.0)
        meter.forwards -= 1
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.objective.after_step(self.progress(step + 1))

    def progress(self, step: int) -> Progress:
        """Where the run stands after `step` steps."""
        train = self.config.train
        seen = step * train.batch_size * train.accumulate * self.accelerator.num_processes
        return Progress(step, self.total, seen / len(self.data))

    def stop_not_finite(self, step: int, loss: float, rows: list[int]) -> None:
        """Raise TrainingError that names step and videos."""
        names = ", ".join(self.data.prepared.video_id(row) for row in rows[:4])
        broken = "gradient" if math.isfinite(loss) else "loss"
        what = f"the {broken} of step {step + 1} is not finite (videos {names}, ...); the weights were not changed"
        raise TrainingError(
            what,
            where=self.run.path,
            do="Lower optim.lr or use train.precision=fp32, then --resume from the last checkpoint",
        )

    @contextlib.contextmanager
    def others_live(self) -> Iterator[None]:
        """The death of a loader process or of another rank, e.g. for lack of memory, is a TrainingError, wherever it shows."""
        try:
            yield
        except RuntimeError as error:
            if "DataLoader worker" in str(error):
                who, do = "a loader process", "Free memory or use fewer data.workers"
            elif world_size() > 1 and ("gloo" in str(error) or isinstance(error, DistError)):
                who, do = "another process of this run", "Free memory or use fewer processes"
            else:
                raise
            do = f"{do}, then --resume from the last checkpoint"
            raise TrainingError(f"{who} was killed from outside", where=self.run.path, do=do) from None

    def count_failures(self, failures: list[str], step: int, lost: bool) -> None:
        """Unreadable samples were replaced; too many of them end the run, and so does one that nothing readable replaces (`lost`)."""
        if not failures:
            return
        self.state["replaced"] += len(failures)
        self.reporter.warn(f"replaced an unreadable sample: {failures[0]}")
        train = self.config.train
        seen = (step + 1) * train.batch_size * train.accumulate
        if lost or self.state["replaced"] > max(train.batch_size, self.config.data.max_failures * seen):
            raise TrainingError(
                f"{self.state['replaced']} unreadable samples among the first {seen}; the last: {failures[-1]}",
                where=self.data.prepared.place,
                do="Prepare the folder again, or raise data.max_failures",
            )

    def log(self, step: int, meter: Meter, board: Any) -> None:
        """metrics.jsonl, TensorBoard and the reporter, at the end of `step`."""
        now = time.perf_counter()
        seconds = max(1e-9, now - meter.since)
        if step % self.config.train.monitor_every < self.config.train.log_every or step == self.total:
            self.look(step)
        self.losses = meter.means()
        rate = meter.clips / seconds
        train = self.config.train
        left = (
            (self.total - step) * train.batch_size * train.accumulate * self.accelerator.num_processes / max(rate, 1e-9)
        )
        lr = learning_rate(self.config.optim, step - 1, self.total)
        info = StepInfo(
            step,
            self.total,
            self.progress(step).epoch,
            {**self.losses, **self.figures},
            lr,
            rate,
            left,
            meter.waited / seconds,
        )
        self.reporter.step(info)
        if not self.accelerator.is_main_process:
            return
        line = {
            "step": step, "epoch": round(info.epoch, 4), "lr": lr, "clips_per_second": round(rate, 2), "data_wait": round(info.data_wait, 4),
            "seconds": round(self.state["seconds"], 2), **self.losses, **self.figures,
        }  # fmt: skip
        self.run.append_metrics(line)
        for name, value in line.items():
            if name not in ("step", "epoch", "seconds"):
                board.add_scalar(name, value, step)

    def at_epoch_end(self, step: int) -> None:
        """Validation, where `step` was the last of an epoch or of the run."""
        if self.validate is None or not self.accelerator.is_main_process:
            return
        now = self.progress(step + 1)
        if int(now.epoch) > int(self.progress(step).epoch) or now.step == now.total:
            self.figures.update(self.validate(now))

    def look(self, step: int) -> None:
        """The collapse monitors, on the main process."""
        if self.monitor is not None:
            self.figures.update(self.monitor.look(self.objective.encoder, self.accelerator.device))
            self.state["monitor_start"] = self.monitor.start

    def save(self) -> None:
        """A checkpoint, by the main process; the others wait."""
        if self.accelerator.is_main_process:
            raw = getattr(self.optimiser, "optimizer", self.optimiser)
            save_checkpoint(self.run.checkpoints, self.objective, raw, self.state, self.config.train.keep)
        self.accelerator.wait_for_everyone()


def open_board(run: RunFolder, first: int) -> Any:
    """A TensorBoard writer under run/tensorboard; what an earlier part of the run drew after step `first` is hidden."""
    import socket

    from torch.utils.tensorboard import SummaryWriter

    # It puts the machine's name into its file's name, and a machine in a hospital is named after the place, the room or its owner.
    asked, socket.gethostname = socket.gethostname, lambda: "vfm"
    try:
        return SummaryWriter(str(run.path / "tensorboard"), purge_step=first + 1 if first else None)
    finally:
        socket.gethostname = asked
