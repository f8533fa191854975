"""transformers' VJEPA2Model as a VideoEncoder, with the masked encode that transformers lacks."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from transformers import VJEPA2Model

from recipes.encoders.base import Geometry, VideoEncoder
from recipes.encoders.tokens import embed_patches


class VJEPA2Encoder(VideoEncoder):
    """V-JEPA 2 (Assran et al., 2025): rotary positions over (t, h, w).

    transformers encodes every token and masks afterwards; here the wanted tokens are gathered first and every block is
    given their position numbers. Rotary positions are relative and need no table: for another size they count the new
    grid's places, as in the authors' own code. The predictor is carried along for the files' sake and never trained.
    """

    kind = "vjepa2"
    model: VJEPA2Model

    def __init__(self, model: VJEPA2Model, geometry: Geometry, source: str = "") -> None:
        self.width = model.config.hidden_size
        model.predictor.requires_grad_(False)
        super().__init__(model, geometry, source)

    def set_geometry(self, geometry: Geometry) -> None:
        """See `VideoEncoder.set_geometry`. The configuration follows: positions are computed from it."""
        self.check_geometry(geometry)
        self.geometry = geometry
        self.model.config.crop_size, self.model.config.frames_per_clip = geometry.size, geometry.frames
        t, side, _ = self.grid
        for block in [*self.blocks, *self.model.predictor.layer]:
            block.attention.grid_size, block.attention.grid_depth = side, t

    @property
    def patch(self) -> tuple[int, int]:
        """(tubelet frames, patch pixels)."""
        return self.model.config.tubelet_size, self.model.config.patch_size

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks in order."""
        blocks: nn.ModuleList = self.model.encoder.layer
        return blocks

    @property
    def projection(self) -> nn.Module:
        """See `VideoEncoder.projection`."""
        projection: nn.Module = self.model.encoder.embeddings.patch_embeddings.proj
        return projection

    @property
    def final_norm(self) -> nn.Module:
        """The norm after the last block."""
        norm: nn.Module = self.model.encoder.layernorm
        return norm

    @property
    def lora_targets(self) -> str:
        """See `VideoEncoder.lora_targets`. The predictor's layers are `predictor.layer.N` and do not match."""
        return r"(.*\.)?encoder\.layer\.\d+\.(attention\.(query|key|value|proj)|mlp\.(fc1|fc2))"

    def unused(self) -> Iterator[nn.Parameter]:
        """See `VideoEncoder.unused`: the predictor."""
        yield from self.model.predictor.parameters()

    def forward(self, pixel_values: Tensor, visible: Tensor | None = None) -> Tensor:
        """See `VideoEncoder.forward`."""
        self.check_input(pixel_values)
        hidden = embed_patches(self.projection, pixel_values, visible)
        shape = hidden.shape
        hidden = hidden.flatten(0, -3)  # views are samples of their own
        places = None if visible is None else visible.flatten(0, -2)
        for block in self.blocks:
            hidden = self.through(block, hidden, places)[0]
        return self.over_time(self.final_norm(hidden).view(shape), visible)
