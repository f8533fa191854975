"""MARLIN: masked autoencoding that hides what matters first, with pixels that a critic takes for real ones."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, NonNegativeFloat, PositiveInt
from torch.nn import functional as F

from recipes.encoders.base import VideoEncoder
from recipes.encoders.tokens import patches
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings
from recipes.parts.critic import PatchCritic
from recipes.parts.decoder import DecoderSettings, TokenDecoder
from recipes.parts.pixels import normalise_patches_
from recipes.parts.regions import labels_of, patch_labels, region_masks


class MARLIN(Objective):
    """Masked autoencoder for facial video representation learning (Cai et al., CVPR 2023), for any domain with a region map.

        loss = R + weight_adversarial A + C
            R = mean over hidden patches n of || y_n - x_n ||^2,   y = decoder(encoder(x_visible))
            A = - mean D(y),   C = mean D(y) - mean D(x) + penalty mean (|| grad D || - 1)^2      over hidden patches
        Gradients of A reach encoder and decoder alone, those of C the critic D alone.

    Tubes are hidden region by region: what the map calls regions of interest first (eyes, nose, mouth, hair in the paper; what moves in an
    echocardiogram), then the rest of the picture at random. The map comes from the domain (`region_map` in its YAML); a domain without one is
    refused before the run begins.

    Conventions of ours: one step of one optimiser moves critic and autoencoder at once, each by its own loss, where the authors alternate. Their
    configuration has no penalty, which leaves the critic without bounds; where their code has one, it mixes real and made patches by one number for
    the batch, ours by a number of each patch. Places outside the picture are the last to be visible. `anywhere` leaves a part of the visible places
    to chance, so that the encoder also sees what it has to predict.
    """

    class Settings(DecoderSettings, ObjectiveSettings):
        """Settings of MARLIN; the defaults are those of the authors' configuration, but for the penalty, which is off there."""

        mask_ratio: float = Field(0.9, gt=0, lt=1, description="share of places hidden in every frame, regions first")
        anywhere: float = Field(
            0.0, ge=0, le=1, description="share of the visible places drawn from the whole picture, regions or not"
        )
        weight_adversarial: NonNegativeFloat = Field(0.01, description="of A; 0: the critic has no say")
        penalty: NonNegativeFloat = Field(
            10.0, description="of the critic's gradient, towards length one; 0 leaves it without bounds"
        )
        critic_hidden: PositiveInt = Field(1536, description="hidden width of the critic")
        normalise_target: bool = Field(
            False, description="predict each patch with mean 0 and deviation 1 in each channel"
        )

    name = "marlin"
    paper = "Cai et al., MARLIN: Masked Autoencoder for facial video Representation LearnINg, CVPR 2023"
    views: Mapping[str, Clip] = {
        "clip": Clip(augment="weak"),
        "regions": Clip(augment="weak", near="clip", within=0.0, length=0.0, like="clip", regions=True),
    }
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s, (tubelet, patch) = settings, encoder.patch
        pixels = 3 * tubelet * patch * patch
        self.decoder = TokenDecoder.of(s, encoder.width, encoder.tokens, pixels)
        self.critic = PatchCritic(pixels, s.critic_hidden)

    def forward(self, batch: Batch) -> Losses:
        """clip (B, T, 3, H, W), regions (B, 1, 3, H, W) -> the loss and its parts, and the share of the regions of interest that is hidden."""
        s, clip, encoder = self.settings, batch["clip"], self.encoder
        labels = patch_labels(labels_of(batch["regions"], encoder.geometry), encoder.patch[1])
        masks = region_masks(batch.seeds, labels, encoder.grid[0], s.mask_ratio, s.anywhere)
        visible, hidden = masks.visible[:, 0], masks.hidden[:, 0]
        made = self.decoder(encoder(clip, visible), visible, hidden).float()
        real = patches(clip, *encoder.patch, hidden).float()
        if s.normalise_target:
            normalise_patches_(real.unflatten(-1, (3, -1)))
        reconstruction = F.mse_loss(made, real)
        judged = self.critic.judge(made, real, batch.seeds, s.penalty)
        interest = labels > 1
        seen = interest.gather(1, visible[:, : visible.shape[1] // encoder.grid[0]])
        return {
            "loss": reconstruction + s.weight_adversarial * judged.maker + judged.critic,
            "loss_reconstruction": reconstruction.detach(),
            "loss_adversarial": judged.maker.detach(),
            "loss_critic": judged.critic.detach(),
            "critic_distance": judged.distance,
            "regions_hidden": 1 - seen.sum() / interest.sum().clamp_min(1),
        }
