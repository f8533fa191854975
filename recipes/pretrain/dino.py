"""DINO on video: self-distillation between clips of a recording, and from small crops to whole clips."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings, Progress
from recipes.parts import schedules
from recipes.parts.branch import Branch
from recipes.parts.centre import Centre
from recipes.parts.crops import of_crops
from recipes.parts.heads import DistillationHead, renormalise
from recipes.parts.losses import entropy, teacher_probabilities
from recipes.parts.masks import tube_masks
from recipes.parts.rho import cross_entropy_across, stacked
from recipes.parts.teacher import MomentumTeacher
from recipes.parts.usage import Usages
from recipes.parts.views import rho_views


class DINO(Objective):
    """Self-distillation without labels (Caron et al., ICCV 2021), on rho clips of a recording (Feichtenhofer et al., CVPR 2021) and on crops of
    them in space and time (SVT: Ranasinghe et al., CVPR 2022).

        loss = mean over clips i and views s other than i of H(P_t^i, P_s^s)
            P_t = softmax((h_t(z_t) - c) / tau_t)     z_t: teacher, whole clips; c: running mean of h_t(z_t); (B, K)
            P_s = softmax(h_s(z_s) / tau_s)           z_s: student, the rho clips (masked, where mask_ratio says so) and small crops of each

    Conventions of ours: a small crop is a box of tokens of a clip, seen in its own place and at its own scale, since encoders see clips of one
    size; it learns from the targets of all clips, its own among them. mask_ratio above 0 (the paper has none) hides tubes of the student's whole
    clips: cheaper by as much. The mean over tokens takes the place of a CLS token; `head_motion` adds how they change over time.
    """

    class Settings(ObjectiveSettings):
        """Settings of DINO; the defaults are the paper's."""

        rho: PositiveInt = Field(2, description="clips of each recording; 1: two augmentations of one clip")
        mask_ratio: float = Field(0.0, ge=0, lt=1, description="share of places hidden from the student in whole clips")
        crops: NonNegativeInt = Field(
            4, description="small crops of each clip, for the student; a fifth of a clip's cost each, or less"
        )
        crop_side: float = Field(
            0.43, gt=0, le=1, description="height and width of a small crop, as a share of the clip's"
        )
        crop_frames: float = Field(1.0, gt=0, le=1, description="length of a small crop, as a share of the clip's")
        head_hidden: PositiveInt = Field(2048, description="hidden width of the head")
        head_bottleneck: PositiveInt = Field(256, description="width before the last layer of the head")
        head_outputs: PositiveInt = Field(65536, description="K, outputs of the head; fewer for small data")
        head_motion: bool = Field(False, description="the head also reads how tokens change over time")
        head_wait: float = Field(0.01, ge=0, le=1, description="share of a run in which the last layer is held")
        standardise: bool = Field(False, description="take away what clips share before the head; for short runs")
        student_temperature: PositiveFloat = Field(0.1, description="tau_s")
        teacher_temperature: PositiveFloat = Field(0.04, description="tau_t at the start; lower is sharper")
        teacher_temperature_end: PositiveFloat = Field(0.07, description="tau_t after its warm-up")
        teacher_temperature_warmup: float = Field(0.1, ge=0, le=1, description="share of the run in which tau_t rises")
        teacher_momentum: float = Field(0.996, ge=0, le=1, description="at the start; smaller for short runs")
        teacher_momentum_end: float = Field(1.0, ge=0, le=1, description="at the end, along a cosine")
        centre_momentum: float = Field(0.9, ge=0, lt=1, description="of c, the running mean of the teacher's logits")

    name = "dino"
    paper = "Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021"
    views: Mapping[str, Clip] = rho_views(2, Clip(augment="strong"))
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s = settings
        self.views = rho_views(s.rho, Clip(augment="strong"))
        width = Branch.width(encoder, motion=s.head_motion)
        self.head = DistillationHead(width, s.head_hidden, s.head_bottleneck, s.head_outputs, standardise=s.standardise)
        self.teacher = MomentumTeacher(self.student)
        self.centre = Centre(s.head_outputs)
        self.usage = Usages({"output_entropy": s.head_outputs})
        self.before_step(Progress(0, 1, 0.0))

    @property
    def student(self) -> Branch:
        """What the teacher averages."""
        return Branch(self.encoder, self.head, motion=self.settings.head_motion)

    def forward(self, batch: Batch) -> Losses:
        """V views (B, T, 3, H, W) -> the loss, the entropy of the targets, and how often student and teacher say the same of two clips."""
        s, clips, views = self.settings, stacked(batch.clips, self.views), len(self.views)
        logits = self.teacher(clips)
        self.centre.observe(logits)
        targets = teacher_probabilities(logits, self.centre.value, self.teacher_temperature).unflatten(0, (views, -1))
        self.usage.observe("output_entropy", targets)

        whole = self.of_whole(clips, batch.seeds)
        small = None
        if s.crops:
            small = of_crops(self.student, clips, batch.seeds, views, s.crops, frames=s.crop_frames, side=s.crop_side)
        same = whole.detach().argmax(dim=-1) == targets.argmax(dim=-1).roll(1, dims=0)
        loss = cross_entropy_across(targets, whole, s.student_temperature, small)
        return {
            "loss": loss,
            "teacher_entropy": entropy(targets),
            "agreement": same.float().mean(),
            "teacher_temperature": loss.new_tensor(self.teacher_temperature),
            "teacher_momentum": loss.new_tensor(self.teacher_momentum),
        }

    def of_whole(self, clips: Tensor, seeds: Tensor) -> Tensor:
        """The student's logits of the clips (V * B, ...): (V, B, K)."""
        s, views, places = self.settings, len(self.views), None
        if s.mask_ratio:
            masks = tube_masks(seeds, self.encoder.grid, s.mask_ratio, views, name="whole")
            places = masks.visible.transpose(0, 1).flatten(0, 1).to(clips.device)
        logits = self.student(clips, places)
        return logits.unflatten(0, (views, -1))

    def before_step(self, progress: Progress) -> None:
        """Temperature and momentum of the teacher in this step, and whether the last layer is held."""
        s, done = self.settings, progress.fraction
        self.teacher_temperature = schedules.ramp(
            s.teacher_temperature, s.teacher_temperature_end, done, s.teacher_temperature_warmup
        )
        self.teacher_momentum = schedules.cosine(s.teacher_momentum, s.teacher_momentum_end, done)
        self.head.last.held = done < s.head_wait

    def after_step(self, progress: Progress) -> None:
        """The last layer back to length one; the teacher and the centre follow."""
        renormalise(self.head.last)
        self.teacher.update(self.student, self.teacher_momentum)
        self.centre.update(self.settings.centre_momentum)

    def final_encoder(self) -> VideoEncoder:
        """The teacher's: an average of the student's, which has seen whole clips."""
        return self.teacher.module.encoder
