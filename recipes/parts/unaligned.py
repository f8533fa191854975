"""Clips in order and sentences in order, of which nobody said which belongs to which."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.parts.distributed import mean_of_counted
from recipes.parts.precision import as_they_are

LOWEST = torch.finfo(torch.float32).min


def in_order(scores: Tensor, columns: Tensor, counted: Tensor) -> Tensor:
    """Pseudo-labels that never go back (WeakSVR's maximum-index sorting): the column that each row fits best, then all of them sorted.

    scores (B, n, m), of which `columns` (B, m) and rows `counted` (B, n), those at the front, count -> (B, n) int64; of other rows they mean nothing.
    """
    best = scores.masked_fill(~columns.unsqueeze(1), LOWEST).argmax(dim=2)
    last = best.masked_fill(~counted, scores.shape[2])  # behind all others
    return last.sort(dim=1).values.clamp_max(scores.shape[2] - 1)


def unaligned_loss(frames: Tensor, sentences: Tensor, present: Tensor, scale: float | Tensor) -> Tensor:
    """Frames and sentences of a sample, each in its order, fit each other without ever going back (WeakSVR, Dong et al., CVPR 2023).

        loss = mean over samples of 1/2 [ mean over i of CE(s f_i . c over sentences, l_i) + mean over j of CE(s c_j . f over frames, k_j) ]
            l = sort(argmax over sentences of f_i . c),   k = sort(argmax over frames of c_j . f)

    frames (B, n, D), sentences (B, m, D) of any length (brought to length one, in fp32), of which those count that `present` (B, m) says are there,
    at the front; samples with fewer than two have no order and are left out. Averaged over ranks, the mean is that of all their samples.

    Conventions of ours: cross-entropy of the scores, where the official code has it of one-hot vectors, so that a perfect match still costs; the
    mean of both directions, not their sum; no Gumbel noise.
    """
    f, c = F.normalize(frames.float(), dim=-1), F.normalize(sentences.float(), dim=-1)
    with as_they_are(f):
        scores = f @ c.transpose(1, 2) * scale
    all_frames = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
    with torch.no_grad():
        of_frames = in_order(scores, present, all_frames)
        of_sentences = in_order(scores.transpose(1, 2), all_frames, present)
    there = scores.masked_fill(~present.unsqueeze(1), LOWEST)
    first = F.cross_entropy(there.transpose(1, 2), of_frames, reduction="none").mean(dim=1)
    second = F.cross_entropy(scores, of_sentences, reduction="none").where(present, 0.0)
    second = second.sum(dim=1) / present.sum(dim=1).clamp_min(1)
    several = present.sum(dim=1) > 1
    return mean_of_counted(((first + second) / 2).where(several, 0.0), several)
