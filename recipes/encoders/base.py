"""One interface over every video encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from torch import Tensor, nn

from domains.schema import Strict

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Geometry(Strict):
    """What an encoder expects to see. Belongs to the encoder and is saved with it (`vfm_encoder.json`)."""

    frames: int
    size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    rate: float | None = None
    stride: int = 1


class VideoEncoder(nn.Module, ABC):
    """A transformers video model, seen as clip in, tokens out.

    Attributes
        model: the transformers module, trained in place.
        geometry: frames, size and normalisation.
        width: D, channels of a token.
        kind: the transformers `model_type`.
    """

    model: nn.Module
    geometry: Geometry
    width: int
    kind: str

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int, int]:
        """(t, h, w) tokens of a clip of this geometry; token n = (it * h + ih) * w + iw."""

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
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks in order."""

    @property
    @abstractmethod
    def lora_targets(self) -> str:
        """Regular expression of the attention and MLP linear layers in `model`, for peft. Never matches a decoder or a predictor."""

    @abstractmethod
    def forward(self, pixel_values: Tensor, visible: Tensor | None = None) -> Tensor:
        """Tokens of a clip.

        pixel_values (B, T, C, H, W) normalised; visible (B, V) int64, positions to encode, in the order wanted.
        Returns (B, N, D), or (B, V, D) in the order of `visible`. Hidden tokens are dropped before the first block, so their pixels cannot
        reach the output.
        """

    def embed(self, pixel_values: Tensor) -> Tensor:
        """(B, D): the mean of all tokens after the final norm."""
        return self(pixel_values).mean(dim=1)

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write transformers' own files plus `vfm_encoder.json`; `AutoModel.from_pretrained(folder)` loads them without vfm."""
