"""Odd one out: which of several clips has its frames in disorder?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts import draws
from recipes.parts.disorder import shuffled
from recipes.parts.frames import mirrored, recorded
from recipes.parts.pretext import Pretext, PretextSettings, answered, answers, several


class OddOneOut(Pretext):
    """Odd-one-out networks, O3N (Fernando et al., CVPR 2017).

        loss = CE(head(sum over i < j of (v_i - v_j)), k),   v_i = encoder(c_i), i = 1, ..., n

    n clips of T frames from all over a recording; all but the k-th have their frames in order, those of the k-th are shuffled. The fusion is the
    paper's sum of differences.

    Conventions of ours: frames are consecutive (the paper compares ways to sample them), and never just reversed (of a beating heart nobody could
    tell). The clips are cut out of one longer clip at random, and share its crop.
    """

    class Settings(PretextSettings):
        """Settings of odd one out; the defaults are the paper's but for the head's width."""

        clips: int = Field(
            6,
            ge=2,
            multiple_of=2,
            description="n, one of them odd; even, as the middle one of an odd number would not count",
        )
        length: float = Field(2.0, ge=1, description="stretch of the recording that they are cut from, in clip lengths")

    name = "oddoneout"
    paper = "Fernando et al., Self-Supervised Video Representation Learning With Odd-One-Out Networks, CVPR 2017"
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.views: Mapping[str, Clip] = {"clip": Clip(augment="weak", length=settings.length)}
        self.head = answers(2 * encoder.width, settings.head_hidden, settings.clips)

    def forward(self, encoder: VideoEncoder, batch: Batch) -> Losses:
        """clip (B, L, C, H, W) -> the cross-entropy, and how often the odd one is found."""
        clip, n, frames = batch["clip"], self.settings.clips, encoder.geometry.frames
        odd = draws.integers(batch.seeds, n, name="odd")
        orders = torch.arange(frames).expand(len(odd), n, frames).clone()
        orders[torch.arange(len(odd)), odd] = shuffled(batch.seeds, frames, name="odd order")
        count = recorded(clip)
        room = (count - frames).clamp_min(0).unsqueeze(1) + 1
        starts = (draws.uniform(batch.seeds, (n,), name="odd start").to(clip.device) * room).long()
        read = self.read(encoder, several(clip, mirrored(starts.unsqueeze(2) + orders.to(clip.device), count)))
        weights = torch.arange(n - 1, -n, -2, device=clip.device)  # v_i is taken n - 1 - i times, and away i times
        loss, accuracy = answered(self.head((read * weights.view(-1, 1)).sum(dim=1)), odd.to(clip.device))
        return {"loss": loss, "accuracy": accuracy}
