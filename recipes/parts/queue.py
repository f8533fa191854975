"""Embeddings of earlier batches, kept as strangers for later ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.parts.distributed import gather


class Queue(nn.Module):
    """The last K embeddings of all ranks, first in, first out (He et al., MoCo, CVPR 2020).

    Starts with random directions and is kept in checkpoints. Every rank holds the same rows, whatever the number of processes.

    Attributes
        rows: (K, D), of length one, fp32.
        recordings: (K,) int64, which recording each row is of; -1 where that was not said, and where nothing was pushed yet.
        place: () int64, where the next row goes.
    """

    rows: Tensor
    recordings: Tensor
    place: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(size, width), dim=-1))
        self.register_buffer("recordings", torch.full((size,), -1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, embeddings: Tensor, recordings: Tensor | None = None) -> None:
        """Replace the oldest rows by embeddings (B, D) of this rank, and those of all others, in rank order. Nothing waits for the device.

        recordings (B,) int64: which recording each is of (`Batch.index`), so that `of` can tell. Only in training. Of more rows than the queue
        holds, the last stay.
        """
        if not self.training:
            return
        new = F.normalize(gather(embeddings.detach().float()), dim=-1)[-len(self.rows) :]
        where = (self.place + torch.arange(len(new), device=new.device)) % len(self.rows)
        self.rows.index_copy_(0, where, new)
        if recordings is None:
            self.recordings.index_fill_(0, where, -1)
        else:
            self.recordings.index_copy_(0, where, gather(recordings)[-len(self.rows) :])
        self.place.add_(len(new)).remainder_(len(self.rows))

    def of(self, recordings: Tensor) -> Tensor:
        """Which rows are of the same recording as each sample: (B,) -> (B, K) bool."""
        return recordings.unsqueeze(1) == self.recordings
