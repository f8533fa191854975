"""EVEREST: masked autoencoding of what changes, and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field, model_validator
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.encoders.tokens import embed_patches, temporal_change
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings
from recipes.parts import draws
from recipes.parts.decoder import DecoderSettings, TokenDecoder
from recipes.parts.frames import take
from recipes.parts.pixels import masked_pixel_loss


class EVEREST(Objective):
    """Efficient masked video autoencoder by removing redundant spatiotemporal tokens (Hwang et al., ICML 2024).

        change_(i, p) = || e_(i, p) - e_(i - 1, p) ||,   e: patch embeddings, without positions; of the first tubelet, that of the second
        kept    = the share 1 - drop_ratio of all tokens whose change is largest
        visible = a random part of the kept ones, 1 - mask_ratio of all tokens;   hidden = the other kept ones
        loss    = mean over hidden patches n of || decoder(encoder(x_visible))_n - norm(x_n) ||^2,   norm as in VideoMAE

    Redundant tokens are neither seen nor predicted. Frames: out of a clip frame_factor times as long, those are drawn in which many of the longer
    clip's kept tokens lie, with probabilities in proportion to their number, without replacement, and stay in order.
    In fine-tuning and evaluation `encoder.keep_tokens` drops redundant tokens in the same way, for any method.

    Conventions of ours: frames are drawn by tubelets, so that the motion within a token is that of the recording. The authors' code compares
    tubelets 1 to 7 whatever the length of a clip; here all are compared. Probabilities are those of the Gumbel top-k trick, from the sample's seed.
    """

    class Settings(DecoderSettings, ObjectiveSettings):
        """Settings of EVEREST; ratios and decoder are those of the authors' scripts."""

        mask_ratio: float = Field(0.9, gt=0, lt=1, description="share of all tokens that the encoder does not see")
        drop_ratio: float = Field(
            0.7, ge=0, lt=1, description="share of all tokens dropped as redundant; below mask_ratio"
        )
        frame_factor: float = Field(
            1.5, ge=1, le=4, description="frames are chosen out of a clip this much longer; 1: frames as they come"
        )
        normalise_target: bool = Field(True, description="predict each patch with mean 0 and deviation 1")

        @model_validator(mode="after")
        def _something_is_hidden(self) -> EVEREST.Settings:
            if self.drop_ratio >= self.mask_ratio:
                raise ValueError("drop_ratio must be below mask_ratio: what is kept and not seen is predicted")
            return self

    name = "everest"
    paper = "Hwang et al., EVEREST: Efficient Masked Video Autoencoder by Removing Redundant Spatiotemporal Tokens, ICML 2024"
    views: Mapping[str, Clip] = {"clip": Clip(augment="weak", length=1.5)}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s, (tubelet, patch), tubelets = settings, encoder.patch, encoder.grid[0]
        self.candidates = round(tubelets * s.frame_factor)
        self.views = {"clip": Clip(augment="weak", length=self.candidates / tubelets)}
        self.decoder = TokenDecoder.of(s, encoder.width, encoder.tokens, 3 * tubelet * patch * patch)

    def forward(self, batch: Batch) -> Losses:
        """clip (B, T frame_factor, 3, H, W) -> the loss, and the part of all change that lies in the tokens that are kept."""
        s, encoder = self.settings, self.encoder
        clip = self.informative_frames(batch["clip"], batch.seeds)
        change = self.change(clip)
        seen = max(1, round(encoder.tokens * (1 - s.mask_ratio)))
        kept = largest(change, max(seen + 1, self.kept_of(encoder.tokens)))
        order = draws.permutations(batch.seeds, kept.shape[1], name="mask").to(clip.device, non_blocking=True)
        visible, hidden = (
            part.sort(dim=1).values for part in kept.gather(1, order).split([seen, order.shape[1] - seen], 1)
        )
        predicted = self.decoder(encoder(clip, visible), visible, hidden)
        return {
            "loss": masked_pixel_loss(predicted, clip, hidden, encoder.patch, s.normalise_target),
            "change_kept": (change.gather(1, kept).sum() / change.sum().clamp_min(1e-12)),
        }

    @torch.no_grad()
    def change(self, clip: Tensor) -> Tensor:
        """clip (B, L, 3, H, W) of any number of tubelets t -> how much each token changes (B, t * h * w)."""
        return temporal_change(embed_patches(self.encoder.projection, clip), clip.shape[1] // self.encoder.patch[0])

    def kept_of(self, tokens: int) -> int:
        """How many of a clip's tokens are not redundant."""
        return max(1, round(tokens * (1 - self.settings.drop_ratio)))

    def informative_frames(self, clip: Tensor, seeds: Tensor) -> Tensor:
        """The frames (B, T, 3, H, W) that are drawn from a longer clip."""
        (tubelets, h, w), tubelet = self.encoder.grid, self.encoder.patch[0]
        if self.candidates == tubelets:
            return clip
        change = self.change(clip)
        among = largest(change, self.kept_of(change.shape[1])) // (h * w)
        frequency = change.new_zeros(len(clip), self.candidates).scatter_add(
            1, among, torch.ones_like(among, dtype=change.dtype)
        )
        luck = draws.uniform(seeds, (self.candidates,), name="frames").to(clip.device, non_blocking=True)
        gumbel = -(-luck.clamp(1e-7, 1 - 1e-7).log()).log()
        chosen = largest(frequency.clamp_min(1e-3).log() + gumbel, tubelets).sort(dim=1).values
        frames = chosen.unsqueeze(-1) * tubelet + torch.arange(tubelet, device=clip.device)
        return take(clip, frames.flatten(1))


def largest(scores: Tensor, count: int) -> Tensor:
    """Places of the `count` largest of scores (B, n), of equals the first: (B, count)."""
    return scores.argsort(dim=1, descending=True, stable=True)[:, :count]
