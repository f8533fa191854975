"""One interface over every video encoder."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from domains.errors import ModelError
from domains.schema import Strict
from recipes.encoders.added import save_added
from recipes.encoders.between import Messages, Proxies
from recipes.encoders.context import SetTransformer
from recipes.encoders.temporal import TemporalModule
from recipes.encoders.tokens import average_at, deviation_at_places, embed_patches, temporal_change
from recipes.encoders.trajectory import Trajectory

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ENCODER_FILE = "vfm_encoder.json"


class Geometry(Strict):
    """What an encoder expects to see. Belongs to the encoder and is saved with it (`vfm_encoder.json`).

    keep: share of the tokens of whole clips that it encodes, those that change most (`VideoEncoder.changing`).
    """

    frames: int
    size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    rate: float | None = None
    stride: int = 1
    keep: float = Field(1.0, gt=0, le=1)


class VideoEncoder(nn.Module, ABC):
    """A transformers video model, seen as clip in, tokens out.

    Attributes
        model: the transformers module, trained in place.
        geometry: frames, size and normalisation.
        width: D, channels of a token.
        kind: the transformers `model_type`.
        source: where its weights came from, as the user named it.
        random_start: True while its weights are those it was born with.
        checkpointing: recompute a block's activations in the backward pass instead of keeping them.
        temporal: attention over time on its tokens (`vfm pretrain --recipe advise`); None: what the model has of its own.
        messages, proxies: tokens by which frames hear of each other (`vfm pretrain --recipe xclip`, `clipvip`); only where `talks`.
        context: what reads the clips of a recording together (`vfm pretrain --recipe scale`); None: a recording is the mean of its clips.
        trajectory: what tells which way a clip goes (`vfm pretrain --recipe chirality`); None: what tokens say by themselves.
    """

    model: Any
    geometry: Geometry
    width: int
    kind: str
    # Whether further tokens can stand beside those of a clip.
    talks = False

    def __init__(self, model: Any, geometry: Geometry, source: str = "") -> None:
        super().__init__()
        self.model, self.source, self.random_start = model, source, False
        self.checkpointing = False
        self.temporal: TemporalModule | None = None
        self.context: SetTransformer | None = None
        self.trajectory: Trajectory | None = None
        self.messages: Messages | None = None
        self.proxies: Proxies | None = None
        # peft's wrapper of `model` (mode lora). In a tuple, so that its parameters are not counted a second time.
        self.adapter: tuple[Any, ...] = ()
        self.set_geometry(geometry)

    @abstractmethod
    def set_geometry(self, geometry: Geometry) -> None:
        """See clips of another frame count or size from now on. Raises ModelError where the patches do not fit."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """(t, h, w) tokens of a clip of this geometry; token n = (it * h + ih) * w + iw."""
        tubelet, patch = self.patch
        side = self.geometry.size // patch
        return self.geometry.frames // tubelet, side, side

    @property
    def tokens(self) -> int:
        """N = t * h * w."""
        t, h, w = self.grid
        return t * h * w

    @property
    @abstractmethod
    def patch(self) -> tuple[int, int]:
        """(tubelet frames, patch pixels)."""

    @property
    def heads(self) -> int:
        """Attention heads of a block."""
        heads: int = self.model.config.num_attention_heads
        return heads

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks in order."""

    @property
    @abstractmethod
    def projection(self) -> nn.Module:
        """The patch embedding: a Conv3d whose stride is its kernel."""

    @property
    @abstractmethod
    def final_norm(self) -> nn.Module | None:
        """The norm after the last block, None for checkpoints that have it in their head instead."""

    @property
    @abstractmethod
    def lora_targets(self) -> str:
        """Regular expression of the attention and MLP linear layers in `model`, for peft. Never matches a decoder or a
        predictor."""

    @abstractmethod
    def forward(self, pixel_values: Tensor, visible: Tensor | None = None) -> Tensor:
        """Tokens of a clip.

        pixel_values (B, T, C, H, W) normalised; visible (B, V) int64, positions to encode, in the order wanted, or
        (B, M, V), M masked views of each clip, encoded independently of each other.
        Returns (B, N, D), or (B, V, D) or (B, M, V, D) in the order of `visible`. Hidden tokens are dropped before the
        first block, so their pixels cannot reach the output. Raises ModelError for clips of another geometry.
        """

    def unused(self) -> Iterator[nn.Parameter]:
        """Parameters that the model's files hold and `forward` has no use for. They are never trained."""
        yield from ()

    def over_time(self, tokens: Tensor, visible: Tensor | None) -> Tensor:
        """What `forward` ends with: the tokens after the `temporal` module, where there is one."""
        if self.temporal is None:
            return tokens
        said: Tensor = self.temporal(tokens, self.grid, visible)
        return said

    def tokens_of(self, hidden: Tensor) -> Tensor:
        """What a block says of whole clips, as tokens (B, N, D) in raster order."""
        return hidden[:, : self.tokens]  # before proxies and messages

    def through(self, block: nn.Module, *inputs: Tensor | None) -> Any:
        """A block's output; with `checkpointing`, its activations are forgotten and computed again when gradients are."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def pool(self, tokens: Tensor) -> Tensor:
        """(..., V, D) -> (..., D): the mean of the tokens after the final norm. These models have no CLS token; this
        takes its place. Where the checkpoint has no final norm, the mean itself is brought to mean 0, deviation 1."""
        mean = tokens.mean(dim=-2)
        return mean if self.final_norm is not None else F.layer_norm(mean, mean.shape[-1:])

    @torch.no_grad()
    def changing(self, pixel_values: Tensor) -> Tensor | None:
        """Positions (B, V), rising, of the share `geometry.keep` of the tokens whose patch embedding changes most from the tubelet before;
        None where all are kept. What stands still is redundant (EVEREST, Hwang et al., ICML 2024): it is dropped before the first block.
        """
        if self.geometry.keep == 1:
            return None
        change = temporal_change(embed_patches(self.projection, pixel_values), self.grid[0])
        kept = change.argsort(dim=1, descending=True, stable=True)[:, : max(1, round(self.geometry.keep * self.tokens))]
        return kept.sort(dim=1).values

    def embed(self, pixel_values: Tensor) -> Tensor:
        """(B, D): the pooled tokens of whole clips, or of what `changing` keeps of them; with a `context`, what it makes of each clip as a set
        of one, of its own width; with a `trajectory`, what that tells."""
        if self.context is not None:
            summary: Tensor = self.context(self.measure(pixel_values).unsqueeze(1))
            return summary
        if self.trajectory is not None:
            return self._read(pixel_values)[1][0]
        return self.pool(self(pixel_values, self.changing(pixel_values)))

    def describe(self, pixel_values: Tensor) -> Tensor:
        """(B, `description`): what probes and heads read of whole clips, what `measure` says; beside it what a `context` makes of each clip as a
        set of one, and which way it goes, as a `trajectory` tells."""
        found, goes = self._read(pixel_values)
        together = [] if self.context is None else [self.context(found.unsqueeze(1)).float()]
        return torch.cat([found, *together, *goes], dim=-1)

    def describe_recording(self, pixel_values: Tensor) -> Tensor:
        """Clips (n, T, C, H, W) of one recording -> (`description`,): the mean of what `describe` says of each; with a `context`, beside the mean of
        the clips' statistics what it makes of all of them together."""
        found, goes = self._read(pixel_values)
        together = [] if self.context is None else [self.context(found.unsqueeze(0))[0].float()]
        return torch.cat([found.mean(dim=0), *together, *(one.mean(dim=0) for one in goes)])

    def _read(self, pixel_values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What `measure` says, and what a `trajectory` does, where there is one."""
        visible = self.changing(pixel_values)
        tokens = self(pixel_values, visible)
        goes = [] if self.trajectory is None else [self.trajectory(self.over_places(tokens, visible))]
        return self.statistics(tokens, visible), goes

    def over_places(self, tokens: Tensor, visible: Tensor | None = None) -> Tensor:
        """Tokens (B, V, D) of clips -> (B, t, D): what `pool` says of each time. Where no token of a time is visible, the mean of the clip."""
        times, places = self.grid[0], self.tokens // self.grid[0]
        if visible is None:
            return self.pool(tokens.unflatten(1, (times, places)))
        mean = average_at(tokens, visible // places, times)
        return mean if self.final_norm is not None else F.layer_norm(mean, mean.shape[-1:])

    @property
    def description(self) -> int:
        """Channels of `describe`: 2 D, the width of a `context`, and twice that of a `trajectory`."""
        more = self.context.settings.width if self.context is not None else 0
        return 2 * self.width + more + (2 * self.trajectory.settings.width if self.trajectory is not None else 0)

    def measure(self, pixel_values: Tensor) -> Tensor:
        """(B, 2 D): the `statistics` of all tokens of whole clips, or of those that `changing` keeps."""
        visible = self.changing(pixel_values)
        return self.statistics(self(pixel_values, visible), visible)

    def statistics(self, tokens: Tensor, visible: Tensor | None = None) -> Tensor:
        """Tokens (..., V, D) -> (..., 2 D): the pooled tokens, and how much tokens change over time.

        V: every token, or the visible ones of a tube mask (the same places at every time), in raster order; of any other mask, `visible` (..., V)
        says where they are: places with two tokens or more count then. The second half is the deviation over time at each place, averaged over
        places. A mean over all tokens cannot tell a heart that beats from one that hardly
        does: what changes there averages out. (Statistics pooling, Snyder et al., ICASSP 2018; the pixel baseline is given the same two
        statistics.) Zero for an encoder that sees a single moment.
        """
        if visible is None:
            variance = tokens.float().unflatten(-2, (self.grid[0], -1)).var(dim=-3, correction=0)
            over_time = (
                variance.clamp_min(1e-12).sqrt().mean(dim=-2)
            )  # a place that stands still has gradient 0, not 0 / 0
        else:
            places = self.tokens // self.grid[0]
            rows = deviation_at_places(tokens.float().flatten(0, -3), (visible % places).flatten(0, -2), places)
            over_time = rows.view(*tokens.shape[:-2], -1)
        return torch.cat([self.pool(tokens).float(), over_time], dim=-1)

    def check_input(self, pixel_values: Tensor) -> None:
        """Raises ModelError unless the clips have this geometry: others would silently get wrong positions."""
        _, frames, _, height, width = pixel_values.shape
        expected = self.geometry
        if (frames, height, width) != (expected.frames, expected.size, expected.size):
            raise ModelError(
                f"the encoder is set to clips of {expected.frames} frames of {expected.size}x{expected.size} pixels "
                f"and was given {frames} frames of {height}x{width}",
                do="Use square clips, and set encoder.frames and encoder.size to theirs",
            )

    def check_geometry(self, geometry: Geometry) -> None:
        """Raises ModelError unless whole tubelets and patches fill the clip."""
        tubelet, patch = self.patch
        for name, value, unit in (("frames", geometry.frames, tubelet), ("size", geometry.size, patch)):
            if value < unit or value % unit:
                raise ModelError(
                    f"{name} {value} does not divide into patches of {unit}",
                    where=self.source or self.kind,
                    do=f"Use a multiple, e.g. {max(1, round(value / unit)) * unit}",
                )

    def save(self, folder: Path) -> None:
        """Write transformers' own files plus `vfm_encoder.json`; `AutoModel.from_pretrained(folder)` loads them without
        vfm. LoRA is merged into the weights that are written, and kept apart in the one that is training."""
        folder.mkdir(parents=True, exist_ok=True)
        # deepcopy's memo keeps one copy of the model under the wrapper's copy
        model = copy.deepcopy(self.adapter[0]).merge_and_unload() if self.adapter else self.model
        with quiet():
            model.save_pretrained(folder)
        about: dict[str, Any] = {"kind": self.kind, "geometry": self.geometry.model_dump(mode="json")}
        about |= save_added(self, folder)
        (folder / ENCODER_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        (folder / "preprocessor_config.json").write_text(
            json.dumps(self._preprocessor(), indent=2) + "\n", encoding="utf-8"
        )

    def _preprocessor(self) -> dict[str, Any]:
        """The same normalisation in the words of transformers' image processors."""
        size = {"height": self.geometry.size, "width": self.geometry.size}
        return {
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.geometry.mean),
            "image_std": list(self.geometry.std),
            "do_resize": True,
            "size": size,
            "do_center_crop": False,
            "crop_size": size,
        }


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without progress bars and without its report of unused decoder weights, for the time of one call."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
