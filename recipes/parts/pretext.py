"""Pretext tasks: questions about a clip whose answers are known from how the clip was made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import AfterValidator, Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses, ObjectiveSettings
from recipes.parts.heads import mlp
from recipes.parts.standardise import BatchStandardise


def _different(speeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(speeds)) < max(2, len(speeds)):
        raise ValueError("needs two speeds or more, no two alike")
    return speeds


# Playback speeds that a clip is shown at, in frames of the loader's clip from one frame to the next.
Speeds = Annotated[tuple[PositiveInt, ...], AfterValidator(_different)]


class PretextSettings(ObjectiveSettings):
    """Settings of a pretext task; those of most are these alone."""

    head_hidden: PositiveInt = Field(512, description="hidden width of the head that answers")


class Pretext(nn.Module, ABC):
    """A question, the views that it is asked of, and the head that answers it.

    Knows no encoder of its own: it is a method by itself (`recipes.pretrain.added.alone`), or added to any other, and then shares that one's encoder.
    A view whose `near` is None is then drawn from where the method looks.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    Settings: ClassVar[type[PretextSettings]] = PretextSettings
    views: Mapping[str, Clip] = {"clip": Clip(augment="weak")}

    def __init__(self, encoder: VideoEncoder, settings: PretextSettings) -> None:
        """encoder: asked for its width and geometry, and not kept."""
        super().__init__()
        self.settings = settings
        self.standardise = BatchStandardise()

    @abstractmethod
    def forward(self, encoder: VideoEncoder, batch: Batch) -> Losses:
        """Scalars: `loss`, with gradient, and what a person watches, without."""

    def read(self, encoder: VideoEncoder, clips: Tensor) -> Tensor:
        """What heads read of clips (B, ..., T, C, H, W), all in one pass: (B, ..., 2 D), every channel to mean 0 and deviation 1 over all of them.

        The mean of the tokens and how they change over time (`VideoEncoder.measure`), without what all clips have in common. These questions
        were asked of networks full of batch norm; a transformer has none. From random weights its embeddings are nearly all alike, and a head that
        reads them as they are never leaves chance, while what they have in common grows (measured: docs/recipes.md).
        """
        read = encoder.measure(clips.flatten(0, -5))
        standardised: Tensor = self.standardise(read.unflatten(0, clips.shape[:-4]))
        return standardised


def answers(width: int, hidden: int, choices: int) -> nn.Sequential:
    """The head of a question: (..., width) -> scores (..., choices), all close to 0 at first, so that an opinion without grounds teaches nothing."""
    head = mlp(width, hidden, choices)
    timid(head[-1])
    return head


def timid(layer: nn.Module) -> None:
    """The last layer of a head, a linear one: small weights, no bias."""
    assert isinstance(layer, nn.Linear)
    nn.init.trunc_normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)


def answered(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """(cross-entropy, accuracy) of scores (..., K) for answers (...) in [0, K), over all of them, in fp32; the accuracy carries no gradient."""
    rows, right = scores.float().flatten(0, -2), truth.flatten()
    return F.cross_entropy(rows, right), (rows.detach().argmax(dim=-1) == right).float().mean()


def several(clip: Tensor, indices: Tensor) -> Tensor:
    """n clips out of a longer one: clip (B, L, C, H, W), indices (B, n, T) on any device -> (B, n, T, C, H, W)."""
    rows = torch.arange(len(clip), device=clip.device).view(-1, 1, 1)
    return clip[rows, indices.to(clip.device, non_blocking=True)]
