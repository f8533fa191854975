"""Chirality: a light adapter over the features of frozen frames learns which way a clip goes, so that opening is not closing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional as F

from recipes.encoders.base import VideoEncoder
from recipes.encoders.trajectory import Trajectory, TrajectorySettings, steps
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings
from recipes.parts.contrast import info_nce, wins
from recipes.parts.distributed import global_mean
from recipes.parts.heads import mlp

KEPT = 0.95  # of the usual change, from one step to the next


class Chirality(Objective):
    """Chirality in action (Bagad and Zisserman, NeurIPS 2025): the features of a clip's frames become points on a line, whose direction is kept.

        f_t    = mean over places of encoder(clip) at time t, encoder frozen;  c_t = (f_t - mean over t) / usual change       (B, t, D)
        s, g   = trajectory(c),   of the clip backwards: s, -g                                                                 (B, width) each
        loss   = mean over t of || decoder(s + u_t g) - c_t ||^2  +  weight_reversal InfoNCE(g_a, g_b; tau)

    u_t runs from -1 to 1: the decoder must tell every frame from a point on the line through s in direction g, so that g holds how the clip changes
    from its beginning to its end, and s what comes and goes. a, b: two views of the same clip, each with its own crop and light; strangers
    of g_a are the other clips of the batch and the same clip backwards, -g_b. Nothing of it needs a label.

    What is left behind is the encoder as it was and the adapter beside it (`trajectory.safetensors`): probes, `vfm evaluate` and `vfm finetune` read
    [what they read anyway, s, g]. The statistics that they read otherwise, mean and deviation over time, are the same forwards and backwards.

    Conventions of ours: g of a clip backwards is -g by the adapter's make, where the authors leave that to training; the changes are told, not
    the features themselves, since the mean of them is kept anyway; the contrast with the clip's own reverse is added (weight_reversal 0: the authors'
    reconstruction alone). Frames of a video encoder are its tubelets.
    """

    class Settings(ObjectiveSettings):
        """Settings of chirality; the shape of the adapter is ours."""

        width: PositiveInt = Field(128, description="of the adapter, and of s and g; a multiple of heads")
        depth: PositiveInt = Field(2, description="its blocks")
        heads: PositiveInt = Field(4, description="its attention heads")
        decoder_hidden: PositiveInt = Field(512, description="hidden width of the decoder")
        weight_reversal: NonNegativeFloat = Field(
            0.1, description="of the contrast with other clips and with the clip itself backwards"
        )
        temperature: PositiveFloat = Field(0.1, description="its tau")

        @model_validator(mode="after")
        def _divides(self) -> Any:
            if self.width % self.heads:
                raise ValueError("width must be a multiple of heads")
            return self

    name = "chirality"
    paper = "Bagad and Zisserman, Chirality in Action: Time-Aware Video Representation Learning by Latent Straightening, NeurIPS 2025"
    views: Mapping[str, Clip] = {"a": Clip(augment="weak"), "b": Clip(augment="weak", near="a", within=0.0)}
    adapts = False
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s = settings
        shape = TrajectorySettings(features=encoder.width, width=s.width, depth=s.depth, heads=s.heads)
        encoder.requires_grad_(False)
        encoder.trajectory = Trajectory(shape)
        self.decoder = mlp(s.width, s.decoder_hidden, encoder.width)

    def train(self, mode: bool = True) -> Self:
        """A frozen encoder has no dropout."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, batch: Batch) -> Losses:
        """a, b (B, T, 3, H, W) -> the loss and its two terms; `straight`, the share of the change that a line explains; and `told`, how often a view
        goes the way of the other rather than the reverse."""
        s, adapter = self.settings, self.encoder.trajectory
        assert adapter is not None
        with torch.no_grad():
            clips = torch.cat([batch["a"], batch["b"]])
            frames = self.encoder.over_places(self.encoder(clips))
        if self.training:
            self.observe(frames)
        changes = adapter.changes(frames)
        stays, goes = adapter.halves(changes)
        told = F.mse_loss(self.on_the_line(stays, goes, changes.shape[1]), changes)
        g_a, g_b = goes.chunk(2)
        reversal = info_nce(g_a, g_b, s.temperature, own=-g_b.unsqueeze(1))
        return {
            "loss": told + s.weight_reversal * reversal,
            "loss_reconstruction": told.detach(),
            "loss_reversal": reversal.detach(),
            "straight": 1 - (told / changes.square().mean().clamp_min(1e-12)).detach(),
            "told": wins(g_a, g_b, -g_b),
        }

    @torch.no_grad()
    def observe(self, frames: Tensor) -> None:
        """What usually changes, of the clips of all ranks: a running mean, begun with the first batch."""
        assert self.encoder.trajectory is not None
        rows, spread = frames.float(), self.encoder.trajectory.spread
        seen = global_mean((rows - rows.mean(dim=1, keepdim=True)).square().mean(dim=1)).sqrt()
        spread.copy_(torch.where(spread > 0, spread.lerp(seen, 1 - KEPT), seen))

    def on_the_line(self, stays: Tensor, goes: Tensor, frames: int) -> Tensor:
        """What the decoder makes of `frames` points on each line: (B, frames, features), fp32."""
        made: Tensor = self.decoder(stays.unsqueeze(1) + steps(frames, stays.device) * goes.unsqueeze(1))
        return made.float()
