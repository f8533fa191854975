"""transformers' VideoMAE (Tong et al., NeurIPS 2022) as a VideoEncoder."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEModel

from domains.errors import ModelError
from recipes.encoders.base import Geometry, VideoEncoder
from recipes.encoders.tokens import embed_patches, gather, interpolate_positions


class VideoMAEEncoder(VideoEncoder):
    """A VideoMAEModel at any frame count and size.

    The position table belongs to the grid that the model was trained on. For another grid it is interpolated, and the model's own config
    is left as it was, so that a saved folder means the same to transformers as the folder it came from.
    """

    kind = "videomae"
    lora_targets: ClassVar[str] = (  # type: ignore[misc]
        r"(?:.*\.)?encoder\.layer\.\d+\.(?:attention\.(?:attention\.(?:query|key|value)|output\.dense)|intermediate\.dense|output\.dense)"
    )

    def __init__(self, model: VideoMAEModel, geometry: Geometry) -> None:
        super().__init__()
        self.model, self.geometry = model, geometry
        config: VideoMAEConfig = model.config
        self.width = config.hidden_size
        tubelet, patch = self.patch
        if geometry.frames % tubelet or geometry.size % patch:
            raise ModelError(
                f"clips of {geometry.frames} frames and {geometry.size} px do not divide into tubelets of {tubelet} frames and patches of {patch} px",
                do=f"Use multiples: clip.frames of {tubelet}, clip.size of {patch}",
            )
        side = config.image_size // patch
        trained = (config.num_frames // tubelet, side, side)
        table = interpolate_positions(model.embeddings.position_embeddings.detach(), trained, self.grid)
        self.register_buffer("positions", table, persistent=False)

    @property
    def patch(self) -> tuple[int, int]:
        """(tubelet frames, patch pixels)."""
        return self.model.config.tubelet_size, self.model.config.patch_size

    @property
    def grid(self) -> tuple[int, int, int]:
        """(t, h, w)."""
        tubelet, patch = self.patch
        side = self.geometry.size // patch
        return self.geometry.frames // tubelet, side, side

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks in order."""
        return self.model.encoder.layer

    def forward(self, pixel_values: Tensor, visible: Tensor | None = None) -> Tensor:
        """See VideoEncoder.forward."""
        self.check(pixel_values)
        hidden = embed_patches(self.model.embeddings.patch_embeddings.projection, pixel_values, visible)
        positions = self.positions.to(hidden.dtype).expand(len(hidden), -1, -1)
        hidden = hidden + (positions if visible is None else gather(positions, visible))
        hidden = self.model.encoder(hidden).last_hidden_state
        return hidden if self.model.layernorm is None else self.model.layernorm(hidden)

    def embed(self, pixel_values: Tensor) -> Tensor:
        """(B, D): the mean of all tokens. Models for mean pooling have no final norm of their own: the mean is normalised here."""
        return self.pool(self(pixel_values))

    def pool(self, tokens: Tensor) -> Tensor:
        """(B, V, D) -> (B, D)."""
        mean = tokens.mean(dim=1)
        return F.layer_norm(mean, mean.shape[-1:]) if self.model.layernorm is None else mean

    def save(self, folder: Path) -> None:
        """See VideoEncoder.save."""
        self.plain_model().save_pretrained(folder)
        self.save_geometry(folder)


def build(geometry: Geometry, *, width: int, depth: int, heads: int, tubelet: int, patch: int, seed: int) -> VideoMAEEncoder:
    """A VideoMAEModel with random weights that follow from `seed` alone. It has a final norm: pooled tokens are on one scale."""
    config = VideoMAEConfig(
        image_size=geometry.size,
        patch_size=patch,
        num_frames=geometry.frames,
        tubelet_size=tubelet,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        use_mean_pooling=False,
        decoder_hidden_size=width // 2,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=max(1, heads // 2),
        decoder_intermediate_size=2 * width,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VideoMAEEncoder(VideoMAEModel(config), geometry)
