"""SMILE: predict the features of hidden parts of a clip over which made-up objects move."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Self

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, field_validator
from torch import Tensor
from torch.nn import functional as F

from recipes.encoders.base import Geometry, VideoEncoder
from recipes.encoders.loading import open_encoder
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings
from recipes.parts import draws
from recipes.parts.decoder import DecoderSettings, TokenDecoder
from recipes.parts.masks import Masks, ranked
from recipes.parts.objects import paste_objects


class SMILE(Objective):
    """Infusing spatial and motion semantics in masked video learning (Thoker et al., CVPR 2025).

        loss = mean over hidden tokens n of || decoder(encoder(x_visible))_n - norm(g(x))_n ||^2 / D
            x: the clip with objects that move over it on smooth paths;   g: a frozen encoder, all tokens of x, each of mean 0 and deviation 1
    Tokens of the objects are hidden along their paths but for the share object_visible, the others by a tube mask.

    g is any encoder (`target`: a folder, a run, a hub name); without one, a frozen copy of the encoder as it started. The paper's second stage goes
    on from the first's weights, without objects (`encoder.init_from=runs/first objective.objects=0`).

    Conventions of ours: the paper's g is CLIP's image encoder; here it is a video encoder, and its tokens are resampled where its grid is another.
    The paper pastes pictures made by a diffusion model; here objects are shapes with noise as texture, in grey. Every tubelet keeps as
    many visible tokens: where too few are left beside the objects, object tokens fill up.
    """

    class Settings(DecoderSettings, ObjectiveSettings):
        """Settings of SMILE; the defaults are those of the authors' scripts."""

        target: str = Field(
            "", description="the frozen encoder g: a folder, a run or a hub name; empty: as this encoder started"
        )
        mask_ratio: float = Field(0.8, gt=0, lt=1, description="share of tokens hidden in every tubelet")
        object_visible: float = Field(0.2, ge=0, le=1, description="share of the objects' tokens that may be visible")
        objects: NonNegativeInt = Field(2, description="objects in a clip; 0: none")
        object_sizes: tuple[float, float] = Field(
            (0.14, 0.57), description="smallest and largest diameter of an object, as parts of the clip's width"
        )
        object_speed: PositiveFloat = Field(
            0.05, description="step of an object from frame to frame, of the clip's width"
        )

        @field_validator("object_sizes")
        @classmethod
        def _sizes(cls, sizes: tuple[float, float]) -> tuple[float, float]:
            if not 0 < sizes[0] <= sizes[1] <= 1:
                raise ValueError("needs two numbers above 0 and up to 1, the smaller first")
            return sizes

    name = "smile"
    paper = "Thoker et al., SMILE: Infusing Spatial and Motion Semantics in Masked Video Learning, CVPR 2025"
    views: Mapping[str, Clip] = {"clip": Clip(augment="weak")}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        """Raises ModelError where the target cannot be opened, or its patches do not fit the clips."""
        super().__init__(encoder, settings)
        s, seen = settings, encoder.geometry
        target = open_encoder(s.target, frames=seen.frames, size=seen.size) if s.target else copy.deepcopy(encoder)
        self.target = target.requires_grad_(False).eval()
        self.decoder = TokenDecoder.of(s, encoder.width, encoder.tokens, target.width)

    def train(self, mode: bool = True) -> Self:
        """The target stays in evaluation mode: it has no dropout."""
        super().train(mode)
        self.target.eval()
        return self

    def forward(self, batch: Batch) -> Losses:
        """clip (B, T, 3, H, W) -> the loss, how alike prediction and target are, and the share of tokens that objects cover."""
        s, encoder = self.settings, self.encoder
        clip, cover = paste_objects(batch["clip"], batch.seeds, s.objects, s.object_sizes, s.object_speed)
        covered = tokens_of(cover, encoder.patch) > 0.25
        masks = self.masks(batch.seeds, covered)
        visible, hidden = masks.visible[:, 0], masks.hidden[:, 0]
        predicted = self.decoder(encoder(clip, visible), visible, hidden).float()
        wanted = self.features(clip)
        wanted = wanted.gather(1, hidden.unsqueeze(-1).expand(-1, -1, wanted.shape[-1]))
        return {
            "loss": F.mse_loss(predicted, wanted),
            "agreement": F.cosine_similarity(predicted.detach(), wanted, dim=-1).mean(),
            "objects": covered.float().mean(),
        }

    @torch.no_grad()
    def features(self, clip: Tensor) -> Tensor:
        """clip (B, T, 3, H, W) -> the target's tokens on the encoder's grid (B, N, D), each of mean 0 and deviation 1."""
        tokens = self.target(renormalise(clip, self.encoder.geometry, self.target.geometry)).float()
        if self.target.grid != self.encoder.grid:
            field = tokens.unflatten(1, self.target.grid).movedim(-1, 1)
            tokens = F.interpolate(field, size=self.encoder.grid, mode="trilinear").flatten(2).transpose(1, 2)
        return F.layer_norm(tokens, tokens.shape[-1:])

    def masks(self, seeds: Tensor, covered: Tensor) -> Masks:
        """covered (B, t, P), whether an object is there -> as many visible tokens in every tubelet: tubes, but hidden along objects' paths."""
        s, (t, h, w) = self.settings, self.encoder.grid
        tube = draws.uniform(seeds, (1, h * w), name="tube").to(covered.device, non_blocking=True)
        shown = (
            draws.uniform(seeds, (t, h * w), name="objects shown").to(covered.device, non_blocking=True)
            < s.object_visible
        )
        score = tube.expand(-1, t, -1) - 2 * (covered & ~shown).float()
        return ranked(score.unsqueeze(1), s.mask_ratio)


def tokens_of(cover: Tensor, patch: tuple[int, int]) -> Tensor:
    """cover (B, T, H, W) -> its mean over every token (B, t, h * w)."""
    tubelet, side = patch
    return F.avg_pool3d(cover.unsqueeze(1), (tubelet, side, side)).squeeze(1).flatten(2)


def renormalise(clip: Tensor, of: Geometry, wanted: Geometry) -> Tensor:
    """A clip (B, T, 3, H, W) normalised by the statistics of one encoder, by those of another."""
    if (of.mean, of.std) == (wanted.mean, wanted.std):
        return clip
    shown = clip.clone()
    for channel, (mean, std, other_mean, other_std) in enumerate(
        zip(of.mean, of.std, wanted.mean, wanted.std, strict=True)
    ):
        shown[:, :, channel].mul_(std / other_std).add_((mean - other_mean) / other_std)
    return shown
