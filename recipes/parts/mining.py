"""Positives that another representation names, among the embeddings of earlier batches."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.parts.distributed import gather, rank
from recipes.parts.precision import as_they_are
from recipes.parts.queue import Queue


@torch.no_grad()
def nearest(keys: Tensor, queue: Queue, recordings: Tensor, count: int) -> Tensor:
    """The `count` rows of `queue` that are most like each key, as (B, K) bool; keys (B, D), recordings (B,) that they are of.

    Rows of the same recording, and those that the queue started with, are left out; where fewer than `count` remain, fewer are named.
    """
    with as_they_are(keys):
        likeness = F.normalize(keys.float(), dim=-1) @ queue.rows.T
    likeness = likeness.masked_fill(queue.of(recordings) | (queue.recordings < 0), float("-inf"))
    best = likeness.topk(min(count, len(queue.rows)), dim=1)
    return torch.zeros_like(likeness, dtype=torch.bool).scatter(1, best.indices, best.values > float("-inf"))


def nce_of_many(queries: Tensor, keys: Tensor, queue: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """InfoNCE with several positives (MIL-NCE, Miech et al., CVPR 2020), all of them in one sum.

        loss = mean over i of  - log  [ exp(q_i . k_i / tau) + sum over positive rows n of exp(q_i . n / tau) ]
                                    / [ sum over j of exp(q_i . k_j / tau) + sum over all rows n of exp(q_i . n / tau) ]

    queries, keys (B, D) of this rank, of any length (brought to length one, in fp32); j runs over the keys of all ranks; queue (K, D); positive
    (B, K) bool. A positive is counted once above and once below: the loss is 0 where all mass is on positives. Averaged over ranks, values and
    gradients are those of one rank with the whole batch. Every rank must hold as many samples.
    """
    queries, keys = F.normalize(queries.float(), dim=-1), F.normalize(keys.float(), dim=-1)
    everyone = gather(keys)
    with as_they_are(queries):
        scores = torch.cat([queries @ everyone.T, queries @ F.normalize(queue.float(), dim=-1).T], dim=1) / temperature
    own = torch.arange(len(everyone), device=queries.device) - len(queries) * rank()
    good = torch.cat([own == torch.arange(len(queries), device=queries.device).unsqueeze(1), positive], dim=1)
    return (scores.logsumexp(dim=1) - scores.masked_fill(~good, float("-inf")).logsumexp(dim=1)).mean()
