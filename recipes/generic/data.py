"""Scenes as the loop takes samples: an endless series, each drawn when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from domains.base import ClipSettings
from domains.generic.samples import Sample, Truth, draw_sample
from domains.store.clips import DrawnClip
from domains.store.prepared import Prepared
from recipes.training.data import collate

EPOCH = 65536  # samples that are called an epoch
# So many scenes are shown so often, one after the other, before new ones are drawn. On a CPU drawing costs as much as learning; many loader processes
# beside a GPU share no drawn scenes, and are better asked for each once (`shown` of SceneData).
SCENES, SHOWN = 64, 2
_drawn = lru_cache(maxsize=SCENES)(draw_sample)


def scene_of(position: int, shown: int = SHOWN) -> int:
    """The number of the scene that a sample shows."""
    turn, place = divmod(position, SCENES * shown)
    return turn * SCENES + place % SCENES


class SceneData(Dataset[dict[str, Any]]):
    """What `ClipData` is to the loop; the same scene is seen through other masks when it comes again.

    prepared: some clips that are only looked at, by the monitors; rows: theirs. shown: how often a scene comes.

    Targets, of each of the clips `first` and `second`: flow (tokens, 2) in quarter patches a frame, front (tokens,), facts (6,), as logarithms; of
    both: pace, backwards, swapped, texture.
    """

    def __init__(
        self, prepared: Prepared, clip: ClipSettings, patch: tuple[int, int], *, seed: int = 0, shown: int = SHOWN
    ) -> None:
        self.prepared, self.clip, self.patch, self.seed, self.shown = prepared, clip, patch, seed, shown
        self.rows = list(range(len(prepared)))

    def __len__(self) -> int:
        return EPOCH

    def fingerprint(self) -> str:
        """What samples follow from, beside their number."""
        return f"generic-{self.seed}-{self.clip.frames}x{self.clip.size}-{SCENES}x{self.shown}"

    def place(self, position: int) -> tuple[int, int, int]:
        """(epoch, place, draw), as of `ClipData`."""
        return position // EPOCH, position % EPOCH, 0

    def __getitem__(self, position: int) -> dict[str, Any]:
        sample = _drawn(self.seed, scene_of(position, self.shown), self.clip.frames, self.clip.size, self.patch)
        names = ("first", "second")
        return {
            "views": {name: _as_drawn(clip) for name, clip in zip(names, sample.clips, strict=True)},
            "seed": position,
            "row": position,
            "targets": self.targets(sample, names),
            "failures": [],
        }

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """As of `ClipData`."""
        return collate(samples)

    def targets(self, sample: Sample, names: tuple[str, str]) -> dict[str, Any]:
        """See the class."""
        found: dict[str, Any] = {
            "pace": np.int64(sample.pace),
            "backwards": np.int64(sample.backwards),
            "swapped": np.int64(sample.swapped),
            "texture": np.int64(sample.texture),
        }
        for name, truth in zip(names, sample.truths, strict=True):
            found |= {f"{key}_{name}": value for key, value in self.of_clip(truth).items()}
        return found

    def of_clip(self, truth: Truth) -> dict[str, Any]:
        """Flow in quarter patches: what a token can tell does not depend on how many pixels one has."""
        return {
            "flow": np.clip(truth.flow.reshape(-1, 2) / self.patch[1] * 4, -4, 4),
            "front": truth.front.reshape(-1),
            "facts": np.sign(truth.facts) * np.log1p(np.abs(truth.facts)),
        }


def _as_drawn(frames: Any) -> DrawnClip:
    return DrawnClip(frames, flip=False, brightness=0.0, contrast=1.0)
