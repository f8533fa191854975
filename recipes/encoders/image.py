"""transformers' image models (ViT, DINOv2, CLIP's vision tower) as a VideoEncoder: applied to every frame."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import reduce
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from domains.errors import ModelError
from recipes.encoders.base import Geometry, VideoEncoder
from recipes.encoders.between import ALL, same_frame
from recipes.encoders.positions import interpolate_positions
from recipes.encoders.tokens import embed_patches

# Where transformers' classes keep what is the same in all of them.
PROJECTION = ("embeddings.patch_embeddings.projection", "embeddings.patch_embedding")
CLS = ("embeddings.cls_token", "embeddings.class_embedding")
POSITIONS = ("embeddings.position_embeddings", "embeddings.position_embedding.weight")
BLOCKS = ("layers", "encoder.layer", "encoder.layers")
NORM = ("layernorm", "post_layernorm")
BEFORE = ("pre_layrnorm",)  # as transformers spells it
UNUSED = ("pooler", "embeddings.mask_token")


class ImageEncoder(VideoEncoder):
    """An image model that sees each frame by itself: tubelets of one frame, no attention over time but for a `temporal` module
    (`vfm pretrain --recipe advise`).

    The tokens are those of the patches; each frame's CLS token is attended to and dropped. CLIP's final norm, which its authors apply to the CLS
    token alone, is applied to the tokens. Hidden tokens are dropped before the first block, and what is left attends within its own frame.
    """

    talks = True

    def __init__(self, model: Any, geometry: Geometry, source: str = "") -> None:
        self.width = model.config.hidden_size
        self.kind = model.config.model_type
        super().__init__(model, geometry, source)
        for parameter in self.unused():
            parameter.requires_grad_(False)

    def set_geometry(self, geometry: Geometry) -> None:
        """See `VideoEncoder.set_geometry`; positions are interpolated from the checkpoint's own grid when they are used."""
        self.check_geometry(geometry)
        self.geometry = geometry

    @property
    def patch(self) -> tuple[int, int]:
        """(1, patch pixels)."""
        return 1, self.model.config.patch_size

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks in order."""
        blocks: nn.ModuleList = self.part(BLOCKS)
        return blocks

    @property
    def projection(self) -> nn.Module:
        """See `VideoEncoder.projection`."""
        projection: nn.Module = self.part(PROJECTION)
        return projection

    @property
    def final_norm(self) -> nn.Module:
        """The norm after the last block."""
        norm: nn.Module = self.part(NORM)
        return norm

    @property
    def lora_targets(self) -> str:
        """See `VideoEncoder.lora_targets`."""
        layers = r"(layers|encoder\.layer|encoder\.layers)\.\d+\."
        return rf"(.*\.)?{layers}(.*\.)?([qkvo]_proj|out_proj|query|key|value|dense|fc1|fc2|weights_in|weights_out)"

    def part(self, names: tuple[str, ...]) -> Any:
        """The first of `names` that the model has; None for none."""
        for name in names:
            found = reduce(lambda holder, step: getattr(holder, step, None), name.split("."), self.model)
            if found is not None:
                return found
        return None

    def unused(self) -> Iterator[nn.Parameter]:
        """See `VideoEncoder.unused`: the pooler and the mask token."""
        for name, parameter in self.model.named_parameters():
            if name.startswith(UNUSED):
                yield parameter

    def forward(self, pixel_values: Tensor, visible: Tensor | None = None) -> Tensor:
        """See `VideoEncoder.forward`. Whole clips go through the blocks frame by frame; masked ones, and those with proxies, as one sequence in which
        tokens see their own frame: [CLS of each frame, tokens, proxies, messages]."""
        self.check_input(pixel_values)
        hidden = embed_patches(self.projection, pixel_values, visible)
        shape, times, places = hidden.shape, self.grid[0], self.grid[1] * self.grid[2]
        first, table = self.positions(hidden.dtype)
        joined, frames = visible is not None or self.proxies is not None, None
        if not joined:
            hidden = hidden.unflatten(1, (times, places)).flatten(0, 1) + table  # every frame by itself
            heads = first.expand(len(hidden), 1, -1)
        else:
            here = (
                torch.arange(self.tokens, device=hidden.device).expand(len(hidden), -1) if visible is None else visible
            )
            here = here.flatten(0, -2)
            hidden = hidden.flatten(0, -3) + table[here % places]
            heads = first.expand(len(hidden), times, -1)  # one for each frame
            frames = self.frames_of(here // places, times)
        hidden = torch.cat([heads, hidden], dim=1)
        if self.proxies is not None:
            hidden = self.proxies(hidden)
        mask = None if frames is None else same_frame(frames, hidden.dtype)
        if (before := self.part(BEFORE)) is not None:
            hidden = before(hidden)
        masked = self._takes_mask()
        if mask is not None and not masked:
            kind, version = self.model.config.model_type, transformers.__version__
            what = f"masked clips need transformers 5.18 or later for a model of type '{kind}' (here is {version})"
            do = "pip install --upgrade transformers, or choose a recipe without masks"
            raise ModelError(what, where=self.source, do=do)
        for number, block in enumerate(self.blocks):
            seen = self.with_messages(number, hidden, joined)
            seen = self.through(block, seen, mask) if masked else self.through(block, seen)
            hidden = (seen[0] if isinstance(seen, tuple) else seen)[:, : hidden.shape[1]]
        count = hidden.shape[1] - heads.shape[1] - (self.proxies.settings.count if self.proxies is not None else 0)
        tokens = self.final_norm(hidden[:, heads.shape[1] : heads.shape[1] + count]).reshape(shape)
        return self.over_time(tokens, visible)

    def _takes_mask(self) -> bool:
        """Whether blocks can be told who sees whom: those of DINOv2 cannot with transformers 5.17."""
        return "attention_mask" in inspect.signature(self.blocks[0].forward).parameters

    def frames_of(self, frames: Tensor, times: int) -> Tensor:
        """The frame of every token that a block sees: frames (S, V) of those of the clip, behind one CLS token for each of `times` frames and before
        proxies and messages."""
        own = torch.arange(times, device=frames.device).expand(len(frames), -1)
        proxies = self.proxies.settings.count if self.proxies is not None else 0
        everywhere = torch.full((len(frames), proxies), ALL, device=frames.device)
        return torch.cat([own, frames, everywhere, *([own] if self.messages is not None else [])], dim=1)

    def with_messages(self, block: int, hidden: Tensor, joined: bool) -> Tensor:
        """What a block sees: hidden, and behind it the message of each frame, made of its CLS token. joined: all frames are one sequence."""
        if self.messages is None:
            return hidden
        times = self.grid[0]
        if joined:
            return self.messages.beside(block, hidden, hidden[:, :times])
        messages: Tensor = self.messages.blocks[block](hidden[:, 0].unflatten(0, (-1, times)))
        return torch.cat([hidden, messages.flatten(0, 1).unsqueeze(1)], dim=1)

    def tokens_of(self, hidden: Tensor) -> Tensor:
        """See `VideoEncoder.tokens_of`: blocks see frames, each behind its CLS token, or all of them behind all CLS tokens."""
        times, places = self.grid[0], self.grid[1] * self.grid[2]
        if self.proxies is not None:
            return hidden[:, times : times + self.tokens]
        return hidden[:, 1 : 1 + places].unflatten(0, (-1, times)).flatten(1, 2)

    def positions(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The CLS token at its place (1, 1, D), and the positions of a frame's patches (places, D)."""
        table = self.part(POSITIONS).view(-1, self.width)
        side = round((len(table) - 1) ** 0.5)
        patches = interpolate_positions(table[1:], (1, side, side), (1, *self.grid[1:])).to(dtype)
        return (self.part(CLS).view(1, 1, -1) + table[0]).to(dtype), patches
