"""CECL: what teammates see at one moment belongs together, whatever each of them sees of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from recipes.encoders.base import VideoEncoder
from recipes.objective import MOMENT, TEAM, Batch, Clip, Contrast, Losses, ObjectiveSettings, Progress
from recipes.parts.alignment import sigmoid_among
from recipes.parts.branch import Branch
from recipes.parts.masks import tube_masks
from recipes.parts.moments import met_figures, teammates
from recipes.parts.projection import ProjectionSettings, projection_head
from recipes.parts.standardise import BatchStandardise

LARGEST_SCALE = 100.0


class CECL(Contrast):
    """Cross-ego contrastive learning (X-Ego, 2025): first-person recordings of one team at one moment attract, all other pairs repel.

        loss = - 1/N  sum over i and j other than i of log sigmoid( z_ij (s cos(e_i, e_j) + b) ),   z_ij = 1 for one team and one moment, else -1

    e_i = head(encoder(the visible tubes of clip i)); s and b are learned, from 10 and -3 on, s at most 100; N samples of all ranks. A sample is one
    recording at one moment. Teams have as many samples as they have members: every pair is asked by itself, so nothing is padded, and somebody
    without a teammate is a stranger to everyone.

    An encoder whose clips are all alike begins with every cosine near 1, and spends its first hundreds of steps on moving away from there;
    `standardise` takes what all e of the batch have in common away before they are compared.

    Conventions of ours: where a team is not known, pairs of one moment are left out. Tubes are hidden before the encoder sees them, as many of
    every clip; a head-up display is blanked by the domain's region, for every recipe alike.
    """

    class Settings(ProjectionSettings, ObjectiveSettings):
        """Settings of CECL; the defaults are the paper's but for the head and the mask's ratio."""

        scale: PositiveFloat = Field(10.0, le=LARGEST_SCALE, description="first multiple of cosines (s), learned")
        bias: float = Field(-3.0, description="first addition to them (b), learned")
        standardise: bool = Field(
            False,
            description="e to mean 0 and deviation 1 over the batch first, so that what all clips share is not to be unlearned",
        )
        mask_ratio: float = Field(
            0.5, ge=0, lt=1, description="share of places hidden in every frame of a clip; 0: none, which costs twice"
        )

    name = "cecl"
    paper = "X-Ego: Acquiring Team-Level Tactical Situational Awareness via Cross-Egocentric Contrastive Video Representation Learning, 2025"
    views: Mapping[str, Clip] = {"clip": Clip(augment="weak")}
    together: ClassVar[bool] = True
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.head = projection_head(encoder, settings)
        self.standardise = BatchStandardise() if settings.standardise else nn.Identity()
        self.log_scale = nn.Parameter(torch.full((1,), math.log(settings.scale)))
        self.bias = nn.Parameter(torch.full((1,), settings.bias))

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip (B, T, 3, H, W) -> e (B, head_outputs); s and b, once for every sample; moment and team (B,)."""
        s, clip = self.settings, batch["clip"]
        visible = None
        if s.mask_ratio > 0:
            drawn = tube_masks(batch.seeds, self.encoder.grid, s.mask_ratio, name="clip").visible[:, 0]
            visible = drawn.to(clip.device, non_blocking=True)
        return {
            "e": Branch(self.encoder, self.head, motion=s.head_motion)(clip, visible),
            "scale": self.log_scale.exp().expand(len(batch)),
            "bias": self.bias.expand(len(batch)),
            MOMENT: batch.targets[MOMENT],
            TEAM: batch.targets[TEAM],
        }

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """e of the whole batch -> the loss; how many partners a sample has, how often the nearest other is one; s and b."""
        met, e = teammates(embedded[MOMENT], embedded[TEAM]), self.standardise(embedded["e"])
        scale, bias = embedded["scale"].mean(), embedded["bias"].mean()
        loss = sigmoid_among(e, scale, bias, met.partners, met.apart)
        return {
            "loss": loss,
            **met_figures(e, met),
            "scale": scale.detach(),
            "bias": bias.detach(),
        }

    def after_step(self, progress: Progress) -> None:
        """The learned scale is kept within bounds."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(LARGEST_SCALE))
