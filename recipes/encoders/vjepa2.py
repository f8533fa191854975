"""transformers' V-JEPA 2 (Assran et al., 2025) as a VideoEncoder, with the masked encode that transformers lacks."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn
from transformers import VJEPA2Model

from domains.errors import ModelError
from recipes.encoders.base import Geometry, VideoEncoder
from recipes.encoders.tokens import embed_patches


class VJEPA2Encoder(VideoEncoder):
    """A VJEPA2Model at any frame count and size.

    `VJEPA2Model.forward` encodes every token and applies a mask afterwards. Here hidden tubelets are dropped before the first block, and
    the kept ones carry their position ids into the rotary attention of every block. The predictor is kept untouched and saved along.
    """

    kind = "vjepa2"
    lora_targets: ClassVar[str] = r"(?:.*\.)?encoder\.layer\.\d+\.(?:attention\.(?:query|key|value|proj)|mlp\.fc[12])"  # type: ignore[misc]

    def __init__(self, model: VJEPA2Model, geometry: Geometry) -> None:
        super().__init__()
        self.model, self.geometry = model, geometry
        self.width = model.config.hidden_size
        tubelet, patch = self.patch
        if geometry.frames % tubelet or geometry.size % patch:
            raise ModelError(
                f"clips of {geometry.frames} frames and {geometry.size} px do not divide into tubelets of {tubelet} frames and patches of {patch} px",
                do=f"Use multiples: clip.frames of {tubelet}, clip.size of {patch}",
            )
        # Rotary positions need no table, only the number of patches in a row; no weight depends on it.
        model.config.crop_size, model.config.frames_per_clip = geometry.size, geometry.frames
        for layer in [*model.encoder.layer, *model.predictor.layer]:
            layer.attention.grid_size = geometry.size // patch
            layer.attention.grid_depth = geometry.frames // tubelet
        for parameter in model.predictor.parameters():
            parameter.requires_grad_(False)

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
        encoder = self.model.encoder
        hidden = embed_patches(encoder.embeddings.patch_embeddings.proj, pixel_values, visible)
        for layer in encoder.layer:
            hidden = layer(hidden, visible)[0]
        return encoder.layernorm(hidden)

    def save(self, folder: Path) -> None:
        """See VideoEncoder.save."""
        self.plain_model().save_pretrained(folder)
        self.save_geometry(folder)
