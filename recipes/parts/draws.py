"""Random choices of an objective: each sample's follow from its own seed, never from the rest of its batch."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def generators(seeds: Tensor, name: str) -> Iterator[np.random.Generator]:
    """One generator for each of seeds (B,). `name` keeps two uses of a seed apart."""
    stream = zlib.crc32(name.encode())
    for seed in seeds.tolist():
        yield np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))


def uniform(seeds: Tensor, shape: tuple[int, ...] = (), *, name: str) -> Tensor:
    """Numbers in [0, 1): (B, *shape), fp32, on the CPU."""
    return torch.from_numpy(np.stack([random.random(shape, np.float32) for random in generators(seeds, name)]))


def integers(seeds: Tensor, below: int, shape: tuple[int, ...] = (), *, name: str) -> Tensor:
    """Whole numbers in [0, below): (B, *shape), int64, on the CPU."""
    return torch.from_numpy(np.stack([random.integers(below, size=shape) for random in generators(seeds, name)]))


def permutations(seeds: Tensor, count: int, shape: tuple[int, ...] = (), *, name: str) -> Tensor:
    """Orders of `count` things: (B, *shape, count), int64, on the CPU."""
    return uniform(seeds, (*shape, count), name=name).argsort(dim=-1)
