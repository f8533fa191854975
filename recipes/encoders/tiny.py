"""`vfm-tiny`: the built-in encoder that needs no download and trains on a laptop; its weights lie in `vfm_tiny/`, with their model card.

`vfm-tiny-random` is the same encoder before it learned anything.
"""

from __future__ import annotations

from recipes.encoders.base import Geometry
from recipes.encoders.loading import TINY_RANDOM
from recipes.encoders.videomae import VideoMAEEncoder, fresh_videomae

FRAMES, SIZE = 16, 112


def tiny_encoder(frames: int = FRAMES, size: int = SIZE, *, seed: int = 0) -> VideoMAEEncoder:
    """A VideoMAE of 2.9 M parameters (6 blocks, width 192), random weights: `random_start` is True. The same seed gives
    the same weights. Positions are those of 16 frames of 112 pixels, interpolated for others."""
    encoder = fresh_videomae(
        Geometry(frames=FRAMES, size=SIZE),
        seed=seed,
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=3,
        intermediate_size=768,
        patch_size=16,
        tubelet_size=2,
    )
    encoder.source = TINY_RANDOM
    encoder.set_geometry(Geometry(frames=frames, size=size))
    return encoder
