"""CVRL: contrast of two clips whose distance in time is drawn, nearer being likelier."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, PositiveFloat
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Contrast, Losses, ObjectiveSettings
from recipes.parts.blur import blur, drawn_blur
from recipes.parts.branch import Branch
from recipes.parts.contrast import agreement, nt_xent
from recipes.parts.projection import ProjectionSettings, projection_head

BLUR = (0.1 / 224, 2.0 / 224)  # deviations in image widths: 0.1 to 2 pixels of the paper's 224


class CVRL(Contrast):
    """Spatiotemporal contrastive video representation learning (Qian et al., CVPR 2021).

        loss = - log  exp(z_a . z_b / tau) / sum over k other than a of exp(z_a . z_k / tau),   z = head(encoder(clip)), length one

    averaged over both clips of all samples of all ranks, k over both clips of all. Clip a starts anywhere; the distance in time of clip b has a
    density that falls in a straight line from the start of a to the length of the recording: clips far apart may show different things. Both are
    augmented strongly and consistently in time: one draw for all frames of a clip.

    Conventions of ours: crop, flip, brightness and contrast are the domain's `strong` policy; the paper's blur is drawn here, its grey scale and
    hue are left out (ultrasound has neither). The head has no batch norm, so that batches beyond memory are exact (`train.piece`).
    """

    class Settings(ProjectionSettings, ObjectiveSettings):
        """Settings of CVRL; the defaults are the paper's."""

        temperature: PositiveFloat = Field(0.1, description="tau; lower looks at the nearest strangers only")
        within: PositiveFloat | None = Field(
            None,
            description="distance of the clips' starts at which the density is 0, in clip lengths; null: the recording's",
        )
        blur: float = Field(0.5, ge=0, le=1, description="probability that a clip is blurred, every frame alike")

    name = "cvrl"
    paper = "Qian et al., Spatiotemporal Contrastive Video Representation Learning, CVPR 2021"
    views: Mapping[str, Clip] = {
        "a": Clip(augment="strong"),
        "b": Clip(augment="strong", near="a", within=None, falling=True),
    }
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        second = Clip(augment="strong", near="a", within=settings.within, falling=True)
        self.views = {"a": Clip(augment="strong"), "b": second}
        self.head = projection_head(encoder, settings)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """a, b (B, T, 3, H, W) -> z of each (B, head_outputs)."""
        branch = Branch(self.encoder, self.head, motion=self.settings.head_motion)
        return {view: branch(self.blurred(batch, view)) for view in self.views}

    def blurred(self, batch: Batch, view: str) -> Tensor:
        """The clips of a view, some of them blurred."""
        clip, probability = batch[view], self.settings.blur
        if not probability:
            return clip
        least, most = (width * clip.shape[-1] for width in BLUR)
        return blur(clip, drawn_blur(batch.seeds, probability, least, most, name=f"blur {view}"), most)

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """z of both clips -> the loss, and how alike the two clips of a recording are."""
        a, b = embedded["a"], embedded["b"]
        return {"loss": nt_xent(a, b, self.settings.temperature), "agreement": agreement(a, b)}
