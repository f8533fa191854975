"""Predicting what a teacher makes of hidden tokens: what V-JEPA and SALT share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from domains.schema import Strict
from recipes.parts.blocks import Blocks, block_masks
from recipes.parts.decoder import TokenDecoder

if TYPE_CHECKING:
    from recipes.encoders.base import VideoEncoder

Places = tuple[Tensor, Tensor]


class LatentSettings(Strict):
    """The masks, and the predictor; the defaults are V-JEPA's."""

    short_blocks: PositiveInt = Field(8, description="blocks of the short-range mask")
    short_scale: float = Field(0.15, gt=0, lt=1, description="share of a frame that each of them takes")
    long_blocks: PositiveInt = Field(2, description="blocks of the long-range mask")
    long_scale: float = Field(0.7, gt=0, lt=1, description="share of a frame that each of them takes")
    aspect: tuple[float, float] = Field((0.75, 1.5), description="bounds of the blocks' height / width")
    predictor_depth: PositiveInt = Field(12, description="blocks of the predictor")
    predictor_width: PositiveInt = Field(384, description="width of the predictor; a multiple of predictor_heads")
    predictor_heads: PositiveInt = Field(12, description="attention heads of the predictor")

    @model_validator(mode="after")
    def _fits(self) -> Any:
        if self.predictor_width % self.predictor_heads:
            raise ValueError("predictor_width must be a multiple of predictor_heads")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError("aspect must be two rising numbers above 0, e.g. [0.75, 1.5]")
        return self

    def places(self, seeds: Tensor, grid: tuple[int, int, int], device: torch.device) -> list[Places]:
        """(visible (B, V), hidden (B, N - V)) of the short-range and of the long-range mask, on `device`."""
        kinds = {
            "short": Blocks(self.short_blocks, self.short_scale, self.aspect),
            "long": Blocks(self.long_blocks, self.long_scale, self.aspect),
        }
        drawn = [block_masks(seeds, grid, blocks, name=name) for name, blocks in kinds.items()]
        return [(one.visible[:, 0].to(device), one.hidden[:, 0].to(device)) for one in drawn]

    def predictor(self, encoder: VideoEncoder, out: int) -> TokenDecoder:
        """From tokens of `encoder` to `out` numbers at each place that is asked for."""
        return TokenDecoder(
            encoder.width, self.predictor_width, self.predictor_depth, self.predictor_heads, encoder.tokens, out
        )


def latents(teacher: nn.Module, clip: Tensor) -> Tensor:
    """clip (B, T, 3, H, W) -> the teacher's tokens (B, N, D), each with mean 0 and deviation 1 over its channels; fp32, no gradient."""
    tokens: Tensor = teacher(clip)
    return F.layer_norm(tokens.detach().float(), tokens.shape[-1:])


def latent_loss(
    encoder: VideoEncoder, predictor: TokenDecoder, clip: Tensor, masks: Sequence[Places], targets: Tensor
) -> Tensor:
    """The mean over masks of the mean absolute error of hidden tokens, predicted from visible ones.

    masks: (visible (B, V), hidden (B, H)); targets (B, N, D), made once for all masks.
    """
    losses = []
    for visible, hidden in masks:
        predicted = predictor(encoder(clip, visible), visible, hidden)
        wanted = targets.gather(1, hidden.unsqueeze(-1).expand(-1, -1, targets.shape[-1]))
        losses.append(F.l1_loss(predicted.float(), wanted))
    return torch.stack(losses).mean()


@torch.no_grad()
def variety(targets: Tensor) -> Tensor:
    """How much the targets (B, N, D) of a batch differ from each other: their deviation over clips and places, of this rank. 1 where they have
    nothing in common, 0 where the teacher says the same of everything."""
    return targets.flatten(0, 1).std(dim=0, correction=0).square().mean().sqrt()


def idle(module: nn.Module) -> Tensor:
    """0, with a gradient of 0 for every trained parameter of a module that has no part in this step: a process group waits for each of them. Of a
    parameter that is spread over processes (`train.shard`), each sees to its own part."""
    total = torch.zeros((), device=next(module.parameters()).device)
    for parameter in module.parameters():
        if parameter.requires_grad:
            own = parameter.to_local() if isinstance(parameter, DTensor) else parameter
            total = total + 0 * own.sum()
    return total
