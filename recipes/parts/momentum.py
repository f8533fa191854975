"""The momentum teacher: a copy of the student that follows it slowly."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn


def frozen_copy(module: nn.Module) -> nn.Module:
    """A deep copy that is never trained by gradients and stays in evaluation mode's arithmetic (no dropout)."""
    teacher = copy.deepcopy(module)
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher.eval()


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, in one fused pass; buffers are copied."""
    to, of = list(teacher.parameters()), list(student.parameters())
    if len(to) != len(of):
        raise ValueError(f"teacher has {len(to)} parameters, student {len(of)}")
    _lerp(to, of, 1.0 - momentum)
    for mine, theirs in zip(teacher.buffers(), student.buffers(), strict=True):
        mine.copy_(theirs)


def _lerp(to: Sequence[torch.Tensor], of: Sequence[torch.Tensor], weight: float) -> None:
    if to:
        torch._foreach_lerp_(list(to), [tensor.detach() for tensor in of], weight)
