"""Runs that aligned clips and texts, in milliseconds: random towers whose projections are fitted so that views of rings and words agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn

from domains.base import ClipSettings
from domains.store.clips import clips_from, spread_starts
from domains.store.prepared import Prepared
from recipes.encoders.aligned import Aligned, Alignment, save_aligned
from recipes.encoders.base import Geometry
from recipes.encoders.text import tiny_text
from recipes.encoders.videomae import fresh_videomae
from recipes.training.data import plain_pixel_values

GEOMETRY = Geometry(frames=4, size=32, rate=12.5)
CLIP = ClipSettings(frames=4, size=32, rate=12.5)
WIDTH = 8


def towers(seed: int = 0) -> Aligned:
    """A small video encoder, vfm-tiny-text, and random projections."""
    encoder = fresh_videomae(
        GEOMETRY, seed=seed, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, patch_size=8, tubelet_size=2
    )  # fmt: skip
    torch.manual_seed(seed)
    text = tiny_text(seed)
    return Aligned(encoder, text, Alignment.between(encoder, text, WIDTH)).eval()


def fitted(prepared: Prepared, words: Mapping[int, str], clips: int = 3) -> Aligned:
    """Towers whose linear projections map the clips of each recording, and the text that is said of it, to one axis for each distinct text."""
    aligned = towers()
    texts = list(dict.fromkeys(words.values()))
    with torch.no_grad():
        said = aligned.text.embed(texts).double()
        seen, wanted = [], []
        for row, text in words.items():
            starts = spread_starts(prepared, row, CLIP, clips)
            pixels = plain_pixel_values(
                torch.from_numpy(clips_from(prepared, row, CLIP, starts)), GEOMETRY, torch.device("cpu")
            )
            seen.append(aligned.encoder.embed(pixels).double())
            wanted += [texts.index(text)] * clips
        axes = torch.eye(len(texts), WIDTH, dtype=torch.float64)
        for projection, inputs, outputs in (
            (aligned.alignment.text, said, axes), (aligned.alignment.video, torch.cat(seen), axes[wanted]),
        ):  # fmt: skip
            assert isinstance(projection, nn.Linear)
            ridge = 1e-6 * torch.eye(inputs.shape[1], dtype=torch.float64) * inputs.square().sum()
            solved = torch.linalg.solve(inputs.T @ inputs + ridge * 1e-6, inputs.T @ outputs)
            projection.weight.copy_(solved.T.float())
    return aligned


def write_aligned(run: Path, aligned: Aligned, config: Mapping[str, object] | None = None) -> Path:
    """The run folder that leaves these towers."""
    aligned.encoder.save(run / "encoder")
    save_aligned(run, aligned.text, aligned.alignment)
    settings = {"encoder": {"name": "vfm-tiny"}, **(config or {})}
    (run / "config.resolved.yaml").write_text(yaml.safe_dump(settings))
    return run


def axis(vectors: Sequence[Sequence[float]]) -> np.ndarray:
    """Rows of length one."""
    found = np.array(vectors, float)
    return found / np.linalg.norm(found, axis=1, keepdims=True)
