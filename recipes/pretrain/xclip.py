"""X-CLIP: frames of an image model send each other messages, and clips put texts in their own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from domains.store.texts import Asked
from recipes.encoders.base import VideoEncoder
from recipes.encoders.between import Messages, MessageSettings
from recipes.encoders.temporal import TemporalModule, TemporalSettings
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts.aligning import AligningSettings, Towers, check_talks
from recipes.parts.alignment import both_ways, set_apart
from recipes.parts.contrast import accuracy
from recipes.parts.distributed import gather, places
from recipes.parts.precision import as_they_are
from recipes.parts.prompts import Prompts


class XCLIP(Towers):
    """Expanding language-image pretrained models for general video recognition (Ni et al., X-CLIP, ECCV 2022).

        loss = 1/2 [ CE(s cos(v_i, c_ij) over texts j) + CE(s cos(v_i, c_ij) over clips i) ] + w CLIP(v, c),   c_ij = c_j + alpha decoder(c_j,
        patches_i)

    v: the clip as an encoder with messages sees it (`recipes.encoders.between.Messages`, before every block), and attention over time after the last;
    patches_i: its tokens, the mean over time, through a norm and a matrix. Messages and attention over time stay with the encoder (`messages` and
    `temporal.safetensors`).

    Conventions of ours: a contrast both ways between all texts and clips of the batch (the paper: classes, one way); attention over time is of each
    place (`TemporalModule`), begun as the identity, where the paper has it of the CLS tokens; a video encoder may have messages too, of which the
    mean of a time's tokens takes the place of the CLS token. Prompts need the clip and the text at once, and zero-shot answers, retrieval and
    search embed each by itself: CLIP's loss of plain texts (w) is added, and the decoder is not left behind.
    """

    class Settings(AligningSettings):
        """Settings of X-CLIP."""

        temporal_depth: NonNegativeInt = Field(
            1, description="blocks of attention over time after the last block, of an encoder that has none"
        )
        prompt_depth: PositiveInt = Field(2, description="blocks of the decoder of prompts")
        prompt_heads: PositiveInt = Field(8, description="its heads; they divide `outputs`")
        alpha: PositiveFloat = Field(0.1, description="first share of the prompts, learned")
        weight_plain: NonNegativeFloat = Field(
            1.0,
            description="w, of CLIP's loss with texts as they are; 0: as the paper, whose prompts are asked at the end too",
        )
        scale: PositiveFloat = Field(1 / 0.07, description="first multiple of cosines, learned")
        augment: Literal["none", "weak", "strong"] = Field("weak", description="augmentation of the clips")

    name = "xclip"
    paper = "Ni et al., Expanding Language-Image Pretrained Models for General Video Recognition, ECCV 2022"
    views: Mapping[str, Clip] = {"clip": Clip()}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        check_talks(encoder, self.name)
        s = settings
        if encoder.messages is None:
            shape = MessageSettings(width=encoder.width, depth=len(encoder.blocks), heads=encoder.heads)
            encoder.messages = Messages(shape)
        if encoder.temporal is None and s.temporal_depth:
            over_time = TemporalSettings(width=encoder.width, depth=s.temporal_depth, heads=encoder.heads)
            encoder.temporal = TemporalModule(over_time)
        for added in (encoder.messages, encoder.temporal):
            if added is not None:
                added.requires_grad_(True)  # also of an encoder that is frozen itself
        super().__init__(encoder, settings, text, scale=s.scale)
        self.views = {"clip": Clip(augment=s.augment)}
        self.texts = {"text": Asked(sources=s.sources)}
        self.look = nn.Sequential(nn.LayerNorm(encoder.width), nn.Linear(encoder.width, s.outputs))
        self.prompts = Prompts(s.outputs, depth=s.prompt_depth, heads=s.prompt_heads, alpha=s.alpha)

    def forward(self, batch: Batch) -> Losses:
        """clip (B, T, 3, H, W), text -> the loss and its parts, the scale, and the share of clips whose nearest text (as it is) is their own."""
        clips, patches = self.seen(batch["clip"])
        texts, facts = self.said(batch)[:, 0], self.facts(batch)
        scale, apart = self.alignment.log_scale.exp().squeeze(), set_apart(facts)
        prompted = self.prompted(clips, patches, texts, scale, apart)
        plain = both_ways(clips, texts, 1 / scale, apart=apart)
        return {
            "loss": prompted + self.settings.weight_plain * plain,
            "loss_prompted": prompted.detach(),
            "loss_plain": plain.detach(),
            "scale": scale.detach(),
            "accuracy": accuracy(clips, texts),
        }

    def seen(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Clips (B, T, 3, H, W), in one pass -> v (B, D), and what their places look like (B, P, D)."""
        visible = self.encoder.changing(clips)
        tokens = self.encoder(clips, visible)
        read = self.encoder.statistics(tokens, visible) if self.settings.motion else self.encoder.pool(tokens)
        places_seen = tokens if visible is not None else tokens.unflatten(1, (self.encoder.grid[0], -1)).mean(dim=1)
        return self.alignment.video(read), self.look(places_seen)

    def prompted(self, clips: Tensor, patches: Tensor, texts: Tensor, scale: Tensor, apart: Tensor) -> Tensor:
        """The first term: clips, texts (B, D), patches (B, P, D) of this rank, apart (B, N)."""
        said = F.normalize(self.prompts(gather(texts), patches).float(), dim=-1)  # (B, N, D)
        with as_they_are(clips):
            scores = torch.einsum("bd,bnd->bn", F.normalize(clips.float(), dim=-1), said) * scale
        place = places(len(clips), clips.device)
        itself = place.unsqueeze(1) == torch.arange(scores.shape[1], device=place.device)
        scores = scores.masked_fill(apart & ~itself, torch.finfo(scores.dtype).min)
        of_texts = gather(scores).T[place]  # of this rank's texts, over the clips of all ranks
        return (F.cross_entropy(scores, place) + F.cross_entropy(of_texts, place)) / 2
