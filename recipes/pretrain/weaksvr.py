"""WeakSVR: clips of a procedure and its sentences, both in order, and nobody said which belongs to which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from domains.store.texts import Asked
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts.aligning import Aligning, AligningSettings
from recipes.parts.alignment import both_ways
from recipes.parts.contrast import accuracy
from recipes.parts.levels import no_strangers, step_names
from recipes.parts.unaligned import unaligned_loss

ABOVE = ("keystep", "abstract")


class WeakSVR(Aligning):
    """Weakly supervised video representation learning with unaligned text for sequential videos (Dong et al., CVPR 2023).

        loss = CLIP(mean of f, paragraph) + w * frames and sentences in order (`recipes.parts.unaligned`)

    A sample is a text of a step or a whole procedure, the paragraph; f: clips from its time, one after the other, each from its share of it; the
    sentences: texts of the next finer level in their order, whose own times are not looked at (they may be wrong, or the same for all).

    Conventions of ours: f are short clips and not frames, and their mean stands for the video, where the paper has a transformer over frames;
    strangers are of the same level, and neither of the same words nor of times that overlap.
    """

    class Settings(AligningSettings):
        """Settings of WeakSVR."""

        clips: int = Field(8, ge=2, description="clips of each sample, in order (the paper: 16 frames)")
        sentences: int = Field(8, ge=2, description="texts of the finer level that are drawn, at most")
        scale: PositiveFloat = Field(1 / 0.07, description="first multiple of cosines, learned")
        weight_order: NonNegativeFloat = Field(1.0, description="w, of frames and sentences in order")
        augment: Literal["none", "weak", "strong"] = Field("weak", description="augmentation of the clips")

    name = "weaksvr"
    paper = "Dong et al., Weakly Supervised Video Representation Learning with Unaligned Text for Sequential Videos, CVPR 2023"
    views: Mapping[str, Clip] = dict.fromkeys(step_names(8), Clip())
    texts: Mapping[str, Asked] = {"text": Asked(levels=ABOVE, parts=step_names(8)), "below": Asked("below", count=8)}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        super().__init__(encoder, settings, text, scale=settings.scale)
        parts = step_names(settings.clips)
        self.views = dict.fromkeys(parts, Clip(augment=settings.augment))
        self.texts = {
            "text": Asked(levels=ABOVE, sources=settings.sources, parts=parts),
            "below": Asked("below", count=settings.sentences),
        }

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """step k (B, T, 3, H, W), the text and those below it -> f (B, n, D), t (B, D), sentences (B, m, D), which of them are there (B, m); scale,
        facts, levels (B,)."""
        return {
            "frames": torch.stack([self.clips(batch, view) for view in self.views], dim=1),
            "texts": self.said(batch)[:, 0],
            "sentences": self.said(batch, "below"),
            "present": batch.texts["below"].present,
            "scale": self.scale(batch),
            "levels": self.levels(batch),
            **self.facts(batch),
        }

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """Of the whole batch -> the loss and its parts, the scale, and the share of videos whose nearest text is their own."""
        frames, texts, scale = embedded["frames"], embedded["texts"], embedded["scale"].mean()
        video = F.normalize(frames.float(), dim=-1).mean(dim=1)
        own = both_ways(video, texts, 1 / scale, apart=no_strangers(embedded, embedded["levels"]))
        order = unaligned_loss(frames, embedded["sentences"], embedded["present"], scale)
        return {
            "loss": own + self.settings.weight_order * order,
            "loss_own": own.detach(),
            "loss_order": order.detach(),
            "scale": scale.detach(),
            "accuracy": accuracy(video, texts),
        }
