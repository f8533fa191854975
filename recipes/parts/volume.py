"""Two to n modalities at once: the volume that their vectors span."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.parts.distributed import gather, mean_of_counted, places


def volumes(anchors: Tensor, others: Tensor, present: Tensor | None = None, *, eps: float = 1e-6) -> Tensor:
    """Volume of the parallelotope of each anchor with each set of other modalities (GRAM, Cicchetti et al., ICLR 2025).

        Vol_ij = sqrt(det G + eps),   G = the inner products of (a_i, m_j1, ..., m_jM), all of length one

    anchors (B, D), others (N, M, D) of any length -> (B, N) in fp64, from 0 (all alike) to 1 (all at right angles). present (N, M) bool: a
    modality that is missing spans nothing, as if it were not among them; what it holds is never looked at.

    In fp64 and by det G = det S - u^T adj(S) u, with S the inner products of the others and u those with the anchor: a polynomial, so that vectors
    which depend on each other have finite gradients. (The official code has the determinant in fp32 and no eps under the root: NaN there.)
    """
    a, m = F.normalize(anchors.double(), dim=-1), F.normalize(others.double(), dim=-1)
    if present is not None:
        m = torch.where(present.unsqueeze(2), m, 0.0)
    inner = m @ m.transpose(1, 2)
    if present is not None:  # a missing one stands at right angles to all: the determinant is that of the rest
        inner = inner + torch.diag_embed((~present).double())
    determinant, adjugate = _determinant(inner)
    u = torch.einsum("bd,nmd->bnm", a, m)
    spanned = determinant - torch.einsum("bnl,nlm,bnm->bn", u, adjugate, u)
    return (spanned.clamp_min(0) + eps).sqrt()


def gram_loss(
    anchors: Tensor,
    others: Tensor,
    temperature: float | Tensor,
    *,
    present: Tensor | None = None,
    apart: Tensor | None = None,
    smoothing: float = 0.1,
    eps: float = 1e-6,
) -> Tensor:
    """Modalities of one sample span the smallest volume of the batch (GRAM).

        loss = 1/2 [ CE(- Vol(a_i, {m_j}) / tau) over j  +  CE(- Vol(a_i, {m_j}) / tau) over i ],   label smoothing over those compared

    anchors (B, D) of this rank, the modality that all samples have (the official one is text); others (B, M, D), of which those count that
    `present` (B, M) bool says are there. Samples that have the anchor alone are not asked, and their empty sets are no strangers; neither are pairs
    that `apart` (B, N) bool, alike in both directions, sets aside (`alignment.set_apart`). fp32. Averaged over ranks, values and gradients are
    those of one rank with the whole batch; every rank must hold as many samples.
    """
    present = torch.ones(others.shape[:2], dtype=torch.bool, device=others.device) if present is None else present
    others = torch.where(present.unsqueeze(2), others, 0.0)  # before it is gathered: a placeholder may be no number
    some, all_present = present.any(dim=1), gather(present.long()) > 0
    to_sets = -volumes(anchors, gather(others), all_present, eps=eps).float() / temperature
    to_anchors = -volumes(gather(anchors), others, present, eps=eps).T.float() / temperature
    sets = all_present.any(dim=1).expand_as(to_sets)
    itself = places(len(anchors), sets.device).unsqueeze(1) == torch.arange(sets.shape[1], device=sets.device)
    asked = torch.ones_like(sets) if apart is None else itself | ~apart
    rows = _smoothed(to_sets, sets & asked, smoothing)
    columns = _smoothed(to_anchors, asked, smoothing)
    return mean_of_counted((rows + columns) / 2, some)


def _smoothed(scores: Tensor, compared: Tensor, smoothing: float) -> Tensor:
    """Cross entropy (B,) of each row of (B, N) with its own column, over the columns that are compared; `smoothing` of the target is spread over
    them."""
    logs = F.log_softmax(scores.masked_fill(~compared, torch.finfo(scores.dtype).min), dim=1)
    place = places(len(scores), scores.device).unsqueeze(1)
    even = torch.where(compared, logs, 0.0).sum(dim=1) / compared.sum(dim=1).clamp_min(1)
    return -(1 - smoothing) * logs.gather(1, place).squeeze(1) - smoothing * even


def _determinant(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Determinants (N,) and adjugates (N, M, M) of (N, M, M) by Faddeev and LeVerrier: products and traces alone, nothing is divided by."""
    size = matrices.shape[-1]
    identity = torch.eye(size, dtype=matrices.dtype, device=matrices.device)
    factor = identity.expand_as(matrices)
    for k in range(1, size + 1):
        product = matrices @ factor
        coefficient = -product.diagonal(dim1=-2, dim2=-1).sum(dim=-1) / k
        if k < size:
            factor = product + coefficient[:, None, None] * identity
    sign = (-1) ** size
    return sign * coefficient, -sign * factor
