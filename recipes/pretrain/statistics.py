"""Statistics: where does a clip move most, and where to; where does its light change most and least?"""

from __future__ import annotations

import torch
from pydantic import Field, NonNegativeFloat

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Losses
from recipes.parts.pretext import Pretext, PretextSettings, answered, answers
from recipes.parts.pretext_targets import DIRECTIONS, SHADES, appearance_of, luminance, motion_of


class Statistics(Pretext):
    """Predicting motion and appearance statistics (Wang et al., CVPR 2019).

        loss = weight_motion L_m + weight_appearance L_a,   each the mean of CE(head(encoder(clip)), answer) over its questions

        L_m: which of n x n blocks moves most; in which of 8 directions; between which two frames the clip moves most
        L_a: in which block luminance changes most, and its dominant shade (of 8); in which least, and its dominant shade

    Conventions of ours: answers are classes and not numbers to regress, so that there is an accuracy. Motion is measured on the clip itself, without
    optical flow (`recipes.parts.pretext_targets`); shades of luminance take the place of colours, since many recordings have none; one grid of
    blocks takes the place of the paper's three patterns.
    """

    class Settings(PretextSettings):
        """Settings of the statistics."""

        blocks: int = Field(4, ge=2, description="n: a frame is cut into n x n blocks")
        weight_motion: NonNegativeFloat = Field(1.0, description="of the questions about motion")
        weight_appearance: NonNegativeFloat = Field(1.0, description="of the questions about luminance")

    name = "statistics"
    paper = "Wang et al., Self-Supervised Spatio-Temporal Representation Learning by Predicting Motion and Appearance Statistics, CVPR 2019"
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        blocks = settings.blocks**2
        self.motion = (blocks, DIRECTIONS, encoder.geometry.frames - 1)
        self.appearance = (blocks, SHADES, blocks, SHADES)
        self.head = answers(2 * encoder.width, settings.head_hidden, sum(self.motion + self.appearance))

    def forward(self, encoder: VideoEncoder, batch: Batch) -> Losses:
        """clip (B, T, C, H, W) -> both losses, and how often their questions are answered."""
        clip, s, blocks = batch["clip"], self.settings, self.settings.blocks
        light = luminance(clip, encoder.geometry)
        truths = [*motion_of(light, blocks), *appearance_of(light, blocks)]
        scores = self.head(self.read(encoder, clip)).split(self.motion + self.appearance, dim=1)
        asked = [answered(own, truth) for own, truth in zip(scores, truths, strict=True)]
        losses, right = (torch.stack(both) for both in zip(*asked, strict=True))
        cut = len(self.motion)
        motion, appearance = losses[:cut].mean(), losses[cut:].mean()
        return {
            "loss": s.weight_motion * motion + s.weight_appearance * appearance,
            "loss_motion": motion.detach(),
            "loss_appearance": appearance.detach(),
            "accuracy": right.mean(),
            "accuracy_motion": right[:cut].mean(),
            "accuracy_appearance": right[cut:].mean(),
        }
