"""Several clips of one recording as views of one thing (Feichtenhofer et al., A Large-Scale Study on Unsupervised Spatiotemporal Representation
Learning, CVPR 2021)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from domains.store.clips import Clip


def stacked(clips: Mapping[str, Tensor], views: Mapping[str, Clip]) -> Tensor:
    """V views of B samples, each (B, ...) -> (V * B, ...): all of the first view, then all of the second. `unflatten(0, (V, -1))` parts them."""
    return torch.cat([clips[name] for name in views])


def cross_entropy_across(targets: Tensor, whole: Tensor, temperature: float, small: Tensor | None = None) -> Tensor:
    """Every clip's target against the outputs of all views but the one it was made of (DINO, SwAV).

        loss = mean over clips i and views s other than i of H(t_i, softmax(l_s / temperature)),   H(p, q) = - sum_k p_k log q_k

    targets (V, B, K), whose rows sum to one, without gradient: of V clips of each of B samples; whole (V, B, K): logits of the same clips; small
    (B, S, K): logits of S further views, each compared with all V targets. fp32.
    """
    outputs = F.log_softmax(whole.float() / temperature, dim=-1)
    total, count = outputs.sum(dim=0), len(outputs) - 1
    if small is not None:
        total, count = total + F.log_softmax(small.float() / temperature, dim=-1).sum(dim=1), count + small.shape[1]
    # H is linear in log q: the sum over all views less the own one, instead of one term for every pair.
    return -(targets.detach() * (total - outputs)).sum(dim=-1).mean() / count


def distance_across(predictions: Tensor, targets: Tensor) -> Tensor:
    """Every clip's prediction against the targets of all other clips of its sample (BYOL).

        loss = mean over samples and clips i, j other than i of || p_i - t_j ||^2 = 2 - 2 p_i . t_j,   both brought to length one

    predictions, targets (V, B, D), the latter without gradient; fp32.
    """
    p, t = F.normalize(predictions.float(), dim=-1), F.normalize(targets.detach().float(), dim=-1)
    cosines = (p * (t.sum(dim=0) - t)).sum(dim=-1) / (len(t) - 1)  # of each clip with the mean of the others
    return 2 - 2 * cosines.mean()
