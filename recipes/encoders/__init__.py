"""Video encoders behind one interface. transformers is imported when one is opened, not before."""

from recipes.encoders.adapt import load_adapter, save_adapter
from recipes.encoders.base import Geometry, VideoEncoder
from recipes.encoders.loading import BUILT_IN, TINY, TINY_RANDOM, build_encoder, open_encoder

__all__ = [
    "BUILT_IN",
    "TINY",
    "TINY_RANDOM",
    "Geometry",
    "VideoEncoder",
    "build_encoder",
    "load_adapter",
    "open_encoder",
    "save_adapter",
]
