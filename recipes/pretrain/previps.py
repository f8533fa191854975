"""PreViPS: cameras of one moment, and the poses of those in it, say the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from domains.errors import ConfigError
from recipes.encoders.base import VideoEncoder
from recipes.objective import CAMERA, MOMENT, POSE, Batch, Clip, Contrast, Losses, ObjectiveSettings
from recipes.parts.alignment import both_ways, paired_nce
from recipes.parts.contrast import accuracy
from recipes.parts.distributed import gather, global_sum, mean_of_counted, world_size
from recipes.parts.moments import cameras
from recipes.parts.precision import as_they_are
from recipes.parts.projection import ProjectionSettings, head_shape
from recipes.parts.sensed import PoseShape, SensedPose


class PreViPS(Contrast):
    """Multi-view video-pose pretraining (Hamoud et al., Multi-view Video-Pose Pretraining for Operating Room Surgical Activity Recognition,
    2025).

        loss = in-view      1/2 [ InfoNCE(v, p) + InfoNCE(p, v) ]                                    a clip and the poses in it
             + cross-view   1/3 [ pairs(v, v) + 1/2 pairs(v, p) + 1/2 pairs(p, v) + pairs(p, p) ]    of two cameras at one moment
             + weight_geometry  [ mean (v_i . p_k - p_i . v_k)^2 + mean (v_i . v_k - p_i . p_k)^2 ]  over all pairs i, k
             + weight_masked    CE(cells of hidden pose tokens, read from the others and from v)

    v = head(encoder(clip)), p = projection(tower(pose tokens)), of length one; pairs(x, y): `recipes.parts.alignment.paired_nce`, whose strangers are
    other moments. Poses need no calibration, and cameras any number: what differs between them is only where joints are seen. Samples without a pose
    take part in pairs(v, v) alone.

    Conventions of ours: tokens are cells of the clip as it is cropped, where the paper has a learned code book of whole poses; a joint beyond it is
    not seen; poses of the same moment are never strangers.
    """

    class Settings(ProjectionSettings, ObjectiveSettings):
        """Settings of PreViPS; sizes are ours."""

        joints: PositiveInt = Field(14, description="joints of the poses, of all people together")
        steps: PositiveInt = Field(4, description="moments of a clip whose poses are read")
        bins: PositiveInt = Field(16, description="cells along each side of the clip")
        pose_width: PositiveInt = Field(128, description="of the pose tower; a multiple of pose_heads")
        pose_depth: PositiveInt = Field(2, description="its blocks")
        pose_heads: PositiveInt = Field(4, description="its attention heads")
        mask_ratio: float = Field(0.3, gt=0, lt=1, description="share of the joints that are guessed from the others")
        weight_geometry: NonNegativeFloat = Field(0.25, description="of both geometric constraints")
        weight_masked: NonNegativeFloat = Field(0.1, description="of the hidden pose tokens")
        temperature: PositiveFloat = Field(0.07, description="tau; it is not learned")

        @model_validator(mode="after")
        def _divides(self) -> Any:
            if self.pose_width % self.pose_heads:
                raise ValueError("pose_width must be a multiple of pose_heads")
            return self

    name = "previps"
    paper = "Hamoud et al., Multi-view Video-Pose Pretraining for Operating Room Surgical Activity Recognition, 2025"
    views: Mapping[str, Clip] = {"clip": Clip(augment="weak")}
    together: ClassVar[bool] = True
    signals = (POSE,)
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s = settings
        self.sensed = SensedPose(
            PoseShape(
                **head_shape(encoder, s), width=s.pose_width, joints=s.joints, steps=s.steps, bins=s.bins, depth=s.pose_depth, heads=s.pose_heads
            )
        )  # fmt: skip
        self.beside = nn.Linear(s.head_outputs, s.pose_width)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip (B, T, 3, H, W), pose (B, T', J, 2) -> v, p (B, head_outputs); cross-entropy of the hidden tokens, and how many (B,); who is who
        (B,)."""
        s, pose = self.settings, batch.targets[POSE].float().flatten(2).unflatten(2, (-1, 2))
        if pose.shape[2] != s.joints:
            what = f"poses have {pose.shape[2]} joints, and objective.joints is {s.joints}"
            raise ConfigError(what, do=f"Set objective.joints={pose.shape[2]}")
        v, tower = self.sensed.clips(self.encoder, batch["clip"]), self.sensed.tower
        tokens = tower.tokens(pose)
        shown, hidden = tower.hide(tokens, batch.seeds, s.mask_ratio)
        _, made = tower(shown, self.beside(F.normalize(v, dim=-1)))
        return {
            "v": v,
            "p": self.sensed.said(tokens),
            "guesses": tower.guesses(made, tokens, hidden),
            "hidden": hidden.flatten(1).sum(dim=1),
            "present": self.sensed.seen(tokens),
            MOMENT: batch.targets[MOMENT],
            CAMERA: batch.targets[CAMERA],
        }

    def final_sensed(self) -> SensedPose:
        """See `Objective.final_sensed`."""
        return self.sensed

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """v, p of the whole batch -> the loss and its four terms, and how often a clip's own poses are the nearest."""
        s, v, p, present = self.settings, embedded["v"], embedded["p"], embedded["present"]
        met = cameras(embedded[MOMENT], embedded[CAMERA])
        both = present.unsqueeze(1) & gather(present.long()).bool()
        share = global_sum(present.float().sum()) / global_sum(torch.ones_like(present, dtype=torch.float32).sum())
        partners, strangers, tau = met.partners & both, met.strangers & both, s.temperature
        views = paired_nce(v, v, tau, met.partners, met.strangers)
        poses = paired_nce(p, p, tau, partners, strangers)
        between = (paired_nce(v, p, tau, partners, strangers) + paired_nce(p, v, tau, partners, strangers)) / 2
        masked = embedded["guesses"].sum() * world_size() / global_sum(embedded["hidden"].sum()).clamp_min(1)
        terms = {
            "loss_in_view": both_ways(v, p, tau, apart=~strangers, weights=present / share.clamp_min(1e-6)),
            "loss_cross_view": (views + poses + between) / 3,
            "loss_geometry": geometry(v, p, both),
            "loss_masked": masked,
        }
        weights = (1.0, 1.0, s.weight_geometry, s.weight_masked)
        loss = torch.stack([weight * term for weight, term in zip(weights, terms.values(), strict=True)]).sum()
        figures = {name: term.detach() for name, term in terms.items()}
        return {"loss": loss, **figures, "accuracy": accuracy(v, p, present)}


def geometry(first: Tensor, second: Tensor, counted: Tensor) -> Tensor:
    """How far two modalities are from having the same cosines (CyCLIP, Goel et al., NeurIPS 2022): between i of the one and k of the other as
    between k of the one and i of the other, and within the one as within the other.

    first, second (B, D), of any length; counted (B, N) bool: pairs of this rank's samples with those of all. Mean over them of both squares' sum.
    """
    first, second = F.normalize(first.float(), dim=-1), F.normalize(second.float(), dim=-1)
    firsts, seconds = gather(first), gather(second)
    with as_they_are(first):
        across = first @ seconds.T - second @ firsts.T
        within = first @ firsts.T - second @ seconds.T
    return mean_of_counted(across.square() + within.square(), counted)
