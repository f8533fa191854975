"""CLIP on video: a clip and what was said of its time attract, all other pairs of the batch repel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, PositiveFloat
from torch import Tensor

from domains.store.texts import Asked
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts.aligning import Aligning, AligningSettings
from recipes.parts.alignment import both_ways, set_apart, sigmoid_loss
from recipes.parts.contrast import accuracy

START = {"info_nce": (1 / 0.07, 0.0), "sigmoid": (10.0, -10.0)}  # scale and bias, as CLIP and SigLIP begin


class CLIP(Aligning):
    """Contrastive language-image pretraining (Radford et al., ICML 2021), of clips; its sigmoid loss: Zhai et al., ICCV 2023.

        info_nce:  loss = 1/2 [ CE(s V T', own) + CE(s T V', own) ]
        sigmoid:   loss = - 1/N  sum over i, j of log sigmoid(+- (s v_i . t_j + b)),   + where i = j

    V, T (N, D): clips and texts of all ranks, v = normalise(P_v encoder(clip)), t = normalise(P_t tower(text)); s and b are learned, s at most 100.

    Conventions of ours: pairs whose texts have the same words are neither partners nor strangers (the same report twice in a batch would say that a
    clip does not fit its own words). A text about several recordings is one sample, whose clip is of any of them.
    """

    class Settings(AligningSettings):
        """Settings of CLIP."""

        loss: Literal["info_nce", "sigmoid"] = Field(
            "info_nce",
            description="each text against all others of the batch, or every pair by itself (SigLIP: small batches)",
        )
        scale: PositiveFloat | None = Field(
            None, description="first multiple of cosines, learned; null: 1 / 0.07 for info_nce, 10 for sigmoid"
        )
        levels: tuple[Literal["clip", "keystep", "abstract"], ...] = Field(
            (), description="levels of the texts that are learned from; empty: all"
        )
        augment: Literal["none", "weak", "strong"] = Field("weak", description="augmentation of the clips")

    name = "clip"
    paper = "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021"
    views: Mapping[str, Clip] = {"clip": Clip()}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        scale, bias = START[settings.loss]
        super().__init__(encoder, settings, text, scale=settings.scale or scale)
        self.alignment.bias.data.fill_(bias)
        self.alignment.bias.requires_grad_(settings.loss == "sigmoid")
        self.views = {"clip": Clip(augment=settings.augment)}
        self.texts = {"text": Asked(levels=settings.levels, sources=settings.sources)}

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip (B, T, 3, H, W), text -> v, t (B, D); scale, and bias of the sigmoid loss (B,); which words (B,)."""
        found = {
            "clips": self.clips(batch),
            "texts": self.said(batch)[:, 0],
            "scale": self.scale(batch),
            **self.facts(batch),
        }
        if self.settings.loss == "sigmoid":
            found["bias"] = self.alignment.bias.expand(len(batch))
        return found

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """v, t of the whole batch -> the loss, the scale, and the share of clips whose nearest text is their own."""
        clips, texts, scale = embedded["clips"], embedded["texts"], embedded["scale"].mean()
        apart = set_apart(embedded)
        if self.settings.loss == "sigmoid":
            loss = sigmoid_loss(clips, texts, scale, embedded["bias"].mean(), apart=apart)
        else:
            loss = both_ways(clips, texts, 1 / scale, apart=apart)
        return {"loss": loss, "accuracy": accuracy(clips, texts), "scale": scale.detach()}
