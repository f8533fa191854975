"""CLIP-ViP: frames of an image model share proxy tokens, and clips learn from what was said and from what is seen in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from domains.store.texts import Asked
from recipes.encoders.base import VideoEncoder
from recipes.encoders.between import Proxies, ProxySettings
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts.aligning import Aligning, AligningSettings, check_talks
from recipes.parts.alignment import both_ways, set_apart, sources_nce
from recipes.parts.contrast import accuracy
from recipes.parts.distributed import gather


class CLIPViP(Aligning):
    """CLIP-ViP: adapting pre-trained image-text model to video-language alignment (Xue et al., ICLR 2023).

        loss = InfoNCE(v, {s, c}) + w * InfoNCE both ways(f, c)

    v: the clip as an encoder with proxy tokens sees it (`recipes.encoders.between.Proxies`); f: one frame of it, held still; s: what was said of its
    time, the text of the sample; c: a caption of the same time, by another source (omnisource learning). A clip goes with both of its texts, and its
    strangers are the texts of both kinds (`recipes.parts.alignment.sources_nce`). Samples without a caption learn from what was said. Proxies stay
    with the encoder (`proxies.safetensors`).

    Conventions of ours: what is read of a clip are its tokens, as everywhere here, which have met the proxies in every block, where the paper reads
    the first proxy; captions are texts of other sources, where the paper has an image captioner write one of the middle frame; a video encoder may
    have proxies too. Texts of the same words, or of times that overlap, are no strangers.
    """

    class Settings(AligningSettings):
        """Settings of CLIP-ViP."""

        proxies: PositiveInt = Field(4, description="M, proxy tokens; of an encoder that has none")
        captions: tuple[str, ...] = Field(
            (), description="sources of captions, e.g. the name of a --text file; empty: all but the sample's own"
        )
        scale: PositiveFloat = Field(1 / 0.07, description="first multiple of cosines, learned")
        weight_frame: NonNegativeFloat = Field(1.0, description="w, of frames and captions")
        augment: Literal["none", "weak", "strong"] = Field("weak", description="augmentation of the clips")

    name = "clipvip"
    paper = "Xue et al., CLIP-ViP: Adapting Pre-trained Image-Text Model to Video-Language Alignment, ICLR 2023"
    views: Mapping[str, Clip] = {"clip": Clip()}
    texts: Mapping[str, Asked] = {"text": Asked(), "caption": Asked("beside")}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        check_talks(encoder, self.name)
        if encoder.proxies is None:
            encoder.proxies = Proxies(ProxySettings(count=settings.proxies, width=encoder.width))
        encoder.proxies.requires_grad_(True)  # also of an encoder that is frozen itself
        super().__init__(encoder, settings, text, scale=settings.scale)
        self.views = {"clip": Clip(augment=settings.augment)}
        self.texts = {
            "text": Asked(sources=settings.sources),
            "caption": Asked("beside", sources=settings.captions),
        }

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip (B, T, 3, H, W), its text and a caption -> v, f, s, c (B, D), whether there is a caption (B,); scale and facts (B,)."""
        clip = batch["clip"]
        frame = clip[:, clip.shape[1] // 2].unsqueeze(1).expand_as(clip)
        return {
            "clips": self.clips(batch),
            "frames": self.alignment.clips(self.encoder, frame),
            "texts": self.said(batch)[:, 0],
            "captions": self.said(batch, "caption")[:, 0],
            "captioned": batch.texts["caption"].present[:, 0],
            "scale": self.scale(batch),
            **self.facts(batch),
        }

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """Of the whole batch -> the loss and its parts, the scale, and the share of clips whose nearest text is their own."""
        clips, texts, captions, captioned = (embedded[name] for name in ("clips", "texts", "captions", "captioned"))
        scale, apart = embedded["scale"].mean(), set_apart(embedded)
        present = torch.stack([torch.ones_like(captioned), captioned], dim=1)
        video = sources_nce(clips, torch.stack([texts, captions], dim=1), 1 / scale, present, apart=apart)
        lacking = apart | ~(gather(captioned.long()) > 0)
        frame = both_ways(embedded["frames"], captions, 1 / scale, apart=lacking, weights=captioned.float())
        return {
            "loss": video + self.settings.weight_frame * frame,
            "loss_video": video.detach(),
            "loss_frame": frame.detach(),
            "scale": scale.detach(),
            "accuracy": accuracy(clips, texts),
        }
