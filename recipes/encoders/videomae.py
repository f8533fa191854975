"""transformers' VideoMAEModel as a VideoEncoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEModel

from recipes.encoders.base import Geometry, VideoEncoder
from recipes.encoders.between import mean_of_frames
from recipes.encoders.positions import interpolate_positions, sincos_table
from recipes.encoders.tokens import embed_patches


class VideoMAEEncoder(VideoEncoder):
    """VideoMAE (Tong et al., NeurIPS 2022): joint space-time attention, fixed sin-cos positions.

    The position table is no part of the weights: transformers computes it from the configuration. It is interpolated
    here for other geometries, and the configuration stays that of the table, so that `AutoModel` refuses clips of
    another size instead of giving them other positions than they were trained with.
    """

    kind = "videomae"
    model: VideoMAEModel
    talks = True

    def __init__(self, model: VideoMAEModel, geometry: Geometry, source: str = "") -> None:
        self.width = model.config.hidden_size
        config = model.config
        native = config.num_frames // config.tubelet_size, *[config.image_size // config.patch_size] * 2
        self._native: tuple[int, int, int] = native
        # A plain tensor would not follow .to(); a buffer outside the state dict does, and the files stay transformers'.
        del model.embeddings.position_embeddings
        model.embeddings.register_buffer("position_embeddings", torch.empty(0), persistent=False)
        super().__init__(model, geometry, source)

    def set_geometry(self, geometry: Geometry) -> None:
        """See `VideoEncoder.set_geometry`; positions are interpolated from the checkpoint's own grid."""
        self.check_geometry(geometry)
        self.geometry = geometry
        t, h, w = self._native
        table = interpolate_positions(sincos_table(t * h * w, self.width), self._native, self.grid)
        embeddings = self.model.embeddings
        embeddings.position_embeddings = table.unsqueeze(0).to(embeddings.patch_embeddings.projection.weight.device)
        # transformers checks the input's size against these; they follow, the configuration does not
        embeddings.patch_embeddings.image_size = (geometry.size, geometry.size)
        embeddings.patch_embeddings.num_patches = embeddings.num_patches = self.tokens

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
        projection: nn.Module = self.model.embeddings.patch_embeddings.projection
        return projection

    @property
    def final_norm(self) -> nn.Module | None:
        """The norm after the last block; None in classification checkpoints, which have it behind the pooling."""
        norm: nn.Module | None = self.model.layernorm
        return norm

    @property
    def lora_targets(self) -> str:
        """See `VideoEncoder.lora_targets`."""
        return (
            r"(.*\.)?encoder\.layer\.\d+\."
            r"(attention\.attention\.(query|key|value)|attention\.output\.dense|intermediate\.dense|output\.dense)"
        )

    def forward(self, pixel_values: Tensor, visible: Tensor | None = None) -> Tensor:
        """See `VideoEncoder.forward`."""
        self.check_input(pixel_values)
        hidden = embed_patches(self.projection, pixel_values, visible)
        positions = self.model.embeddings.position_embeddings[0].to(hidden.dtype)
        hidden = hidden + (positions if visible is None else positions[visible])
        shape = hidden.shape
        hidden = hidden.flatten(0, -3)  # views are samples of their own
        count = hidden.shape[1]
        if self.proxies is not None:
            hidden = self.proxies(hidden)
        for number, block in enumerate(self.blocks):
            hidden = self.through(block, self.with_messages(number, hidden, count, visible))[:, : hidden.shape[1]]
        hidden = hidden[:, :count]
        if self.final_norm is not None:
            hidden = self.final_norm(hidden)
        return self.over_time(hidden.view(shape), visible)

    def with_messages(self, block: int, hidden: Tensor, count: int, visible: Tensor | None) -> Tensor:
        """What a block sees: hidden (S, V, D), and behind it the messages of the clip's times, of which the mean of the first `count` tokens, those
        of the clip, is what a time says of itself."""
        if self.messages is None:
            return hidden
        times, places = self.grid[0], self.grid[1] * self.grid[2]
        if visible is None:
            frames = hidden[:, :count].unflatten(1, (times, places)).mean(dim=2)
        else:
            frames = mean_of_frames(hidden[:, :count], visible.flatten(0, -2) // places, times)
        return self.messages.beside(block, hidden, frames)


def fresh_videomae(geometry: Geometry, *, seed: int, **config: Any) -> VideoMAEEncoder:
    """A VideoMAE of random weights whose own geometry is `geometry`; the same seed, the same weights.

    `config` are fields of transformers' VideoMAEConfig. The caller's random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VideoMAEModel(
            VideoMAEConfig(image_size=geometry.size, num_frames=geometry.frames, use_mean_pooling=False, **config)
        )
        _start_well(model)
    encoder = VideoMAEEncoder(model, geometry)
    encoder.random_start = True
    return encoder


@torch.no_grad()
def _start_well(model: VideoMAEModel) -> None:
    """Xavier weights, as VideoMAE's authors have them (Glorot and Bengio, AISTATS 2010), and patch filters of mean 0.

    transformers draws with a deviation of 0.02 whatever the width: blocks of a narrow encoder then do next to nothing.
    A filter that is not of mean 0 answers to brightness first of all, which in a dark picture drowns everything else.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    filters = model.embeddings.patch_embeddings.projection.weight
    nn.init.xavier_uniform_(filters.view(len(filters), -1))
    filters -= filters.mean(dim=(1, 2, 3, 4), keepdim=True)
