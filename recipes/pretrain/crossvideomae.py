"""CrossVideoMAE: a clip and one of its frames, each reconstructed by its own encoder, and alike in what they say."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Contrast, Losses, ObjectiveSettings
from recipes.parts import draws
from recipes.parts.contrast import agreement, nt_xent
from recipes.parts.decoder import DecoderSettings, TokenDecoder
from recipes.parts.frame_encoder import frame_encoder_like
from recipes.parts.frames import take
from recipes.parts.heads import mlp
from recipes.parts.masking import MaskSettings, draw_masks
from recipes.parts.masks import tube_masks
from recipes.parts.pixels import masked_pixel_loss


class CrossVideoMAE(Contrast):
    """Cross-modal contrastive masked autoencoders (Ahamed et al., CrossVideoMAE, 2025).

        loss = (R(v) + R(v')) / 2 + R(f) + weight_intra NT-Xent(z, z'; tau) + weight_cross NT-Xent((z + z') / 2, y; tau)
            v, v': the same frames in two looks, weakly and strongly augmented; f: one frame of v
            R(x) = mean over hidden patches n of || decoder(tokens)_n - norm(x_n) ||^2,   tokens = encoder(x_visible)
            z, z' = head(mean of the video encoder's tokens);   y = frame_head(mean of the frame encoder's)

    Video level and frame level learn to agree from what each sees of its mask. The encoder left behind is the video encoder.

    Conventions of ours: the paper's frame branch starts from an image encoder pretrained by MAE; here it is a ViT of the video encoder's width, depth
    (or frame_depth) and patch that starts at random and is trained along. The paper's colour jitter and scaling are the domain's strong policy.
    """

    class Settings(MaskSettings, DecoderSettings, ObjectiveSettings):
        """Settings of CrossVideoMAE; ratios are the paper's."""

        mask_ratio: float = Field(0.95, gt=0, lt=1, description="share of tokens of a clip hidden")
        frame_mask_ratio: float = Field(0.9, gt=0, lt=1, description="share of the patches of the frame hidden")
        frame_depth: PositiveInt | None = Field(None, description="blocks of the frame encoder; null: as the video's")
        weight_intra: NonNegativeFloat = Field(1.0, description="of the contrast between the two looks of a clip")
        weight_cross: NonNegativeFloat = Field(1.0, description="of the contrast between clip and frame")
        temperature: PositiveFloat = Field(0.1, description="tau; lower looks at the nearest strangers only")
        head_hidden: PositiveInt = Field(2048, description="hidden width of both heads")
        head_outputs: PositiveInt = Field(128, description="width of z and y")
        normalise_target: bool = Field(True, description="predict each patch with mean 0 and deviation 1")

    name = "crossvideomae"
    paper = "Ahamed et al., CrossVideoMAE: Self-Supervised Image-Video Representation Learning with Masked Autoencoders, 2025"
    views: Mapping[str, Clip] = {
        "clip": Clip(augment="weak"),
        "other": Clip(augment="strong", near="clip", within=0.0),
    }
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s, (tubelet, patch), (_, h, w) = settings, encoder.patch, encoder.grid
        self.frame_encoder = frame_encoder_like(encoder, s.frame_depth)
        self.head = mlp(encoder.width, s.head_hidden, s.head_outputs)
        self.frame_head = mlp(encoder.width, s.head_hidden, s.head_outputs)
        self.decoder = TokenDecoder.of(s, encoder.width, encoder.tokens, 3 * tubelet * patch * patch)
        self.frame_decoder = TokenDecoder.of(s, encoder.width, h * w, 3 * patch * patch)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip, other (B, T, 3, H, W) -> z, z' and y (B, K), and R of each, once for every sample (B,)."""
        found: dict[str, Tensor] = {}
        for name in self.views:
            found[name], loss = self.clip(batch[name], batch.seeds, name)
            # A mean of means over pieces of a batch is the mean of the batch where each counts by its samples.
            found[f"{name} reconstruction"] = loss.expand(len(batch))
        found["frame"], loss = self.frame(batch["clip"], batch.seeds)
        found["frame reconstruction"] = loss.expand(len(batch))
        return found

    def clip(self, clip: Tensor, seeds: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """One look of a clip (B, T, 3, H, W) -> z (B, K) and R ()."""
        s, grid, patch = self.settings, self.encoder.grid, self.encoder.patch
        masks = draw_masks(s, seeds, clip, grid, patch, name=name)
        visible, hidden = masks.visible[:, 0], masks.hidden[:, 0]
        tokens = self.encoder(clip, visible)
        predicted = self.decoder(tokens, visible, hidden)
        loss = masked_pixel_loss(predicted, clip, hidden, patch, s.normalise_target)
        return self.head(self.encoder.pool(tokens)), loss

    def frame(self, clip: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """A frame, drawn from the clip (B, T, 3, H, W) -> y (B, K) and R ()."""
        s, (_, h, w) = self.settings, self.encoder.grid
        frame = take(clip, draws.integers(seeds, clip.shape[1], (1,), name="frame"))
        masks = tube_masks(seeds, (1, h, w), s.frame_mask_ratio, name="frame mask")
        visible, hidden = (part[:, 0].to(clip.device, non_blocking=True) for part in (masks.visible, masks.hidden))
        tokens = self.frame_encoder(frame, visible)
        predicted = self.frame_decoder(tokens, visible, hidden)
        loss = masked_pixel_loss(predicted, frame, hidden, self.frame_encoder.patch, s.normalise_target)
        return self.frame_head(self.frame_encoder.pool(tokens)), loss

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """See `embed` -> the loss, its parts, and how alike looks of a clip, and clip and frame, are."""
        s, first, second, frame = self.settings, embedded["clip"], embedded["other"], embedded["frame"]
        video = (embedded["clip reconstruction"].mean() + embedded["other reconstruction"].mean()) / 2
        image = embedded["frame reconstruction"].mean()
        both = (first + second) / 2
        intra, cross = nt_xent(first, second, s.temperature), nt_xent(both, frame, s.temperature)
        return {
            "loss": video + image + s.weight_intra * intra + s.weight_cross * cross,
            "loss_video": video.detach(),
            "loss_frame": image.detach(),
            "loss_intra": intra.detach(),
            "loss_cross": cross.detach(),
            "agreement_intra": agreement(first, second),
            "agreement_cross": agreement(both, frame),
        }
