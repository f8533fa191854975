"""SurgVLP: a clip, what one transcriber heard, and what others heard at about that time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from domains.store.texts import Asked
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts.aligning import Aligning, AligningSettings
from recipes.parts.alignment import both_ways, mil_nce, set_apart
from recipes.parts.contrast import accuracy, info_nce


class SurgVLP(Aligning):
    """Learning multi-modal representations by watching surgical video lectures (Yuan et al., Medical Image Analysis 2025).

        loss = 1/3 [ InfoNCE(v, a) + NT-Xent(v, a) + MIL-NCE(v, {b_k}) ]

    v: a clip; a: the text of its time by one source; b_k: texts that overlap that time by the others, of which any may fit. NT-Xent here: InfoNCE
    both ways, 3/4 from the clip. Speech recognition errs in time and words, and two systems err differently: what both say is rather true.

    Conventions of ours: all three are of cosines over one temperature; positives of MIL-NCE are counted once. (In the official code MIL-NCE takes raw
    dot products and counts positives twice, and the combined loss passes its scale into the wrong argument of NT-Xent, so that nothing is normalised
    there.) Texts with the same words are no strangers. Without `sources`, every source is the anchor of its own texts.
    """

    class Settings(AligningSettings):
        """Settings of SurgVLP; the defaults are the paper's."""

        temperature: PositiveFloat = Field(0.1, description="tau; it is not learned")
        transcripts: PositiveInt = Field(
            3, description="texts by other sources that are drawn beside each clip, at most"
        )
        augment: Literal["none", "weak", "strong"] = Field("weak", description="augmentation of the clips")

    name = "surgvlp"
    paper = (
        "Yuan et al., Learning Multi-modal Representations by Watching Hundreds of Surgical Video Lectures, MedIA 2025"
    )
    views: Mapping[str, Clip] = {"clip": Clip()}
    texts: Mapping[str, Asked] = {"text": Asked(levels=("clip",)), "beside": Asked("beside", count=3)}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        super().__init__(encoder, settings, text, scale=1 / settings.temperature, learned=False)
        self.views = {"clip": Clip(augment=settings.augment)}
        self.texts = {
            "text": Asked(levels=("clip",), sources=settings.sources),
            "beside": Asked("beside", count=settings.transcripts),
        }

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip (B, T, 3, H, W), its text and those beside it -> v, a (B, D), b (B, K, D), which of them are there (B, K), which words (B,)."""
        return {
            "clips": self.clips(batch),
            "texts": self.said(batch)[:, 0],
            "beside": self.said(batch, "beside"),
            "present": batch.texts["beside"].present,
            **self.facts(batch),
        }

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """v, a, b of the whole batch -> the loss and its three terms, and the share of clips whose nearest text is their own."""
        clips, texts, tau = embedded["clips"], embedded["texts"], self.settings.temperature
        apart = set_apart(embedded)
        terms = {
            "loss_info_nce": info_nce(clips, texts, tau, apart=apart),
            "loss_nt_xent": both_ways(clips, texts, tau, forward=0.75, apart=apart),
            "loss_mil_nce": mil_nce(clips, embedded["beside"], tau, embedded["present"], apart=apart),
        }
        figures = {name: term.detach() for name, term in terms.items()}
        loss = torch.stack(list(terms.values())).mean()
        return {"loss": loss, **figures, "accuracy": accuracy(clips, texts)}
