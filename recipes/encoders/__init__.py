"""Video encoders: one interface over transformers' models."""

from transformers.utils import logging as _transformers_logging

from recipes.encoders.base import Geometry, VideoEncoder
from recipes.encoders.loading import build_encoder, open_encoder

_transformers_logging.disable_progress_bar()  # vfm draws its own

__all__ = ["Geometry", "VideoEncoder", "build_encoder", "open_encoder"]
