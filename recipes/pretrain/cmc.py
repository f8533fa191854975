"""CMC: what any two cameras see of one moment belongs together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, PositiveFloat
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.objective import CAMERA, MOMENT, Batch, Clip, Contrast, Losses, ObjectiveSettings
from recipes.parts.alignment import paired_nce
from recipes.parts.branch import Branch
from recipes.parts.moments import cameras, met_figures
from recipes.parts.projection import ProjectionSettings, projection_head


class CMC(Contrast):
    """Contrastive multiview coding (Tian et al., ECCV 2020), the views being cameras of one event.

        loss = mean over pairs i, p of  - log  exp(z_i . z_p / tau) / [ exp(z_i . z_p / tau) + sum over n of exp(z_i . z_n / tau) ]

    i, p: two cameras at one moment; n: samples of other moments; z = head(encoder(clip)), of length one. Every pair of cameras is contrasted, in both
    directions ("full graph"), so that a moment may have any number of views: worn and standing, of one team or of several. Other cameras of the
    moment are no strangers.

    Conventions of ours: one encoder and one head for all views, which are of one kind; the paper has one for each (colour, depth, flow). Strangers
    are other moments by whatever camera, the paper's those of the camera p alone: who wears a camera differs from event to event, and the own camera
    at another moment is the stranger that is hardest to tell.
    """

    class Settings(ProjectionSettings, ObjectiveSettings):
        """Settings of CMC; the defaults are the paper's but for the head's hidden layer."""

        temperature: PositiveFloat = Field(0.07, description="tau; lower looks at the nearest strangers only")

    name = "cmc"
    paper = "Tian et al., Contrastive Multiview Coding, ECCV 2020"
    views: Mapping[str, Clip] = {"clip": Clip(augment="strong")}
    together: ClassVar[bool] = True
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.head = projection_head(encoder, settings)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip (B, T, 3, H, W) -> z (B, head_outputs); moment and camera (B,)."""
        return {
            "z": Branch(self.encoder, self.head, motion=self.settings.head_motion)(batch["clip"]),
            MOMENT: batch.targets[MOMENT],
            CAMERA: batch.targets[CAMERA],
        }

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """z of the whole batch -> the loss; how many partners a sample has, how often the nearest other is one."""
        z, met = embedded["z"], cameras(embedded[MOMENT], embedded[CAMERA])
        loss = paired_nce(z, z, self.settings.temperature, met.partners, met.strangers)
        return {"loss": loss, **met_figures(z, met)}
