"""The one contract that the loop trains: a method of pretraining and a fine-tuning task are both an `Objective`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from domains.schema import Strict
from domains.store.clips import Clip
from domains.store.texts import Asked
from recipes.parts.gradient_cache import surrogate

if TYPE_CHECKING:
    from recipes.encoders.aligned import Alignment
    from recipes.encoders.base import VideoEncoder
    from recipes.encoders.text import TextEncoder
    from recipes.parts.sensed import Sensed

__all__ = [
    "ABOUT",
    "CAMERA",
    "EXO",
    "IMU",
    "LABEL",
    "LEVEL",
    "MOMENT",
    "NOUNS",
    "POSE",
    "SPAN",
    "TEAM",
    "VERBS",
    "Asked",
    "Batch",
    "Clip",
    "Contrast",
    "Losses",
    "Objective",
    "ObjectiveSettings",
    "Progress",
    "Words",
]

Losses = dict[str, Tensor]
LABEL = "label"  # of the recordings of a second folder, among the targets of a batch
LEVEL = "level"  # of a sample that is a text: its place in domains.store.texts.LEVELS; -1 for a silent one
# Of such a sample: (2,) int64, from when to when its text is (ms; a text about whole recordings: 0, or less, to FOREVER).
SPAN = "span"
# Of such a sample: (K,) int64, rows of the recordings that its text is about; -1 where there are fewer. With a view `across` another, of all
# recordings of its event, whose clock `span` then has.
ABOUT = "about"
FOREVER = 2**62
# Of a sample that is a recording at a moment of its event (`Objective.together`), see recipes.training.together.
MOMENT, TEAM, CAMERA, EXO = "moment", "team", "camera", "exo"
IMU, POSE = "imu", "pose"  # of signals (`Objective.signals`)
VERBS, NOUNS = "verbs", "nouns"  # of a sample that is a narration: numbers of those that it holds, -1 in empty places


class ObjectiveSettings(Strict):
    """Settings of one method; each field carries its own help."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands, after `step` optimiser steps of `total`."""

    step: int
    total: int
    epoch: float

    @property
    def fraction(self) -> float:
        """In [0, 1]."""
        return min(1.0, self.step / max(1, self.total))


@dataclass(frozen=True)
class Words:
    """Texts of each sample, as tokens.

    Attributes
        tokens: (B, K, S, L) int64; K texts of S sections of L tokens, -1 where there is nothing.
        numbers: (B, K) int64; the same for the same words, -1 for a text that is missing.
    """

    tokens: Tensor
    numbers: Tensor

    @property
    def present(self) -> Tensor:
        """(B, K) bool: which texts are there."""
        return self.numbers >= 0

    def __getitem__(self, which: slice | Tensor) -> Words:
        return Words(self.tokens[which], self.numbers[which])

    def to(self, device: torch.device | str) -> Words:
        """The same, elsewhere."""
        return Words(self.tokens.to(device, non_blocking=True), self.numbers.to(device, non_blocking=True))


@dataclass
class Batch:
    """What an objective sees.

    Attributes
        clips: view name -> pixel_values (B, T, C, H, W), on the device, augmented and normalised.
        seeds: (B,) int64, on the CPU; one number per sample, a function of (run seed, epoch, sample id) only. Masks and every other random
            choice of an objective derive from it, so that a step can be replayed and does not depend on the number of processes.
        targets: label name -> (B, ...) tensors, for fine-tuning tasks.
        index: (B,) int64, row of each sample in the manifest.
        texts: name -> what was said of each sample, on the device; for methods that ask for texts.
    """

    clips: dict[str, Tensor]
    seeds: Tensor
    targets: dict[str, Tensor] = field(default_factory=dict)
    index: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    texts: dict[str, Words] = field(default_factory=dict)

    def __getitem__(self, view: str) -> Tensor:
        return self.clips[view]

    def __len__(self) -> int:
        return len(self.seeds)

    def pieces(self, size: int) -> list[Batch]:
        """The batch in pieces of at most `size` samples, in order."""
        return [self.take(slice(first, first + size)) for first in range(0, len(self), size)]

    def take(self, which: slice | Tensor) -> Batch:
        """Some of the samples, in that order."""
        return Batch(
            {name: clip[which] for name, clip in self.clips.items()},
            self.seeds[which],
            {name: values[which] for name, values in self.targets.items()},
            self.index[which],
            {name: words[which] for name, words in self.texts.items()},
        )


class Objective(nn.Module, ABC):
    """What a run minimises. Knows no device, no rank, no checkpoint, no file.

    A subclass sets `name`, `Settings` and `views` and writes `forward`. Clusters and outputs that it counts in a `recipes.parts.usage.Usages` are
    logged, and watched by alarms. Parameters with `requires_grad` are trained; buffers and frozen
    modules (momentum teachers, centres) are saved in the run's checkpoints with everything else.

    With `train.shard` a process has whole weights only within `forward` (and `embed`), and those of an element of an nn.ModuleList only while that
    element is called; in `before_step` and `after_step` they are spread over the processes, and torch's operations work on them as ever.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    Settings: ClassVar[type[ObjectiveSettings]] = ObjectiveSettings
    # For a view that is `Clip.across` another, `NAME_missing` (B,) bool is among the targets: no other camera shows that moment.
    views: Mapping[str, Clip] = {"clip": Clip()}
    # False: the encoder's own weights stay as they are, and the method adds something to it.
    adapts: ClassVar[bool] = True
    # False: it learns from what an encoder has said before; no clip is read, and monitors have none to look at.
    asks_encoder: ClassVar[bool] = True
    # What of a sample takes less memory where it is smaller, for people.
    lighter: ClassVar[str] = "smaller clips (clip.frames, clip.size)"
    # Views of a second prepared folder, with labels (`data.source`): adaptation between domains. Their class numbers are targets["label"].
    labelled: Mapping[str, Clip] = {}
    # Texts that it learns from: a sample is then a text and the clips of its time. Its class takes a text tower as well.
    texts: Mapping[str, Asked] = {}
    # Whether recordings that nobody said anything of are samples too, with all their texts missing.
    silent: bool = False
    # Least share of the samples of an epoch, by level of their texts (of domains.store.texts.LEVELS) or "silent": what is rarer is met again.
    shares: Mapping[str, float] = {}
    # Whether it asks what a text's act is: its targets are then also `verbs` (B, 4) and `nouns` (B, 8) int64 (see domains.store.actions), -1 in empty
    # places, and `exo` (B,) bool, whether the recording is of a camera that nobody wears.
    acts: ClassVar[bool] = False
    # Signals that were recorded beside the video, by name, at the time of its clips: targets of a batch, (B, T, channels) float32 (of poses: (B, T,
    # joints, 2) in shares of the first view, as it was cropped and mirrored), NaN where nothing was measured, or beyond the crop; `imu_missing`,
    # `pose_missing` (B,) bool: nothing at all was.
    signals: ClassVar[tuple[str, ...]] = ()
    # Whether a sample is one recording at one moment of its event, next to the others of that moment. Among the targets of a batch are then (B,):
    # `moment` int64, the same for the same event and moment; `team` int64, the same for recordings of one team within an event, -1 where unknown;
    # `camera` int64, its number within the event; `exo` bool, a camera that nobody wears. Groups are as large as they are; one may go on in
    # the next batch. With `texts` it has no effect.
    together: ClassVar[bool] = False

    def __init__(self, encoder: VideoEncoder, settings: ObjectiveSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings
        self.text: TextEncoder | None = None

    @abstractmethod
    def forward(self, batch: Batch) -> Losses:
        """Returns scalars: `loss` is required and differentiable, the rest is logged under its own name."""

    @property
    def encoders(self) -> tuple[VideoEncoder, ...]:
        """Those that `optim.encoder_lr` and `optim.encoder_begin` are of; all else that is trained are heads."""
        return (self.encoder,)

    def stage(self, progress: Progress) -> Progress:
        """Where the part of the run stands over which the learning rate warms up and falls once: the whole of it, or the stage that a method of
        several stages is in."""
        return progress

    def before_step(self, progress: Progress) -> None:
        """Called before every optimiser step: schedules (temperatures, momenta) are set here from `progress`."""

    def after_step(self, progress: Progress) -> None:
        """Called after every optimiser step: moving averages of weights, prototype renormalisation."""

    def final_encoder(self) -> VideoEncoder:
        """The encoder that the run leaves behind: the trained one, or a teacher that averages it."""
        return self.encoder

    def final_head(self) -> nn.Linear | None:
        """A classifier of `encoder.describe` that the run leaves behind, its classes those of `settings.classes`; None for most methods."""
        return None

    def final_alignment(self) -> Alignment | None:
        """The projections that the run leaves behind beside its encoder and `text`; None for methods without words."""
        return None

    def final_sensed(self) -> Sensed | None:
        """The tower of signals and the heads that the run leaves behind beside its encoder; None for methods without signals."""
        return None


class Contrast(Objective):
    """An objective whose loss compares all samples of the batch, of all ranks. What it computes of a sample does not depend on the others, so that
    a batch larger than memory can be taken in pieces (`train.piece`) with the gradients of the whole. (The clips of a study, of which an answer is
    made together, are samples of that kind as well: `recipes.finetune.study_clips`.)
    """

    @abstractmethod
    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """name -> (B, ...): all that `compare` needs of each sample."""

    @abstractmethod
    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """As `forward`, of the embeddings of the whole batch."""

    def forward(self, batch: Batch, slopes: Mapping[str, Tensor] | None = None) -> Losses:
        """The losses of a batch; of a piece of one whose `slopes` are known, a `loss` with the piece's share of the batch's gradients."""
        embedded = self.embed(batch)
        return self.compare(embedded) if slopes is None else {"loss": surrogate(embedded, slopes)}
