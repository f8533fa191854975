"""Tokens of an encoder at several depths, from one pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from domains.errors import ConfigError
from recipes.encoders.base import VideoEncoder


def spread(blocks: int, levels: int) -> list[int]:
    """The blocks (counted from 1) after which `levels` parts of equal depth end. Raises ConfigError for more levels than blocks."""
    if levels > blocks:
        raise ConfigError(
            f"{levels} levels of an encoder of {blocks} blocks", do=f"Use objective.levels={blocks} or fewer"
        )
    return [round(blocks * (level + 1) / levels) for level in range(levels)]


def tokens_at(encoder: VideoEncoder, pixels: Tensor, depths: list[int]) -> list[Tensor]:
    """pixels (B, T, C, H, W) -> tokens (B, N, D) after each of `depths` blocks, in rising order; those of the last block are the encoder's output.

    Those before have not met the encoder's final norm: they are brought to mean 0 and deviation 1 over channels, so that all are on one scale.
    """
    found: dict[int, Tensor] = {}

    def keep(depth: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found[depth] = output[0] if isinstance(output, tuple) else output

        return hook

    last = len(encoder.blocks)
    handles = [encoder.blocks[depth - 1].register_forward_hook(keep(depth)) for depth in depths if depth < last]
    try:
        end = encoder(pixels)
    finally:
        for handle in handles:
            handle.remove()
    width = (encoder.width,)
    return [F.layer_norm(encoder.tokens_of(found[depth]), width) if depth < last else end for depth in depths]
