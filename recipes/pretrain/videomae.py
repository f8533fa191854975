"""VideoMAE and MAE-ST: the plain baseline, with the mask of one's choice."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings
from recipes.parts.decoder import DecoderSettings, TokenDecoder
from recipes.parts.masking import MaskSettings, draw_masks, share_of
from recipes.parts.pixels import Over, masked_pixel_loss


class VideoMAE(Objective):
    """Masked autoencoding of video (Tong et al., NeurIPS 2022; MAE-ST: Feichtenhofer et al., NeurIPS 2022).

    The encoder sees the visible tokens of a mask, a light decoder predicts the pixels of the hidden ones:
        loss = mean over hidden patches n of || decoder(encoder(x_visible))_n - norm(x_n) ||^2
    with norm: mean 0, deviation 1 in each channel of each patch (VideoMAE's own convention), or in each patch (`normalise_over: patch`, MAE-ST's).

    `mask` chooses among published masks: `tube` is VideoMAE, `random` MAE-ST, `noise` structured noise (Bhowmik et al., 2025), `motion`
    MGMAE (Huang et al., ICCV 2023; MGM, Fan et al., ICCV 2023, follows a codec's motion vectors instead).

    Conventions of ours: prepared frames carry no motion vectors and no flow network is at hand, so motion is estimated from the clip itself by
    block matching between tubelets, on the device. Every mask leaves the same number of tokens to every sample.

    decode_share below 1 predicts a part of the hidden patches only, in running cells: the dual masking of VideoMAE V2 (Wang
    et al., CVPR 2023), whose authors take half. The decoder is most of the cost of a step.
    """

    class Settings(MaskSettings, DecoderSettings, ObjectiveSettings):
        """Settings of VideoMAE; the defaults are the paper's."""

        decode_share: float = Field(
            1.0, gt=0, le=1, description="share of the hidden places that the decoder predicts, in running cells"
        )
        normalise_target: bool = Field(True, description="predict each patch with mean 0 and deviation 1")
        normalise_over: Over = Field(
            "channel", description="channel: each colour of a patch by itself (VideoMAE); patch: all together (MAE-ST)"
        )

    name = "videomae"
    paper = "Tong et al., VideoMAE: Masked Autoencoders are Data-Efficient Learners, NeurIPS 2022"
    views: Mapping[str, Clip] = {"clip": Clip(augment="weak")}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s = settings
        tubelet, patch = encoder.patch
        self.decoder = TokenDecoder.of(s, encoder.width, encoder.tokens, 3 * tubelet * patch * patch)

    def forward(self, batch: Batch) -> Losses:
        """clip (B, T, 3, H, W) -> loss."""
        s, clip, grid, patch = self.settings, batch["clip"], self.encoder.grid, self.encoder.patch
        masks = draw_masks(s, batch.seeds, clip, grid, patch)
        visible, wanted = masks.visible[:, 0], masks.hidden[:, 0]
        if s.decode_share < 1:
            wanted = share_of(s, batch.seeds, wanted, grid, s.decode_share)
        predicted = self.decoder(self.encoder(clip, visible), visible, wanted)
        return {"loss": masked_pixel_loss(predicted, clip, wanted, patch, s.normalise_target, s.normalise_over)}
