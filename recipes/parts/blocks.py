"""Multi-block masks: a few large blocks hidden through the whole clip, as V-JEPA has them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recipes.parts.draws import generators
from recipes.parts.masks import Masks, tubes

DRAWS = 512  # from which the usual size of a mask is taken


@dataclass(frozen=True)
class Blocks:
    """What is hidden: the union of `count` blocks, each of the share `scale` of a frame; aspect: bounds of height / width."""

    count: int
    scale: float
    aspect: tuple[float, float] = (0.75, 1.5)


def block_masks(seeds: Tensor, grid: tuple[int, int, int], blocks: Blocks, *, name: str = "") -> Masks:
    """Multi-block masks (Bardes et al., V-JEPA, TMLR 2024): blocks of places, the same in every frame; one mask for each of seeds (B,).

    A union of blocks that are drawn at random has no fixed size, and a batch needs one. The authors cut every sample's lists, which are in the
    order of time, to the shortest of the batch: what falls away are the latest tokens, and what a sample sees depends on its neighbours. Here every
    mask hides as many places as such unions usually do (`usual_size`): blocks grow or shrink at their edges until they are that large, and nothing
    is cut. At least one place stays visible, and one hidden. A sample's mask follows from its own seed and `name`.
    """
    t, h, w = grid
    size = usual_size(h, w, blocks)
    order = np.stack([_in_order(_union(random, h, w, blocks), random) for random in generators(seeds, name)])
    places = torch.from_numpy(order).unsqueeze(1)
    return Masks(visible=tubes(places[..., size:], t, h * w), hidden=tubes(places[..., :size], t, h * w))


@lru_cache(maxsize=64)
def usual_size(h: int, w: int, blocks: Blocks) -> int:
    """Places of a frame that such a union hides on average, in [1, h * w - 1]; the same on every machine."""
    random = np.random.Generator(np.random.Philox(key=np.array([h, w], np.uint64)))
    mean = np.mean([_union(random, h, w, blocks).sum() for _ in range(DRAWS)])
    return min(h * w - 1, max(1, round(float(mean))))


def _union(random: np.random.Generator, h: int, w: int, blocks: Blocks) -> NDArray[np.bool_]:
    """(h, w): the places that one draw of all blocks covers."""
    covered = np.zeros((h, w), np.bool_)
    for _ in range(blocks.count):
        area, aspect = blocks.scale * h * w, random.uniform(*blocks.aspect)
        high = min(h, max(1, round((area * aspect) ** 0.5)))
        wide = min(w, max(1, round((area / aspect) ** 0.5)))
        top, left = random.integers(h - high + 1), random.integers(w - wide + 1)
        covered[top : top + high, left : left + wide] = True
    return covered


def _in_order(covered: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    """(h * w,): places, those to be hidden first first. Covered ones before others, among them those within before those at an edge, and of the
    others those at an edge before those far away; chance decides between equals."""
    around = np.pad(covered, 1, mode="edge").astype(np.float64)
    h, w = covered.shape
    neighbours = sum(around[y : y + h, x : x + w] for y in range(3) for x in range(3))
    rank = 10 * covered + neighbours + random.random((h, w))
    return (-rank).ravel().argsort()
