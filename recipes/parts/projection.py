"""What contrasts compare: the output of a small head on what is read of a clip."""

from __future__ import annotations

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from domains.schema import Strict
from recipes.encoders.base import VideoEncoder
from recipes.parts.heads import mlp


class ProjectionSettings(Strict):
    """The head of a contrast."""

    head_hidden: PositiveInt = Field(2048, description="hidden width of the head")
    head_outputs: PositiveInt = Field(128, description="width of z, which is compared")
    head_motion: bool = Field(False, description="the head also reads how tokens change over time")


def projection_head(encoder: VideoEncoder, settings: ProjectionSettings) -> nn.Sequential:
    """The head: what `Branch` reads of a clip -> (..., head_outputs). Without batch norm: a sample's z does not depend on the others."""
    return mlp(encoder.width * (2 if settings.head_motion else 1), settings.head_hidden, settings.head_outputs)


class Branch(nn.Module):
    """An encoder with its head: pixel_values (B, T, C, H, W) -> z (B, head_outputs).

    motion: the head reads `encoder.describe`, twice as wide, in place of the mean over tokens. Made anew where it is needed, so that no weight has
    two names in a checkpoint; a momentum teacher keeps a copy.
    """

    def __init__(self, encoder: VideoEncoder, head: nn.Module, *, motion: bool = False) -> None:
        super().__init__()
        self.encoder, self.head, self.motion = encoder, head, motion

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        z: Tensor = self.head((self.encoder.describe if self.motion else self.encoder.embed)(pixels))
        return z
