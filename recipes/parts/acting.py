"""What methods share that align clips with narrations, and take those of the same act for right answers too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat
from torch import Tensor

from domains.store.texts import Asked
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import NOUNS, VERBS, Batch, Clip
from recipes.parts.aligning import Aligning, TowerSettings
from recipes.parts.alignment import of_one_group, sharing_numbers
from recipes.parts.distributed import places


class ActingSettings(TowerSettings):
    """The common space, and the temperature of the scores in it."""

    temperature: PositiveFloat = Field(0.05, description="tau; it is not learned")
    augment: Literal["none", "weak", "strong"] = Field("weak", description="augmentation of the clips")
    positives: Literal["acts", "words", "own"] = Field(
        "acts",
        description="positives of a sample beside its own: those of the same act, or (for comparison) those in the same words, or none: InfoNCE",
    )


class Acting(Aligning):
    """A contrast between clips and narrations of moments, whose verbs and nouns it knows."""

    views: Mapping[str, Clip] = {"clip": Clip()}
    texts: Mapping[str, Asked] = {"text": Asked(levels=("clip",))}
    acts: ClassVar[bool] = True
    settings: ActingSettings

    def __init__(self, encoder: VideoEncoder, settings: ActingSettings, text: TextEncoder) -> None:
        super().__init__(encoder, settings, text, scale=1 / settings.temperature, learned=False)
        self.views = {"clip": Clip(augment=settings.augment)}
        self.texts = {"text": Asked(levels=("clip",), sources=settings.sources)}

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip (B, T, 3, H, W) and its text -> v, t (B, D); which words (B,), verbs (B, 4) and nouns (B, 8)."""
        return {
            "clips": self.clips(batch),
            "texts": self.said(batch)[:, 0],
            **self.facts(batch),
            VERBS: batch.targets[VERBS],
            NOUNS: batch.targets[NOUNS],
        }

    def positives(self, embedded: Mapping[str, Tensor]) -> Tensor:
        """Which samples of all ranks are positives of each of this rank's, as the setting says: (B, N) bool."""
        words = embedded["words"]
        if self.settings.positives == "own":
            return of_one_group(places(len(words), words.device))
        return of_one_group(words) if self.settings.positives == "words" else same_act(embedded)


def same_act(embedded: Mapping[str, Tensor]) -> Tensor:
    """Which samples of all ranks say the same words as each of this rank's, or share a verb and a noun with it: (B, N) bool."""
    return sharing_numbers(embedded[VERBS], embedded[NOUNS]) | of_one_group(embedded["words"])
