"""What methods that align clips with words share: two towers, their projections, and what is embedded of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, PositiveInt
from torch import Tensor

from domains.errors import ConfigError
from domains.store.texts import Asked
from recipes.encoders.aligned import Alignment
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import ABOUT, LEVEL, SPAN, Batch, Contrast, Objective, ObjectiveSettings, Progress


def check_talks(encoder: VideoEncoder, method: str) -> None:
    """Raises ConfigError for an encoder whose frames cannot be given tokens to talk by."""
    if not encoder.talks:
        what = f"'{method}' puts tokens between frames, for which an encoder of type '{encoder.kind}' has no place"
        raise ConfigError(what, do="Use an image model (ViT, DINOv2, CLIP) or VideoMAE, or --recipe clip")


class TowerSettings(ObjectiveSettings):
    """The common space, and which texts samples are made of."""

    outputs: PositiveInt = Field(256, description="D, width of the common space")
    hidden: PositiveInt | None = Field(
        None, description="hidden width of the projections; null: a projection is one matrix"
    )
    motion: bool = Field(False, description="the projection of clips also reads how tokens change over time")
    sources: tuple[str, ...] = Field(
        (), description="sources of the texts that samples are made of, e.g. the name of a --text file; empty: all"
    )


class AligningSettings(TowerSettings):
    """The same, of a contrast that asks `Towers.facts` which texts are about one time."""

    same_time: Literal["apart", "strangers"] = Field(
        "apart",
        description="texts in other words about times of a recording that overlap: not compared, or strangers as in the papers",
    )


class Towers(Objective):
    """Clips and texts, each through its tower and a projection."""

    texts: Mapping[str, Asked] = {"text": Asked()}
    settings: TowerSettings
    text: TextEncoder

    def __init__(
        self,
        encoder: VideoEncoder,
        settings: TowerSettings,
        text: TextEncoder,
        *,
        scale: float,
        learned: bool = True,
    ) -> None:
        """scale: of cosines, where it starts; learned: or stays."""
        super().__init__(encoder, settings)
        self.text = text
        self.alignment = Alignment.between(
            encoder, text, settings.outputs, hidden=settings.hidden, motion=settings.motion
        )
        self.alignment.log_scale.data.fill_(scale).log_()
        self.alignment.log_scale.requires_grad_(learned)
        self.alignment.bias.requires_grad_(False)

    def final_alignment(self) -> Alignment:
        """See `Objective.final_alignment`."""
        return self.alignment

    def after_step(self, progress: Progress) -> None:
        """The learned scale is kept within bounds."""
        if self.alignment.log_scale.requires_grad:
            self.alignment.bound()

    def clips(self, batch: Batch, view: str = "clip") -> Tensor:
        """What is made of the clips of a view (B, D), of any length."""
        return self.alignment.clips(self.encoder, batch[view])

    def said(self, batch: Batch, name: str = "text") -> Tensor:
        """What is made of the texts of a name (B, K, D), of any length; of missing ones it means nothing."""
        return self.alignment.texts(self.text, batch.texts[name].tokens)

    def facts(self, batch: Batch) -> dict[str, Tensor]:
        """What `recipes.parts.alignment.set_apart` needs to know of each sample: its words, and which recording and time they are
        about (left out where overlapping times make strangers, or mean nothing to the method)."""
        words = batch.texts[next(name for name, asked in self.texts.items() if asked.what == "sample")].numbers[:, 0]
        if not isinstance(self.settings, AligningSettings) or self.settings.same_time == "strangers":
            return {"words": words}
        row = batch.index.to(words.device, non_blocking=True)
        return {"words": words, "row": row, ABOUT: batch.targets[ABOUT], SPAN: batch.targets[SPAN]}

    def levels(self, batch: Batch) -> Tensor:
        """Level of each sample (B,) int64: its place in `domains.store.texts.LEVELS`, -1 for a silent one."""
        return batch.targets[LEVEL]

    def scale(self, batch: Batch) -> Tensor:
        """The scale, once for every sample (B,)."""
        return self.alignment.log_scale.exp().expand(len(batch))


class Aligning(Towers, Contrast):
    """A contrast between clips and texts.

    `embed` gives the loss of `compare` also the learned scale (B,), the same for every sample: with gradient caching, that is the way by which it
    learns.
    """
