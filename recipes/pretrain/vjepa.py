"""V-JEPA: predict what a slow teacher makes of hidden blocks, not their pixels."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings, Progress
from recipes.parts import schedules
from recipes.parts.latents import LatentSettings, latent_loss, latents, variety
from recipes.parts.teacher import MomentumTeacher


class VJEPA(Objective):
    """Joint-embedding prediction in video (Bardes et al., Revisiting Feature Prediction for Learning Visual Representations from Video, TMLR 2024).

        loss = mean over masks and hidden tokens n of | predictor(encoder(x_visible))_n - norm(teacher(x)_n) |      (L1, mean over channels)

    The teacher, a moving average of the encoder, sees the whole clip once; norm brings each of its tokens to mean 0 and deviation 1. Two masks of
    each clip, hidden through all frames: short-range, many small blocks; long-range, few large ones. The predictor reads the visible tokens and one
    query for every hidden place.

    Conventions of ours: every mask of a kind hides the same number of places (see `recipes.parts.blocks`), where the authors cut masks to the
    shortest of the batch, which drops the latest tokens. Each sample has its own block sizes. Both masks share one mask token.
    """

    class Settings(LatentSettings, ObjectiveSettings):
        """Settings of V-JEPA; the defaults are the paper's."""

        teacher_momentum: float = Field(0.998, ge=0, le=1, description="at the start; smaller for short runs")
        teacher_momentum_end: float = Field(1.0, ge=0, le=1, description="at the end, along a straight line")

    name = "vjepa"
    paper = "Bardes et al., Revisiting Feature Prediction for Learning Visual Representations from Video, TMLR 2024"
    views: Mapping[str, Clip] = {"clip": Clip(augment="weak")}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.predictor = settings.predictor(encoder, encoder.width)
        self.teacher = MomentumTeacher(encoder)
        self.before_step(Progress(0, 1, 0.0))

    def forward(self, batch: Batch) -> Losses:
        """clip (B, T, 3, H, W) -> the loss, and how much the targets differ from each other."""
        clip = batch["clip"]
        masks = self.settings.places(batch.seeds, self.encoder.grid, clip.device)
        targets = latents(self.teacher, clip)
        loss = latent_loss(self.encoder, self.predictor, clip, masks, targets)
        return {
            "loss": loss,
            "target_variety": variety(targets),
            "teacher_momentum": loss.new_tensor(self.teacher_momentum),
        }

    def before_step(self, progress: Progress) -> None:
        """The teacher's momentum of this step."""
        s = self.settings
        self.teacher_momentum = schedules.ramp(s.teacher_momentum, s.teacher_momentum_end, progress.fraction, 1.0)

    def after_step(self, progress: Progress) -> None:
        """The teacher follows."""
        self.teacher.update(self.encoder, self.teacher_momentum)

    def final_encoder(self) -> VideoEncoder:
        """The teacher, as in the paper: an average of the student, which has seen whole clips."""
        return self.teacher.module
