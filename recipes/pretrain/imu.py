"""IMU and video: what a wrist or a head feels belongs to what the camera on it sees."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from recipes.encoders.base import VideoEncoder
from recipes.objective import IMU, Batch, Clip, Contrast, Losses, ObjectiveSettings, Progress
from recipes.parts.alignment import both_ways
from recipes.parts.contrast import accuracy
from recipes.parts.distributed import gather, global_sum
from recipes.parts.projection import ProjectionSettings, head_shape
from recipes.parts.sensed import ImuShape, SensedImu

LARGEST_SCALE = 100.0


class IMUVideo(Contrast):
    """Contrastive alignment of inertial signals and video (IMU2CLIP, Moon et al., 2022; with a trained video encoder).

        loss = 1/2 [ CE(s V U', own) + CE(s U V', own) ],   v = head(encoder(clip)), u = head(tower(signal)), of length one

    over the samples of all ranks whose signal was measured; the others are neither anchors nor strangers. s is learned, at most 100.

    The signal says how its wearer moves, and nothing of the scene: an encoder that has to find a clip's signal among others learns motion, the
    camera's own above all. The signal's tower is left behind beside the video encoder (`recipes.parts.sensed`).

    Conventions of ours: the video encoder is trained, where IMU2CLIP keeps CLIP frozen and trains the signal's side alone (encoder.mode=frozen).
    """

    class Settings(ProjectionSettings, ObjectiveSettings):
        """Settings of IMU and video."""

        channels: PositiveInt = Field(6, description="of the signal: 3 of acceleration and 3 of turning")
        width: PositiveInt = Field(128, description="of the signal's tower")
        scale: PositiveFloat = Field(1 / 0.07, le=LARGEST_SCALE, description="first multiple of cosines (s), learned")

    name = "imu"
    paper = "Moon et al., IMU2CLIP: Multimodal Contrastive Learning for IMU Motion Sensors from Egocentric Videos and Text, 2022"
    views: Mapping[str, Clip] = {"clip": Clip(augment="weak")}
    signals = (IMU,)
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s = settings
        self.sensed = SensedImu(ImuShape(**head_shape(encoder, s), width=s.width, channels=s.channels))
        self.log_scale = nn.Parameter(torch.full((1,), math.log(s.scale)))

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip (B, T, 3, H, W), imu (B, T', channels) -> v, u (B, head_outputs); s, once for every sample; whether anything was measured (B,)."""
        signal = batch.targets[IMU]
        return {
            "v": self.sensed.clips(self.encoder, batch["clip"]),
            "u": self.sensed.signals(signal),
            "scale": self.log_scale.exp().expand(len(batch)),
            "present": self.sensed.present(signal),
        }

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """v, u of the whole batch -> the loss, how often a clip's own signal is the nearest, how many have one, and s."""
        v, u, present, scale = (embedded[name] for name in ("v", "u", "present", "scale"))
        share = global_sum(present.float().sum()) / global_sum(torch.ones_like(present, dtype=torch.float32).sum())
        nobody = ~(present.unsqueeze(1) & gather(present.long()).bool())
        loss = both_ways(v, u, 1 / scale.mean(), apart=nobody, weights=present / share.clamp_min(1e-6))
        return {
            "loss": loss,
            "accuracy": accuracy(v, u, present),
            "measured": share,
            "scale": scale.detach().mean(),
        }

    def final_sensed(self) -> SensedImu:
        """See `Objective.final_sensed`."""
        return self.sensed

    def after_step(self, progress: Progress) -> None:
        """The learned scale is kept within bounds."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(LARGEST_SCALE))
