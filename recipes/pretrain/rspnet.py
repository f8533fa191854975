"""RSPNet: two clips at the same speed are more alike than two at different speeds, and all clips of a recording look alike."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts import draws
from recipes.parts.contrast import agreement, info_nce
from recipes.parts.frames import mirrored, recorded, take
from recipes.parts.heads import mlp
from recipes.parts.pretext import Pretext, PretextSettings, Speeds

CLIPS = ("anchor", "same", "other")


class RSPNet(Pretext):
    """Relative speed perception and appearance-focused discrimination of videos (Chen et al., AAAI 2021).

        loss   = L_m + weight_appearance L_a
        L_m    = mean max(0, gamma - (m_i . m_j - m_i . m_k))        m = head_m(encoder(c)), length one
        L_a    = InfoNCE(a_i, a_k; tau)                              a = head_a(encoder(c)), length one

    of three clips of each recording, from any time and in crops of their own: c_i and c_j play at one speed, c_k at another. m tells speeds apart
    whatever the scene, a scenes whatever the speed.

    Conventions of ours: the strangers of L_a are the other recordings of the batch (of all ranks), in place of MoCo's queue and momentum encoder.
    Where a recording ends before the clip, time is mirrored. The hinge is over (B,) numbers: the official code hands its ranking loss scores and a
    target of shapes that torch rejects by now.
    """

    class Settings(PretextSettings):
        """Settings of RSPNet; the defaults are the paper's but for the heads' hidden width."""

        speeds: Speeds = Field((1, 2), description="of a clip, in frames; the longest decides how much is decoded")
        margin: PositiveFloat = Field(0.15, description="gamma: how much more alike clips of the same speed shall be")
        temperature: PositiveFloat = Field(0.07, description="tau of the contrast of appearance")
        weight_appearance: NonNegativeFloat = Field(1.0, description="lambda of the contrast of appearance")
        head_outputs: PositiveInt = Field(128, description="width of m and of a")

    name = "rspnet"
    paper = "Chen et al., RSPNet: Relative Speed Perception for Unsupervised Video Representation Learning, AAAI 2021"
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        length = max(settings.speeds)
        self.views: Mapping[str, Clip] = {
            "anchor": Clip(augment="strong", length=length),
            "same": Clip(augment="strong", length=length, near="anchor", within=None),
            "other": Clip(augment="strong", length=length, near="anchor", within=None),
        }
        width = 2 * encoder.width
        self.motion = mlp(width, settings.head_hidden, settings.head_outputs)
        self.appearance = mlp(width, settings.head_hidden, settings.head_outputs)

    def forward(self, encoder: VideoEncoder, batch: Batch) -> Losses:
        """anchor, same, other (B, L, C, H, W) -> both losses; accuracy: how often clips of one speed are the more alike."""
        s = self.settings
        first, second = two_speeds(batch.seeds, s.speeds)
        time, shown = torch.arange(encoder.geometry.frames), []
        for name, speed in zip(CLIPS, (first, first, second), strict=True):
            order = (time * speed.unsqueeze(1)).to(batch[name].device)
            shown.append(take(batch[name], mirrored(order, recorded(batch[name]))))
        read = self.read(encoder, torch.stack(shown, dim=1))
        by_speed, accuracy = ranking(self.motion(read), s.margin)
        anchor, other = self.appearance(read[:, 0]), self.appearance(read[:, 2])
        by_scene = info_nce(anchor, other, s.temperature)
        return {
            "loss": by_speed + s.weight_appearance * by_scene,
            "loss_speed": by_speed.detach(),
            "loss_appearance": by_scene.detach(),
            "accuracy": accuracy,
            "agreement": agreement(anchor, other),
        }


def ranking(embedded: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """embedded (B, 3, D), brought to length one: an anchor, its like, another -> mean max(0, margin - (anchor . like - anchor . other)), and how
    often the difference is positive."""
    anchor, like, other = F.normalize(embedded.float(), dim=-1).unbind(dim=1)
    lead = (anchor * like).sum(dim=-1) - (anchor * other).sum(dim=-1)
    return F.relu(margin - lead).mean(), (lead.detach() > 0).float().mean()


def two_speeds(seeds: Tensor, speeds: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Two different ones of `speeds` for each sample: (B,), (B,)."""
    order = draws.permutations(seeds, len(speeds), name="rspnet speeds")
    every = torch.tensor(speeds)
    return every[order[:, 0]], every[order[:, 1]]
