"""SimCLR on video: clips of a recording are more alike than clips of two recordings."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Contrast, Losses, ObjectiveSettings
from recipes.parts.branch import Branch
from recipes.parts.contrast import agreement, nt_xent
from recipes.parts.projection import ProjectionSettings, projection_head
from recipes.parts.views import clips_of


class SimCLR(Contrast):
    """Contrast between clips (Chen et al., ICML 2020; on video with rho clips of a recording, Feichtenhofer et al., CVPR 2021).

        loss = - log  exp(z_i . z_i' / tau) / sum over k other than i of exp(z_i . z_k / tau),   z = head(encoder(clip)), length one

    averaged over both clips of all samples of all ranks; z_i' is the other clip of the same recording, z_k every clip of the two but itself. Of more
    than two clips, the mean over all pairs of them.

    Conventions of ours: the clips are drawn at any times of the recording. The head has no batch norm, so that a sample's embedding is its
    own: batches beyond memory are exact (`train.piece`). The mean over tokens takes the place of a CLS token; `head_motion` adds how they change
    over time.
    """

    class Settings(ProjectionSettings, ObjectiveSettings):
        """Settings of SimCLR; the defaults are the paper's but for the head's width."""

        rho: int = Field(2, ge=2, le=4, description="clips of each recording; a step costs that many passes")
        temperature: PositiveFloat = Field(0.1, description="tau; lower looks at the nearest strangers only")

    name = "simclr"
    paper = "Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020"
    views: Mapping[str, Clip] = clips_of(2, Clip(augment="strong"))
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.views = clips_of(settings.rho, Clip(augment="strong"))
        self.head = projection_head(encoder, settings)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """first, second, ... (B, T, 3, H, W) -> z of each (B, head_outputs)."""
        branch = Branch(self.encoder, self.head, motion=self.settings.head_motion)
        return {view: branch(batch[view]) for view in self.views}

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """z of all clips -> the loss, and how alike the clips of a recording are."""
        pairs = list(combinations(embedded.values(), 2))
        loss = torch.stack([nt_xent(one, other, self.settings.temperature) for one, other in pairs]).mean()
        return {"loss": loss, "agreement": torch.stack([agreement(one, other) for one, other in pairs]).mean()}
