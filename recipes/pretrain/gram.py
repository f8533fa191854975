"""GRAM: all modalities of one time span a small volume."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Losses
from recipes.parts.alignment import set_apart
from recipes.parts.contrast import accuracy
from recipes.parts.modalities import Modalities, PairSettings
from recipes.parts.volume import gram_loss, volumes


class GRAM(Modalities):
    """Gramian multimodal representation learning and alignment (Cicchetti et al., ICLR 2025).

        loss = 1/2 [ CE(- s Vol(t_i, {m_j})) over j + CE(- s Vol(t_i, {m_j})) over i ] + w CLIP(t, v),   Vol = sqrt(det G + eps)

    t: texts, the anchor; m: the other modalities of a sample, its clip v first, of those that it has (`recipes.parts.volume` has G, and what is
    ours in it); s is learned. Labels are smoothed.

    Conventions of ours: a volume is the same for a vector and its opposite, so that a text may end up opposite to its clip, and zero-shot answers,
    retrieval and search compare the two by their cosine: CLIP's loss (w) keeps them on one side. The paper starts from towers that cosines have
    aligned already, and has a matching loss over a joint encoder, which is left out. Texts of the same words, or of times that overlap, are no
    strangers.
    """

    class Settings(PairSettings):
        """Settings of GRAM."""

        scale: PositiveFloat = Field(1 / 0.07, description="first multiple of volumes (and cosines), learned")
        smoothing: float = Field(0.1, ge=0, lt=1, description="of the labels, spread over all that is compared")

    name = "gram"
    paper = "Cicchetti et al., Gramian Multimodal Representation Learning and Alignment, ICLR 2025"
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        super().__init__(encoder, settings, text, scale=settings.scale)

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """modalities of the whole batch -> the loss and its parts, the scale, the mean volume of a sample, and the share of clips whose nearest
        text is their own."""
        s, found, present = self.settings, embedded["modalities"], embedded["present"]
        scale, apart = embedded["scale"].mean(), set_apart(embedded)
        text, others = found[:, 0], found[:, 1:]
        volume = gram_loss(text, others, 1 / scale, present=present[:, 1:], apart=apart, smoothing=s.smoothing)
        pair = self.pair(found, scale, apart)
        with torch.no_grad():
            own = volumes(text, others, present[:, 1:]).diagonal().mean().float()
        return {
            "loss": volume + s.weight_pair * pair,
            "loss_volume": volume.detach(),
            "loss_pair": pair.detach(),
            "volume": own,
            "scale": scale.detach(),
            "accuracy": accuracy(found[:, 1], text),
        }
