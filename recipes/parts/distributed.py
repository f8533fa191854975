"""What objectives need of the other processes. Without them every function is the identity."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather as gather_with_gradient


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def global_sum(tensor: Tensor) -> Tensor:
    """Sum over all processes, without gradient; a new tensor."""
    total = tensor.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


@torch.no_grad()
def global_mean(tensor: Tensor) -> Tensor:
    """Mean over all processes of equally sized shares, without gradient."""
    return global_sum(tensor) / world_size()


def gather(tensor: Tensor) -> Tensor:
    """(B, ...) of every process -> (world * B, ...), in rank order; gradients flow back to the process they belong to."""
    return torch.cat(gather_with_gradient(tensor)) if world_size() > 1 else tensor
