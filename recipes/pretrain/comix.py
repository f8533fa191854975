"""CoMix: labels of one domain, recordings of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.encoders.base import VideoEncoder
from recipes.objective import LABEL, Batch, Clip, Losses, Objective, ObjectiveSettings
from recipes.parts import draws
from recipes.parts.distributed import rank
from recipes.parts.frames import take
from recipes.parts.heads import mlp
from recipes.parts.pretext import timid
from recipes.parts.supcon import sup_con

Share = Annotated[float, Field(gt=0, le=1)]


class CoMix(Objective):
    """Contrast and mix: unsupervised adaptation between domains (Sahoo et al., NeurIPS 2021).

        loss = CE(W v(x_s), y) + weight_mix (BGM_s + BGM_t) + weight_labels TPL,   v = encoder(clip), z = head(v), length one

        BGM   SupCon(z(x), z(slow x), z(x'), z(slow x'); tau): four views of each recording attract, other recordings of its domain repel
              x' = (1 - g) x + g background of a recording of the other domain (the median over time),   g ~ U(0, mix)
        TPL   SupCon(z(x_t), z(slow x_t); tau) of target recordings with one pseudo-label, argmax of (W v(x_t) + W v(slow x_t)) / 2, where its
              probability is above `confidence`

    x_s (labelled) and x_t: clips (B, T, C, H, W) of source and target; slow: a quarter, half or three quarters of the frames, each held.

    Conventions of ours: an encoder has one clip geometry, so that the slow clip holds its frames instead of being shorter, and no graph joins several
    clips. z is a projection of length one; the official code contrasts softmax outputs that are not normalised. SupCon has no factor tau / 0.07, and
    the source is not contrasted by its labels: the official code computes that and leaves it out of its sum. The classes are those of the labels of
    `data.source`.
    """

    class Settings(ObjectiveSettings):
        """Settings of CoMix; the defaults are the paper's, and the smoothing that of its code."""

        classes: tuple[str, ...] = Field((), description="filled in from the labels of the source")
        slow: tuple[Share, ...] = Field((0.25, 0.5, 0.75), min_length=1, description="shares of frames of slow clips")
        mix: float = Field(0.5, ge=0, le=1, description="largest share of another domain's background")
        temperature: PositiveFloat = Field(0.5, description="tau of both contrasts")
        weight_mix: NonNegativeFloat = Field(0.1, description="of the contrast with mixed backgrounds, in both domains")
        weight_labels: NonNegativeFloat = Field(0.01, description="of the contrast by pseudo-labels")
        confidence: float = Field(0.7, ge=0, le=1, description="least probability of a pseudo-label")
        smoothing: float = Field(0.1, ge=0, lt=1, description="of the labels")
        head_hidden: PositiveInt = Field(512, description="hidden width of the projection")
        head_outputs: PositiveInt = Field(128, description="width of z")

    name = "comix"
    paper = "Sahoo et al., Contrast and Mix: Temporal Contrastive Video Domain Adaptation with Background Mixing, NeurIPS 2021"
    views: Mapping[str, Clip] = {"target": Clip(augment="weak")}
    labelled: Mapping[str, Clip] = {"source": Clip(augment="weak")}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.classify = nn.Linear(encoder.description, len(settings.classes))
        timid(self.classify)
        self.project = mlp(encoder.description, settings.head_hidden, settings.head_outputs)

    def forward(self, batch: Batch) -> Losses:
        """target and source (B, T, C, H, W), targets["label"] (B,) class numbers of the source -> the losses and what a person watches."""
        s, source, target = self.settings, batch["source"], batch["target"]
        share = (s.mix * draws.uniform(batch.seeds, name="comix mix")).to(source.device).view(-1, 1, 1, 1, 1)
        read_source = self.four(source, mixed(source, target, share), batch.seeds, "source")
        read_target = self.four(target, mixed(target, source, share), batch.seeds, "target")
        scores, label = self.classify(read_source[:, 0]).float(), batch.targets[LABEL].long()
        supervised = F.cross_entropy(scores, label, label_smoothing=s.smoothing)
        z_source, z_target = self.project(read_source), self.project(read_target)
        own = torch.arange(len(batch), device=source.device) + len(batch) * rank()  # each recording is its own label
        mix = sup_con(z_source, own, s.temperature), sup_con(z_target, own, s.temperature)
        said = self.classify(read_target[:, :2].detach()).detach().float().mean(dim=1)  # of both, without teaching
        likely, guess = said.softmax(dim=-1).max(dim=-1)
        sure = likely > s.confidence
        guessed = sup_con(z_target[:, :2], guess, s.temperature, sure)
        return {
            "loss": supervised + s.weight_mix * (mix[0] + mix[1]) + s.weight_labels * guessed,
            "loss_labels": supervised.detach(),
            "loss_mix_source": mix[0].detach(),
            "loss_mix_target": mix[1].detach(),
            "loss_guessed": guessed.detach(),
            "accuracy": (scores.detach().argmax(dim=-1) == label).float().mean(),
            "sure": sure.float().mean(),
        }

    def four(self, clip: Tensor, other: Tensor, seeds: Tensor, name: str) -> Tensor:
        """What heads read of a clip, of it slow, of the mixed one, of that slow: (B, 4, `description`). Both are slow in the same way."""
        order = slow_frames(seeds, clip.shape[1], self.settings.slow, f"comix {name}")
        clips = torch.stack([clip, take(clip, order), other, take(other, order)], dim=1)
        return self.encoder.describe(clips.flatten(0, 1)).unflatten(0, (-1, 4))

    def final_head(self) -> nn.Linear:
        """The classifier, which reads `VideoEncoder.describe`."""
        return self.classify


def mixed(clip: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Clips (B, T, C, H, W) with the background of `other` shining through: its median over time, by share (B, 1, 1, 1, 1)."""
    return torch.lerp(clip, other.median(dim=1, keepdim=True).values.expand_as(clip), share)


def slow_frames(seeds: Tensor, frames: int, shares: tuple[float, ...], name: str) -> Tensor:
    """Frames of a slow clip (B, frames): cut into as many parts as a drawn share of `frames`, and in place of each part one of its frames, drawn."""
    drawn = torch.tensor(shares)[draws.integers(seeds, len(shares), name=f"{name} share")]
    parts = (drawn * frames).round().long().clamp(1, frames).unsqueeze(1)
    part = torch.arange(frames) * parts // frames
    first, after = -(-part * frames // parts), -(-(part + 1) * frames // parts)
    where = draws.uniform(seeds, (frames,), name=f"{name} frame").gather(1, part)
    return first + (where * (after - first)).long()
