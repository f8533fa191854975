"""Collapse is invisible in a loss: features of a fixed set of clips are looked at while a run goes on, and so is what else may go wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domains.base import ClipSettings
from domains.errors import AlarmError, MediaError
from domains.store.clips import evaluation_clips
from domains.store.prepared import Prepared
from recipes.config import RunConfig
from recipes.encoders.base import Geometry, VideoEncoder
from recipes.objective import Objective
from recipes.parts.distributed import gather, global_max, rank, world_size
from recipes.parts.usage import Usage
from recipes.training.alarms import Alarms, Raised, stopped
from recipes.training.data import ClipData, plain_pixel_values
from recipes.training.sharding import Weights

PIECE = 16  # clips embedded at once
FEWEST = 4  # clips of which a rank or a spread can be told
KEPT = 256 << 20  # bytes of clips that a process keeps; more are read again for every look

Probe = Callable[[VideoEncoder, torch.device], Mapping[str, float]]


def rankme(features: Tensor) -> float:
    """RankMe (Garrido et al., ICML 2023): exp of the entropy of the normalised singular values of features (B, D); in [1, min(B, D)].

    As in the paper the features are not centred: where all share a large mean, it counts as one direction that takes most of the entropy.
    """
    values = torch.linalg.svdvals(features.double())
    share = values / values.sum().clamp_min(1e-12) + 1e-7
    return float(torch.exp(-(share * share.log()).sum()))


def feature_entropy(features: Tensor) -> float:
    """Von Neumann entropy of the cosine kernel of features (B, D), as a share of the largest, log min(B, D).

    0 where all clips have one embedding, 1 where they spread over all directions alike. Its exponential is the Vendi score (Friedman and Dieng,
    TMLR 2023): how many different clips the encoder sees.
    """
    unit = F.normalize(features.double(), dim=-1)
    shares = torch.linalg.svdvals(unit).square() / len(unit)
    shares = shares[shares > 1e-12]
    return float(-(shares * shares.log()).sum()) / math.log(min(features.shape))


def deviation(features: Tensor) -> float:
    """Standard deviation of L2-normalised features (B, D) over the batch, averaged over channels, times sqrt(D).

    0 where all clips have one embedding, about 1 where they point in all directions (SimSiam, Chen and He 2021).
    """
    unit = F.normalize(features.float(), dim=-1)
    return float(unit.std(dim=0).mean() * unit.shape[1] ** 0.5)


class FixedClips:
    """One middle clip of each of some videos, the same ones all through a run. Every rank embeds its share; every rank gets all features."""

    def __init__(self, prepared: Prepared, rows: Sequence[int], clip: ClipSettings) -> None:
        self.prepared, self.rows, self.clip = prepared, list(rows), clip
        self.mine = self.rows[rank() :: world_size()]
        size = clip.frames * clip.size**2 * 3
        self._kept: dict[int, Tensor | None] | None = {} if size * len(self.mine) <= KEPT else None

    def frames(self, row: int) -> Tensor | None:
        """uint8 (T, size, size, C) of a video; None for one that cannot be read, which the loader counts and reports."""
        if self._kept is not None and row in self._kept:
            return self._kept[row]
        try:
            read = torch.from_numpy(evaluation_clips(self.prepared, row, self.clip, 1)[0])
        except MediaError:
            read = None
        if self._kept is not None:
            self._kept[row] = read
        return read

    @torch.no_grad()
    def features(
        self, read: Callable[[Tensor], Tensor], geometry: Geometry, device: torch.device
    ) -> tuple[Tensor, list[int]]:
        """(features (n, D) fp32 on the CPU, their rows in order) of the clips that could be read; `read`: pixel_values (B, T, C, H, W) -> (B, D).

        Every rank must call it.
        """
        each = -(-len(self.rows) // world_size())
        own = [(place, frames) for place, row in enumerate(self.mine) if (frames := self.frames(row)) is not None]
        parts = [
            read(
                plain_pixel_values(torch.stack([frames for _, frames in own[first : first + PIECE]]), geometry, device)
            ).float()
            for first in range(0, len(own), PIECE)
        ]
        width = int(global_max(torch.tensor([float(parts[0].shape[1]) if parts else 0.0], device=device)))
        if not width:
            return torch.empty(0, 0), []
        table = torch.zeros(each, width + 1, device=device)  # the last column: whether the clip could be read
        if own:
            table[torch.tensor([place for place, _ in own], device=device)] = F.pad(torch.cat(parts), (0, 1), value=1.0)
        # Rank r has the rows r, r + world, ...: back into their order.
        every = gather(table).view(world_size(), each, width + 1).transpose(0, 1).flatten(0, 1)[: len(self.rows)].cpu()
        good = every[:, -1] == 1
        return every[good, :-1], [row for row, is_good in zip(self.rows, good.tolist(), strict=True) if is_good]


class Monitors:
    """What watches a run: figures of fixed clips, of what the objective counts, of the gradient; and their alarms.

    Every rank calls every method, and gets the same figures; the main one raises alarms. Nothing waits for the device between two looks.
    """

    def __init__(self, objective: Objective, data: ClipData, config: RunConfig, run: Path, state: dict[str, Any], device: torch.device,
                 warn: Callable[[str], None], *, probe: Probe | None = None, weights: Weights | None = None) -> None:  # fmt: skip
        """state: of the run, in its checkpoints. probe: what else is asked of the encoder that the run would leave behind (online kNN). weights: of
        `objective`, None where it holds them itself."""
        self.weights = weights or Weights(objective, device)
        self.objective, self.config, self.device, self.state, self.probe, self.run = (
            objective,
            config,
            device,
            state,
            probe,
            run,
        )
        rows = sorted(data.rows)
        count = config.monitor.clips
        self.clips = FixedClips(data.prepared, rows[:: max(1, len(rows) // count)][:count], data.clip)
        self.alarms = Alarms(config.monitor, run, warn, state)
        self.stop: Raised | bool = False
        self._largest: Tensor | None = None
        if rank() == 0:
            self.alarms.rewind(state["step"])

    def gradient(self, norm: Tensor) -> None:
        """The norm of one step, before clipping."""
        norm = norm.detach().float()
        self._largest = norm if self._largest is None else torch.maximum(self._largest, norm)

    def look(self, step: int, total: int) -> dict[str, float]:
        """Figures that are due after `step` of `total` steps, where the log is written; they are held against their limits by `judge`."""
        train, began = self.config.train, time.perf_counter()
        figures: dict[str, float] = {}
        if is_due(step, total, train.monitor_every, train.log_every):
            figures |= {**(self.of_features() if self.objective.asks_encoder else {}), **self.of_usage()}
        if self.probe is not None and is_due(step, total, self.config.monitor.knn.every, train.log_every):
            figures |= self.ask(self.probe)
        if figures:
            spent = self.state.get("monitor_seconds", 0.0) + time.perf_counter() - began
            self.state["monitor_seconds"] = figures["monitor_seconds"] = round(spent, 3)
        return figures

    def of_features(self) -> dict[str, float]:
        """RankMe, entropy and spread of the trained encoder's features."""
        encoder = self.objective.encoder
        was, _ = encoder.training, encoder.eval()
        with self.weights.whole(encoder):
            features, _ = self.clips.features(encoder.embed, encoder.geometry, self.device)
        encoder.train(was)
        if len(features) < FEWEST:
            return {}
        if not features.isfinite().all():  # weights that are not finite: every alarm is raised
            return dict.fromkeys(("rankme", "rankme_centred", "feature_entropy", "deviation"), math.nan)
        return {
            "rankme": rankme(features),
            "rankme_centred": rankme(features - features.mean(dim=0)),
            "feature_entropy": feature_entropy(features),
            "deviation": deviation(features),
        }

    def of_usage(self) -> dict[str, float]:
        """Of everything that the objective counts, since the last look."""
        counted = {
            name.rsplit(".", 1)[-1]: module.entropy()
            for name, module in self.weights.learner.named_modules()
            if isinstance(module, Usage)
        }
        return {name: value for name, value in counted.items() if value is not None}

    def ask(self, probe: Probe) -> dict[str, float]:
        """The probe's figures of the encoder as the run would leave it behind."""
        encoder = self.objective.final_encoder()
        was, _ = encoder.training, encoder.eval()
        with self.weights.whole(encoder):
            figures = dict(probe(encoder, self.device))
        encoder.train(was)
        return figures

    def largest_gradient(self) -> dict[str, float]:
        """Since the last call."""
        largest, self._largest = self._largest, None
        return {} if largest is None else {"grad_norm_max": float(largest)}

    def judge(self, step: int, figures: Mapping[str, float]) -> None:
        """Hold newly measured figures against their limits; `stop` tells, on every rank, whether the run shall end."""
        raised = self.alarms.check(step, figures) if rank() == 0 else None
        flag = global_max(torch.tensor([float(raised is not None)], device=self.device))
        self.stop = raised or bool(flag.item()) or self.stop

    def end(self, step: int) -> AlarmError:
        """What a run that an alarm stops ends with."""
        return stopped(self.stop if isinstance(self.stop, Raised) else None, step, self.run)


def is_due(step: int, total: int, every: int, log_every: int) -> bool:
    """Whether a multiple of `every` lies within the last `log_every` steps, or the run begins or ends here."""
    return step % every < log_every or step == total
