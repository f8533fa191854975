"""Small encoders of both kinds, as folders in transformers' own format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import VideoMAEConfig, VideoMAEModel, VJEPA2Config, VJEPA2Model

from recipes.encoders.base import quiet

VIDEOMAE: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_frames": 4,
    "tubelet_size": 2,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "use_mean_pooling": False,
    "decoder_hidden_size": 12,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 1,
    "decoder_intermediate_size": 24,
}
VJEPA2: dict[str, Any] = {
    "crop_size": 32,
    "patch_size": 8,
    "frames_per_clip": 4,
    "tubelet_size": 2,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pred_hidden_size": 12,
    "pred_num_hidden_layers": 1,
    "pred_num_attention_heads": 1,
}


def write_encoder(folder: Path, kind: str, **changes: Any) -> Path:
    """A random encoder of `kind`, written by transformers, its weights scaled up so that attention matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "videomae":
            model = VideoMAEModel(VideoMAEConfig(**VIDEOMAE | changes))
        else:
            model = VJEPA2Model(VJEPA2Config(**VJEPA2 | changes))
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data.mul_(5)
    with quiet():
        model.save_pretrained(folder)
    return folder


def clips(frames: int = 4, size: int = 32, batch: int = 2) -> Tensor:
    """(batch, frames, 3, size, size), the same every time."""
    return torch.randn(batch, frames, 3, size, size, generator=torch.Generator().manual_seed(1))


def tokens_by_transformers(folder: Path, kind: str, pixel_values: Tensor) -> Tensor:
    """What AutoModel gives, without vfm."""
    from transformers import AutoModel

    key = "pixel_values" if kind == "videomae" else "pixel_values_videos"
    with torch.no_grad():
        out: Tensor = AutoModel.from_pretrained(folder).eval()(**{key: pixel_values}).last_hidden_state
    return out
