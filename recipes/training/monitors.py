"""Collapse is invisible in a loss: features of a fixed set of clips are looked at while a run goes on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from domains.base import ClipSettings
from domains.errors import MediaError
from domains.store.clips import evaluation_clips
from domains.store.prepared import Prepared
from recipes.encoders.base import VideoEncoder
from recipes.training.data import plain_pixel_values

CLIPS = 64  # enough to see a rank of a few dozen, few enough to cost about a second on a CPU


def rankme(features: Tensor) -> float:
    """RankMe (Garrido et al., ICML 2023): exp of the entropy of the normalised singular values of features (B, D); in [1, min(B, D)]."""
    values = torch.linalg.svdvals(features.double())
    share = values / values.sum().clamp_min(1e-12) + 1e-7
    return float(torch.exp(-(share * share.log()).sum()))


def deviation(features: Tensor) -> float:
    """Standard deviation of L2-normalised features (B, D) over the batch, averaged over channels, times sqrt(D).

    0 where all clips have one embedding, about 1 where they point in all directions (SimSiam, Chen and He 2021).
    """
    unit = F.normalize(features.float(), dim=-1)
    return float(unit.std(dim=0).mean() * unit.shape[1] ** 0.5)


class CollapseMonitor:
    """RankMe and deviation of one middle clip of up to 64 videos, the same ones all through a run."""

    def __init__(self, prepared: Prepared, rows: list[int], clip: ClipSettings, warn: Callable[[str], None]) -> None:
        spread = sorted(rows)[:: max(1, len(rows) // CLIPS)][:CLIPS]
        clips = []
        for row in spread:
            try:
                clips.append(evaluation_clips(prepared, row, clip, 1)[0])
            except MediaError:
                continue  # the loader counts and reports unreadable videos
        self.frames = torch.from_numpy(np.stack(clips)) if clips else None
        self.warn, self.start, self.told = warn, {}, set()  # type: ignore[var-annotated]

    @torch.no_grad()
    def look(self, encoder: VideoEncoder, device: torch.device) -> dict[str, float]:
        """Current figures; warns once where one has fallen far below its first value."""
        if self.frames is None or len(self.frames) < 4:
            return {}
        was, _ = encoder.training, encoder.eval()
        features = torch.cat(
            [
                encoder.embed(plain_pixel_values(part, encoder.geometry, device)).float().cpu()
                for part in self.frames.split(16)
            ]
        )
        encoder.train(was)
        figures = {"rankme": rankme(features), "deviation": deviation(features)}
        for name, value in figures.items():
            first = self.start.setdefault(name, value)
            if name not in self.told and (value < 0.3 * first or not np.isfinite(value)):
                self.told.add(name)
                self.warn(
                    f"features are collapsing: {name} fell from {first:.3g} to {value:.3g}. Lower optim.lr, or raise the teacher's momentum"
                )
        return figures
