"""What contrasts compare: the output of a small head on what is read of a clip."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt
from torch import nn

from domains.schema import Strict
from recipes.encoders.base import VideoEncoder
from recipes.parts.branch import Branch
from recipes.parts.heads import mlp


class ProjectionSettings(Strict):
    """The head of a contrast."""

    head_hidden: PositiveInt = Field(2048, description="hidden width of the head")
    head_outputs: PositiveInt = Field(128, description="width of z, which is compared")
    head_motion: bool = Field(False, description="the head also reads how tokens change over time")


def head_shape(encoder: VideoEncoder, settings: ProjectionSettings) -> dict[str, Any]:
    """What `projection_head` is made of, in the words of `recipes.parts.sensed.Shape`."""
    return {
        "video": Branch.width(encoder, motion=settings.head_motion),
        "hidden": settings.head_hidden,
        "outputs": settings.head_outputs,
        "motion": settings.head_motion,
    }


def projection_head(encoder: VideoEncoder, settings: ProjectionSettings) -> nn.Sequential:
    """The head: what `Branch` reads of a clip -> (..., head_outputs). Without batch norm: a sample's z does not depend on the others."""
    return mlp(Branch.width(encoder, motion=settings.head_motion), settings.head_hidden, settings.head_outputs)
