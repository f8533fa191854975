"""Order: in which order were the clips of a recording?"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations, permutations

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts import draws
from recipes.parts.frames import mirrored, recorded
from recipes.parts.pretext import Pretext, PretextSettings, answered, several, timid


class Order(Pretext):
    """Video clip order prediction, VCOP (Xu et al., CVPR 2019).

        loss = CE(W [h_12, h_13, ..., h_(n-1)n], k),   h_ij = relu(V [encoder(c_i), encoder(c_j)])

    c_1, ..., c_n: clips of T frames, one after the other in a recording and `gap` apart, shown in the k-th of the n! orders; every pair is read by
    the same V.

    Conventions of ours: in a recording that is too short the gaps shrink, and then the clips overlap; what comes first still does. No dropout.
    (OPN, Lee et al., ICCV 2017, asks the same of single frames.)
    """

    class Settings(PretextSettings):
        """Settings of the order of clips; the defaults are the paper's."""

        clips: int = Field(3, ge=2, le=4, description="n; there are n! orders, and n passes of the encoder")
        gap: float = Field(0.5, ge=0, description="between two clips, in clip lengths")

    name = "order"
    paper = "Xu et al., Self-Supervised Spatiotemporal Learning via Video Clip Order Prediction, CVPR 2019"
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        n = settings.clips
        self.views: Mapping[str, Clip] = {"clip": Clip(augment="weak", length=n + (n - 1) * settings.gap)}
        self.orders = tuple(permutations(range(n)))
        self.pairs = tuple(combinations(range(n), 2))
        self.pair = nn.Linear(4 * encoder.width, settings.head_hidden)
        self.head = nn.Linear(len(self.pairs) * settings.head_hidden, len(self.orders))
        timid(self.head)

    def forward(self, encoder: VideoEncoder, batch: Batch) -> Losses:
        """clip (B, L, C, H, W) -> the cross-entropy, and how often the whole order is found."""
        clip, n, frames = batch["clip"], self.settings.clips, encoder.geometry.frames
        shown = draws.integers(batch.seeds, len(self.orders), name="order")
        place = torch.tensor(self.orders)[shown].to(clip.device, non_blocking=True)  # B, n
        count = recorded(clip)
        starts = place * (count - frames).clamp_min(n - 1).unsqueeze(1) // (n - 1)
        indices = starts.unsqueeze(2) + torch.arange(frames, device=clip.device)
        read = self.read(encoder, several(clip, mirrored(indices, count)))
        related = [F.relu(self.pair(torch.cat([read[:, i], read[:, j]], dim=-1))) for i, j in self.pairs]
        loss, accuracy = answered(self.head(torch.cat(related, dim=-1)), shown.to(clip.device))
        return {"loss": loss, "accuracy": accuracy}
