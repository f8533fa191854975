"""Two to n modalities of one time: what was said of it, how it looks, and what else there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor

from domains.store.texts import Asked
from recipes.encoders.aligned import projection
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Clip
from recipes.parts.aligning import Aligning, AligningSettings
from recipes.parts.alignment import both_ways
from recipes.parts.levels import mean_text
from recipes.parts.motion import derivative
from recipes.parts.views import with_more

Modality = Literal["motion", "second", "camera", "beside", "below"]
ALWAYS = ("text", "clip")  # there is no sample without these


class ModalitySettings(AligningSettings):
    """What is taken together."""

    modalities: tuple[Modality, ...] = Field(
        ("motion",),
        description="beside a text and its clip: motion (how the clip changes from frame to frame), second (another clip of the same time), camera "
        "(what another camera of the event shows at that moment), beside (what other sources say of that time), below (texts of a finer level "
        "within it); samples that lack one are learned from without it",
    )
    drawn: PositiveInt = Field(
        3, description="texts beside or below that are drawn, at most; their mean is the modality"
    )
    augment: Literal["none", "weak", "strong"] = Field("weak", description="augmentation of the clips")

    @model_validator(mode="after")
    def _differ(self) -> Any:
        if len(set(self.modalities)) < len(self.modalities):
            raise ValueError("no two modalities may be alike")
        return self


class PairSettings(ModalitySettings):
    """Of losses that look at all modalities at once, and so do not say how near two of them are."""

    weight_pair: NonNegativeFloat = Field(
        1.0,
        description="of CLIP's loss between texts and clips; 0: as in the paper, for what asks all modalities at once",
    )


class Modalities(Aligning):
    """A contrast between two or more modalities of each sample: its text, its clip, and what `settings.modalities` adds. Texts share a projection,
    and so do clips; motion, which one encoder reads as well, has its own."""

    views: Mapping[str, Clip] = {"clip": Clip()}
    settings: ModalitySettings

    def __init__(
        self,
        encoder: VideoEncoder,
        settings: ModalitySettings,
        text: TextEncoder,
        *,
        scale: float,
        learned: bool = True,
    ) -> None:
        super().__init__(encoder, settings, text, scale=scale, learned=learned)
        clip = Clip(augment=settings.augment)
        moves = "motion" in settings.modalities
        self.views = {"clip": with_more(clip, encoder.geometry.frames, 1) if moves else clip}
        if "second" in settings.modalities:
            self.views["second"] = clip
        if "camera" in settings.modalities:
            self.views["camera"] = replace(clip, across="clip")
        self.texts = {"text": Asked(sources=settings.sources)}
        if "beside" in settings.modalities:
            self.texts["beside"] = Asked("beside", count=settings.drawn)
        if "below" in settings.modalities:
            self.texts["below"] = Asked("below", count=settings.drawn)
        self.motion = projection(self.alignment.shape.video, settings.hidden, settings.outputs) if moves else None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the modalities, in order."""
        return (*ALWAYS, *self.settings.modalities)

    @property
    def may_lack(self) -> tuple[str, ...]:
        """Those of them that a sample may lack."""
        return tuple(name for name in self.settings.modalities if name in self.texts or name == "camera")

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """modalities (B, M, D) of any length, text and clip first, and which of them are there (B, M) bool; the facts of each sample, and a learned
        scale."""
        frames = self.encoder.geometry.frames
        found = [self.said(batch)[:, 0], self.alignment.clips(self.encoder, batch["clip"][:, :frames])]
        there = [torch.ones(len(batch), dtype=torch.bool, device=found[0].device)] * 2
        for name in self.settings.modalities:
            if name in self.texts:
                present = batch.texts[name].present
                found.append(mean_text(self.said(batch, name), present))
                there.append(present.any(dim=1))
                continue
            if self.motion is not None and name == "motion":
                changes = derivative(batch["clip"], 1, frames)
                found.append(self.motion(self.alignment.read(self.encoder, changes)))
            else:
                found.append(self.clips(batch, name))
            there.append(~batch.targets["camera_missing"] if name == "camera" else there[0])
        learned = {"scale": self.scale(batch)} if self.alignment.log_scale.requires_grad else {}
        return {
            "modalities": torch.stack([one.float() for one in found], dim=1),
            "present": torch.stack(there, dim=1),
            **learned,
            **self.facts(batch),
        }

    def pair(self, modalities: Tensor, scale: Tensor, apart: Tensor) -> Tensor:
        """CLIP's loss between texts and clips."""
        return both_ways(modalities[:, 0], modalities[:, 1], 1 / scale, apart=apart)
