"""VideoMAE: the plain baseline."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, PositiveInt

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings
from recipes.parts.decoder import TokenDecoder
from recipes.parts.masks import running_cells, tube_masks
from recipes.parts.pixels import masked_pixel_loss


class VideoMAE(Objective):
    """Masked autoencoding of video (Tong et al., NeurIPS 2022).

    The encoder sees the visible tokens of a tube mask, a light decoder predicts the pixels of the hidden ones:
        loss = mean over hidden patches n of || decoder(encoder(x_visible))_n - norm(x_n) ||^2
    with norm: mean 0, deviation 1 in each channel of each patch (VideoMAE's own convention).

    decode_share below 1 predicts a part of the hidden patches only, in running cells: the dual masking of VideoMAE V2 (Wang
    et al., CVPR 2023), whose authors take half. The decoder is most of the cost of a step.
    """

    class Settings(ObjectiveSettings):
        """Settings of VideoMAE; the defaults are the paper's."""

        mask_ratio: float = Field(0.9, gt=0, lt=1, description="share of places hidden in every frame")
        decode_share: float = Field(
            1.0, gt=0, le=1, description="share of the hidden places that the decoder predicts, in running cells"
        )
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
        self.decoder = TokenDecoder(
            encoder.width,
            s.decoder_width,
            s.decoder_depth,
            s.decoder_heads,
            encoder.tokens,
            3 * tubelet * patch * patch,
        )

    def forward(self, batch: Batch) -> Losses:
        """clip (B, T, 3, H, W) -> loss."""
        s, clip = self.settings, batch["clip"]
        masks = tube_masks(batch.seeds, self.encoder.grid, s.mask_ratio)
        visible, wanted = masks.visible[:, 0], masks.hidden[:, 0]
        if s.decode_share < 1:
            wanted = running_cells(batch.seeds, wanted, self.encoder.grid, s.decode_share)
        visible, wanted = visible.to(clip.device), wanted.to(clip.device)
        tokens = self.encoder(clip, visible)
        predicted = self.decoder(tokens, visible, wanted)
        return {"loss": masked_pixel_loss(predicted, clip, wanted, self.encoder.patch, s.normalise_target)}
