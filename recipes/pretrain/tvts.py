"""TVTS: what a video shows tells the order in which things were said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from domains.store.texts import Asked
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts.aligning import Aligning, AligningSettings
from recipes.parts.alignment import both_ways
from recipes.parts.contrast import accuracy
from recipes.parts.distributed import mean_of_counted
from recipes.parts.levels import no_strangers, step_names
from recipes.parts.sorter import Sorter, sorting_loss


class TVTS(Aligning):
    """Turning to video for transcript sorting (Zeng et al., Learning Transferable Spatiotemporal Representations from Natural Script Knowledge, CVPR
    2023).

        loss = CLIP(v, t) + w * mean over samples and texts k of CE(sorter(tokens of the clips in order, sg c_1 ... sg c_K)_k, k)

    c: the texts below a step or a whole, without their order; the clips are of their times. The gradient of the sorter stops at the text tower
    (sg): only by what the video shows, and how that goes on, can it get better. Samples with fewer than two texts have no order, and learn from
    CLIP's loss alone.

    Conventions of ours: the sorter reads the mean of the tokens of each time of a clip, not all of them; texts carry no positions, and therefore need
    not be shuffled; CLIP's loss is of each sample's own text and clip (the paper: the mean of the texts, and a masked video), among its level.
    """

    class Settings(AligningSettings):
        """Settings of TVTS."""

        steps: int = Field(4, ge=2, description="K: texts that are sorted, and clips that are looked at for it")
        scale: PositiveFloat = Field(1 / 0.07, description="first multiple of cosines, learned")
        sorter_width: PositiveInt = Field(192, description="width of the sorter")
        sorter_depth: PositiveInt = Field(2, description="blocks of the sorter")
        sorter_heads: PositiveInt = Field(6, description="heads of the sorter; they divide its width")
        weight_order: NonNegativeFloat = Field(1.0, description="w, of sorting")
        augment: Literal["none", "weak", "strong"] = Field("weak", description="augmentation of the clips")

    name = "tvts"
    paper = "Zeng et al., Learning Transferable Spatiotemporal Representations from Natural Script Knowledge, CVPR 2023"
    views: Mapping[str, Clip] = {"clip": Clip(), **dict.fromkeys(step_names(4), Clip())}
    texts: Mapping[str, Asked] = {"text": Asked(), "below": Asked("below", count=4, views=step_names(4))}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        super().__init__(encoder, settings, text, scale=settings.scale)
        s = settings
        steps = step_names(s.steps)
        self.views = {name: Clip(augment=s.augment) for name in ("clip", *steps)}
        self.texts = {"text": Asked(sources=s.sources), "below": Asked("below", count=s.steps, views=steps)}
        self.sorter = Sorter(
            encoder.width, text.width, s.sorter_width, s.steps, depth=s.sorter_depth, heads=s.sorter_heads
        )

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip and step k (B, T, 3, H, W), their texts -> v, t (B, D); the loss of the order (B,), how many texts are sorted and how many rightly
        (B,); scale, facts, levels (B,)."""
        present = batch.texts["below"].present
        seen = torch.stack([self.over_time(batch[view]) for view in self.texts["below"].views], dim=1)
        with torch.no_grad():
            said = self.text(batch.texts["below"].tokens)
        order, right = sorting_loss(self.sorter(seen, said, present), present)
        return {
            "clips": self.clips(batch),
            "texts": self.said(batch)[:, 0],
            "order": order,
            "count": present.sum(dim=1),
            "right": right,
            "scale": self.scale(batch),
            "levels": self.levels(batch),
            **self.facts(batch),
        }

    def over_time(self, clips: Tensor) -> Tensor:
        """Clips (B, T, 3, H, W) -> the mean of the tokens of each time (B, t, width)."""
        return self.encoder(clips).unflatten(1, (self.encoder.grid[0], -1)).mean(dim=2)

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """Of the whole batch -> the loss and its parts, the scale, how often a text is put in its place, and the share of clips whose nearest text is
        their own."""
        s, clips, texts = self.settings, embedded["clips"], embedded["texts"]
        scale, several = embedded["scale"].mean(), embedded["count"] > 1
        own = both_ways(clips, texts, 1 / scale, apart=no_strangers(embedded, embedded["levels"]))
        order = mean_of_counted(embedded["order"], several)
        sorted_texts = (embedded["count"] * several).sum().clamp_min(1)
        return {
            "loss": own + s.weight_order * order,
            "loss_own": own.detach(),
            "loss_order": order.detach(),
            "accuracy_order": (embedded["right"] * several).sum() / sorted_texts,
            "scale": scale.detach(),
            "accuracy": accuracy(clips, texts),
        }
