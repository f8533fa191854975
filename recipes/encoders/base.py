"""One interface over every video encoder."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from domains.errors import ModelError
from domains.schema import Strict

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GEOMETRY_FILE = "vfm_encoder.json"


class Geometry(Strict):
    """What an encoder expects to see. Belongs to the encoder and is saved with it (`vfm_encoder.json`)."""

    frames: int
    size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    rate: float | None = None
    stride: int = 1
    random_start: bool = False


class VideoEncoder(nn.Module, ABC):
    """A transformers video model, seen as clip in, tokens out.

    Attributes
        model: the transformers module, trained in place.
        geometry: frames, size and normalisation.
        width: D, channels of a token.
        kind: the transformers `model_type`.
        lora_targets: regular expression of the attention and MLP linear layers in `model`, for peft; never a decoder's or a predictor's.
        peft_model: the peft wrapper around `model` where the encoder is trained with LoRA, else None.
    """

    model: Any
    geometry: Geometry
    width: int
    kind: str
    lora_targets: str
    peft_model: Any

    def __init__(self) -> None:
        super().__init__()
        # Held outside the module tree: peft wraps the same parameters, and they must not be counted or saved twice.
        object.__setattr__(self, "peft_model", None)

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int, int]:
        """(t, h, w) tokens of a clip of this geometry; token n = (it * h + ih) * w + iw."""

    @property
    @abstractmethod
    def patch(self) -> tuple[int, int]:
        """(tubelet frames, patch pixels)."""

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks in order."""

    @abstractmethod
    def forward(self, pixel_values: Tensor, visible: Tensor | None = None) -> Tensor:
        """Tokens of a clip.

        pixel_values (B, T, C, H, W) normalised; visible (B, V) int64, positions to encode, in the order wanted.
        Returns (B, N, D), or (B, V, D) in the order of `visible`. Hidden tokens are dropped before the first block, so their pixels cannot
        reach the output.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write transformers' own files plus `vfm_encoder.json`; `AutoModel.from_pretrained(folder)` loads them without vfm."""

    @property
    def tokens(self) -> int:
        """N = t * h * w."""
        t, h, w = self.grid
        return t * h * w

    def pool(self, tokens: Tensor) -> Tensor:
        """(B, V, D) -> (B, D): the mean of the tokens after the final norm. These models have no CLS token; this takes its place."""
        return tokens.mean(dim=1)

    def embed(self, pixel_values: Tensor) -> Tensor:
        """(B, D): the pooled tokens of a whole clip."""
        return self.pool(self(pixel_values))

    def check(self, pixel_values: Tensor) -> None:
        """Raises ModelError where a batch has another geometry; V-JEPA 2 would silently give it wrong positions."""
        frames, _, height, width = pixel_values.shape[1:]
        size = self.geometry.size
        if (frames, height, width) != (self.geometry.frames, size, size):
            raise ModelError(f"clips of {frames} frames and {height}x{width} px for an encoder of {self.geometry.frames} frames and {size}x{size} px")

    def plain_model(self) -> Any:
        """The transformers model without adapters: LoRA products are added to a copy of the weights they change."""
        if self.peft_model is None:
            return self.model
        return copy.deepcopy(self.peft_model).merge_and_unload()

    def save_geometry(self, folder: Path) -> None:
        """`vfm_encoder.json`, and the same normalisation as transformers' `preprocessor_config.json`."""
        geometry = self.geometry.model_dump(mode="json")
        (folder / GEOMETRY_FILE).write_text(json.dumps(geometry, indent=2) + "\n", encoding="utf-8")
        processor = {
            "do_normalize": True,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "image_mean": geometry["mean"],
            "image_std": geometry["std"],
            "size": {"height": self.geometry.size, "width": self.geometry.size},
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
