"""BYOL on video: one clip of a recording tells what a slow teacher makes of another."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, PositiveInt

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings, Progress
from recipes.parts import schedules
from recipes.parts.branch import Branch
from recipes.parts.heads import mlp
from recipes.parts.rho import distance_across, stacked
from recipes.parts.teacher import MomentumTeacher
from recipes.parts.views import rho_views


class BYOL(Objective):
    """Bootstrap your own latent (Grill et al., NeurIPS 2020), on rho clips of a recording (Feichtenhofer et al., CVPR 2021).

        loss = mean over clips i and j other than i of || q(z_i) - z'_j ||^2,   both brought to length one
            z  = project(encoder(clip))      (B, head_outputs), student; q: its predictor
            z' = the same by the teacher, a moving average of encoder and projector, without gradient

    There are no strangers: what keeps all clips from one answer are the predictor, the slow teacher, and the batch norm in the heads.

    Conventions of ours: batch norm takes the deviations of all clips of a step, of all ranks, and has neither gain nor running statistics
    (`BatchStandardise`), in the teacher as in the student. GELU takes the place of ReLU, the mean over tokens that of a CLS token; `head_motion`
    adds how they change over time.
    """

    class Settings(ObjectiveSettings):
        """Settings of BYOL; the defaults are the paper's, rho that of Feichtenhofer et al."""

        rho: PositiveInt = Field(4, description="clips of each recording; 1: two augmentations of one clip")
        head_hidden: PositiveInt = Field(4096, description="hidden width of projector and predictor")
        head_outputs: PositiveInt = Field(256, description="width of z")
        head_motion: bool = Field(False, description="the projector also reads how tokens change over time")
        teacher_momentum: float = Field(0.996, ge=0, le=1, description="at the start; smaller for short runs")
        teacher_momentum_end: float = Field(1.0, ge=0, le=1, description="at the end, along a cosine")

    name = "byol"
    paper = "Grill et al., Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning, NeurIPS 2020"
    views: Mapping[str, Clip] = rho_views(4, Clip(augment="strong"))
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s = settings
        self.views = rho_views(s.rho, Clip(augment="strong"))
        self.projector = mlp(
            Branch.width(encoder, motion=s.head_motion), s.head_hidden, s.head_outputs, standardise=True
        )
        self.predictor = mlp(s.head_outputs, s.head_hidden, s.head_outputs, standardise=True)
        self.teacher = MomentumTeacher(self.student)
        self.before_step(Progress(0, 1, 0.0))

    @property
    def student(self) -> Branch:
        """What the teacher averages."""
        return Branch(self.encoder, self.projector, motion=self.settings.head_motion)

    def forward(self, batch: Batch) -> Losses:
        """V views (B, T, 3, H, W) -> the loss, and how alike student and teacher see two clips of a recording (a cosine)."""
        clips, views = stacked(batch.clips, self.views), len(self.views)
        targets = self.teacher(clips)
        projected = self.student(clips)
        predictions = self.predictor(projected)
        loss = distance_across(predictions.unflatten(0, (views, -1)), targets.unflatten(0, (views, -1)))
        return {
            "loss": loss,
            "agreement": 1 - loss.detach() / 2,
            "teacher_momentum": loss.new_tensor(self.teacher_momentum),
        }

    def before_step(self, progress: Progress) -> None:
        """The teacher's momentum of this step."""
        s = self.settings
        self.teacher_momentum = schedules.cosine(s.teacher_momentum, s.teacher_momentum_end, progress.fraction)

    def after_step(self, progress: Progress) -> None:
        """The teacher follows."""
        self.teacher.update(self.student, self.teacher_momentum)
