"""TT: which temporal transformation was a clip played back with?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts import draws
from recipes.parts.disorder import shuffled
from recipes.parts.frames import mirrored, recorded, take
from recipes.parts.pretext import Pretext, PretextSettings, Speeds, answered, answers

OTHERS = ("shuffled", "back and forth", "random skip")


class TT(Pretext):
    """Recognising temporal transformations (Jenni, Meishvili and Favaro, ECCV 2020).

        loss = CE(head(encoder(x[i])), k),   i (B, T): the frames of a longer clip x (B, L, C, H, W) in the order of transformation k (B,)

        uniform skip s     i = a, a + s, a + 2 s, ...                       one class for each s of `skips`
        shuffled           those of a uniform skip, in disorder
        back and forth     those of a uniform skip to a turning point p in the middle half of the clip, and back
        random skip        every step drawn anew from `skips`: a time warp

    with start a at random where the recording is long enough, k and its numbers from each sample's seed.

    Conventions of ours: one softmax over all classes. The skips of the classes that are no uniform skip are drawn from `skips` too. Where a recording
    ends before the clip, time is mirrored: a held last frame would give the speed away.
    """

    class Settings(PretextSettings):
        """Settings of TT; the defaults are the paper's but for the head's width."""

        skips: Speeds = Field((1, 2, 4, 8), description="speeds, in frames; the longest decides how much is decoded")

    name = "tt"
    paper = "Jenni et al., Video Representation Learning by Recognizing Temporal Transformations, ECCV 2020"
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.views: Mapping[str, Clip] = {"clip": Clip(augment="weak", length=max(settings.skips))}
        self.head = answers(2 * encoder.width, settings.head_hidden, len(settings.skips) + len(OTHERS))

    def forward(self, encoder: VideoEncoder, batch: Batch) -> Losses:
        """clip (B, L, C, H, W) -> the cross-entropy, and how often the transformation is recognised."""
        clip = batch["clip"]
        order, kind = playback(batch.seeds, self.settings.skips, encoder.geometry.frames)
        count = recorded(clip)
        room = (count - 1 - (order.amax(dim=1)).to(clip.device)).clamp_min(0)
        start = (draws.uniform(batch.seeds, name="tt start").to(clip.device) * (room + 1)).long()
        indices = mirrored(start.unsqueeze(1) + order.to(clip.device), count)
        loss, accuracy = answered(self.head(self.read(encoder, take(clip, indices))), kind.to(clip.device))
        return {"loss": loss, "accuracy": accuracy}


def playback(seeds: Tensor, skips: tuple[int, ...], frames: int) -> tuple[Tensor, Tensor]:
    """Frames in the order of their playback, the earliest 0 (B, T), and by which transformation (B,): a number of `skips`, then those of OTHERS."""
    speeds = torch.tensor(skips)
    kind = draws.integers(seeds, len(skips) + len(OTHERS), name="tt kind")
    drawn = draws.integers(seeds, len(skips), name="tt skip")
    skip = speeds[torch.where(kind < len(skips), kind, drawn)].unsqueeze(1)
    time = torch.arange(frames)
    middle = max(1, frames // 2)
    turn = frames // 4 + draws.integers(seeds, middle, name="tt turn").unsqueeze(1)
    warped = speeds[draws.integers(seeds, len(skips), (frames - 1,), name="tt warp")].cumsum(dim=1)
    every = torch.stack(
        [
            time * skip,
            shuffled(seeds, frames, name="tt shuffled") * skip,
            (turn - (time - turn).abs()) * skip,
            torch.cat([torch.zeros_like(warped[:, :1]), warped], dim=1),
        ],
        dim=1,
    )
    which = (kind - len(skips) + 1).clamp_min(0)
    order = every[torch.arange(len(seeds)), which]
    return order - order.amin(dim=1, keepdim=True), kind  # what turns early comes back further than it went
