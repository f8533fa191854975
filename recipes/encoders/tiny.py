"""The encoders that are built in, need no download and train on a laptop: `vfm-tiny` and, twice as large, `vfm-small`. Their weights and model
cards lie in `vfm_tiny/` and `vfm_small/`; `vfm-tiny-random` and `vfm-small-random` are the same encoders before they learned anything.
"""

from __future__ import annotations

from recipes.encoders.base import Geometry
from recipes.encoders.loading import SMALL_RANDOM, TINY_RANDOM
from recipes.encoders.videomae import VideoMAEEncoder, fresh_videomae

FRAMES, SIZE = 16, 112
SHAPES = {
    TINY_RANDOM: {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "intermediate_size": 768},
    SMALL_RANDOM: {"hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4, "intermediate_size": 1024},
}


def random_encoder(
    name: str = TINY_RANDOM, frames: int = FRAMES, size: int = SIZE, *, seed: int = 0
) -> VideoMAEEncoder:
    """A VideoMAE of random weights: `random_start` is True. The same seed gives the same weights. Positions are those of 16 frames of 112 pixels,
    interpolated for others.

    name: vfm-tiny-random (6 blocks of width 192, 2.9 M parameters) or vfm-small-random (8 of 256, 6.7 M).
    """
    encoder = fresh_videomae(
        Geometry(frames=FRAMES, size=SIZE), seed=seed, patch_size=16, tubelet_size=2, **SHAPES[name]
    )
    encoder.source = name
    encoder.set_geometry(Geometry(frames=frames, size=size))
    return encoder
