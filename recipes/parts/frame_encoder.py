"""An image encoder beside a video encoder, for methods that learn from both."""

from __future__ import annotations

import torch

from recipes.encoders.base import Geometry, VideoEncoder
from recipes.encoders.videomae import VideoMAEEncoder, fresh_videomae


def frame_encoder_like(encoder: VideoEncoder, depth: int | None) -> VideoMAEEncoder:
    """A per-frame ViT beside `encoder`: a VideoMAE of one frame and tubelet 1, same width, patch, heads and size. It
    starts at random (from torch's generator) and is trained together with the video branch."""
    frames = fresh_videomae(
        Geometry(frames=1, size=encoder.geometry.size),
        seed=int(torch.randint(2**31, ())),
        hidden_size=encoder.width,
        num_hidden_layers=depth or len(encoder.blocks),
        num_attention_heads=encoder.heads,
        intermediate_size=4 * encoder.width,
        patch_size=encoder.patch[1],
        tubelet_size=1,
    )
    frames.checkpointing = encoder.checkpointing
    return frames
