"""ProcedureVRL: narrations name the steps of a procedure, and their order says which step a clip must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from domains.store.texts import Asked
from recipes.encoders.base import VideoEncoder
from recipes.encoders.positions import sincos_table
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Clip, Losses, Progress
from recipes.parts.aligning import Aligning, TowerSettings
from recipes.parts.distributed import mean_of_counted
from recipes.parts.draws import uniform
from recipes.parts.heads import renormalise
from recipes.parts.losses import cluster_cross_entropy
from recipes.parts.prototypes import Prototypes, sinkhorn


class Procedure(Aligning):
    """Learning procedure-aware video representation from instructional videos and their narrations (ProcedureVRL, Zhong et al., CVPR 2023).

        s(x)   = C x / |x|,   C (concepts, D) of length one: step concepts;   p(x) = softmax(s(x) / tau)
        match  = 1/2 [ H(q(t_m), p(v_m)) + H(q(v_m), p(t_m)) ],   q = Sinkhorn of s over the batch: a clip shows the step that its narration names
        order  = H(q(t_m), p(o_m)),   o = transformer(v_0, ..., v_K) with clip m hidden: which step comes there, by those before and after
        loss   = match + weight_order order

    A sample is a narration and the K that follow it by the same source, each with a clip v_k of its time; m is drawn for each sample. One that
    nothing follows has no order to learn from.

    Conventions of ours: concepts are learned from the narrations at hand, balanced over the batch so that no concept takes all, where the paper fixes
    them beforehand as the verb phrases of a large corpus in CLIP's text space. One pass of a transformer guesses the hidden step, where the paper
    has a diffusion process.
    """

    class Settings(TowerSettings):
        """Settings of ProcedureVRL; sizes are ours."""

        concepts: PositiveInt = Field(64, description="step concepts; more than there are steps does no harm")
        following: PositiveInt = Field(4, description="K, narrations after that of the sample")
        order_depth: PositiveInt = Field(2, description="blocks of the transformer over the steps")
        order_heads: PositiveInt = Field(4, description="its attention heads; outputs is a multiple of them")
        weight_order: NonNegativeFloat = Field(1.0, description="of the hidden step")
        temperature: PositiveFloat = Field(0.1, description="tau")
        sinkhorn_epsilon: PositiveFloat = Field(0.05, description="entropy of the assignments")
        augment: Literal["none", "weak", "strong"] = Field("weak", description="augmentation of the clips")

        @model_validator(mode="after")
        def _divides(self) -> Any:
            if self.outputs % self.order_heads:
                raise ValueError("outputs must be a multiple of order_heads")
            return self

    name = "procedure"
    paper = "Zhong et al., Learning Procedure-aware Video Representation from Instructional Videos and Their Narrations, CVPR 2023"
    views: Mapping[str, Clip] = {"clip": Clip()}
    texts: Mapping[str, Asked] = {"text": Asked(levels=("clip",)), "after": Asked("after", count=4)}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        s = settings
        super().__init__(encoder, s, text, scale=1 / s.temperature, learned=False)
        names = tuple(f"after {number}" for number in range(1, s.following + 1))
        self.views = dict.fromkeys(("clip", *names), Clip(augment=s.augment))
        self.texts = {
            "text": Asked(levels=("clip",), sources=s.sources),
            "after": Asked("after", count=s.following, levels=("clip",), sources=s.sources, views=names),
        }
        self.concepts = Prototypes(s.outputs, s.concepts)
        self.hidden = nn.Parameter(torch.randn(s.outputs))
        self.order = nn.ModuleList(
            nn.TransformerEncoderLayer(
                s.outputs, s.order_heads, 4 * s.outputs, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(s.order_depth)
        )
        self.norm = nn.LayerNorm(s.outputs)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """K + 1 clips and their narrations -> scores (B, concepts) of clip m, of its narration, and of what the other clips say of it; whether
        there are any (B,)."""
        clips = torch.stack([self.clips(batch, view) for view in self.views], dim=1)  # B, K + 1, D
        texts = torch.cat([self.said(batch), self.said(batch, "after")], dim=1)
        present = torch.cat([batch.texts["text"].present, batch.texts["after"].present], dim=1)
        steps = present.sum(dim=1)
        drawn = uniform(batch.seeds, name="hidden step").to(steps.device, non_blocking=True)
        place = (drawn * steps).long().clamp_max(steps - 1).clamp_min(0)
        rows = torch.arange(len(texts), device=texts.device)
        return {
            "clips": self.concepts(clips[rows, place]),
            "texts": self.concepts(texts[rows, place]),
            "guessed": self.concepts(self.guess(clips, present, place)),
            "several": steps > 1,
        }

    def guess(self, clips: Tensor, present: Tensor, place: Tensor) -> Tensor:
        """clips (B, K + 1, D), of which those are there that `present` (B, K + 1) bool says; place (B,): the one that is hidden. What is made of it
        by the others: (B, D)."""
        at = torch.arange(clips.shape[1], device=clips.device)
        here = (at == place.unsqueeze(1)).unsqueeze(2)
        shown = torch.where(here, self.hidden.to(clips.dtype), nn.functional.layer_norm(clips, clips.shape[-1:]))
        steps = shown + sincos_table(clips.shape[1], clips.shape[2]).to(shown)
        missing = torch.zeros_like(present, dtype=torch.float32).masked_fill(~present, torch.finfo(torch.float32).min)
        for block in self.order:
            steps = block(steps, src_key_padding_mask=missing.to(steps.dtype))
        said: Tensor = self.norm(steps)[torch.arange(len(steps), device=steps.device), place]
        return said

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """Scores of the whole batch -> the loss and its terms; how often clip and narration name the same concept, and how often the hidden step is
        guessed."""
        s = self.settings
        clips, texts, guessed, several = (embedded[name] for name in ("clips", "texts", "guessed", "several"))
        q_clips, q_texts = (sinkhorn(one.detach(), s.sinkhorn_epsilon) for one in (clips, texts))
        there, back = (
            cluster_cross_entropy(scores, q, s.temperature) for scores, q in ((clips, q_texts), (texts, q_clips))
        )
        match = (there + back) / 2
        each = -(q_texts * (guessed / s.temperature).log_softmax(dim=-1)).sum(dim=-1)
        order = mean_of_counted(each, several)
        right = (guessed.argmax(dim=-1) == q_texts.argmax(dim=-1)).float()
        return {
            "loss": match + s.weight_order * order,
            "loss_match": match.detach(),
            "loss_order": order.detach(),
            "agreement": (clips.argmax(dim=-1) == texts.argmax(dim=-1)).float().mean(),
            "guessed": mean_of_counted(right, several).detach(),
        }

    def after_step(self, progress: Progress) -> None:
        """Concepts back to length one."""
        super().after_step(progress)
        renormalise(self.concepts)
