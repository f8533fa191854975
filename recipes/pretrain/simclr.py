"""SimCLR on video: two clips of a recording are more alike than clips of two recordings."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Contrast, Losses, ObjectiveSettings
from recipes.parts.contrast import agreement, nt_xent
from recipes.parts.heads import mlp


class SimCLR(Contrast):
    """Contrast between clips (Chen et al., ICML 2020; on video with rho = 2 clips of a recording, Feichtenhofer et al., CVPR 2021).

        loss = - log  exp(z_i . z_i' / tau) / sum over k other than i of exp(z_i . z_k / tau),   z = head(encoder(clip)), length one

    averaged over both clips of all samples of all ranks; z_i' is the other clip of the same recording, z_k every clip of the batch but itself.

    Conventions of ours: the two clips are drawn at any two times of the recording. The head has no batch norm, so that a sample's embedding is its
    own: batches beyond memory are exact (`train.piece`). The mean over tokens takes the place of a CLS token; `head_motion` adds how they change
    over time.
    """

    class Settings(ObjectiveSettings):
        """Settings of SimCLR; the defaults are the paper's but for the head's width."""

        temperature: PositiveFloat = Field(0.1, description="tau; lower looks at the nearest strangers only")
        head_hidden: PositiveInt = Field(2048, description="hidden width of the head")
        head_outputs: PositiveInt = Field(128, description="width of z")
        head_motion: bool = Field(False, description="the head also reads how tokens change over time")

    name = "simclr"
    paper = "Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020"
    views: Mapping[str, Clip] = {"first": Clip(augment="strong"), "second": Clip(augment="strong")}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        width = encoder.width * (2 if settings.head_motion else 1)
        self.head = mlp(width, settings.head_hidden, settings.head_outputs)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """first, second (B, T, 3, H, W) -> z of each (B, head_outputs)."""
        read = self.encoder.describe if self.settings.head_motion else self.encoder.embed
        return {view: self.head(read(batch[view])) for view in self.views}

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """z of both clips -> the loss, and how alike the two clips of a recording are."""
        first, second = embedded["first"], embedded["second"]
        return {"loss": nt_xent(first, second, self.settings.temperature), "agreement": agreement(first, second)}
