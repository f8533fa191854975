"""Losses that several methods share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def distillation(student: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Cross-entropy H(target, softmax(student / temperature)), averaged over rows.

    student (..., K) logits; target (..., K) probabilities, broadcast against it; no gradient through the target.
    """
    return -(target.detach() * F.log_softmax(student.float() / temperature, dim=-1)).sum(dim=-1).mean()


def normalised_patches(tubelets: Tensor, channels: int = 3) -> Tensor:
    """Targets of masked pixel prediction: each patch, per colour channel, to zero mean and unit deviation (VideoMAE: std + 1e-6).

    tubelets (B, V, C * P) with a channel's P pixels together.
    """
    parts = tubelets.unflatten(-1, (channels, -1)).float()
    parts = (parts - parts.mean(dim=-1, keepdim=True)) / (parts.var(dim=-1, keepdim=True).sqrt() + 1e-6)
    return parts.flatten(-2)


def masked_pixel_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all hidden pixels; both (B, M, C * P)."""
    return torch.square(prediction.float() - target).mean()
