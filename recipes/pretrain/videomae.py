"""VideoMAE: the plain baseline."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, PositiveInt
from torch import nn

from recipes.encoders.base import VideoEncoder
from recipes.encoders.tokens import patches
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings
from recipes.parts.decoder import TokenDecoder
from recipes.parts.losses import masked_pixel_loss
from recipes.parts.masks import tube_masks


class VideoMAE(Objective):
    """Masked autoencoding of video (Tong et al., NeurIPS 2022).

    The encoder sees the visible tokens of a tube mask, a light decoder predicts the pixels of the hidden ones:
        loss = mean over hidden patches n of || decoder(encoder(x_visible))_n - norm(x_n) ||^2
    with norm: mean 0, deviation 1 in each channel of each patch (VideoMAE's own convention).
    """

    class Settings(ObjectiveSettings):
        """Settings of VideoMAE; the defaults are the paper's."""

        mask_ratio: float = Field(0.9, gt=0, lt=1, description="share of places hidden in every frame")
        decoder_depth: PositiveInt = Field(4, description="blocks of the decoder")
        decoder_width: PositiveInt = Field(384, description="width of the decoder; a multiple of decoder_heads")
        decoder_heads: PositiveInt = Field(6, description="attention heads of the decoder")
        normalise_target: bool = Field(True, description="predict each patch with mean 0 and deviation 1")

    name = "videomae"
    paper = "Tong et al., VideoMAE: Masked Autoencoders are Data-Efficient Learners, NeurIPS 2022"
    views: Mapping[str, Clip] = {"clip": Clip(augment="weak")}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s = settings
        tubelet, patch = encoder.patch
        self.decoder = TokenDecoder(encoder.width, s.decoder_width, s.decoder_depth, s.decoder_heads, encoder.tokens)
        self.to_pixels = nn.Linear(encoder.width, 3 * tubelet * patch * patch)

    def forward(self, batch: Batch) -> Losses:
        """clip (B, T, 3, H, W) -> loss."""
        clip = batch["clip"]
        masks = tube_masks(batch.seeds, self.encoder.grid, self.settings.mask_ratio)
        visible, hidden = masks.visible[:, 0].to(clip.device), masks.hidden[:, 0].to(clip.device)
        tokens = self.encoder(clip, visible)
        predicted = self.to_pixels(self.decoder(tokens, visible, hidden))
        pixels = patches(clip, *self.encoder.patch, hidden)
        return {"loss": masked_pixel_loss(predicted, pixels, clip.shape[2], self.settings.normalise_target)}
