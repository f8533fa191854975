"""VTHCL: a recording seen slowly and fast says the same, at several depths of the encoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Contrast, Losses, ObjectiveSettings
from recipes.parts.contrast import agreement, info_nce
from recipes.parts.depths import spread, tokens_at
from recipes.parts.projection import ProjectionSettings, projection_head


class VTHCL(Contrast):
    """Visual tempo consistency by hierarchical contrastive learning (Yang et al., 2020).

        loss = sum over depths d of w_d L_d,   L_d = [ NCE(s_d, f_d) + NCE(f_d, s_d) ] / 2
        NCE(a, b) = mean over i of - log  exp(a_i . b_i / tau) / sum over j of exp(a_i . b_j / tau)

        s_d, f_d (B, head_outputs) of length one: heads of the tokens of the slow and of the fast clip after depth d; w_d = 1 / depths

    Both clips show the same instance; the fast one takes `tempo` times as much time in as many frames.

    Conventions of ours: one encoder reads both tempi (the paper has one for each, the slow one being kept). Strangers are the clips of the other
    tempo in the batch, of all ranks, in place of a memory bank. Depths are equal parts of a transformer's blocks, where the paper has a ResNet's
    stages; each has a head of its own. The two directions and the depths are averaged, not summed.
    """

    class Settings(ProjectionSettings, ObjectiveSettings):
        """Settings of VTHCL; the temperature is the paper's."""

        tempo: float = Field(4.0, gt=1, description="the fast clip's rate, as a multiple of the slow one's")
        levels: PositiveInt = Field(2, description="depths that are compared, the last block included")
        within: PositiveFloat | None = Field(
            1.0, description="how far from the slow clip the fast one may start, in clip lengths; null: anywhere"
        )
        temperature: PositiveFloat = Field(0.07, description="tau; lower looks at the nearest strangers only")

    name = "vthcl"
    paper = "Yang et al., Video Representation Learning with Visual Tempo Consistency, 2020"
    views: Mapping[str, Clip] = {
        "slow": Clip(augment="strong"),
        "fast": Clip(augment="strong", near="slow", rate=4.0),
    }
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s = settings
        fast = Clip(augment="strong", near="slow", within=s.within, rate=s.tempo)
        self.views = {"slow": Clip(augment="strong"), "fast": fast}
        self.depths = spread(len(encoder.blocks), s.levels)
        self.heads = nn.ModuleList(projection_head(encoder, s) for _ in self.depths)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """slow, fast (B, T, 3, H, W) -> z of each (B, depths, head_outputs)."""
        read = self.encoder.statistics if self.settings.head_motion else self.encoder.pool
        return {
            view: torch.stack(
                [
                    head(read(tokens))
                    for head, tokens in zip(self.heads, tokens_at(self.encoder, batch[view], self.depths), strict=True)
                ],
                dim=1,
            )
            for view in self.views
        }

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """z of both tempi -> the loss, those of the depths, and how alike the two tempi are at the last."""
        slow, fast = (embedded[view].unbind(dim=1) for view in self.views)
        tau = self.settings.temperature
        levels = [(info_nce(s, f, tau) + info_nce(f, s, tau)) / 2 for s, f in zip(slow, fast, strict=True)]
        shown = {f"loss_depth_{depth}": level.detach() for depth, level in zip(self.depths, levels, strict=True)}
        return {"loss": torch.stack(levels).mean(), **shown, "agreement": agreement(slow[-1], fast[-1])}
