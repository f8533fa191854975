"""A step that was not finite, run again with an eye on everything: where does it start?"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from recipes.objective import Objective
from recipes.training.broken import BrokenStep
from recipes.training.data import to_batch


@dataclass(frozen=True)
class Replay:
    """What a step did when it was run again.

    weights: parameters and buffers that were not finite before it. inputs: views of the batch that are not. losses: of each forward pass.
    module: the first module whose output was not finite, "" where all were. gradients: norm of every parameter's gradient, in the order
    in which the backward pass came to them. first: the first whose gradient was not finite, "" for none. norm: of all together.
    """

    step: int
    precision: str
    weights: tuple[str, ...]
    inputs: tuple[str, ...]
    losses: tuple[Mapping[str, float], ...]
    module: str
    gradients: Mapping[str, float]
    first: str
    norm: float

    @property
    def terms(self) -> tuple[str, ...]:
        """Losses that were not finite, in the objective's own order, the sum last."""
        broken = {name: None for losses in self.losses for name, value in losses.items() if not math.isfinite(value)}
        return tuple(sorted(broken, key=lambda name: name == "loss"))

    @property
    def finite(self) -> bool:
        """Whether nothing is wrong this time."""
        return not (self.weights or self.inputs or self.terms or self.module or self.first) and math.isfinite(self.norm)

    def verdict(self) -> str:
        """The first thing that is wrong, in one sentence."""
        where = f" The first module whose output is not finite: {self.module}." if self.module else ""
        if self.weights:
            return f"Not the batch: the weights were not finite before step {self.step}, first {self.weights[0]}."
        if self.inputs:
            return f"The clips themselves are not finite (view {self.inputs[0]}): look at the recordings."
        if self.terms:
            return f"The first term that is not finite is {self.terms[0]}.{where}"
        if self.first:
            return f"Every loss is finite; the first gradient that is not is that of {self.first}.{where}"
        if not math.isfinite(self.norm):
            largest = max(self.gradients, key=lambda name: self.gradients[name])
            value = self.gradients[largest]
            return f"Every gradient is finite, their norm is not: the largest is that of {largest} ({value:.3g})."
        return (
            f"Everything is finite here, in {self.precision}. The step ran on other hardware, or at another precision."
        )


@dataclass
class Watch:
    """Hooks on every module and parameter of an objective."""

    module: str = ""
    first: str = ""
    order: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def on(self, objective: nn.Module) -> Iterator[None]:
        """Look at outputs as they are computed, innermost modules first, and at gradients as they arrive."""
        handles = [
            module.register_forward_hook(self._output(name)) for name, module in objective.named_modules() if name
        ]
        handles += [
            parameter.register_post_accumulate_grad_hook(self._gradient(name))
            for name, parameter in objective.named_parameters()
            if parameter.requires_grad
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _output(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not self.module and not finite(output):
                self.module = name

        return hook

    def _gradient(self, name: str) -> Any:
        def hook(parameter: Tensor) -> None:
            if name not in self.order:
                self.order.append(name)
            if not self.first and not finite(parameter.grad):
                self.first = name

        return hook


def replay(objective: Objective, broken: BrokenStep, precision: str, device: torch.device) -> Replay:
    """Run `broken` again on `objective`, whose weights are the step's own; nothing is updated.

    precision: fp32 or bf16. The shares of several processes are joined to one batch, which gives the same gradients.
    """
    objective.to(device).train().zero_grad()
    objective.before_step(broken.progress)
    named = [*objective.named_parameters(), *objective.named_buffers()]
    weights = tuple(name for name, tensor in named if not finite(tensor))
    watch, inputs, losses = Watch(), [], []
    torch.set_rng_state(broken.generator)
    if device.type == "cuda" and broken.generator_cuda is not None:
        torch.cuda.set_rng_state(broken.generator_cuda)
    with watch.on(objective):
        for collated in broken.forwards:
            batch = to_batch(collated, objective.encoder.geometry, device)
            inputs += [view for view, clips in batch.clips.items() if not finite(clips)]
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                found = objective(batch)
            losses.append({name: float(value.detach()) for name, value in found.items()})
            (found["loss"] / len(broken.forwards)).backward()
    parameters = dict(objective.named_parameters())
    gradients = {name: norm_of([parameters[name].grad]) for name in watch.order}
    total = float(nn.utils.get_total_norm([parameters[name].grad for name in watch.order]))  # type: ignore[misc]
    return Replay(
        broken.step, precision, weights, tuple(dict.fromkeys(inputs)), tuple(losses), watch.module, gradients, watch.first, total
    )  # fmt: skip


def norm_of(tensors: Sequence[Tensor | None]) -> float:
    """Norm of tensors together, in double precision: large ones do not overflow."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors if tensor is not None))


def finite(value: Any) -> bool:
    """Whether all numbers are, in a tensor or in whatever a module returns. Masks and other integers are."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    if isinstance(value, Mapping):
        return all(finite(inner) for inner in value.values())
    return all(finite(inner) for inner in value) if isinstance(value, (tuple, list)) else True
