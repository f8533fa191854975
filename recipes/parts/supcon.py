"""Supervised contrast: samples of one label attract, all others repel; the batch is that of all ranks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.parts.distributed import gather, mean_of_counted, places, world_size
from recipes.parts.precision import as_they_are


def sup_con(views: Tensor, labels: Tensor, temperature: float, counted: Tensor | None = None) -> Tensor:
    """SupCon (Khosla et al., NeurIPS 2020), the mean over positives outside the logarithm.

        loss = mean over views i of  - mean over positives p of  log  exp(z_i . z_p / tau) / sum over k other than i of exp(z_i . z_k / tau)

    views (B, V, D) of this rank, V views of each sample, of any length (brought to length one, in fp32); labels (B,) int64. Positives are all other
    views of the samples of the same label. counted (B,) bool: samples that are left out are neither anchors nor positives nor strangers; 0 where
    none is left. Averaged over ranks, values and gradients are those of one rank with the whole batch. Every rank must hold as many samples.

    No factor tau / 0.07 in front, as the official code has it: it is a learning rate in disguise.
    """
    samples, count = views.shape[:2]
    own = F.normalize(views.float(), dim=-1).transpose(0, 1).flatten(0, 1)  # V B, D: the views of a sample are B apart
    kept = torch.ones_like(labels, dtype=torch.bool) if counted is None else counted
    theirs = gather(own.unflatten(0, (count, samples)).transpose(0, 1)).transpose(0, 1).flatten(0, 1)
    all_labels, all_kept = (gather(values).repeat(count) for values in (labels, kept.long()))
    place = (
        places(samples, own.device) + samples * world_size() * torch.arange(count, device=own.device).unsqueeze(1)
    ).flatten()
    itself = place.unsqueeze(1) == torch.arange(len(theirs), device=own.device)
    others = (all_kept > 0) & ~itself
    with as_they_are(own):
        scores = (own @ theirs.T / temperature).masked_fill(~others, torch.finfo(torch.float32).min)
    positive = ((labels.repeat(count).unsqueeze(1) == all_labels) & others).float()
    each = -(positive * F.log_softmax(scores, dim=1)).sum(dim=1) / positive.sum(dim=1).clamp_min(1)
    return mean_of_counted(each, kept.repeat(count))
