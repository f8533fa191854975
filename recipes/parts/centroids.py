"""Clusters that all modalities share: centroids by k-means over joint embeddings, and the contrast of each modality with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.parts.distributed import mean_of_counted
from recipes.parts.precision import as_they_are
from recipes.parts.queue import Queue


def joint(modalities: Tensor, present: Tensor | None = None) -> Tensor:
    """(B, M, D) -> (B, D): the mean of the modalities that are `present` (B, M) bool, each of length one, brought to length one; fp32."""
    each = F.normalize(modalities.float(), dim=-1)
    if present is not None:
        each = torch.where(present.unsqueeze(2), each, 0.0)
    return F.normalize(each.sum(dim=1), dim=-1)


class Centroids(nn.Module):
    """K directions by spherical k-means over the joint embeddings of the last batches of all ranks (MCN, Chen et al., ICCV 2021).

        loss = mean over samples and modalities of  - log  softmax over centroids k of ((z . c_k - margin [k = k']) / tau)  at k'

    with k' the centroid that the sample's *joint* embedding is nearest to: modalities of one sample are drawn to the same centroid. The margin is
    that of masked margin softmax (Ilharco et al., 2019). Kept in checkpoints; every rank holds the same.

    Attributes
        rows: (K, D), of length one, fp32.
        fitted: () bool, whether they were ever fitted. Until then the loss is 0.
    """

    rows: Tensor
    fitted: Tensor

    def __init__(self, count: int, width: int, memory: int) -> None:
        """memory: joint embeddings that are kept, K or more."""
        super().__init__()
        self.memory = Queue(max(count, memory), width)
        self.register_buffer("rows", F.normalize(torch.randn(count, width), dim=-1))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def observe(self, modalities: Tensor, recordings: Tensor, present: Tensor | None = None) -> None:
        """Keep what all modalities of this rank's samples say together: (B, M, D), recordings (B,) (`Batch.index`). In training alone."""
        self.memory.push(joint(modalities.detach(), present), recordings)

    @torch.no_grad()
    def fit(self, iterations: int = 10) -> None:
        """k-means over what is kept, from the present centroids on; nothing happens before K embeddings are. Nothing is drawn: the first
        centroids, and those that nobody is near, are the rows farthest from all others."""
        rows = self.memory.rows[self.memory.recordings >= 0]
        if len(rows) < len(self.rows):
            return
        if not self.fitted:
            self.rows.copy_(_far_apart(rows, len(self.rows)))
            self.fitted.fill_(True)
        for _ in range(iterations):
            nearest = (rows @ self.rows.T).max(dim=1)
            sums = torch.zeros_like(self.rows).index_add_(0, nearest.indices, rows)
            empty = torch.bincount(nearest.indices, minlength=len(self.rows)) == 0
            sums[empty] = rows[nearest.values.argsort()[: int(empty.sum())]]
            self.rows.copy_(F.normalize(sums, dim=-1))

    def forward(
        self, modalities: Sequence[Tensor], temperature: float, *, margin: float = 0.0, present: Tensor | None = None
    ) -> Tensor:
        """The loss of M modalities, each (B, D) of any length, of which those count that `present` (B, M) bool says are there. Averaged over ranks,
        it is the mean over all their samples."""
        stacked = torch.stack([one.float() for one in modalities], dim=1)
        present = torch.ones(stacked.shape[:2], dtype=torch.bool, device=stacked.device) if present is None else present
        stacked = torch.where(present.unsqueeze(2), stacked, 0.0)
        with as_they_are(stacked):
            nearest = (joint(stacked.detach(), present) @ self.rows.T).argmax(dim=1)  # (B,)
            scores = F.normalize(stacked, dim=-1) @ self.rows.T  # (B, M, K)
        theirs = F.one_hot(nearest, len(self.rows)).unsqueeze(1)
        scores = (scores - margin * theirs) / temperature
        each = F.cross_entropy(scores.flatten(0, 1), nearest.repeat_interleave(stacked.shape[1]), reduction="none")
        return (
            mean_of_counted(each, present.flatten()) * self.fitted
        )  # by its value and not by a question: nothing waits for the device


def _far_apart(rows: Tensor, count: int) -> Tensor:
    """`count` rows, each the farthest from those before it; the first is the farthest from the mean."""
    chosen = [int((rows @ rows.mean(dim=0)).argmin())]
    nearest = rows @ rows[chosen[0]]
    while len(chosen) < count:
        chosen.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, rows @ rows[chosen[-1]])
    return rows[chosen]
