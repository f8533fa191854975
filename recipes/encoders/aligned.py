"""Two towers in one space: a video encoder, a text tower, and the projections between them.

A run of a method that aligns leaves `encoder/` (video, as ever), `text/` (the text tower, in transformers' format), and the projections:
`alignment.safetensors`, with their shapes and the learned scale and bias in `alignment.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import PositiveFloat, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from domains.errors import ModelError
from domains.schema import Strict, parse
from recipes.encoders.base import VideoEncoder
from recipes.encoders.loading import open_encoder, read_json
from recipes.encoders.text import TEXT, TextEncoder, open_text

SHAPE, WEIGHTS = "alignment.json", "alignment.safetensors"
PIECE = 32  # texts embedded at once


class AlignmentShape(Strict):
    """video, text: channels that are read of a clip and of a text. outputs: D, of the common space. hidden: width of the projections' hidden layer;
    None: a projection is one matrix. motion: of a clip is read what `VideoEncoder.describe` says (how tokens change over time, too), not `embed`."""

    video: PositiveInt
    text: PositiveInt
    outputs: PositiveInt
    hidden: PositiveInt | None = None
    motion: bool = False


class Alignment(nn.Module):
    """The projections of both towers into the common space, and the scale and bias of their cosines: scale * cos(v, t) + bias.

    log_scale, bias: (1,), trained where a method says so.
    """

    def __init__(self, shape: AlignmentShape, *, scale: float = 1 / 0.07, bias: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.video = projection(shape.video, shape.hidden, shape.outputs)
        self.text = projection(shape.text, shape.hidden, shape.outputs)
        self.log_scale = nn.Parameter(torch.full((1,), math.log(scale)))
        self.bias = nn.Parameter(torch.full((1,), float(bias)))

    @classmethod
    def between(
        cls, encoder: VideoEncoder, text: TextEncoder, outputs: int, *, hidden: int | None = None, motion: bool = False
    ) -> Alignment:
        """New projections between two towers, random weights."""
        width = encoder.description if motion else encoder.width
        return cls(AlignmentShape(video=width, text=text.width, outputs=outputs, hidden=hidden, motion=motion))

    @torch.no_grad()
    def bound(self, most: float = 100.0) -> None:
        """Keep the scale at `most` or below, after a step, as CLIP does: beyond, single pairs are all that counts."""
        self.log_scale.clamp_(max=math.log(most))

    def read(self, encoder: VideoEncoder, pixel_values: Tensor) -> Tensor:
        """What the projection reads of clips (B, T, C, H, W): (B, shape.video)."""
        return (encoder.describe if self.shape.motion else encoder.embed)(pixel_values)

    def clips(self, encoder: VideoEncoder, pixel_values: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, D), not yet of length one."""
        said: Tensor = self.video(self.read(encoder, pixel_values))
        return said

    def texts(self, text: TextEncoder, tokens: Tensor) -> Tensor:
        """Tokens of texts (..., S, L) -> (..., D), not yet of length one."""
        said: Tensor = self.text(text(tokens))
        return said


def projection(width: int, hidden: int | None, outputs: int) -> nn.Module:
    """(..., width) -> (..., outputs): a matrix, or two with GELU between them."""
    if hidden is None:
        return nn.Linear(width, outputs, bias=False)
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, outputs))


class Aligned(nn.Module):
    """A video encoder and a text tower whose vectors can be compared: what zero-shot, retrieval and search ask.

    The cosine of a clip and a text is `embed_clips(...) @ embed_texts(...).T`; `scale` times it, plus `bias`, is the score that was trained.
    """

    def __init__(self, encoder: VideoEncoder, text: TextEncoder, alignment: Alignment) -> None:
        super().__init__()
        self.encoder, self.text, self.alignment = encoder, text, alignment

    @property
    def width(self) -> int:
        """D."""
        return self.alignment.shape.outputs

    @property
    def scale(self) -> float:
        """Learned multiple of the cosine (one over the temperature)."""
        return float(self.alignment.log_scale.detach().exp())

    @property
    def bias(self) -> float:
        """Learned addition to the scaled cosine; 0 but for the sigmoid loss."""
        return float(self.alignment.bias.detach())

    def embed_clips(self, pixel_values: Tensor) -> Tensor:
        """(B, T, C, H, W) normalised -> (B, D) fp32, of length one."""
        return F.normalize(self.alignment.clips(self.encoder, pixel_values).float(), dim=-1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Words -> (K, D) fp32, of length one, on the device of the towers. Raises ValueError for a text without a word."""
        if any(not text.strip() for text in texts):
            raise ValueError("a text without a word")
        device = self.alignment.log_scale.device
        parts = [
            self.alignment.texts(self.text, self.text.reader(texts[first : first + PIECE]).to(device)).float()
            for first in range(0, len(texts), PIECE)
        ]
        return F.normalize(torch.cat(parts), dim=-1) if parts else torch.empty(0, self.width, device=device)


def save_aligned(run: Path, text: TextEncoder, alignment: Alignment) -> None:
    """Write `text/` and the projections into a run folder, beside its `encoder/`. Raises OSError."""
    text.save(run / TEXT)
    weights = {name: value.detach().cpu().contiguous() for name, value in alignment.state_dict().items()}
    save_file(weights, run / WEIGHTS)
    scale, bias = float(alignment.log_scale.detach().exp()), float(alignment.bias.detach())
    about = {**alignment.shape.model_dump(mode="json"), "scale": scale, "bias": bias}
    (run / SHAPE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def is_aligned(run: str | Path) -> bool:
    """Whether a folder is a run that aligned clips and texts, and is finished."""
    return (Path(run) / SHAPE).is_file()


def open_aligned(
    run_folder: str | Path, *, frames: int | None = None, size: int | None = None, online: bool = False
) -> Aligned:
    """Both towers of a run that aligned them, in evaluation mode. frames, size: what the encoder shall see; None: as it was saved.

    Raises ModelError where the folder holds no such run, or its weights cannot be used.
    """
    run = Path(run_folder)
    about = read_json(run / SHAPE)
    if about is None:
        what = f"not a run that aligned clips with texts (no {SHAPE})"
        raise ModelError(what, where=run, do="Train one: vfm pretrain --recipe clip --text texts.csv --out RUN")
    shape = parse(_Saved, about, run / SHAPE)
    encoder, text = open_encoder(run, frames=frames, size=size, online=online), open_text(run)
    alignment = Alignment(AlignmentShape(**shape.model_dump(exclude={"scale", "bias"})))
    try:
        alignment.load_state_dict(load_file(run / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        what = f"the projections cannot be used ({error.__class__.__name__})"
        raise ModelError(what, where=run / WEIGHTS, do="Copy the whole folder that the run left") from None
    width = encoder.description if shape.motion else encoder.width
    if (width, text.width) != (shape.video, shape.text):
        what = f"its towers are {width} and {text.width} wide, its projections read {shape.video} and {shape.text}"
        raise ModelError(what, where=run, do="Copy the whole folder that the run left")
    return Aligned(encoder, text, alignment).eval()


class _Saved(AlignmentShape):
    """What `alignment.json` says."""

    scale: PositiveFloat
    bias: float
