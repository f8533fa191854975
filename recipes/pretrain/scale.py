"""SCALE: what the clips of a long recording say together, learned over the features of a frozen encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.encoders.context import ContextSettings, SetTransformer
from recipes.objective import Batch, Clip, Contrast, Losses, ObjectiveSettings
from recipes.parts.contrast import agreement, info_nce
from recipes.parts.draws import permutations
from recipes.parts.frames import take
from recipes.parts.heads import mlp
from recipes.parts.rho import stacked
from recipes.parts.standardise import BatchStandardise
from recipes.parts.views import clips_of


class SCALE(Contrast):
    """Spatio-temporal crop aggregation (Sameni et al., Spatio-Temporal Crop Aggregation for Video Representation Learning, ICCV 2023).

        f_k    = measure(encoder(clip_k))                              K clips of a recording, the encoder frozen; (B, K, F)
        s      = set transformer(f_k of the visible clips)             (B, width)
        loss   = mean over hidden clips m of InfoNCE(predict(s), f_m; tau)

    A random part of the clips is hidden; what a small transformer makes of the others must tell, among the hidden clips of all recordings of the
    batch, which are of the same recording. What is left behind is the encoder as it was and the set transformer beside it: an evaluation reads both,
    the mean of the clips' features and the summary of all of them (as the authors concatenate them).

    Conventions of ours: clips are drawn at any times and the set has no order, so that one prediction, made of the summary, holds for every hidden
    clip, and hidden clips of the same recording are not strangers to each other. Hidden clips are left out rather than replaced. Features that are
    to be told apart are standardised over the batch, since what all clips share would make them alike. `measure` holds how tokens change over time
    beside their mean.
    """

    class Settings(ObjectiveSettings):
        """Settings of SCALE; the shape of the set transformer is ours."""

        clips: int = Field(16, ge=2, description="K, clips of each recording; those at test time may be fewer or more")
        hidden: float = Field(
            0.5, gt=0, lt=1, description="share of the clips that are predicted from the others; at least one stays"
        )
        set_depth: PositiveInt = Field(4, description="blocks of the set transformer")
        set_width: PositiveInt = Field(512, description="its width; a multiple of set_heads")
        set_heads: PositiveInt = Field(8, description="its attention heads")
        head_hidden: PositiveInt = Field(2048, description="hidden width of the predictor")
        temperature: PositiveFloat = Field(0.1, description="tau; lower looks at the nearest strangers only")

        @model_validator(mode="after")
        def _divides(self) -> Any:
            if self.set_width % self.set_heads:
                raise ValueError("set_width must be a multiple of set_heads")
            return self

    name = "scale"
    paper = "Sameni et al., Spatio-Temporal Crop Aggregation for Video Representation Learning, ICCV 2023"
    views: Mapping[str, Clip] = clips_of(16, Clip(augment="weak"))
    adapts = False
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s = settings
        self.views = clips_of(s.clips, Clip(augment="weak"))
        features = 2 * encoder.width
        shape = ContextSettings(features=features, width=s.set_width, depth=s.set_depth, heads=s.set_heads)
        encoder.requires_grad_(False)
        encoder.context = SetTransformer(shape)
        self.predictor = mlp(s.set_width, s.head_hidden, features)
        self.standardise = BatchStandardise()

    def train(self, mode: bool = True) -> Self:
        """A frozen encoder has no dropout."""
        super().train(mode)
        self.encoder.eval()
        return self

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """K views (B, T, 3, H, W) -> what is predicted (B, F), and the features of the hidden clips (B, M, F)."""
        s = self.settings
        with torch.no_grad():
            features = (
                self.encoder.measure(stacked(batch.clips, self.views)).unflatten(0, (s.clips, -1)).transpose(0, 1)
            )  # B, K, F
        order = permutations(batch.seeds, s.clips, name="clips")
        hidden = min(s.clips - 1, max(1, round(s.hidden * s.clips)))
        assert self.encoder.context is not None
        summary = self.encoder.context(take(features, order[:, hidden:]))
        return {"predicted": self.predictor(summary), "targets": take(features, order[:, :hidden])}

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """The loss, and how alike predictions and targets are (a cosine)."""
        predicted, targets = embedded["predicted"], self.standardise(embedded["targets"])
        losses = [info_nce(predicted, one, self.settings.temperature) for one in targets.unbind(dim=1)]
        return {"loss": torch.stack(losses).mean(), "agreement": agreement(predicted, targets.mean(dim=1))}
