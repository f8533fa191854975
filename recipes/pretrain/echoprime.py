"""EchoPrime: clips of a study and its report attract; which of its views count is learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from domains.store.texts import Asked
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts.aligning import Aligning, TowerSettings
from recipes.parts.alignment import both_ways, of_one_group
from recipes.parts.contrast import accuracy


class ViewAttention(nn.Module):
    """How much each clip of a study counts, by its view.

        p_k = softmax(U layernorm(v_k))      a_k = softmax over k of (p_k . s)

    v_k (D,): clips; p_k (V,): of which view each is, where views are what the loss finds useful to tell apart: no label is needed; s (V,): the weight
    of each view, learned.
    """

    def __init__(self, width: int, views: int) -> None:
        super().__init__()
        self.tell = nn.Linear(width, views)
        self.table = nn.Parameter(torch.empty(views).normal_(std=0.1))

    def forward(self, clips: Tensor) -> Tensor:
        """(B, K, D) -> weights (B, K), of sum 1."""
        clips = clips.float()
        views = self.tell(F.layer_norm(clips, clips.shape[-1:])).softmax(dim=-1)
        return (views @ self.table).softmax(dim=1)


class EchoPrime(Aligning):
    """A view-informed vision-language model of echocardiograms (Vukadinovic et al., 2024).

        loss = w CLIP(z, t) + (1 - w) 1/K sum over k of CLIP(v_k, t)         z_i = sum over k of a_ik v_ik,  v of length one

    v (N, K, D): K clips of each study, of different recordings as far as it has so many; t (N, D): its report; a (N, K): `ViewAttention`; CLIP:
    InfoNCE both ways over one learned scale. A report is one sample; the clips of its study are drawn anew every time.

    The paper's CLIP loss is over pairs of one video and its report (w = 0); its view weights, one a (section of the report, view), come from a second
    step of multiple-instance learning and are a fixed table in what was released. Here both are learned at once, without labels of views. The
    attention is a means to learn; what reads whole studies afterwards is `vfm finetune --level study`. Conventions of ours: as for `clip`, the same
    words are no strangers.
    """

    class Settings(TowerSettings):
        """Settings of EchoPrime."""

        clips: PositiveInt = Field(4, description="K, clips of a study that are seen together")
        views: PositiveInt = Field(11, description="V, views that the attention tells apart, without labels")
        weight_study: float = Field(0.5, ge=0, le=1, description="w, of the study; the rest is of its single clips")
        scale: PositiveFloat = Field(1 / 0.07, description="first multiple of cosines, learned")
        levels: tuple[Literal["clip", "keystep", "abstract"], ...] = Field(
            (), description="levels of the texts that are learned from; empty: all"
        )
        augment: Literal["none", "weak", "strong"] = Field("weak", description="augmentation of the clips")

    name = "echoprime"
    paper = "Vukadinovic et al., EchoPrime: A Multi-Video View-Informed Vision-Language Model, 2024"
    views: Mapping[str, Clip] = {"clip": Clip()}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        super().__init__(encoder, settings, text, scale=settings.scale)
        self.views = {
            "clip" if number == 0 else f"clip {number + 1}": Clip(augment=settings.augment, recording=number)
            for number in range(settings.clips)
        }
        self.texts = {"text": Asked(levels=settings.levels, sources=settings.sources)}
        self.attention = ViewAttention(settings.outputs, settings.views)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """K clips (B, T, 3, H, W), text -> v (B, K, D), a (B, K), t (B, D), scale and which words (B,)."""
        clips = F.normalize(torch.stack([self.clips(batch, name) for name in self.views], dim=1).float(), dim=-1)
        return {
            "clips": clips,
            "weights": self.attention(clips),
            "texts": self.said(batch)[:, 0],
            "scale": self.scale(batch),
            "words": batch.texts["text"].numbers[:, 0],
        }

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """v, a, t of the whole batch -> the loss and its two terms, the scale, the share of studies whose nearest text is their own, and to how many
        clips the weights of a study amount (exp of their entropy)."""
        clips, weights, texts = (embedded[name] for name in ("clips", "weights", "texts"))
        scale, same = embedded["scale"].mean(), of_one_group(embedded["words"])
        study = (weights.unsqueeze(-1) * clips).sum(dim=1)
        whole = both_ways(study, texts, 1 / scale, apart=same)
        single = torch.stack([both_ways(one, texts, 1 / scale, apart=same) for one in clips.unbind(dim=1)]).mean()
        w = self.settings.weight_study
        used = -(weights * weights.clamp_min(1e-9).log()).sum(dim=1)
        return {
            "loss": w * whole + (1 - w) * single,
            "loss_study": whole.detach(),
            "loss_clips": single.detach(),
            "accuracy": accuracy(study, texts),
            "scale": scale.detach(),
            "clips_used": used.exp().mean().detach(),
        }
