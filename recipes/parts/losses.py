"""Losses that several methods share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def teacher_probabilities(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """P_t = softmax((h_t - c) / tau_t) in fp32, no gradient. logits (..., K), centre (K,)."""
    return F.softmax((logits.detach().float() - centre) / temperature, dim=-1)


def distillation_loss(probabilities: Tensor, logits: Tensor, temperature: float = 0.1) -> Tensor:
    """(1 / (n M)) sum over n samples and M views of H(P_t, P_s), H(p, q) = -sum_k p_k log q_k.

    probabilities (n, K) of the teacher, shared by the views; logits (n, M, K) of the student.
    """
    log_student = F.log_softmax(logits.float() / temperature, dim=-1)
    # The mean over views of the logarithm first: the teacher's probabilities are the same for all of them.
    return -(probabilities * log_student.mean(dim=1)).sum(dim=-1).mean()


def cluster_cross_entropy(scores: Tensor, assignments: Tensor, temperature: float = 0.1) -> Tensor:
    """CE(s, sg q) = - mean_n sum_k q_nk log softmax(scores_n / temperature)_k; scores, assignments (n, K)."""
    return -(assignments.detach() * F.log_softmax(scores / temperature, dim=-1)).sum(dim=-1).mean()


def entropy(probabilities: Tensor) -> Tensor:
    """Mean entropy in nats of the rows of (..., K)."""
    return -(probabilities * probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()).sum(dim=-1).mean()
