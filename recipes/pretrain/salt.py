"""SALT: latent prediction in two stages, with a teacher that stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, model_validator

from domains.errors import ConfigError
from recipes.encoders import open_encoder
from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings, Progress
from recipes.parts.latents import LatentSettings, idle, latent_loss, latents, variety
from recipes.parts.pixels import masked_pixel_loss
from recipes.parts.teacher import FrozenTeacher


class SALT(Objective):
    """Static-teacher asymmetric latent training (Li et al., Rethinking JEPA: Compute-Efficient Video SSL with Frozen Teachers, 2025).

        stage 1   loss = mean over masks and hidden patches n of || decoder(encoder(x_visible))_n - norm(x_n) ||^2
        stage 2   loss = mean over masks and hidden tokens n of  | predictor(encoder(x_visible))_n - norm(teacher(x)_n) |

    Stage 1 makes a teacher by predicting pixels under V-JEPA's masks; it is frozen. Stage 2 trains a student to predict its latents: there is no
    moving average, so that the loss says how far the student is, and the teacher may be small.

    One run does both: the first `stage1` of its steps trains the encoder as the teacher-to-be; then it is frozen, and the encoder begins again, as
    the student, with the weights that the run started from. Or `teacher` names an encoder, such as an earlier run, and there is stage 2 alone; any
    width and depth will do if its patches are as large as the student's.

    Conventions of ours: masks as in `recipes.parts.blocks`. The learning rate warms up and falls once in each stage. AdamW's averages are not begun
    anew with stage 2; they are forgotten while it warms up. Before its stage the predictor has gradients of 0 (weight decay shrinks its weights by a
    hundredth or so).
    """

    class Settings(LatentSettings, ObjectiveSettings):
        """Settings of SALT."""

        stage1: float | None = Field(
            None,
            ge=0,
            lt=1,
            description="share of the run that makes the teacher; null: 0.25, or 0 where a teacher is given",
        )
        teacher: str | None = Field(
            None,
            description="an encoder (a run, a folder, a hub name) whose latents are predicted; null: that of stage 1",
        )
        normalise_target: bool = Field(True, description="stage 1 predicts each patch with mean 0 and deviation 1")

        @model_validator(mode="after")
        def _one_teacher(self) -> Any:
            if self.teacher is not None and self.stage1:
                raise ValueError("a teacher is given and stage1 would make another: leave one of the two out")
            return self

        @property
        def first(self) -> float:
            """The share of stage 1."""
            if self.stage1 is not None:
                return self.stage1
            return 0.25 if self.teacher is None else 0.0

    name = "salt"
    paper = "Li et al., Rethinking JEPA: Compute-Efficient Video SSL with Frozen Teachers, 2025"
    views: Mapping[str, Clip] = {"clip": Clip(augment="weak")}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        tubelet, patch = encoder.patch
        # In stage 1 it keeps what the run started from, which the student is given when the two change places.
        self.teacher = FrozenTeacher(encoder if settings.teacher is None else fitting(settings.teacher, encoder))
        self.decoder = settings.predictor(encoder, 3 * tubelet * patch * patch)
        self.predictor = settings.predictor(encoder, self.teacher.module.width)
        self.before_step(Progress(0, 1, 0.0))

    def forward(self, batch: Batch) -> Losses:
        """clip (B, T, 3, H, W) -> the loss of the stage, which stage it is, and how much the teacher's latents differ (0 in stage 1)."""
        s, clip, encoder = self.settings, batch["clip"], self.encoder
        masks = s.places(batch.seeds, encoder.grid, clip.device)
        if self.in_stage == 1:
            found = [
                masked_pixel_loss(
                    self.decoder(encoder(clip, visible), visible, hidden),
                    clip,
                    hidden,
                    encoder.patch,
                    s.normalise_target,
                )
                for visible, hidden in masks
            ]
            loss = torch.stack(found).mean() + idle(self.predictor)
            differ = loss.new_zeros(())
        else:
            targets = latents(self.teacher, clip)
            loss = latent_loss(encoder, self.predictor, clip, masks, targets) + idle(self.decoder)
            differ = variety(targets)
        return {"loss": loss, "stage": loss.new_tensor(float(self.in_stage)), "target_variety": differ}

    def stage(self, progress: Progress) -> Progress:
        """Where the stage stands that a run at `progress` is in."""
        first = self.steps_of_first(progress)
        if progress.step < first:
            return Progress(progress.step, first, progress.epoch)
        return Progress(progress.step - first, progress.total - first, progress.epoch)

    def steps_of_first(self, progress: Progress) -> int:
        """Steps of stage 1."""
        return round(self.settings.first * progress.total)

    def before_step(self, progress: Progress) -> None:
        """Which stage the step belongs to."""
        self.in_stage = 1 if progress.step < self.steps_of_first(progress) else 2

    def after_step(self, progress: Progress) -> None:
        """After the last step of stage 1, the encoder becomes the teacher. What a checkpoint keeps is past that, so it happens once."""
        first = self.steps_of_first(progress)
        if first and progress.step == first:
            self.teacher.swap(self.encoder)


def fitting(name: str, encoder: VideoEncoder) -> VideoEncoder:
    """The encoder `name`, seeing the clips of `encoder`. Raises ModelError, and ConfigError where its tokens lie elsewhere."""
    teacher = open_encoder(name, frames=encoder.geometry.frames, size=encoder.geometry.size)
    if teacher.grid != encoder.grid:
        theirs, ours = ("x".join(map(str, one.grid)) for one in (teacher, encoder))
        what = f"the teacher sees a clip as {theirs} tokens and the encoder as {ours}: its latents have no place there"
        raise ConfigError(what, where=name, do="Use a teacher with the encoder's patches and tubelets")
    if (teacher.geometry.mean, teacher.geometry.std) != (encoder.geometry.mean, encoder.geometry.std):
        what = "the teacher's pixels are normalised by another mean and deviation than the encoder's"
        raise ConfigError(what, where=name, do="Use a teacher that was trained with the encoder's normalisation")
    return teacher
