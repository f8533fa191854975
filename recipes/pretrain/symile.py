"""Symile: which of these samples goes with this one, all modalities taken together."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Losses
from recipes.parts.alignment import set_apart
from recipes.parts.contrast import accuracy
from recipes.parts.modalities import Modalities, PairSettings
from recipes.parts.multilinear import Placeholder, Strangers, symile


class Symile(Modalities):
    """Contrasting with Symile: simple model-agnostic representation learning for unlimited modalities (Saporta et al., NeurIPS 2024).

        loss = mean over anchors a of CE over candidates of  s sum over d of prod over modalities m of r_m[d]   + w CLIP(t, v)

    r: modalities of length one, the text t and the clip v first; s is learned. Candidates: rows of the other modalities, shuffled, or every
    combination of them. A modality that a sample lacks is stood in for by a learned vector, and an indicator says so. The equation, and what is
    ours in it: `recipes.parts.multilinear.symile`.

    Conventions of ours: a product of three says nothing of two of its factors, and zero-shot answers, retrieval and search compare a clip and a text:
    CLIP's loss (w) is added. A candidate all of whose parts are of the same words, or of times that overlap the sample's, is left out.
    """

    class Settings(PairSettings):
        """Settings of Symile."""

        scale: PositiveFloat = Field(1 / 0.07, description="first multiple of products, learned")
        strangers: Strangers = Field(
            "shuffled",
            description="N - 1 products of shuffled rows, or all combinations (dear: N^2 with three modalities)",
        )

    name = "symile"
    paper = "Saporta et al., Contrasting with Symile: Simple Model-Agnostic Representation Learning for Unlimited Modalities, NeurIPS 2024"
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        super().__init__(encoder, settings, text, scale=settings.scale)
        self.placeholders = nn.ModuleDict({name: Placeholder(settings.outputs) for name in self.may_lack})

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """As `Modalities.embed`, with placeholders where something is missing; and the seeds (B,)."""
        embedded = super().embed(batch)
        whole = [
            self.placeholders[name](one, there) if name in self.placeholders else one
            for name, one, there in zip(
                self.names, embedded["modalities"].unbind(1), embedded["present"].unbind(1), strict=True
            )
        ]
        return {**embedded, "modalities": torch.stack([one.float() for one in whole], dim=1), "seeds": batch.seeds}

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """modalities of the whole batch -> the loss and its parts, the scale, and the share of clips whose nearest text is their own."""
        s, found, scale = self.settings, embedded["modalities"], embedded["scale"].mean()
        apart = set_apart(embedded)
        product = symile(found.unbind(1), scale, embedded["seeds"], s.strangers, apart=apart)
        pair = self.pair(found, scale, apart)
        return {
            "loss": product + s.weight_pair * pair,
            "loss_product": product.detach(),
            "loss_pair": pair.detach(),
            "scale": scale.detach(),
            "accuracy": accuracy(found[:, 1], found[:, 0]),
        }
