"""Losses that compare every clip of a batch with every other; the batch is that of all ranks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.parts.distributed import gather, places
from recipes.parts.precision import as_they_are


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy (Chen et al., SimCLR, ICML 2020) of two views of each sample.

        loss = mean over both views of all N samples of  - log  exp(z_i . z_i' / tau) / sum over k other than i of exp(z_i . z_k / tau)

    first, second (B, D) of this rank, of any length; they are brought to length one, in fp32. z_i' is the other view of the same sample; k
    runs over both views of all samples of all ranks, 2 N - 1 of them. Every rank counts its own rows: averaged over ranks, values and gradients are
    those of one rank with the whole batch. Every rank must hold as many samples.
    """
    first, second = F.normalize(first.float(), dim=-1), F.normalize(second.float(), dim=-1)
    firsts, seconds = gather(first), gather(second)
    with as_they_are(first):  # in bf16 cosines near 1 are told apart by 1/256 only
        return (_one_way(first, firsts, seconds, temperature) + _one_way(second, seconds, firsts, temperature)) / 2


def _one_way(own: Tensor, alike: Tensor, other: Tensor, temperature: float) -> Tensor:
    """From each row of `own` to its partner among `other`, and away from all other rows of both. alike, other: of all ranks."""
    place = places(len(own), own.device)
    strangers = (own @ alike.T / temperature).scatter(
        1, place.unsqueeze(1), float("-inf")
    )  # nobody is compared with itself
    return F.cross_entropy(torch.cat([own @ other.T / temperature, strangers], dim=1), place)


def info_nce(
    queries: Tensor,
    keys: Tensor,
    temperature: float | Tensor,
    *,
    apart: Tensor | None = None,
    queue: Tensor | None = None,
    skip: Tensor | None = None,
    own: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """InfoNCE (van den Oord et al., 2018): each query against its own key and all others.

        loss = mean over i of  - log  exp(q_i . k_i / tau) / [ sum over j of exp(q_i . k_j / tau) + sum over strangers n of exp(q_i . n / tau) ]

    queries, keys (B, D) of this rank, of any length (brought to length one, in fp32); j runs over the keys of all N samples of all ranks but for
    pairs that `apart` (B, N) bool sets aside (`alignment.of_one_group`): the same report twice is no stranger. temperature: a number, or a scalar
    that is learned. Further strangers: queue (K, D), the same for all queries (MoCo) but for rows that skip (B, K) leaves out (`Queue.of`:
    the query's own recording is no stranger), and own (B, n, D), each query's own (intra-negatives). weights (B,): the mean is of what query i costs
    times weights_i. One direction only: swap the arguments for the other. Averaged over ranks, values and gradients are those of one rank with the
    whole batch. Every rank must hold as many samples.
    """
    queries, keys = F.normalize(queries.float(), dim=-1), F.normalize(keys.float(), dim=-1)
    everyone = gather(keys)
    place = places(len(queries), queries.device)
    with as_they_are(queries):
        scores = [queries @ everyone.T / temperature]
        if apart is not None:
            itself = place.unsqueeze(1) == torch.arange(len(everyone), device=place.device)
            scores[0] = scores[0].masked_fill(apart & ~itself, float("-inf"))
        if queue is not None:
            strangers = queries @ F.normalize(queue.float(), dim=-1).T / temperature
            scores.append(strangers if skip is None else strangers.masked_fill(skip, float("-inf")))
        if own is not None:
            scores.append(torch.einsum("bd,bnd->bn", queries, F.normalize(own.float(), dim=-1)) / temperature)
        if weights is None:
            return F.cross_entropy(torch.cat(scores, dim=1), place)
        return (F.cross_entropy(torch.cat(scores, dim=1), place, reduction="none") * weights).mean()


@torch.no_grad()
def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Mean cosine of the two views of a sample, on this rank: 1 where views say the same, and also where everything does."""
    return F.cosine_similarity(first.float(), second.float(), dim=-1).mean()


@torch.no_grad()
def accuracy(queries: Tensor, keys: Tensor, counted: Tensor | None = None) -> Tensor:
    """Share of samples (of those that are `counted` (B,) bool) whose own key is the nearest of the batch's, on this rank: what a contrast asks,
    whatever its temperature."""
    scores = F.normalize(queries.float(), dim=-1) @ F.normalize(keys.float(), dim=-1).T
    right = (scores.argmax(dim=1) == torch.arange(len(scores), device=scores.device)).float()
    return right.mean() if counted is None else (right * counted).sum() / counted.sum().clamp_min(1)


@torch.no_grad()
def wins(anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Share of samples whose positive is nearer than their own negative, on this rank; all (B, D)."""
    near, far = (F.cosine_similarity(anchor.float(), other.float(), dim=-1) for other in (positive, negative))
    return (near > far).float().mean()
