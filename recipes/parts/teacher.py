"""Teachers: one that stays as it is, and one that is a slow average of its student."""

from __future__ import annotations

import copy
from typing import Any, Generic, Self, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class FrozenTeacher(nn.Module, Generic[M]):
    """A copy of a student that does not follow it.

    Has no gradient and stays in evaluation mode. `module` is the teacher's own copy of the student; what it is called
    with is passed on to it, without recording a graph.
    """

    module: M

    def __init__(self, student: M) -> None:
        super().__init__()
        self.module = copy.deepcopy(student).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode: a teacher has no dropout."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The module's own forward, without gradient."""
        return self.module(*inputs, **options)

    @torch.no_grad()
    def swap(self, student: nn.Module) -> None:
        """The teacher gets the student's weights and the student the teacher's, buffers included."""
        own = [*self.module.parameters(), *self.module.buffers()]
        for mine, other in zip(own, [*student.parameters(), *student.buffers()], strict=True):
            kept = mine.clone()
            mine.copy_(other)
            other.copy_(kept)


class MomentumTeacher(FrozenTeacher[M]):
    """A teacher whose weights are a moving average of its student's: w <- m w + (1 - m) w_student, buffers included."""

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """One step of the average; integer buffers are copied."""
        own = [*self.module.parameters(), *self.module.buffers()]
        new = [*student.parameters(), *student.buffers()]
        average = [(old, now.detach()) for old, now in zip(own, new, strict=True) if old.is_floating_point()]
        # One call over all tensors: a loop over a ViT's would cost as much as a small forward pass.
        torch._foreach_lerp_([old for old, _ in average], [now for _, now in average], 1 - momentum)
        for old, now in zip(own, new, strict=True):
            if not old.is_floating_point():
                old.copy_(now)
