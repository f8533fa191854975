"""HecVL: clips with what was said of the moment, of the step, and of the whole procedure."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from domains.store.texts import Asked
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts.aligning import Aligning
from recipes.parts.levels import LevelSettings, hierarchy_loss, mean_text


class HecVL(Aligning):
    """Hierarchical video-language pretraining for zero-shot surgical phase recognition (Yuan et al., MICCAI 2024).

    A sample is a text of any level (clip, keystep, abstract) and a clip of its time. Of a step or a whole, texts of the next finer level within its
    time stand beside it: clip and text shall also be near their mean. The equation, and what is ours in it: `recipes.parts.levels.hierarchy_loss`.
    """

    class Settings(LevelSettings):
        """Settings of HecVL."""

    name = "hecvl"
    paper = "Yuan et al., HecVL: Hierarchical Video-Language Pretraining for Zero-Shot Surgical Phase Recognition, MICCAI 2024"
    views: Mapping[str, Clip] = {"clip": Clip()}
    texts: Mapping[str, Asked] = {"text": Asked(), "below": Asked("below", count=4)}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        super().__init__(encoder, settings, text, scale=1 / settings.temperature, learned=False)
        self.views = {"clip": Clip(augment=settings.augment)}
        self.texts = {"text": Asked(sources=settings.sources), "below": Asked("below", count=settings.below)}

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip (B, T, 3, H, W), its text and those below it -> v, t, mean of those below (B, D), whether there are any, words and levels (B,)."""
        present = batch.texts["below"].present
        return {
            "clips": self.clips(batch),
            "texts": self.said(batch)[:, 0],
            "below": mean_text(self.said(batch, "below"), present),
            "has_below": present.any(dim=1),
            **self.facts(batch),
            "levels": self.levels(batch),
        }

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """Of the whole batch -> the loss, its parts, and the share of clips whose nearest text is their own."""
        return hierarchy_loss(embedded, self.settings)
