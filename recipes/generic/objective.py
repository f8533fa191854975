"""What the generic encoder learns: to know a scene again, and to tell how it moves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from domains.generic.samples import PACES
from domains.generic.textures import TEXTURES
from domains.generic.truth import FACTS
from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings
from recipes.parts.contrast import agreement, nt_xent
from recipes.parts.decoder import TokenDecoder
from recipes.parts.heads import mlp
from recipes.parts.masks import tube_masks
from recipes.parts.pixels import masked_pixel_loss
from recipes.parts.precision import as_they_are
from recipes.parts.standardise import BatchStandardise

VIEWS = ("first", "second")


class Generic(Objective):
    """Contrast, motion and facts of drawn scenes, and hidden pixels, over the visible tokens of a tube mask.

    L = w_c NT-Xent(z, z') + w_f [ Huber(flow) + BCE(front) ] + w_s [ Huber(facts) + CE(pace) + CE(backwards) + CE(texture) ] + w_p L_pixels

    z = head(s) of the two clips of a scene (Chen et al., ICML 2020); s = `encoder.statistics` of the visible tokens
    flow, front: of each visible token, by a linear layer from the token itself: the true motion of what it shows, in quarter patches a frame, and
        whether that is in front of the background (motion of synthetic things, as in SMILE, Thoker et al., CVPR 2025)
    facts, pace, backwards, texture: by linear layers from s, standardised over the batch as a probe does, so that what they need is linear there
    L_pixels: hidden patches of the first clip by a light decoder (Tong et al., NeurIPS 2022)
    """

    class Settings(ObjectiveSettings):
        """Settings of the generic encoder's training."""

        mask_ratio: float = Field(0.4, ge=0, lt=1, description="share of places hidden in every frame")
        temperature: PositiveFloat = Field(0.2, description="tau of the contrast")
        head_hidden: PositiveInt = Field(512, description="hidden width of the contrast's head")
        head_outputs: PositiveInt = Field(128, description="width of z")
        decoder_width: PositiveInt = Field(96, description="width of the decoder of pixels")
        weight_contrast: NonNegativeFloat = Field(0.5, description="w_c")
        weight_flow: NonNegativeFloat = Field(1.0, description="w_f")
        weight_facts: NonNegativeFloat = Field(0.5, description="w_s")
        weight_pixels: NonNegativeFloat = Field(0.5, description="w_p")

    name = "generic"
    paper = "drawn scenes whose motion is known; see recipes/generic"
    views: Mapping[str, Clip] = {name: Clip() for name in VIEWS}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        width, (tubelet, patch) = encoder.width, encoder.patch
        self.head = mlp(2 * width, settings.head_hidden, settings.head_outputs)
        self.local = nn.Linear(width, 3)
        self.even = BatchStandardise()
        self.facts = nn.Linear(2 * width, len(FACTS))
        self.kinds = nn.ModuleDict(
            {
                name: nn.Linear(2 * width, count)
                for name, count in (("pace", len(PACES)), ("backwards", 2), ("texture", len(TEXTURES)))
            }
        )
        self.decoder = TokenDecoder(
            width, settings.decoder_width, 1, settings.decoder_width // 32, encoder.tokens, 3 * tubelet * patch * patch
        )

    def forward(self, batch: Batch) -> Losses:
        """first, second (B, T, 3, H, W) and what is true of them -> the loss and its parts."""
        s, read = self.settings, {}
        shown: Losses = {}
        local: list[Tensor] = []
        whole: list[Tensor] = []
        pixels = batch["first"].new_zeros(())
        for view in VIEWS:
            masks = tube_masks(batch.seeds, self.encoder.grid, s.mask_ratio, name=view)
            visible, hidden = (part[:, 0].to(batch[view].device) for part in (masks.visible, masks.hidden))
            tokens = self.encoder(batch[view], visible)
            read[view] = self.encoder.statistics(tokens)
            local.append(self.local_loss(tokens, visible, batch.targets, view))
            whole.append(self.facts_loss(read[view], batch.targets, view))
            if view == "first" and s.weight_pixels and hidden.shape[1]:
                predicted = self.decoder(tokens, visible, hidden)
                pixels = masked_pixel_loss(predicted, batch[view], hidden, self.encoder.patch)
        z = {view: self.head(read[view]) for view in VIEWS}
        contrast = nt_xent(z["first"], z["second"], s.temperature)
        flow, facts = torch.stack(local).mean(), torch.stack(whole).mean()
        loss = s.weight_contrast * contrast + s.weight_flow * flow + s.weight_facts * facts + s.weight_pixels * pixels
        shown = {"contrast": contrast, "flow": flow, "facts": facts, "pixels": pixels}
        return {
            "loss": loss,
            **{f"loss_{name}": value.detach() for name, value in shown.items()},
            "agreement": agreement(z["first"], z["second"]),
        }

    def local_loss(self, tokens: Tensor, visible: Tensor, targets: Mapping[str, Tensor], view: str) -> Tensor:
        """Flow and front of each visible token."""
        with as_they_are(tokens):
            told = F.linear(tokens.float(), self.local.weight, self.local.bias)
            flow = targets[f"flow_{view}"].float().gather(1, visible.unsqueeze(-1).expand(-1, -1, 2))
            front = targets[f"front_{view}"].float().gather(1, visible)
            moves = F.smooth_l1_loss(told[..., :2], flow, beta=0.25)
            return moves + 0.25 * F.binary_cross_entropy_with_logits(told[..., 2], front)

    def facts_loss(self, read: Tensor, targets: Mapping[str, Tensor], view: str) -> Tensor:
        """What is true of a whole clip."""
        with as_they_are(read):
            even = self.even(read.float())
            loss = F.smooth_l1_loss(
                F.linear(even, self.facts.weight, self.facts.bias), targets[f"facts_{view}"].float()
            )
            for name, layer in self.kinds.items():
                assert isinstance(layer, nn.Linear)
                loss = loss + 0.25 * F.cross_entropy(F.linear(even, layer.weight, layer.bias), targets[name])
            return loss
