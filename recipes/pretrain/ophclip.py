"""OphCLIP: clips with narrations, videos with titles, and silent videos that a title may as well be about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from domains.store.texts import LEVELS, Asked
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Clip, Losses, Progress
from recipes.parts.aligning import Aligning, AligningSettings
from recipes.parts.alignment import LOWEST, both_ways
from recipes.parts.contrast import accuracy
from recipes.parts.distributed import gather, places
from recipes.parts.levels import no_strangers
from recipes.parts.precision import as_they_are
from recipes.parts.queue import Queue

TITLE = LEVELS.index("abstract")


class OphCLIP(Aligning):
    """Hierarchical retrieval-augmented learning for ophthalmic surgical video-language pretraining (Hu et al., ICCV 2025).

        loss = CLIP(v, t) over narrations and over titles, each among their own
             + w * mean over titles, and over p in {own clip, K silent}, of - log  exp(s t . p)  /  [ sum over these p + the same of other titles ]

    v: clips; t: narrations (clip, keystep) or titles (abstract). Recordings without any text are samples too. Of theirs, in this batch and in a
    memory bank of earlier ones, the K with the largest inner product with a title's own clip are further positives of the title, and strangers of
    those other titles whose own they are not.

    Conventions of ours: both kinds are in every batch (the paper alternates them). Narrations outnumber titles and silent videos by far, so that
    these are met again until they have their share of the samples. Nothing is retrieved before the share `begin` of the run: what untrained towers
    take for alike is not (the authors' are trained already). s is learned as CLIP's. The bank holds embeddings of earlier steps and has no gradient:
    it teaches the texts alone, the silent clips of this batch teach the encoder too. Each positive counts by itself (Khosla et al., Supervised
    Contrastive Learning, NeurIPS 2020): were it enough that any of them fits, the title's own clip would do, and silent ones taught nothing.
    Rows of the bank that nobody has filled yet, and those of narrated recordings, are no positives.
    """

    class Settings(AligningSettings):
        """Settings of OphCLIP."""

        scale: PositiveFloat = Field(1 / 0.07, description="first multiple of cosines, learned")
        bank: PositiveInt = Field(
            1024, description="embeddings that the memory bank holds; fewer than there are silent clips"
        )
        retrieved: PositiveInt = Field(4, description="K: silent clips that are further positives of a title")
        begin: float = Field(0.3, ge=0, lt=1, description="share of the run before anything is retrieved")
        weight_titles: NonNegativeFloat = Field(1.0, description="how much a title counts, in terms of a narration")
        weight_silent: NonNegativeFloat = Field(1.0, description="w: of the retrieved positives")
        share_titles: float = Field(0.25, ge=0, lt=0.5, description="least share of titles among the samples")
        share_silent: float = Field(0.25, ge=0, lt=0.5, description="least share of silent videos among the samples")
        augment: Literal["none", "weak", "strong"] = Field("weak", description="augmentation of the clips")

    name = "ophclip"
    paper = "Hu et al., OphCLIP: Hierarchical Retrieval-Augmented Learning for Ophthalmic Surgical Video-Language Pretraining, ICCV 2025"
    views: Mapping[str, Clip] = {"clip": Clip()}
    texts: Mapping[str, Asked] = {"text": Asked()}
    silent = True
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        super().__init__(encoder, settings, text, scale=settings.scale)
        self.views = {"clip": Clip(augment=settings.augment)}
        self.texts = {"text": Asked(sources=settings.sources)}
        self.shares = {LEVELS[TITLE]: settings.share_titles, "silent": settings.share_silent}
        self.bank = Queue(settings.bank, settings.outputs)
        self.before_step(Progress(0, 1, 0.0))

    def before_step(self, progress: Progress) -> None:
        """Whether what is retrieved means anything yet."""
        self.begun = progress.fraction >= self.settings.begin

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip (B, T, 3, H, W), text -> v, t (B, D); scale, words, levels (-1: silent) and recordings (B,)."""
        found = {
            "clips": self.clips(batch),
            "texts": self.said(batch)[:, 0],
            "scale": self.scale(batch),
            **self.facts(batch),
            "levels": self.levels(batch),
        }
        return {**found, "recordings": batch.index.to(found["levels"].device, non_blocking=True)}

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """Of the whole batch -> the loss and its parts, the scale, and the share of clips whose nearest text is their own. Fills the bank."""
        s, clips, texts = self.settings, embedded["clips"], embedded["texts"]
        scale, levels = embedded["scale"].mean(), embedded["levels"]
        weights = torch.tensor([1.0, 1.0, s.weight_titles, 0.0], device=levels.device)[levels]
        apart = no_strangers(embedded, levels)
        own = both_ways(clips, texts, 1 / scale, apart=apart, weights=weights)
        retrieved = self.of_silent(embedded, scale, apart, (levels == TITLE) & self.begun)
        silent = levels < 0
        self.bank.push(clips, torch.where(silent, embedded["recordings"], -1))
        return {
            "loss": own + s.weight_silent * retrieved,
            "loss_own": own.detach(),
            "loss_retrieved": retrieved.detach(),
            "silent": silent.float().mean(),
            "scale": scale.detach(),
            "accuracy": accuracy(clips, texts, ~silent),
        }

    def of_silent(self, embedded: Mapping[str, Tensor], scale: Tensor, apart: Tensor, asked: Tensor) -> Tensor:
        """The second term, of the texts of this rank that are `asked` (B,) bool; over all samples, so that ranks are averaged as one."""
        clips, texts = (F.normalize(embedded[name].float(), dim=-1) for name in ("clips", "texts"))
        everyone = gather(clips)
        rows = torch.cat([everyone, self.bank.rows.clone()])  # a copy: the bank is filled before gradients are
        silent = torch.cat([gather(embedded["levels"]) < 0, self.bank.recordings >= 0])
        # what is set aside for others is not for the sample itself
        itself = torch.zeros_like(apart).scatter_(1, places(len(clips), clips.device).unsqueeze(1), True)
        with as_they_are(clips):
            alike = (clips.detach() @ rows.detach().T).masked_fill(~silent, -torch.inf)
            near, which = alike.topk(min(self.settings.retrieved, len(rows)), dim=1)
            own = torch.zeros_like(alike).scatter_(1, which, (~near.isinf() & asked.unsqueeze(1)).float()) > 0
            # without them a text would only have to be near any silent clip: that is true of all texts at once
            strangers = (~apart).float() @ gather(own.float()) > 0
            logits = texts @ rows.T * scale
        held = len(everyone)
        own[:, :held] |= itself
        strangers[:, :held] |= ~apart
        every = logits.masked_fill(~(own | strangers), LOWEST).logsumexp(dim=1)
        positives = (logits * own).sum(dim=1) / own.sum(dim=1)
        return ((every - positives) * asked).mean()
