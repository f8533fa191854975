"""DSM: the motion in another scene is alike, the scene with another motion is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Contrast, Losses, ObjectiveSettings
from recipes.parts.branch import Branch
from recipes.parts.contrast import agreement, info_nce, wins
from recipes.parts.disorder import shuffled
from recipes.parts.frames import take
from recipes.parts.projection import ProjectionSettings, projection_head
from recipes.parts.warp import drawn_bends, warp


class DSM(Contrast):
    """Decoupling the scene and the motion (Wang et al., AAAI 2021).

        nce:      loss = mean over i of - log  exp(a_i . p_i / tau) / [ sum over j of exp(a_i . p_j / tau) + exp(a_i . n_i / tau) ]
        triplet:  loss = mean over i of max(0, |a_i - p_i|^2 - |a_i - n_i|^2 + margin)

        a: z of the clip;  p: of the clip with its scene broken and its motion kept (spatial local disturbance);
        n: of the clip with its scene kept and its motion broken (temporal local disturbance);   all (B, head_outputs), of length one

    Conventions of ours: the scene is broken by a smooth local warp that is the same in all frames, the motion by shuffling frames within short
    windows. Strangers are the positives of the others in the batch, of all ranks, in place of MoCo's queue. Distances are squared: their slope is
    defined where two clips say the same.
    """

    class Settings(ProjectionSettings, ObjectiveSettings):
        """Settings of DSM."""

        form: Literal["nce", "triplet"] = Field(
            "nce", description="nce: strangers too; triplet: positive and negative only"
        )
        temperature: PositiveFloat = Field(0.07, description="tau of nce; lower looks at the nearest strangers only")
        margin: PositiveFloat = Field(0.5, description="of triplet: by how much the positive is to be nearer")
        warp_points: int = Field(5, ge=2, description="points of the warp along a side; more break smaller structures")
        warp_reach: NonNegativeFloat = Field(
            0.4, description="largest pull at a point, in distances between points; from 0.5 on the picture folds"
        )
        window: int = Field(4, ge=2, description="frames within which the order is broken")

    name = "dsm"
    paper = "Wang et al., Enhancing Unsupervised Video Representation Learning by Decoupling the Scene and the Motion, AAAI 2021"
    views: Mapping[str, Clip] = {"clip": Clip(augment="strong")}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.head = projection_head(encoder, settings)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip (B, T, 3, H, W) -> z of itself, with its scene broken, and with its motion broken (B, head_outputs)."""
        s, clip = self.settings, batch["clip"]
        bends = drawn_bends(batch.seeds, s.warp_points, s.warp_reach, name="scene")
        order = shuffled(batch.seeds, clip.shape[1], window=s.window, name="motion")
        branch = Branch(self.encoder, self.head, motion=s.head_motion)
        return {"clip": branch(clip), "scene": branch(warp(clip, bends)), "motion": branch(take(clip, order))}

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """z of all three -> the loss; how alike the clip is to both; the share of samples of which the broken scene is the nearer one."""
        s, clip, positive, negative = self.settings, embedded["clip"], embedded["scene"], embedded["motion"]
        if s.form == "nce":
            loss = info_nce(clip, positive, s.temperature, own=negative.unsqueeze(1))
        else:
            near, far = squared_distance(clip, positive), squared_distance(clip, negative)
            loss = F.relu(near - far + s.margin).mean()
        return {
            "loss": loss,
            "agreement": agreement(clip, positive),
            "likeness_negative": agreement(clip, negative),
            "motion_wins": wins(clip, positive, negative),
        }


def squared_distance(one: Tensor, other: Tensor) -> Tensor:
    """(B, D) twice, brought to length one -> |one - other|^2, (B,) fp32."""
    return torch.square(F.normalize(one.float(), dim=-1) - F.normalize(other.float(), dim=-1)).sum(dim=-1)
