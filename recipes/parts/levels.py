"""Moments, steps and whole recordings in one batch: what is compared with what, and the words of a step beside those of its moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from recipes.objective import Losses
from recipes.parts.aligning import AligningSettings
from recipes.parts.alignment import both_ways, of_one_group, set_apart
from recipes.parts.contrast import accuracy, info_nce
from recipes.parts.distributed import gather


class LevelSettings(AligningSettings):
    """Texts of several levels."""

    temperature: PositiveFloat = Field(0.1, description="tau; it is not learned")
    below: PositiveInt = Field(4, description="texts of the finer level that stand beside a step or a whole")
    weight_keystep: NonNegativeFloat = Field(
        1 / 3, description="how much a text of a step counts, in terms of one of a moment"
    )
    weight_abstract: NonNegativeFloat = Field(1 / 5, description="how much a text of the whole counts")
    augment: Literal["none", "weak", "strong"] = Field("weak", description="augmentation of the clips")

    def weights(self, levels: Tensor) -> Tensor:
        """How much samples of these levels (B,) count (B,); silent ones (-1) not at all."""
        table = torch.tensor([1.0, self.weight_keystep, self.weight_abstract, 0.0], device=levels.device)
        return table[levels]


def no_strangers(facts: Mapping[str, Tensor], levels: Tensor) -> Tensor:
    """Pairs (B, N) of samples that are neither partners nor strangers: of the same words or overlapping times (`set_apart`), or of
    different levels (a step is true of its moments). levels (B,) int64 of this rank."""
    return set_apart(facts) | ~of_one_group(levels)


def step_names(count: int) -> tuple[str, ...]:
    """Names of the views of `count` steps, one after the other."""
    return tuple(f"step {number}" for number in range(1, count + 1))


def mean_text(vectors: Tensor, present: Tensor) -> Tensor:
    """The mean of several texts, each of length one before: vectors (B, K, D), present (B, K) bool -> (B, D); 0 where there is none.

    (The official code of HecVL and PeskaVLP averages first, so that long vectors count more.)
    """
    weight = present.unsqueeze(-1).float()
    return (F.normalize(vectors.float(), dim=-1) * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)


def hierarchy_loss(embedded: Mapping[str, Tensor], settings: LevelSettings) -> Losses:
    """HecVL (Yuan et al., 2024), over samples of all levels at once.

        moments:  1/2 [ InfoNCE(v, t) + NT-Xent(v, t) ]
        above:    1/4 [ InfoNCE(v, t) + NT-Xent(v, t) + InfoNCE(v, mean of c) + InfoNCE(t, mean of c) ]

    v (B, D): clips; t (B, D): their texts; c: texts of the next finer level within the sample's time, each of length one. NT-Xent here: InfoNCE both
    ways, 3/4 from the clip. embedded: clips, texts, `below` (B, D), whether there is something below (B,) bool, words and levels (B,).

    Conventions of ours: every batch holds all levels, strangers are of the same level, and a step counts a third and the whole a fifth of a moment;
    the paper takes steps in every third and wholes in every fifth epoch.
    """
    clips, texts, below, has = (embedded[name] for name in ("clips", "texts", "below", "has_below"))
    apart = no_strangers(embedded, embedded["levels"])
    weights = settings.weights(embedded["levels"])
    above = has.to(weights.dtype)
    tau = settings.temperature
    own = weights * (0.5 - 0.25 * above)  # half of the loss of a moment, and a quarter where there is something below
    first = info_nce(clips, texts, tau, apart=apart, weights=own)
    second = both_ways(clips, texts, tau, forward=0.75, apart=apart, weights=own)
    without = apart | ~(gather(has.long()) > 0)  # those that have nothing below are nobody's strangers there
    lower = weights * above / 4
    third = info_nce(clips, below, tau, apart=without, weights=lower)
    fourth = info_nce(texts, below, tau, apart=without, weights=lower)
    return {
        "loss": first + second + third + fourth,
        "loss_own": (first + second).detach(),
        "loss_below": (third + fourth).detach(),
        "accuracy": accuracy(clips, texts),
    }
