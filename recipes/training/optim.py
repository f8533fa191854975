"""AdamW with linear warm-up and cosine decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from recipes.config import OptimSettings
from recipes.parts.schedules import cosine

LEARNED = 0.2  # between 0.05, which forgets least, and 1, which gains most where a recipe gains (docs/results.md)


def make_optimiser(objective: nn.Module, settings: OptimSettings) -> torch.optim.AdamW:
    """Parameters with gradients, in groups: biases, norms and other vectors without weight decay.

    A parameter may carry `lr_scale` (an attribute), a factor on the learning rate: fresh heads learn quicker than an adapted encoder. Those of
    `objective.encoder` have `settings.encoder_lr` as well (see `encoder_rate`).
    """
    encoder = getattr(objective, "encoder", None)
    rate = encoder_rate(encoder, settings)
    learned = {id(parameter) for parameter in encoder.parameters()} if isinstance(encoder, nn.Module) else set()
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter in objective.parameters():
        if parameter.requires_grad:
            scale = float(getattr(parameter, "lr_scale", 1.0))
            scale *= rate if id(parameter) in learned else 1.0
            groups.setdefault((parameter.ndim > 1, scale), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": settings.weight_decay if decays else 0.0, "lr_scale": scale}
            for (decays, scale), parameters in groups.items()
        ],
        lr=settings.lr,
        betas=settings.betas,
        fused=True,
    )


def encoder_rate(encoder: Any, settings: OptimSettings) -> float:
    """The factor on the learning rate of an encoder's weights: `settings.encoder_lr`, or LEARNED where that is open and they have learned something.
    Heads begin at random and are given a rate for that; at the same rate an encoder forgets more than it learns (docs/results.md)."""
    if settings.encoder_lr is not None:
        return settings.encoder_lr
    adapters = bool(getattr(encoder, "adapter", ()))  # what is trained of it then is as new as a head
    return 1.0 if adapters or getattr(encoder, "random_start", True) else LEARNED


def learning_rate(settings: OptimSettings, step: int, total: int) -> float:
    """Learning rate of optimiser step `step` (from 0) of `total`."""
    warm = round(settings.warmup * total)
    if step < warm:
        return settings.lr * (step + 1) / warm
    return cosine(settings.lr, min(settings.final_lr, settings.lr), (step - warm) / max(1, total - 1 - warm))


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Apply `lr` to every group, times the group's own scale."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_scale"]
