"""A video encoder and a tower of signals (what a wrist feels, poses) in one space.

A run of a method that brings the two together leaves `encoder/`, as ever, and the rest of it: `signal.safetensors`, the tower and both heads, with
their shape in `signal.json`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from domains.errors import ModelError
from domains.schema import Strict, parse
from recipes.encoders.base import VideoEncoder
from recipes.encoders.loading import open_encoder, read_json
from recipes.parts.branch import Branch
from recipes.parts.heads import mlp
from recipes.parts.poses import PoseTower
from recipes.parts.signals import SignalTower

SHAPE, WEIGHTS = "signal.json", "signal.safetensors"


class Shape(Strict):
    """video: channels that are read of a clip. hidden: width of the heads' hidden layer. outputs: D, of the common space. motion: of a clip is read
    what `VideoEncoder.describe` says, not `embed`. width: of the tower. lines: of a signal in the time of a clip, in training; None: unknown.
    """

    video: PositiveInt
    hidden: PositiveInt
    outputs: PositiveInt
    motion: bool = False
    width: PositiveInt
    lines: PositiveInt | None = None


class ImuShape(Shape):
    """channels: numbers at a time."""

    signal: Literal["imu"] = "imu"
    channels: PositiveInt


class PoseShape(Shape):
    """See `PoseTower`."""

    signal: Literal["pose"] = "pose"
    joints: PositiveInt
    steps: PositiveInt
    bins: PositiveInt
    depth: PositiveInt
    heads: PositiveInt


class Sensed(nn.Module, ABC):
    """The head of clips, a tower of signals and its head. A sample's vectors do not depend on other samples."""

    shape: ImuShape | PoseShape

    def __init__(self, shape: ImuShape | PoseShape) -> None:
        super().__init__()
        self.shape = shape
        self.head = mlp(shape.video, shape.hidden, shape.outputs)

    @property
    @abstractmethod
    def channels(self) -> int:
        """Numbers of a line of the signal."""

    def read(self, encoder: VideoEncoder, pixel_values: Tensor) -> Tensor:
        """What the head reads of clips (B, T, C, H, W): (B, shape.video)."""
        return (encoder.describe if self.shape.motion else encoder.embed)(pixel_values)

    def clips(self, encoder: VideoEncoder, pixel_values: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, D), of any length."""
        said: Tensor = self.head(self.read(encoder, pixel_values))
        return said

    @abstractmethod
    def signals(self, values: Tensor) -> Tensor:
        """imu (B, T', channels), pose (B, T', joints, 2), NaN where nothing was measured -> (B, D), of any length. Raises ConfigError for another
        number of channels."""

    @abstractmethod
    def present(self, values: Tensor) -> Tensor:
        """Whether the tower has anything to read (B,) bool."""


class SensedImu(Sensed):
    """See `SignalTower`."""

    shape: ImuShape

    def __init__(self, shape: ImuShape) -> None:
        super().__init__(shape)
        self.tower = SignalTower(shape.channels, shape.width)
        self.signal_head = mlp(2 * shape.width, shape.hidden, shape.outputs)

    @property
    def channels(self) -> int:
        return self.shape.channels

    def signals(self, values: Tensor) -> Tensor:
        said: Tensor = self.signal_head(self.tower(values))
        return said

    def present(self, values: Tensor) -> Tensor:
        return (~values.isnan()).flatten(1).any(dim=1)


class SensedPose(Sensed):
    """See `PoseTower`."""

    shape: PoseShape

    def __init__(self, shape: PoseShape) -> None:
        super().__init__(shape)
        self.tower = PoseTower(shape.joints, shape.steps, shape.bins, shape.width, shape.depth, shape.heads)
        self.signal_head = nn.Linear(shape.width, shape.outputs)

    @property
    def channels(self) -> int:
        return 2 * self.shape.joints

    def signals(self, values: Tensor) -> Tensor:
        return self.said(self.tower.tokens(values))

    def said(self, tokens: Tensor) -> Tensor:
        """What is said of tokens (B, steps, J): (B, D)."""
        said: Tensor = self.signal_head(self.tower(tokens)[0])
        return said

    def present(self, values: Tensor) -> Tensor:
        return self.seen(self.tower.tokens(values))

    def seen(self, tokens: Tensor) -> Tensor:
        """Whether any joint is, of tokens (B, steps, J): (B,) bool."""
        return (tokens != self.tower.unseen).flatten(1).any(dim=1)


class Sensing(nn.Module):
    """A video encoder and what reads signals, whose vectors can be compared: the cosine of a clip and a signal is `embed_clips(...) @
    embed_signals(...).T`."""

    def __init__(self, encoder: VideoEncoder, sensed: SensedImu | SensedPose) -> None:
        super().__init__()
        self.encoder, self.sensed = encoder, sensed

    def embed_clips(self, pixel_values: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised -> (B, D) fp32, of length one."""
        return F.normalize(self.sensed.clips(self.encoder, pixel_values).float(), dim=-1)

    def embed_signals(self, values: Tensor) -> Tensor:
        """imu (B, T', channels), pose (B, T', joints, 2) in shares of the clip, NaN where nothing was measured -> (B, D) fp32, of length one. Raises
        ConfigError for another number of channels or joints."""
        return F.normalize(self.sensed.signals(values).float(), dim=-1)


def sensed_of(shape: ImuShape | PoseShape) -> SensedImu | SensedPose:
    """A new tower and heads of that shape, random weights."""
    return SensedPose(shape) if isinstance(shape, PoseShape) else SensedImu(shape)


def save_sensed(run: Path, sensed: Sensed, lines: int | None = None) -> None:
    """Write the tower and the heads into a run folder, beside its `encoder/`. lines: see `Shape`. Raises OSError."""
    save_file({name: value.detach().cpu().contiguous() for name, value in sensed.state_dict().items()}, run / WEIGHTS)
    about = sensed.shape.model_copy(update={"lines": lines}).model_dump(mode="json")
    (run / SHAPE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def is_sensed(run: str | Path) -> bool:
    """Whether a folder is a run that brought clips and signals together, and is finished."""
    return (Path(run) / SHAPE).is_file()


def open_sensed(
    run_folder: str | Path, *, frames: int | None = None, size: int | None = None, online: bool = False
) -> Sensing:
    """The encoder and the tower of a run that brought them together, in evaluation mode. frames, size: what the encoder shall see; None: as it was
    saved.

    Raises ModelError where the folder holds no such run, or its weights cannot be used.
    """
    run = Path(run_folder)
    about = read_json(run / SHAPE)
    if about is None:
        what = f"not a run that brought clips and signals together (no {SHAPE})"
        raise ModelError(what, where=run, do="Train one: vfm pretrain --recipe imu --out RUN")
    kinds: dict[object, type[ImuShape] | type[PoseShape]] = {"imu": ImuShape, "pose": PoseShape}
    if (kind := kinds.get(about.get("signal"))) is None:
        what = f"a tower of '{about.get('signal')}', which this vfm does not know"
        raise ModelError(what, where=run / SHAPE, do="Open it with the vfm that trained it")
    sensed = sensed_of(parse(kind, about, run / SHAPE))
    try:
        sensed.load_state_dict(load_file(run / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        what = f"the tower cannot be used ({error.__class__.__name__})"
        raise ModelError(what, where=run / WEIGHTS, do="Copy the whole folder that the run left") from None
    encoder = open_encoder(run, frames=frames, size=size, online=online)
    width = Branch.width(encoder, motion=sensed.shape.motion)
    if width != sensed.shape.video:
        what = f"its encoder gives {width} channels of a clip, its head reads {sensed.shape.video}"
        raise ModelError(what, where=run, do="Copy the whole folder that the run left")
    return Sensing(encoder, sensed).eval()
