"""ViC-MAE: two moments of a recording, each reconstructed from what is left of it, and alike in what they show."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Contrast, Losses, ObjectiveSettings
from recipes.parts import draws
from recipes.parts.contrast import agreement, nt_xent
from recipes.parts.decoder import DecoderSettings, TokenDecoder
from recipes.parts.heads import mlp
from recipes.parts.masks import tube_masks
from recipes.parts.pixels import Over, masked_pixel_loss


class ViCMAE(Contrast):
    """Visual contrastive masked autoencoder (Hernandez et al., ECCV 2024).

        loss = weight_reconstruction (R(x_1) + R(x_2)) / 2 + weight_contrast NT-Xent(u_1, u_2; tau)
            x_1, x_2: two frames of a recording, each with most of its patches hidden
            R(x) = mean over hidden patches n of || decoder(tokens)_n - norm(x_n) ||^2,   tokens = encoder(x_visible)
            u = head(mean of tokens) (B, K)

    Conventions of ours: a frame is what one token of a video encoder spans, a tubelet, so that the encoder's patch filters see moving pixels as they
    do later. It is shown at a time of the encoder's grid drawn anew for each frame, so that all positions are trained; the decoder knows
    places only. The two frames are drawn anywhere in the recording. The head has no batch norm, so that batches beyond memory are exact.
    """

    class Settings(DecoderSettings, ObjectiveSettings):
        """Settings of ViC-MAE; the defaults are those of the authors' code."""

        mask_ratio: float = Field(0.5, gt=0, lt=1, description="share of the patches of each frame that is hidden")
        weight_reconstruction: PositiveFloat = Field(0.97, description="of R")
        weight_contrast: NonNegativeFloat = Field(0.03, description="of the contrast")
        temperature: PositiveFloat = Field(0.1, description="tau; lower looks at the nearest strangers only")
        head_hidden: PositiveInt = Field(4096, description="hidden width of the head, which has three layers")
        head_outputs: PositiveInt = Field(128, description="width of u")
        decoder_depth: PositiveInt = Field(8, description="blocks of the decoder")
        decoder_width: PositiveInt = Field(512, description="width of the decoder; a multiple of decoder_heads")
        decoder_heads: PositiveInt = Field(16, description="attention heads of the decoder")
        normalise_target: bool = Field(True, description="predict each patch with mean 0 and deviation 1")
        normalise_over: Over = Field("patch", description="patch: all colours together (MAE); channel: each by itself")

    name = "vicmae"
    paper = "Hernandez et al., ViC-MAE: Self-Supervised Representation Learning from Images and Video with Contrastive Masked Autoencoders, ECCV 2024"
    views: Mapping[str, Clip] = {
        "first": Clip(augment="strong", length=0.125),
        "second": Clip(augment="strong", length=0.125),
    }
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s, (tubelet, patch), (t, h, w) = settings, encoder.patch, encoder.grid
        self.views = {name: Clip(augment="strong", length=1 / t) for name in ("first", "second")}
        self.head = mlp(encoder.width, s.head_hidden, s.head_outputs, layers=3)
        self.decoder = TokenDecoder.of(s, encoder.width, h * w, 3 * tubelet * patch * patch)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """first, second (B, tubelet, 3, H, W) -> u of each (B, K), and R of each, once for every sample (B,)."""
        found: dict[str, Tensor] = {}
        for name in self.views:
            found[name], loss = self.frame(batch[name], batch.seeds, name)
            # A mean of means over pieces of a batch is the mean of the batch where each counts by its samples.
            found[f"{name} reconstruction"] = loss.expand(len(batch))
        return found

    def frame(self, frame: Tensor, seeds: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """frame (B, tubelet, 3, H, W) -> u (B, K) and R ()."""
        s, (t, h, w) = self.settings, self.encoder.grid
        masks = tube_masks(seeds, (1, h, w), s.mask_ratio, name=name)
        time = draws.integers(seeds, t, (1,), name=f"{name} time") * (h * w)
        visible, hidden = masks.visible[:, 0], masks.hidden[:, 0]
        at = (visible + time).to(frame.device, non_blocking=True)
        visible, hidden = (part.to(frame.device, non_blocking=True) for part in (visible, hidden))
        tokens = self.encoder(frame.repeat(1, t, 1, 1, 1), at)  # the tubelets at other times are not read
        predicted = self.decoder(tokens, visible, hidden)
        loss = masked_pixel_loss(predicted, frame, hidden, self.encoder.patch, s.normalise_target, s.normalise_over)
        return self.head(self.encoder.pool(tokens)), loss

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """See `embed` -> the loss, its parts, and how alike the two frames of a recording are."""
        s, first, second = self.settings, embedded["first"], embedded["second"]
        reconstruction = (embedded["first reconstruction"].mean() + embedded["second reconstruction"].mean()) / 2
        contrast = nt_xent(first, second, s.temperature)
        return {
            "loss": s.weight_reconstruction * reconstruction + s.weight_contrast * contrast,
            "loss_reconstruction": reconstruction.detach(),
            "loss_contrast": contrast.detach(),
            "agreement": agreement(first, second),
        }
