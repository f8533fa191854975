"""One side of a distillation: an encoder and the head on its pooled tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from recipes.encoders.base import VideoEncoder


class Branch(nn.Module):
    """An encoder with its head: pixel_values (B, T, C, H, W) -> what the head says of the pooled tokens (B, K).

    motion: the head reads the encoder's `statistics`, twice as wide, in place of the mean over tokens. Made anew where it is needed, so that no
    weight has two names in a checkpoint; a momentum teacher keeps a copy.
    """

    def __init__(self, encoder: VideoEncoder, head: nn.Module, *, motion: bool = False) -> None:
        super().__init__()
        self.encoder, self.head, self.motion = encoder, head, motion

    @staticmethod
    def width(encoder: VideoEncoder, *, motion: bool = False) -> int:
        """What the head reads of a clip."""
        return encoder.width * (2 if motion else 1)

    def forward(self, pixels: Tensor, visible: Tensor | None = None) -> Tensor:
        """visible (B, V) or (B, M, V): what it says of one (B, K) or of M masked views (B, M, K) of each clip; None: of the whole clip."""
        if visible is not None:
            return self.read(self.encoder(pixels, visible), visible)
        said: Tensor = self.head((self.encoder.describe if self.motion else self.encoder.embed)(pixels))
        return said

    def read(self, tokens: Tensor, visible: Tensor | None = None) -> Tensor:
        """What the head says of tokens (..., V, D), which lie where `VideoEncoder.statistics` has them: (..., K)."""
        pooled = self.encoder.statistics(tokens, visible) if self.motion else self.encoder.pool(tokens)
        said: Tensor = self.head(pooled)
        return said
