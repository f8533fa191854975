"""What the generic encoder learns: to tell how a scene moves and what is where, and to know it again."""

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
from recipes.parts.heads import mlp
from recipes.parts.masks import tube_masks
from recipes.parts.precision import as_they_are
from recipes.parts.standardise import BatchStandardise

VIEWS = ("first", "second")
SIDE = 16  # cells along the side of a coarse picture


class Generic(Objective):
    """Contrast, motion, facts and coarse pictures of drawn scenes, from the visible tokens of a tube mask.

    L = w_c NT-Xent(z, z') + w_f [ Huber(flow) + BCE(front) ] + w_s [ Huber(facts) + CE(pace) + CE(backwards) + CE(swapped) + CE(texture) ]
        + w_p mean over maps ( |picture - W s|^2 / var(picture) )

    z = head(s) of the two clips of a scene (Chen et al., ICML 2020); s = `encoder.statistics` of the visible tokens
    flow, front: of each visible token, by a linear layer from the token itself: the true motion of what it shows, in quarter patches a frame, and
        whether that is in front of the background (motion of synthetic things, as in SMILE, Thoker et al., CVPR 2025)
    facts, pace, backwards, swapped, texture: by linear layers from s, standardised over the batch as a probe does, so that what they need is
        linear there
    pictures: of the whole clip in 16 x 16 cells, from s in the same way: mean, deviation over time, and late half minus early half of the brightness.
        A mean over tokens forgets where things are unless it is made to remember.
    """

    class Settings(ObjectiveSettings):
        """Settings of the generic encoder's training."""

        mask_ratio: float = Field(0.4, ge=0, lt=1, description="share of places hidden in every frame")
        temperature: PositiveFloat = Field(0.2, description="tau of the contrast")
        head_hidden: PositiveInt = Field(512, description="hidden width of the contrast's head")
        head_outputs: PositiveInt = Field(128, description="width of z")
        weight_contrast: NonNegativeFloat = Field(0.2, description="w_c")
        weight_flow: NonNegativeFloat = Field(1.0, description="w_f")
        weight_facts: NonNegativeFloat = Field(0.5, description="w_s")
        weight_pictures: NonNegativeFloat = Field(1.0, description="w_p")

    name = "generic"
    paper = "drawn scenes whose motion is known; see recipes/generic"
    views: Mapping[str, Clip] = {name: Clip() for name in VIEWS}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        width = encoder.width
        self.head = mlp(2 * width, settings.head_hidden, settings.head_outputs)
        self.local = nn.Linear(width, 3)
        self.even = BatchStandardise()
        self.facts = nn.Linear(2 * width, len(FACTS))
        self.pictures = nn.Linear(2 * width, 3 * SIDE * SIDE)
        nn.init.zeros_(self.pictures.weight)  # else so many random outputs are most of the loss at first
        counts = {"pace": len(PACES), "backwards": 2, "swapped": 2, "texture": len(TEXTURES)}
        self.kinds = nn.ModuleDict({name: nn.Linear(2 * width, count) for name, count in counts.items()})

    def forward(self, batch: Batch) -> Losses:
        """first, second (B, T, 3, H, W) and what is true of them -> the loss and its parts."""
        s = self.settings
        read: dict[str, Tensor] = {}
        parts: dict[str, list[Tensor]] = {"flow": [], "facts": [], "pictures": []}
        for view in VIEWS:
            masks = tube_masks(batch.seeds, self.encoder.grid, s.mask_ratio, name=view)
            visible = masks.visible[:, 0].to(batch[view].device)
            tokens = self.encoder(batch[view], visible)
            read[view] = self.encoder.statistics(tokens)
            even = self.even(read[view].float())
            parts["flow"].append(self.local_loss(tokens, visible, batch.targets, view))
            parts["facts"].append(self.facts_loss(even, batch.targets, view))
            parts["pictures"].append(self.pictures_loss(even, batch[view]))
        z = {view: self.head(read[view]) for view in VIEWS}
        shown = {"contrast": nt_xent(z["first"], z["second"], s.temperature)}
        shown |= {name: torch.stack(of_views).mean() for name, of_views in parts.items()}
        weights = {
            "contrast": s.weight_contrast, "flow": s.weight_flow, "facts": s.weight_facts, "pictures": s.weight_pictures,
        }  # fmt: skip
        return {
            "loss": torch.stack([weight * shown[name] for name, weight in weights.items()]).sum(),
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

    def facts_loss(self, even: Tensor, targets: Mapping[str, Tensor], view: str) -> Tensor:
        """What is true of a whole clip, from its standardised statistics (B, 2 D)."""
        with as_they_are(even):
            loss = F.smooth_l1_loss(
                F.linear(even, self.facts.weight, self.facts.bias), targets[f"facts_{view}"].float()
            )
            for name, layer in self.kinds.items():
                assert isinstance(layer, nn.Linear)
                loss = loss + 0.25 * F.cross_entropy(F.linear(even, layer.weight, layer.bias), targets[name])
            return loss

    def pictures_loss(self, even: Tensor, clip: Tensor) -> Tensor:
        """How much of the coarse pictures is not told: 1 where nothing is, 0 where all is."""
        with as_they_are(even):
            wanted = coarse_pictures(clip.float())
            told = F.linear(even, self.pictures.weight, self.pictures.bias).view_as(wanted)
            missed = (told - wanted).square().mean(dim=(0, 2))
            return (missed / wanted.var(dim=(0, 2), correction=0).clamp_min(1e-6)).mean()


def coarse_pictures(clip: Tensor) -> Tensor:
    """(B, T, C, H, W) -> (B, 3, SIDE * SIDE): mean, deviation over time, and late half minus early half of every cell's brightness."""
    cells = F.adaptive_avg_pool2d(clip.mean(dim=2), SIDE).flatten(2)
    early, late = cells.tensor_split(2, dim=1)
    return torch.stack([cells.mean(dim=1), cells.std(dim=1, correction=0), late.mean(dim=1) - early.mean(dim=1)], dim=1)
