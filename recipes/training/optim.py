"""AdamW with linear warm-up and cosine decay."""

from __future__ import annotations

import torch
from torch import nn

from recipes.config import OptimSettings
from recipes.parts.schedules import cosine


def make_optimiser(objective: nn.Module, settings: OptimSettings) -> torch.optim.AdamW:
    """Parameters with gradients, in groups: biases, norms and other vectors without weight decay.

    A parameter may carry `lr_scale` (an attribute), a factor on the learning rate: fresh heads learn quicker than an adapted encoder. Those of
    `objective.encoder` have `settings.encoder_lr` as well.
    """
    encoder = getattr(objective, "encoder", None)
    learned = {id(parameter) for parameter in encoder.parameters()} if isinstance(encoder, nn.Module) else set()
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter in objective.parameters():
        if parameter.requires_grad:
            scale = float(getattr(parameter, "lr_scale", 1.0))
            scale *= settings.encoder_lr if id(parameter) in learned else 1.0
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
