"""PeskaVLP: HecVL, and the steps of a procedure fit its clips in their order better than in the reverse."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from domains.store.texts import Asked
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts.aligning import Aligning
from recipes.parts.levels import LevelSettings, hierarchy_loss, mean_text, step_names
from recipes.parts.soft_dtw import procedure_loss


class PeskaVLP(Aligning):
    """Procedure-aware surgical video-language pretraining with hierarchical knowledge augmentation (Yuan et al., NeurIPS 2024).

        loss = HecVL + 0.1 * [ s D(V, T) + 1/2 max(s D(V, T) - s D(V, reversed T), 0) ],   s = 0.01, D = soft-DTW with gamma 0.1

    T: the texts below a step or a whole, in their order; V: a clip of the time of each. Samples with fewer than two of them have no order.

    Conventions of ours: V are clips and not frames, one a text (the paper: frames of the whole); the texts that the paper has a language model
    enrich are taken as they are given; its hard-negative margins are unused in the official code and left out.
    """

    class Settings(LevelSettings):
        """Settings of PeskaVLP."""

        weight_procedure: NonNegativeFloat = Field(0.1, description="of the loss over the order of steps")
        gamma: PositiveFloat = Field(0.1, description="softness of the alignment; towards 0, the best one alone counts")

    name = "peskavlp"
    paper = "Yuan et al., Procedure-Aware Surgical Video-language Pretraining with Hierarchical Knowledge Augmentation, NeurIPS 2024"
    views: Mapping[str, Clip] = {"clip": Clip(), **{f"step {number}": Clip() for number in range(1, 5)}}
    texts: Mapping[str, Asked] = {"text": Asked(), "below": Asked("below", count=4, views=tuple(views)[1:])}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        super().__init__(encoder, settings, text, scale=1 / settings.temperature, learned=False)
        steps = step_names(settings.below)
        self.views = {name: Clip(augment=settings.augment) for name in ("clip", *steps)}
        self.texts = {
            "text": Asked(sources=settings.sources),
            "below": Asked("below", count=settings.below, views=steps),
        }

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """As HecVL's, and the texts below and their clips one by one (B, K, D), and how many there are (B,)."""
        present, said = batch.texts["below"].present, self.said(batch, "below")
        return {
            "clips": self.clips(batch),
            "texts": self.said(batch)[:, 0],
            "below": mean_text(said, present),
            "has_below": present.any(dim=1),
            **self.facts(batch),
            "levels": self.levels(batch),
            "steps": said,
            "step_clips": torch.stack([self.clips(batch, view) for view in self.texts["below"].views], dim=1),
            "count": present.sum(dim=1),
        }

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """Of the whole batch -> the loss, its parts, and the share of clips whose nearest text is their own."""
        s, count = self.settings, embedded["count"]
        ordered = torch.where(count > 1, count, 0)
        order = procedure_loss(
            embedded["step_clips"], embedded["steps"], frame_count=ordered, step_count=ordered, gamma=s.gamma,
            temperature=s.temperature,
        )  # fmt: skip
        losses = hierarchy_loss(embedded, s)
        return {**losses, "loss": losses["loss"] + s.weight_procedure * order, "loss_procedure": order.detach()}
