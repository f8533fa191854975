"""AdamW with linear warm-up and cosine decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from recipes.config import OptimSettings
from recipes.parts.schedules import cosine

LEARNED = 0.2  # between 0.05, which forgets least, and 1, which gains most where a recipe gains (docs/results-first.md)


def make_optimiser(objective: nn.Module, settings: OptimSettings) -> torch.optim.AdamW:
    """Parameters with gradients, in groups: biases, norms and other vectors without weight decay.

    A parameter may carry `lr_scale` (an attribute), a factor on the learning rate: fresh heads learn quicker than an adapted encoder. Those of
    `objective.encoders` have `settings.encoder_lr` as well (see `encoder_rate`), and may begin later than all others (`encoder_begin`).
    """
    of_encoders: dict[int, tuple[float, float]] = {}
    for encoder in getattr(objective, "encoders", ()):
        own = (encoder_rate(encoder, settings), encoder_begin(encoder, settings))
        of_encoders |= dict.fromkeys((id(parameter) for parameter in encoder.parameters()), own)
    groups: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
    for parameter in objective.parameters():
        if parameter.requires_grad:
            scale = float(getattr(parameter, "lr_scale", 1.0))
            rate, begin = of_encoders.get(id(parameter), (1.0, 0.0))
            groups.setdefault((parameter.ndim > 1, scale * rate, begin), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": settings.weight_decay if decays else 0.0,
                "lr_scale": scale,
                "begin": begin,
            }
            for (decays, scale, begin), parameters in groups.items()
        ],
        lr=settings.lr,
        betas=settings.betas,
        fused=True,
    )


def encoder_rate(encoder: Any, settings: OptimSettings) -> float:
    """The factor on the learning rate of an encoder's weights: `settings.encoder_lr`, or LEARNED where that is open and they have learned something.
    Heads begin at random and are given a rate for that; at the same rate an encoder forgets more than it learns (docs/results-first.md)."""
    if settings.encoder_lr is not None:
        return settings.encoder_lr
    return LEARNED if has_learned(encoder) else 1.0


def encoder_begin(encoder: Any, settings: OptimSettings) -> float:
    """The share of a run (of each of its stages) after which an encoder's weights begin to learn: `settings.encoder_begin` where they have learned
    something, else 0. Until then heads learn to read them as they are: what a head asks for that begins at random would bend them anywhere (Kumar et
    al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution, ICLR 2022)."""
    return settings.encoder_begin if has_learned(encoder) else 0.0


def has_learned(encoder: Any) -> bool:
    """Whether what is trained of an encoder has learned before; adapters, and whatever is no encoder, have not."""
    return not (bool(getattr(encoder, "adapter", ())) or getattr(encoder, "random_start", True))


def learning_rate(settings: OptimSettings, step: int, total: int, begin: float = 0.0) -> float:
    """Learning rate of optimiser step `step` (from 0) of `total`; of weights that begin after the share `begin` of them, 0 until then and the
    rate of a run that begins there."""
    late = round(begin * total)
    if step < late:
        return 0.0
    step, total = step - late, total - late
    warm = round(settings.warmup * total)
    if step < warm:
        return settings.lr * (step + 1) / warm
    return cosine(settings.lr, min(settings.final_lr, settings.lr), (step - warm) / max(1, total - 1 - warm))


def set_learning_rate(optimiser: torch.optim.Optimizer, settings: OptimSettings, step: int, total: int) -> None:
    """Every group's rate at step `step` of `total`, times the group's own scale."""
    for group in optimiser.param_groups:
        group["waits"] = step < round(group["begin"] * total)
        group["lr"] = group["lr_scale"] * learning_rate(settings, step, total, group["begin"])


def moving(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters that learn in this step. Those that wait lose their gradients: neither the norm that is clipped nor AdamW's averages know of
    them, so that they begin as those of a fresh run do."""
    found: list[nn.Parameter] = []
    for group in optimiser.param_groups:
        if group["waits"]:
            for parameter in group["params"]:
                parameter.grad = None
        else:
            found += group["params"]
    return found
