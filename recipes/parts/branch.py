"""One side of a distillation: an encoder and the head on its pooled tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from recipes.encoders.base import VideoEncoder


class Branch(nn.Module):
    """An encoder with its head: pixels -> (tokens (..., V, D), logits of the pooled tokens (..., K)).

    motion: the head reads the encoder's `statistics`, twice as wide, in place of the mean.
    """

    def __init__(self, encoder: VideoEncoder, head: nn.Module, *, motion: bool = False) -> None:
        super().__init__()
        self.encoder, self.head, self.motion = encoder, head, motion

    @staticmethod
    def width(encoder: VideoEncoder, *, motion: bool = False) -> int:
        """What the head reads of a clip."""
        return encoder.width * (2 if motion else 1)

    def forward(self, pixels: Tensor, visible: Tensor | None = None, times: int | None = None) -> tuple[Tensor, Tensor]:
        """visible (B, V) or (B, M, V): the tokens and logits of one or M views of each clip, which lie at `times` of its times (None: at all);
        None: of the whole clip."""
        tokens = self.encoder(pixels, visible)
        pooled = self.encoder.statistics(tokens, times) if self.motion else self.encoder.pool(tokens)
        return tokens, self.head(pooled)
