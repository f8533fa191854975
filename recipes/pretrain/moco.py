"""MoCo on video: a clip against a slow teacher's keys of its own recording and of earlier ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Contrast, Losses, ObjectiveSettings, Progress
from recipes.parts import schedules
from recipes.parts.branch import Branch
from recipes.parts.contrast import agreement, info_nce
from recipes.parts.projection import ProjectionSettings, projection_head
from recipes.parts.queue import Queue
from recipes.parts.teacher import MomentumTeacher
from recipes.parts.views import clips_of


class MoCo(Contrast):
    """Momentum contrast (He et al., CVPR 2020; v2, Chen et al., 2020; with rho clips of a recording, Feichtenhofer et al., CVPR 2021).

        loss = mean over r of  - log  exp(q . k_r / tau) / [ exp(q . k_r / tau) + sum over strangers n of exp(q . n / tau) ]

        q = head(encoder(first clip)) (B, D), k_r = teacher(clip r) (B, D), r = 2 .. rho, all of length one

    The teacher is a moving average of encoder and head. Strangers are a queue of the last K keys; the second clip's are pushed after each step.

    Conventions of ours: the keys of the others in the batch are strangers as well (they are what enters the queue next), and rows of the queue that
    are of the query's own recording are left out: among a few hundred recordings they would be the nearest "strangers" of all. No shuffling between
    devices is needed, as the head has no batch norm. The mean over tokens takes the place of a CLS token.
    """

    class Settings(ProjectionSettings, ObjectiveSettings):
        """Settings of MoCo; the defaults are those of Feichtenhofer et al. but for the head's depth (two layers, as in v2)."""

        rho: int = Field(
            2, ge=2, le=4, description="clips of each recording: one query and rho - 1 keys, which need no gradient"
        )
        temperature: PositiveFloat = Field(0.1, description="tau; lower looks at the nearest strangers only")
        queue: PositiveInt = Field(
            65536, description="K, keys of earlier batches; for small data fewer than recordings"
        )
        teacher_momentum: float = Field(0.994, ge=0, le=1, description="at the start; smaller for short runs")
        teacher_momentum_end: float = Field(1.0, ge=0, le=1, description="at the end, along a cosine")

    name = "moco"
    paper = (
        "Feichtenhofer et al., A Large-Scale Study on Unsupervised Spatiotemporal Representation Learning, CVPR 2021"
    )
    views: Mapping[str, Clip] = clips_of(2, Clip(augment="strong"))
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.views = clips_of(settings.rho, Clip(augment="strong"))
        self.head = projection_head(encoder, settings)
        self.teacher = MomentumTeacher(self.student)
        self.queue = Queue(settings.queue, settings.head_outputs)
        self.before_step(Progress(0, 1, 0.0))

    @property
    def student(self) -> Branch:
        """Encoder and head."""
        return Branch(self.encoder, self.head, motion=self.settings.head_motion)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """first, second, ... (B, T, 3, H, W) -> q of the first, k of the others (B, D), and which recordings they are of (B,)."""
        query, *keys = self.views
        found = {query: self.student(batch[query]), **{view: self.teacher(batch[view]) for view in keys}}
        return {**found, "recordings": batch.index.to(found[query].device, non_blocking=True)}

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """q, keys and recordings of the whole batch -> the loss, and how alike queries and keys are. Fills the queue."""
        query, *keys = (embedded[view] for view in self.views)
        recordings, rows = embedded["recordings"], self.queue.rows
        skip = self.queue.of(recordings)
        tau = self.settings.temperature
        loss = torch.stack([info_nce(query, key, tau, queue=rows, skip=skip) for key in keys]).mean()
        self.queue.push(keys[0], recordings)
        return {
            "loss": loss,
            "agreement": torch.stack([agreement(query, key) for key in keys]).mean(),
            "teacher_momentum": loss.new_tensor(self.teacher_momentum),
        }

    def before_step(self, progress: Progress) -> None:
        """Schedule of the teacher's momentum."""
        s = self.settings
        self.teacher_momentum = schedules.cosine(s.teacher_momentum, s.teacher_momentum_end, progress.fraction)

    def after_step(self, progress: Progress) -> None:
        """The teacher follows."""
        self.teacher.update(self.student, self.teacher_momentum)
