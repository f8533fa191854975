"""DISCOVR: online cluster distillation for echocardiography video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings, Progress
from recipes.parts import schedules
from recipes.parts.branch import Branch
from recipes.parts.centre import Centre
from recipes.parts.decoder import DecoderSettings, TokenDecoder
from recipes.parts.frame_encoder import frame_encoder_like
from recipes.parts.heads import DistillationHead, renormalise
from recipes.parts.losses import cluster_cross_entropy, distillation_loss, entropy, teacher_probabilities
from recipes.parts.masks import tube_masks
from recipes.parts.prototypes import Prototypes, sinkhorn
from recipes.parts.standardise import BatchStandardise, centre_places
from recipes.parts.teacher import MomentumTeacher
from recipes.parts.usage import Usages


class DISCOVR(Objective):
    """Distilled image supervision for cross-modal video representation (Mishra et al., NeurIPS 2025).

        L = L_vid + L_img + L_SCD

        L_vid = (1 / M) sum_m H(P_t, P_s^m)
            P_t = softmax((h_t(z_t) - c) / tau_t)     z_t: teacher, all tokens of the clip; c: running mean of h_t(z_t)
            P_s = softmax(h_s(z_s^m) / tau_s)         z_s^m: student, visible tokens of tube mask m
        L_img = the same on every single frame, with a per-frame encoder, head, teacher and centre of its own
        L_SCD = CE(s_v, sg q_i) + CE(s_i, sg q_v)     the two directions are summed, as in the paper
            s = cos(token, prototypes) / 0.1,  q = Sinkhorn(exp(cos(token, prototypes) / 0.05))
            v: tokens that a light decoder fills in from the video student's visible ones
            i: tokens of the frame student, averaged over the frames of each tubelet, so that both grids are (t, h, w)

    Conventions of ours: VideoMAE and V-JEPA 2 have no CLS token, the mean of the tokens takes its place (z above). The
    frame student is masked too (the same places in all frames of a clip), and L_SCD counts the positions that it sees:
    with frame_mask_ratio 0 these are all. Assignments q stay soft; both directions carry gradient to their own scores.

    Two choices that the paper does not have, off by default and on in the recipe (docs/results.md: what each of them does):
    `teacher_clip: other` gives the video teacher a clip of its own, at another time and in another crop, so that P_t says
    what the recording shows and not how it was cropped (DINO's views, Caron et al., ICCV 2021; rho = 2 of Feichtenhofer et
    al., CVPR 2021); `head_motion` adds to z the deviation of tokens over time, which a mean cannot hold.
    """

    class Settings(DecoderSettings, ObjectiveSettings):
        """Settings of DISCOVR; the defaults are the paper's but for those of the frame student (see above)."""

        views: PositiveInt = Field(4, description="M, masked views of each clip that the video student sees")
        mask_ratio: float = Field(0.9, ge=0, lt=1, description="share of places hidden from the video student")
        frame_views: PositiveInt = Field(1, description="masked views of every frame that the frame student sees")
        frame_mask_ratio: float = Field(0.75, ge=0, lt=1, description="share of places hidden from the frame student")
        frame_depth: PositiveInt | None = Field(None, description="blocks of the frame encoder; null: as the video's")
        teacher_clip: Literal["same", "other"] = Field(
            "same", description="clip of the video teacher: the student's, or another time and crop of the recording"
        )
        head_motion: bool = Field(False, description="the video's heads also read how tokens change over time")
        head_hidden: PositiveInt = Field(2048, description="hidden width of both heads")
        head_bottleneck: PositiveInt = Field(256, description="width before the last layer of both heads")
        head_outputs: PositiveInt = Field(16384, description="K, outputs of both heads; fewer for small data")
        prototypes: PositiveInt = Field(3000, description="shared clusters of L_SCD; fewer for small data")
        standardise: bool = Field(
            False,
            description="take away what clips share before heads and prototypes; for short runs",
        )
        student_temperature: PositiveFloat = Field(0.1, description="tau_s")
        teacher_temperature: PositiveFloat = Field(0.04, description="tau_t at the start; lower is sharper")
        teacher_temperature_end: PositiveFloat = Field(0.07, description="tau_t after its warm-up")
        teacher_temperature_warmup: float = Field(
            0.075, ge=0, le=1, description="share of the run in which tau_t rises"
        )
        teacher_momentum: float = Field(0.996, ge=0, le=1, description="at the start; smaller for short runs")
        teacher_momentum_end: float = Field(1.0, ge=0, le=1, description="at the end, along a cosine")
        centre_momentum: float = Field(0.9, ge=0, lt=1, description="of c, the running mean of the teacher's logits")
        cluster_temperature: PositiveFloat = Field(0.1, description="of the scores s")
        sinkhorn_epsilon: PositiveFloat = Field(0.05, description="of the assignments q; lower is harder")
        sinkhorn_iterations: PositiveInt = Field(10, description="rounds of balancing")
        weight_video: NonNegativeFloat = Field(1.0, description="of L_vid")
        weight_image: NonNegativeFloat = Field(1.0, description="of L_img")
        weight_cluster: NonNegativeFloat = Field(1.0, description="of L_SCD")

        @model_validator(mode="after")
        def _views_pair(self) -> DISCOVR.Settings:
            if self.views % self.frame_views:
                raise ValueError(
                    "frame_views must divide views: L_SCD pairs masked clips with masked views of their frames"
                )
            return self

    name = "discovr"
    paper = (
        "Mishra et al., Self-supervised Learning of Echocardiographic Video Representations via Online Cluster "
        "Distillation, NeurIPS 2025"
    )
    views: Mapping[str, Clip] = {"clip": Clip(augment="weak")}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s = settings
        if s.teacher_clip == "other":
            self.views = {**self.views, "teacher": Clip(augment="weak")}
        self.frame_encoder = frame_encoder_like(encoder, s.frame_depth)
        self.head, self.frame_head = (
            DistillationHead(width, s.head_hidden, s.head_bottleneck, s.head_outputs, standardise=s.standardise)
            for width in (encoder.width * (2 if s.head_motion else 1), encoder.width)
        )
        self.video_teacher, self.image_teacher = MomentumTeacher(self.video), MomentumTeacher(self.image)
        self.video_centre, self.image_centre = Centre(s.head_outputs), Centre(s.head_outputs)
        self.decoder = TokenDecoder.of(s, encoder.width, encoder.tokens)
        self.prototypes = Prototypes(encoder.width, s.prototypes)
        outputs = {"prototype_entropy": s.prototypes, "output_entropy": s.head_outputs}
        self.usage = Usages({f"{what}_{name}": k for what, k in outputs.items() for name in ("video", "image")})
        self.before_step(Progress(0, 1, 0.0))

    @property
    def video(self) -> Branch:
        """The video student."""
        return Branch(self.encoder, self.head, motion=self.settings.head_motion)

    @property
    def image(self) -> Branch:
        """The frame student."""
        return Branch(self.frame_encoder, self.frame_head)

    def forward(self, batch: Batch) -> Losses:
        """clip (B, T, 3, H, W), and the teacher's where it has one -> the loss, its parts, and what the teachers are set to."""
        s, clip, grid = self.settings, batch["clip"], self.encoder.grid
        seen = tube_masks(batch.seeds, grid, s.mask_ratio, s.views, name="video").visible.to(clip.device)
        framed = tube_masks(batch.seeds, grid, s.frame_mask_ratio, s.frame_views, name="image").visible.to(clip.device)

        whole = batch["teacher"] if s.teacher_clip == "other" else clip
        video = self.distil("video", self.video, self.video_teacher, self.video_centre, clip, seen, whole)
        frames, places = as_frames(clip, framed, grid)
        image = self.distil("image", self.image, self.image_teacher, self.image_centre, frames, places, frames)

        video_tokens = self.fill_in(video.tokens, seen, framed)
        image_tokens = average_tubelets(image.tokens, clip.shape[1], grid[0])
        if s.standardise:
            places = framed % (grid[1] * grid[2])
            video_tokens = own_part(video_tokens, places.unsqueeze(2).expand(video_tokens.shape[:-1]), grid)
            image_tokens = own_part(image_tokens, places, grid)
        cluster = self.cluster_loss(video_tokens, image_tokens)

        return {
            "loss": s.weight_video * video.loss + s.weight_image * image.loss + s.weight_cluster * cluster,
            "loss_video": video.loss.detach(),
            "loss_image": image.loss.detach(),
            "loss_cluster": cluster.detach(),
            "teacher_entropy_video": video.entropy,
            "teacher_entropy_image": image.entropy,
            "agreement_video": video.agreement,
            "agreement_image": image.agreement,
            "teacher_temperature": video.entropy.new_tensor(self.teacher_temperature),
            "teacher_momentum": video.entropy.new_tensor(self.teacher_momentum),
        }

    def final_encoder(self) -> VideoEncoder:
        """The teacher's: an average of the student's, and the one of the two that has seen whole clips."""
        return self.video_teacher.module.encoder

    def distil(
        self,
        name: str,
        student: Branch,
        teacher: MomentumTeacher[Branch],
        centre: Centre,
        pixels: Tensor,
        visible: Tensor,
        whole: Tensor,
    ) -> Distilled:
        """L_vid or L_img. The teacher's target, of the clips `whole`, is computed once and shared by the M views of `pixels` that
        `visible` (n, M, V) leaves."""
        s = self.settings
        target = teacher(whole)
        tokens = student.encoder(pixels, visible)
        logits = student.read(tokens)
        probabilities = teacher_probabilities(target, centre.value, self.teacher_temperature)
        centre.observe(target)
        self.usage.observe(f"output_entropy_{name}", probabilities)
        loss = distillation_loss(probabilities, logits, s.student_temperature)
        same = logits.detach().argmax(dim=-1) == probabilities.argmax(dim=-1, keepdim=True)
        return Distilled(loss, tokens, entropy(probabilities), same.float().mean())

    def fill_in(self, tokens: Tensor, seen: Tensor, wanted: Tensor) -> Tensor:
        """Video tokens (B, M, V, D) of positions `seen` -> decoded at the positions `wanted` (B, F, W), in their order,
        each of the F sets for M / F of the views: (B, F, M / F, W, D)."""
        sets, views = wanted.shape[1], seen.shape[1] // wanted.shape[1]
        each = wanted.repeat_interleave(views, dim=1)
        decoded: Tensor = self.decoder(tokens.flatten(0, 1), seen.flatten(0, 1), each.flatten(0, 1))
        return decoded.view(len(tokens), sets, views, *decoded.shape[1:])

    def cluster_loss(self, video_tokens: Tensor, image_tokens: Tensor) -> Tensor:
        """L_SCD. video_tokens (B, F, m, W, D) and image_tokens (B, F, W, D), position by position."""
        s = self.settings
        video = self.prototypes(video_tokens)
        image = self.prototypes(image_tokens).unsqueeze(2).expand_as(video)
        video, image = video.flatten(0, -2), image.flatten(0, -2)
        self.usage.observe("prototype_entropy_video", video)
        self.usage.observe("prototype_entropy_image", image)
        q_v = sinkhorn(video, s.sinkhorn_epsilon, s.sinkhorn_iterations)
        q_i = sinkhorn(image, s.sinkhorn_epsilon, s.sinkhorn_iterations)
        to_image = cluster_cross_entropy(video, q_i, s.cluster_temperature)
        to_video = cluster_cross_entropy(image, q_v, s.cluster_temperature)
        return to_image + to_video

    def before_step(self, progress: Progress) -> None:
        """Schedules of the teachers' temperature and momentum."""
        s, done = self.settings, progress.fraction
        start, end = s.teacher_temperature, s.teacher_temperature_end
        self.teacher_temperature = schedules.ramp(start, end, done, s.teacher_temperature_warmup)
        self.teacher_momentum = schedules.cosine(s.teacher_momentum, s.teacher_momentum_end, done)

    def after_step(self, progress: Progress) -> None:
        """Teachers follow their students, centres the teachers' logits; prototypes return to length one."""
        for cosines in (self.prototypes, self.head.last, self.frame_head.last):
            renormalise(cosines)
        self.video_teacher.update(self.video, self.teacher_momentum)
        self.image_teacher.update(self.image, self.teacher_momentum)
        self.video_centre.update(self.settings.centre_momentum)
        self.image_centre.update(self.settings.centre_momentum)


class Distilled(NamedTuple):
    """One branch's self-distillation: its loss, the student's tokens, the entropy of the teacher's targets, and the share of views of which
    student and teacher say the same (their most likely outputs)."""

    loss: Tensor
    tokens: Tensor
    entropy: Tensor
    agreement: Tensor


def as_frames(clip: Tensor, tubes: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """clip (B, T, C, H, W), tubes (B, F, t * P) -> every frame a clip of its own (B * T, 1, C, H, W), with the places
    of the tubes (B * T, F, P)."""
    places = tubes.unflatten(-1, (grid[0], -1))[:, :, 0]  # those of the first frame are those of all
    return clip.flatten(0, 1).unsqueeze(1), places.repeat_interleave(clip.shape[1], dim=0)


def average_tubelets(tokens: Tensor, frames: int, tubelets: int) -> Tensor:
    """Frame tokens (B * T, F, P, D) -> the mean over the frames of each tubelet, in raster order (B, F, t * P, D)."""
    by_time = tokens.unflatten(0, (-1, tubelets, frames // tubelets)).mean(dim=2)  # B, t, F, P, D
    return by_time.transpose(1, 2).flatten(2, 3)


def own_part(tokens: Tensor, places: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Tokens (..., D) at places (...) of a frame, without what all clips of the batch show there, on one scale."""
    standardised: Tensor = BatchStandardise()(centre_places(tokens, places, grid[1] * grid[2]))
    return standardised
