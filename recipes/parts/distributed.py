"""What losses need of other ranks. Every function is the identity where torch.distributed is not initialised, so a
method never asks whether it runs alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them."""
    return dist.get_rank() if world_size() > 1 else 0


def global_sum(tensor: Tensor) -> Tensor:
    """Sum of `tensor` over all ranks, without gradient; the argument is left as it is."""
    total = tensor.detach()
    if world_size() > 1:
        total = total.clone()
        dist.all_reduce(total)
    return total


def global_max(tensor: Tensor) -> Tensor:
    """Largest element of `tensor` over all ranks, a scalar without gradient."""
    largest = tensor.detach().max()
    if world_size() > 1:
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest


def global_mean(tensor: Tensor) -> Tensor:
    """Mean over the first dimension of the rows of all ranks, without gradient; ranks may hold different numbers.

    tensor (n, ...) -> (...).
    """
    count = global_sum(torch.tensor(float(len(tensor)), device=tensor.device))
    return global_sum(tensor.sum(dim=0)) / count


def mean_of_counted(values: Tensor, counted: Tensor) -> Tensor:
    """This rank's part of the mean of the counted values of all ranks, with gradient: averaged over ranks, it is that mean.

    values (...); counted (...) bool, or weights. What is not counted must still be finite. 0 where no rank counts anything.
    """
    weights = counted.to(values.dtype)
    return (values * weights).sum() * world_size() / global_sum(weights.sum()).clamp_min(1)


def places(samples: int, device: torch.device | None = None) -> Tensor:
    """(samples,) int64: where this rank's samples stand among those of all ranks; every rank must hold as many."""
    return torch.arange(samples, device=device) + samples * rank()


def gather(tensor: Tensor) -> Tensor:
    """Rows of all ranks, in rank order, with gradient: (n, ...) -> (world * n, ...).

    The gradient of a rank's own rows is the sum of what every rank's loss says of them. Where each rank then computes
    the same loss over all rows, and gradients are averaged over ranks afterwards (DDP), the result is that of one
    process with the whole batch. Every rank must hold the same number of rows.
    """
    if world_size() == 1:
        return tensor
    gathered: Tensor = _Gather.apply(tensor)
    return gathered


def shared_sum(tensor: Tensor) -> Tensor:
    """Sum of `tensor` over all ranks, with gradient: what every rank's loss says of the sum comes back to each rank's own part.

    As with `gather`, gradients that are averaged over ranks afterwards (DDP) are those of one process with the whole batch.
    """
    if world_size() == 1:
        return tensor
    total: Tensor = _Sum.apply(tensor)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(world_size())]
        dist.all_gather(parts, tensor.contiguous())
        ctx.rows = len(tensor)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        start = dist.get_rank() * ctx.rows
        return total[start : start + ctx.rows]
