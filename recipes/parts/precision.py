"""Where a loss is computed in the precision of its inputs, whatever the run's."""

from __future__ import annotations

import torch
from torch import Tensor


def as_they_are(like: Tensor) -> torch.autocast:
    """A context in which operations on tensors that live where `like` does are not cast down (also where it has no values: torch's meta device)."""
    return torch.autocast("cuda" if like.is_cuda else "cpu", enabled=False)
