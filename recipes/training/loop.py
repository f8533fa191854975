"""The one loop. It knows the Objective's contract and no method."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from domains.errors import ConfigError, TrainingError
from recipes.config import RunConfig
from recipes.objective import Batch, Objective, Progress
from recipes.runs.status import write_status
from recipes.training.board import Board
from recipes.training.broken import seed_step, stop_not_finite
from recipes.training.checkpoint import load_checkpoint, save_checkpoint
from recipes.training.compiled import compile_blocks
from recipes.training.data import ClipData, StreamSampler, batches_of, make_loader, to_batch
from recipes.training.failures import check_replaced, in_one_line
from recipes.training.flops import flops_on_paper, peak
from recipes.training.interrupt import Interrupted, StopSignal
from recipes.training.meter import Meter
from recipes.training.monitors import Monitors, Probe
from recipes.training.optim import learning_rate, make_optimiser, moving, set_learning_rate
from recipes.training.passes import check_piece, learn
from recipes.training.phases import Phases
from recipes.training.processes import check_data, make_accelerator, shared_anew, total_steps
from recipes.training.profile import Profiler
from recipes.training.reporter import Reporter, StepInfo
from recipes.training.retention import Retention
from recipes.training.run import RunFolder, full
from recipes.training.sharding import Weights, weights_of, whole_tensor

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


def train(
    objective: Objective,
    data: ClipData,
    config: RunConfig,
    run: RunFolder,
    reporter: Reporter,
    *,
    resume: bool = False,
    from_step: int | None = None,
    validate: Validate | None = None,
    probe: Probe | None = None,
) -> TrainResult:
    """Minimise `objective` over `data`.

    `from_step` goes back to the checkpoint of that step, for good; without, a run goes on from the last one.
    `validate` is called on the main process at the end of every epoch and of the run; the figures it returns are logged.
    `probe` is called on every process every `monitor.knn.every` steps with the encoder as the run would leave it.
    Raises AlarmError (of a monitor whose action is to stop), TrainingError (a loss that is not finite, too many unreadable samples),
    StorageError (a checkpoint cannot be written) and Interrupted; after each of them `resume=True` goes on from the last checkpoint, with
    the same result as if nothing had happened.
    """
    accelerator = make_accelerator(config)
    main = accelerator.is_main_process
    config = _ready(accelerator, objective, config, run, reporter, resume=resume)
    weights = weights_of(objective.train(), accelerator.device, shard=config.train.shard)
    optimiser = make_optimiser(weights.learner, config.optim)
    if (alone := max(group["begin"] for group in optimiser.param_groups)) > 0:
        reporter.note(f"heads learn alone for {alone:.0%} of the run, then the encoder too (optim.encoder_begin)")
    total = total_steps(config, len(data), accelerator.num_processes)
    # What the samples follow from, beside the settings: a run that goes on must find it as it was.
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "replaced": 0, "monitor_start": {}, "losses": {}, "figures": {}}
    state["data"] = data.fingerprint()
    found = load_checkpoint(run.checkpoints, weights.learner, optimiser, reporter.warn, from_step) if resume else None
    if found is not None:
        check_data(found, state["data"], run)
        state = found
    accelerator.wait_for_everyone()  # all have read what is now changed
    if main and from_step is not None:
        run.go_back(from_step)
    if resume and main:  # also where the run died before its first checkpoint: it starts at step 0, and so does its log
        run.rewind_metrics(state["step"])
    if main:
        write_status(run.path, total=total)
    accelerator.wait_for_everyone()
    optimiser = weights.prepare(accelerator, optimiser)
    device = accelerator.device
    monitors = Monitors(objective, data, config, run.path, state, device, reporter.warn, probe=probe, weights=weights)
    loop = _Loop(
        accelerator,
        weights,
        objective,
        optimiser,
        data,
        config,
        run,
        reporter,
        monitors,
        total,
        state,
        validate,
        Phases(device),
    )
    loop.losses, loop.figures = dict(state["losses"]), dict(state["figures"])  # as last logged, until they are again
    return loop.run_to_end()


def _ready(
    accelerator: Accelerator,
    objective: Objective,
    config: RunConfig,
    run: RunFolder,
    reporter: Reporter,
    *,
    resume: bool,
) -> RunConfig:
    """What must hold before anything is learned; the settings, with the global batch shared anew by a run that goes on. Raises TrainingError,
    ConfigError."""
    if accelerator.is_main_process and not run.lock.enforced:
        reporter.warn(f"the file system of {run.path} has no locks: see that no other run writes there")
    accelerator.wait_for_everyone()  # the main process has made the folder
    if resume:
        begun, config = config.train, shared_anew(config, run, accelerator.num_processes)
        if (config.train.batch_size, config.train.accumulate) != (begun.batch_size, begun.accumulate):
            shared = f"{accelerator.num_processes} x {config.train.accumulate} x {config.train.batch_size}"
            reporter.note(f"a step is shared anew: {shared} (processes, forward passes, samples), as many as before")
    if not any(parameter.requires_grad for parameter in objective.parameters()):
        raise TrainingError("nothing to train: every parameter is frozen", do="Use another encoder.mode")
    check_piece(objective, config.train)
    if config.train.compile:
        if accelerator.device.type != "cuda":
            raise ConfigError(
                "train.compile is for GPUs; on a CPU it gains little or loses (docs/benchmarks.md)", do="Leave it out"
            )
        compile_blocks(objective)
    if config.train.shard and accelerator.num_processes == 1:
        reporter.note("train.shard: one process holds all weights; there is nobody to share them with")
    return config


@dataclass
class _Loop:
    """The state of one call of `train`, so that each of its steps reads by itself."""

    accelerator: Accelerator
    weights: Weights
    objective: Objective
    optimiser: Any
    data: ClipData
    config: RunConfig
    run: RunFolder
    reporter: Reporter
    monitors: Monitors
    total: int
    state: dict[str, Any]
    validate: Validate | None
    time: Phases
    stop: StopSignal = field(default_factory=StopSignal)
    board: Board | None = None
    meter: Meter | None = None
    figures: dict[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)

    def run_to_end(self) -> TrainResult:
        """Every step from the one that is next to the last."""
        train, accelerator, first = self.config.train, self.accelerator, self.state["step"]
        sampler = StreamSampler(
            train.batch_size, train.accumulate, accelerator.process_index, accelerator.num_processes, first, self.total
        )
        loader = make_loader(self.data, sampler, self.config.data.workers, pin=accelerator.device.type == "cuda")
        self.reporter.start(self.total, first)
        before, started = self.state["seconds"], time.perf_counter()
        profiled = train.profile if accelerator.is_main_process else 0
        profiler = Profiler(self.run.path, profiled, self.config.data.workers, self.reporter.note)
        with (
            self.stop,
            in_one_line(self.run.path, self.config, self.objective),
            batches_of(loader) as batches,
            self.drawn(first),
            profiler.running(),
        ):
            if first == 0:
                self.monitors.judge(0, self.look(0))
            for step in range(first, self.total):
                number = self.step(step, batches)
                profiler.tick()
                self.at_epoch_end(step)
                self.state.update(step=step + 1, seconds=before + time.perf_counter() - started)
                if (step + 1) % train.log_every == 0 or step + 1 == self.total:
                    self.log(step + 1)
                halt = bool(self.monitors.stop) and step + 1 < self.total  # a run that is at its end may as well end
                if number or halt or (step + 1) % train.save_every == 0 or step + 1 == self.total:
                    self.save()
                if number:
                    raise Interrupted(number, step + 1, self.run.path)
                if halt:
                    raise self.monitors.end(step + 1)
        self.weights.settle()
        self.reporter.finish()
        samples = self.total * train.batch_size * train.accumulate * accelerator.num_processes
        return TrainResult(
            self.total, self.state["seconds"], samples, self.state["replaced"], self.losses, self.figures
        )

    def step(self, step: int, batches: Iterator[Mapping[str, Any]]) -> int:
        """One optimiser step. Returns the signal to stop after it, the same on all ranks; 0 for none."""
        config, accelerator = self.config, self.accelerator
        stage = self.objective.stage(self.progress(step))
        set_learning_rate(self.optimiser, config.optim, stage.step, stage.total)
        self.weights.learner.before_step(self.progress(step))
        seed_step(config.train.seed, step, accelerator.process_index)
        done: list[tuple[Mapping[str, Any], Mapping[str, Tensor]]] = []
        for forward in range(config.train.accumulate):
            with self.time("data"):
                collated = next(batches)
            self.count_failures(collated["failures"], step, lost="views" not in collated)
            with self.time("transfer"):
                batch = to_batch(collated, self.objective.encoder.geometry, accelerator.device)
            meter = self.measuring(batch)
            last = forward + 1 == config.train.accumulate
            losses = learn(accelerator, self.weights, batch, config.train, self.time, last=last)
            done.append((collated, {name: value.detach() for name, value in losses.items()}))
            meter.add(losses, config.train.batch_size)  # what is left of a run is counted in samples, too
        with self.time("optimiser"):
            norm = whole_tensor(accelerator.clip_grad_norm_(moving(self.optimiser), config.optim.clip_norm or math.inf))
        # It is not finite where any of these is not. Waited for here and not a step later: teachers and centres move with the update, and must not.
        health = norm + sum(losses["loss"].to(norm) for _, losses in done)
        number, broken = self.stop.agreed(~health.isfinite())
        if broken:  # before the update: the weights are still good
            where = self.progress(step)
            stop_not_finite(accelerator, self.weights.learner, config, self.run, self.data.prepared, where, done)
        meter.add_norm(norm)
        self.monitors.gradient(norm)
        with self.time("optimiser"):
            self.optimiser.step()
            self.optimiser.zero_grad()
            self.weights.after_step(self.progress(step + 1))
        return number

    def measuring(self, batch: Batch) -> Meter:
        """The meter; made once it is known what a batch looks like."""
        if self.meter is None:
            ours, bf16 = self.accelerator, self.accelerator.mixed_precision == "bf16"
            flops = flops_on_paper(self.objective, batch) if ours.is_main_process else None
            self.meter = Meter(self.time, ours.num_processes, flops, peak(ours.device, bf16))
        return self.meter

    def progress(self, step: int) -> Progress:
        """Where the run stands after `step` steps."""
        train = self.config.train
        seen = step * train.batch_size * train.accumulate * self.accelerator.num_processes
        return Progress(step, self.total, seen / len(self.data))

    def learning_rate(self, step: int) -> float:
        """Of optimiser step `step`, from 0, of all that learns from the first step on."""
        stage = self.objective.stage(self.progress(step))
        return learning_rate(self.config.optim, stage.step, stage.total)

    def count_failures(self, failures: list[str], step: int, lost: bool) -> None:
        """Unreadable samples were replaced; too many of them end the run."""
        if failures:
            self.state["replaced"] += len(failures)
            self.reporter.warn(f"replaced an unreadable sample: {failures[0]}")
            check_replaced(self.state["replaced"], failures[-1], step, self.config, lost, self.data.prepared.place)

    def log(self, step: int) -> None:
        """metrics.jsonl, TensorBoard and the reporter, at the end of `step`."""
        assert self.meter is not None  # there was a step
        means, speed = self.meter.read()
        self.losses = means | self.monitors.largest_gradient()
        looked = self.look(step)
        train = self.config.train
        left = (self.total - step) * train.batch_size * train.accumulate * self.accelerator.num_processes
        lr, rate = self.learning_rate(step - 1), speed["clips_per_second"]
        epoch = self.progress(step).epoch
        self.reporter.step(
            StepInfo(
                step, self.total, epoch, {**self.losses, **self.figures}, lr, rate, left / max(rate, 1e-9), speed["data_wait"]
            )
        )  # fmt: skip
        self.monitors.judge(step, {**self.losses, **looked})
        if not self.accelerator.is_main_process:
            return
        line = {
            "step": step, "epoch": round(epoch, 4), "lr": lr, **{name: round(value, 4) for name, value in speed.items()},
            "seconds": round(self.state["seconds"], 2), **self.losses, **self.figures,
        }  # fmt: skip
        self.run.append_metrics(line)
        if self.board is not None:
            try:
                self.board.add({name: v for name, v in line.items() if name not in ("step", "epoch", "seconds")}, step)
            except OSError as error:
                raise full(error, self.run.path) from None

    def at_epoch_end(self, step: int) -> None:
        """Validation, where `step` was the last of an epoch or of the run."""
        now = self.progress(step + 1)
        if self.validate is None or not (int(now.epoch) > int(self.progress(step).epoch) or now.step == now.total):
            return
        with self.weights.whole(self.objective, main_only=True):
            if self.accelerator.is_main_process:
                self.figures.update(self.validate(now))

    def look(self, step: int) -> dict[str, float]:
        """What monitors see after `step` steps, where it is due."""
        looked = self.monitors.look(step, self.total)
        self.figures.update(looked)
        return looked

    def save(self) -> None:
        """A checkpoint, by the main process; the others give their parts, and wait."""
        raw, keep = getattr(self.optimiser, "optimizer", self.optimiser), Retention.of(self.config.train)
        self.state.update(losses=self.losses, figures=self.figures)
        main = self.accelerator.is_main_process
        save_checkpoint(self.run.checkpoints, self.weights.learner, raw, self.state, keep, write=main)
        self.accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def drawn(self, first: int) -> Iterator[None]:
        """TensorBoard's curves, from step `first` on, by the main process."""
        if not self.accelerator.is_main_process:
            yield
            return
        try:
            self.board = Board(self.run.path / "tensorboard", first)
        except OSError as error:
            raise full(error, self.run.path) from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # of a full disk, which whoever wrote last has been told of
                self.board.close()
