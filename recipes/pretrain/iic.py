"""IIC: a clip and its motion are views of one instance; the same clip with its order broken is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, PositiveFloat
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Contrast, Losses, ObjectiveSettings
from recipes.parts.branch import Branch
from recipes.parts.contrast import agreement, info_nce, wins
from recipes.parts.disorder import repeated, shuffled
from recipes.parts.frames import take
from recipes.parts.motion import derivative
from recipes.parts.projection import ProjectionSettings, projection_head
from recipes.parts.views import with_more


class IIC(Contrast):
    """Inter-intra contrast (Tao et al., ACM MM 2020).

        loss = [ NCE(x, r; u) + NCE(r, x; u) ] / 2
        NCE(a, b; u) = mean over i of - log  exp(a_i . b_i / tau) / [ sum over j of exp(a_i . b_j / tau) + exp(a_i . u_i / tau) ]

        x: z of a clip; r: z of its residual frames; u: z of the clip with its order broken (B, head_outputs), all of length one

    u is the intra-negative: the same scene without its motion (one frame repeated) or with another (frames shuffled), so that what is the same in all
    frames does not suffice to tell r.

    Conventions of ours: residual frames are differences of neighbours, brought to one scale in each sample. One encoder and one head read all three,
    as in the authors' code. Strangers are those of the batch, of all ranks, in place of a memory bank; the directions are averaged, not summed.
    """

    class Settings(ProjectionSettings, ObjectiveSettings):
        """Settings of IIC; the temperature is the paper's."""

        broken: Literal["repeat", "shuffle"] = Field(
            "repeat", description="intra-negative: one frame all the time, or all frames out of order"
        )
        temperature: PositiveFloat = Field(0.07, description="tau; lower looks at the nearest strangers only")

    name = "iic"
    paper = (
        "Tao et al., Self-supervised Video Representation Learning Using Inter-intra Contrastive Framework, ACM MM 2020"
    )
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.views = {"clip": with_more(Clip(augment="strong"), encoder.geometry.frames, 1)}
        self.head = projection_head(encoder, settings)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip (B, T + 1, 3, H, W) -> z of its first T frames, of its T differences, and of the broken clip (B, head_outputs)."""
        frames, whole = self.encoder.geometry.frames, batch["clip"]
        disorder = repeated if self.settings.broken == "repeat" else shuffled
        clip = whole[:, :frames]
        branch = Branch(self.encoder, self.head, motion=self.settings.head_motion)
        return {
            "clip": branch(clip),
            "residual": branch(derivative(whole, 1, frames)),
            "broken": branch(take(clip, disorder(batch.seeds, frames, name="intra"))),
        }

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """z of all three -> the loss; how alike the residual frames are to clip and broken clip, and how often the clip is the nearer."""
        clip, residual, broken = embedded["clip"], embedded["residual"], embedded["broken"]
        own, tau = broken.unsqueeze(1), self.settings.temperature
        loss = (info_nce(clip, residual, tau, own=own) + info_nce(residual, clip, tau, own=own)) / 2
        return {
            "loss": loss,
            "agreement": agreement(clip, residual),
            "likeness_broken": agreement(residual, broken),
            "motion_wins": wins(residual, clip, broken),
        }
