"""AdViSe: an image model becomes a video encoder by a temporal module that learns to tell how fast a clip plays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.encoders.base import VideoEncoder
from recipes.encoders.temporal import TemporalModule, TemporalSettings
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings
from recipes.parts.draws import integers, uniform
from recipes.parts.frames import mirrored, recorded, take
from recipes.parts.heads import mlp
from recipes.parts.standardise import BatchStandardise


class ADVISE(Objective):
    """Video self-supervision by image foundation models (Wu et al., Advancing Video Self-Supervised Learning via Image Foundation Models, 2025):
    playback rate perception (Yao et al., CVPR 2020) trains a temporal module, the image model stays frozen.

        loss = - log softmax(head(measure(temporal(encoder(frames at speed s of the recording)))))_s,    s drawn for each sample

    Only the temporal module and the head are trained: an image model (ViT, DINOv2, CLIP) is seen frame by frame, without gradient. What is left
    behind is the model as it was and the temporal module beside it; every other recipe, evaluation and fine-tuning go on from there. A video
    encoder will do as well.

    Conventions of ours: the temporal module is attention over time at each place, begun as the identity, where the authors have 3D convolutions:
    it can also read masked clips. The head reads the mean of the tokens and how they change over time, standardised over the batch. The clip starts
    anywhere in the frames at hand, and where a recording ends before the clip, time is mirrored: neither tells the speed.
    """

    class Settings(ObjectiveSettings):
        """Settings of AdViSe; speeds are those of playback rate perception, the shape of the temporal module is ours."""

        speeds: tuple[PositiveInt, ...] = Field(
            (1, 2, 4, 8),
            min_length=2,
            description="frames from one to the next; the largest decides how much is decoded",
        )
        temporal_depth: PositiveInt = Field(2, description="blocks of the temporal module; of a new one")
        head_hidden: PositiveInt = Field(512, description="hidden width of the head")

        @model_validator(mode="after")
        def _differ(self) -> Any:
            if len(set(self.speeds)) < len(self.speeds):
                raise ValueError("no two speeds may be alike")
            return self

    name = "advise"
    paper = "Wu et al., Advancing Video Self-Supervised Learning via Image Foundation Models, 2025"
    views: Mapping[str, Clip] = {"clip": Clip(augment="strong", length=8)}
    adapts = False
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s = settings
        self.views = {"clip": Clip(augment="strong", length=max(s.speeds))}
        encoder.requires_grad_(False)
        if encoder.temporal is None:
            shape = TemporalSettings(width=encoder.width, depth=s.temporal_depth, heads=encoder.heads)
            encoder.temporal = TemporalModule(shape)
        encoder.temporal.requires_grad_(True)
        self.standardise = BatchStandardise()
        self.head = mlp(2 * encoder.width, s.head_hidden, len(s.speeds))
        for parameter in self.head[-1].parameters():
            nn.init.trunc_normal_(parameter, std=0.01)  # no opinion at first

    def train(self, mode: bool = True) -> Self:
        """A frozen model has no dropout."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, batch: Batch) -> Losses:
        """clip (B, L, 3, H, W), as long as the fastest needs -> the loss, and how often the speed is told."""
        clip, frames = batch["clip"], self.encoder.geometry.frames
        truth = integers(batch.seeds, len(self.settings.speeds), name="speed")
        order = at_speed(batch.seeds, torch.tensor(self.settings.speeds)[truth], frames, clip.shape[1])
        shown = take(clip, mirrored(order.to(clip.device), recorded(clip)))
        scores = self.head(self.standardise(self.encoder.measure(shown))).float()
        truth = truth.to(clip.device)
        return {
            "loss": F.cross_entropy(scores, truth),
            "accuracy": (scores.detach().argmax(dim=-1) == truth).float().mean(),
        }


def at_speed(seeds: Tensor, speeds: Tensor, frames: int, length: int) -> Tensor:
    """Which frames of a clip of `length` each sample shows: `frames` of them, `speeds` (B,) apart, from a random start. (B, frames) int64."""
    room = length - speeds * (frames - 1)
    start = (uniform(seeds, name="start") * room).long().clamp_max(room - 1)
    return start.unsqueeze(1) + speeds.unsqueeze(1) * torch.arange(frames)
