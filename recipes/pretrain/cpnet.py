"""CPNet: is a clip continuous, where is it cut, and what is missing there?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts import draws
from recipes.parts.contrast import agreement, info_nce
from recipes.parts.frames import mirrored, recorded
from recipes.parts.heads import mlp
from recipes.parts.pretext import Pretext, PretextSettings, answered, answers, several


class CPNet(Pretext):
    """Continuity perception network (Liang et al., AAAI 2022).

        loss = L_J + weight_place L_L + weight_missing L_A

        L_J = CE(h_J(v), continuous or not)             over the continuous clip c and the discontinuous one d of every recording
        L_L = CE(h_L(v_d), p)                           p: the frame at which d is cut, one of T - 1 places
        L_A = InfoNCE(h_A(v_d), h_M(v_m); tau)          the missing section m is approximated from what is left, against those of other recordings

    with v = encoder(clip) and, of one stretch of 2 T frames,
        d = frames 0 .. p - 1 and p + T .. 2 T - 1,     m = frames p .. p + T - 1,     c = T frames from any start.

    Conventions of ours: L_A is one contrast; the paper compares by triplets too. Recordings shorter than 2 T frames miss as many as they can spare
    (at least one), which m then spreads over T.
    """

    class Settings(PretextSettings):
        """Settings of CPNet."""

        weight_place: NonNegativeFloat = Field(1.0, description="of the question where the clip is cut")
        weight_missing: NonNegativeFloat = Field(1.0, description="of the approximation of the missing section")
        temperature: PositiveFloat = Field(0.1, description="tau of that approximation")
        head_outputs: PositiveInt = Field(128, description="width of the sections that are compared")

    name = "cpnet"
    paper = (
        "Liang et al., Self-supervised Spatiotemporal Representation Learning by Exploiting Video Continuity, AAAI 2022"
    )
    views: Mapping[str, Clip] = {"clip": Clip(augment="weak", length=2.0)}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        width, hidden = 2 * encoder.width, settings.head_hidden
        self.whole = answers(width, hidden, 2)
        self.place = answers(width, hidden, encoder.geometry.frames - 1)
        self.approximate = mlp(width, hidden, settings.head_outputs)
        self.missing = mlp(width, hidden, settings.head_outputs)

    def forward(self, encoder: VideoEncoder, batch: Batch) -> Losses:
        """clip (B, 2 T, C, H, W) -> the three losses, and how often the first two are answered."""
        s, clip, frames = self.settings, batch["clip"], encoder.geometry.frames
        cut = draws.integers(batch.seeds, frames - 1, name="cpnet cut").to(clip.device)
        start = draws.uniform(batch.seeds, name="cpnet start").to(clip.device)
        count = recorded(clip)
        indices = sections(frames, cut + 1, (count - frames).clamp(1, frames), start)
        read = self.read(encoder, several(clip, mirrored(indices, count)))  # B, 3, 2 D: continuous, cut up, missing
        whole, right = answered(self.whole(read[:, :2]), torch.arange(2, device=clip.device).expand(len(clip), 2))
        place, found = answered(self.place(read[:, 1]), cut)
        approximated, section = self.approximate(read[:, 1]), self.missing(read[:, 2])
        missing = info_nce(approximated, section, s.temperature)
        return {
            "loss": whole + s.weight_place * place + s.weight_missing * missing,
            "loss_continuity": whole.detach(),
            "loss_place": place.detach(),
            "loss_missing": missing.detach(),
            "accuracy": right,
            "accuracy_place": found,
            "agreement": agreement(approximated, section),
        }


def sections(frames: int, cut: Tensor, gap: Tensor, start: Tensor) -> Tensor:
    """Frames of the continuous clip, of the one that misses `gap` frames from `cut` on, and of what it misses: (B, 3, frames).

    cut, gap (B,) in frames, at least 1; start (B,) in [0, 1): where the continuous clip lies between the stretch's first frame and its `gap`-th.
    """
    time = torch.arange(frames, device=cut.device)
    cut, gap = cut.unsqueeze(1), gap.unsqueeze(1)
    continuous = (start.unsqueeze(1) * (gap + 1)).long() + time
    cut_up = time + (time >= cut) * gap
    missing = cut + time * gap // frames
    return torch.stack([continuous, cut_up, missing], dim=1)
