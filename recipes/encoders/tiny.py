"""`vfm-tiny`: the built-in encoder that needs no download and trains on a laptop."""

from __future__ import annotations

from recipes.encoders.base import Geometry
from recipes.encoders.loading import TINY
from recipes.encoders.videomae import VideoMAEEncoder, fresh_videomae


def tiny_encoder(frames: int = 16, size: int = 112, *, seed: int = 0) -> VideoMAEEncoder:
    """A VideoMAE of 2.9 M parameters (6 blocks, width 192), random weights: `random_start` is True. The same seed gives
    the same weights."""
    encoder = fresh_videomae(
        Geometry(frames=frames, size=size),
        seed=seed,
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=3,
        intermediate_size=768,
        patch_size=16,
        tubelet_size=2,
    )
    encoder.source = TINY
    return encoder
