"""Losses between two modalities of the same samples, clips and texts above all; the batch is that of all ranks.

Every one of them brings its arguments (B, D) of this rank to length one, in fp32, and counts this rank's rows: averaged over ranks, values and
gradients are those of one rank with the whole batch of N. Every rank must hold as many samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.objective import ABOUT, SPAN
from recipes.parts.contrast import info_nce
from recipes.parts.distributed import gather, mean_of_counted, places
from recipes.parts.precision import as_they_are

LOWEST = torch.finfo(torch.float32).min  # what is left out of a sum of exponentials; unlike -inf, it has a gradient


def both_ways(
    first: Tensor,
    second: Tensor,
    temperature: float | Tensor,
    *,
    forward: float = 0.5,
    apart: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """InfoNCE from each modality to the other (CLIP, Radford et al., ICML 2021; weighted: ConVIRT, Zhang et al., 2020; SurgVLP has 0.75).

        loss = forward * InfoNCE(first -> second) + (1 - forward) * InfoNCE(second -> first)

    apart (B, N) bool, alike in both directions: pairs that are neither partners nor strangers. weights (B,): how much each sample counts. This is
    what surgical code calls NT-Xent; unlike SimCLR's, samples of one modality do not repel each other.
    """
    there, back = (
        info_nce(*pair, temperature, apart=apart, weights=weights) for pair in ((first, second), (second, first))
    )
    return forward * there + (1 - forward) * back


def sigmoid_loss(
    first: Tensor, second: Tensor, scale: float | Tensor, bias: float | Tensor, *, apart: Tensor | None = None
) -> Tensor:
    """Every pair by itself is or is not of one sample (SigLIP, Zhai et al., ICCV 2023).

        loss = - 1/N  sum over i, j of log sigmoid(s_ij (scale x_i . y_j + bias)),   s_ij = 1 where i = j, else -1

    apart (B, N) bool: pairs that are left out, partners excepted (`of_one_group`). The paper learns both, from scale 10 and bias -10 on.
    """
    first, second = F.normalize(first.float(), dim=-1), F.normalize(second.float(), dim=-1)
    everyone = gather(second)
    partners = _itself(len(first), len(everyone), first.device)
    with as_they_are(first):
        logits = first @ everyone.T * scale + bias
    return _each_by_itself(logits, partners, None if apart is None else apart & ~partners)


def sigmoid_among(rows: Tensor, scale: float | Tensor, bias: float | Tensor, partners: Tensor, apart: Tensor) -> Tensor:
    """Every pair of samples by itself is or is not of one kind (`sigmoid_loss` of one modality with itself; CECL).

        loss = - 1/N  sum over i and j other than i of log sigmoid(s_ij (scale x_i . x_j + bias)),   s_ij = 1 where j is a partner of i, else -1

    partners (B, N) bool: any number of them, none or all. apart (B, N) bool: further pairs that are left out. Nobody is compared with itself.
    """
    rows = F.normalize(rows.float(), dim=-1)
    everyone = gather(rows)
    with as_they_are(rows):
        logits = rows @ everyone.T * scale + bias
    return _each_by_itself(logits, partners, apart | _itself(len(rows), len(everyone), rows.device))


def _each_by_itself(logits: Tensor, partners: Tensor, apart: Tensor | None) -> Tensor:
    each = F.softplus(torch.where(partners, -logits, logits))  # - log sigmoid(x) = softplus(-x)
    if apart is not None:
        each = each.masked_fill(apart, 0.0)
    return each.sum(dim=1).mean()


def mil_nce(
    clips: Tensor,
    texts: Tensor,
    temperature: float | Tensor,
    present: Tensor | None = None,
    *,
    apart: Tensor | None = None,
) -> Tensor:
    """Several texts of which any may fit (MIL-NCE, Miech et al., CVPR 2020).

        loss = mean over i of  - log  sum over t in P_i of e(v_i, t)  /  [ sum over all t of e(v_i, t)  +  sum over j != i, t in P_i of e(v_j, t) ]

    e(v, t) = exp(v . t / temperature); clips (B, D); texts (B, K, D), P_i = the K texts of sample i, of which those count that `present` (B, K) bool
    says are there. Samples without a text are no anchors; their clips are still strangers. 0 where nobody has one. apart (B, N) bool, alike in both
    directions: pairs of samples that are no strangers (`set_apart`).

    Conventions of ours: cosines and a temperature, where the official code has raw dot products. It adds row and column of the matrix of scores, and
    with them the positives twice: a perfect match then costs log 2. Here they are counted once, and it costs 0.
    """
    present = torch.ones(texts.shape[:2], dtype=torch.bool, device=texts.device) if present is None else present
    clips, texts = F.normalize(clips.float(), dim=-1), F.normalize(texts.float(), dim=-1)
    all_clips, all_texts, there = gather(clips), gather(texts), gather(present.long()) > 0
    partners = _itself(len(clips), len(all_clips), clips.device).unsqueeze(2)
    with as_they_are(clips):
        rows = torch.einsum("bd,nkd->bnk", clips, all_texts) / temperature
        columns = torch.einsum("nd,bkd->bnk", all_clips, texts) / temperature
    left_out = torch.zeros_like(partners) if apart is None else apart.unsqueeze(2) & ~partners
    rows = rows.masked_fill(~there | left_out, LOWEST)
    columns = columns.masked_fill(partners | left_out | ~present.unsqueeze(1), LOWEST)
    positives = rows.masked_fill(~partners, LOWEST).flatten(1).logsumexp(dim=1)
    each = torch.cat([rows, columns], dim=1).flatten(1).logsumexp(dim=1) - positives
    return mean_of_counted(each, present.any(dim=1))


def sources_nce(
    clips: Tensor, texts: Tensor, temperature: float | Tensor, present: Tensor, *, apart: Tensor | None = None
) -> Tensor:
    """Several texts of which all fit (omnisource learning, Xue et al., CLIP-ViP, ICLR 2023).

        loss = 1/2 mean over i and texts t in P_i of  - log  e(v_i, t) / [ e(v_i, t) + sum over j != i, u in P_j of e(v_i, u) ]
             + 1/2 mean over i and texts t in P_i of  - log  e(v_i, t) / sum over all j of e(v_j, t)

    e(v, t) = exp(v . t / temperature); clips (B, D); texts (B, K, D), P_i = the K texts of sample i, of which those count that `present` (B, K)
    bool says are there. A text is no stranger to another text's clip of its own sample, and all count alike (MIL-NCE: any may fit). apart (B, N)
    bool, alike in both directions: pairs that are left out. 0 where nobody has a text.
    """
    clips, texts = F.normalize(clips.float(), dim=-1), F.normalize(texts.float(), dim=-1)
    all_clips, all_texts, there = gather(clips), gather(texts), gather(present.long()) > 0
    itself = _itself(len(clips), len(all_clips), clips.device)
    strange = ~itself if apart is None else ~(itself | apart)
    with as_they_are(clips):
        own = torch.einsum("bd,bkd->bk", clips, texts) / temperature
        rows = torch.einsum("bd,nkd->bnk", clips, all_texts) / temperature
        columns = torch.einsum("nd,bkd->bkn", all_clips, texts) / temperature
    rows = rows.masked_fill(~(strange.unsqueeze(2) & there), LOWEST).flatten(1).unsqueeze(1)
    columns = columns.masked_fill(~strange.unsqueeze(1), LOWEST)
    first = torch.cat([own.unsqueeze(2), rows.expand(-1, own.shape[1], -1)], dim=2).logsumexp(dim=2) - own
    second = torch.cat([own.unsqueeze(2), columns], dim=2).logsumexp(dim=2) - own
    return mean_of_counted((first + second) / 2, present)


def shared_nce(
    first: Tensor, second: Tensor, temperature: float | Tensor, positives: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Several samples of a batch may say the same (EgoNCE, Lin et al., NeurIPS 2022).

        loss = mean over i and both directions of  - log  sum over k in P_i of exp(x_i . y_k / tau)  /  sum over all j of exp(x_i . y_j / tau)

    positives (B, N) bool, alike in both directions: `sharing`, `of_one_group`; a sample is always its own. EgoNCE's action-aware positives are
    `sharing(verbs, nouns)`, or `sharing_numbers`; its scene-aware strangers are further samples of the batch, of the same recordings. weights (B,):
    the mean is of what sample i costs times weights_i.

    Convention of ours: the mean of the two directions, where the official code has their sum.
    """
    first, second = F.normalize(first.float(), dim=-1), F.normalize(second.float(), dim=-1)
    positives = positives | _itself(len(positives), positives.shape[1], positives.device)

    def one_way(own: Tensor, everyone: Tensor) -> Tensor:
        with as_they_are(own):
            scores = own @ everyone.T / temperature
        each = scores.logsumexp(dim=1) - scores.masked_fill(~positives, LOWEST).logsumexp(dim=1)
        return (each if weights is None else each * weights).mean()

    return (one_way(first, gather(second)) + one_way(second, gather(first))) / 2


def paired_nce(
    first: Tensor, second: Tensor, temperature: float | Tensor, partners: Tensor, strangers: Tensor
) -> Tensor:
    """InfoNCE of every pair of partners by itself, however many a sample has (CMC, Tian et al., ECCV 2020, for any number of views).

        loss = mean over pairs i, p of  - log  exp(x_i . y_p / tau) / [ exp(x_i . y_p / tau) + sum over strangers n of i of exp(x_i . y_n / tau) ]

    partners, strangers (B, N) bool; who is neither is left out. One direction; of first with itself, both. 0 where nobody has a partner.
    """
    first, second = F.normalize(first.float(), dim=-1), F.normalize(second.float(), dim=-1)
    with as_they_are(first):
        scores = first @ gather(second).T / temperature
    against = scores.masked_fill(~strangers, LOWEST).logsumexp(dim=1, keepdim=True)
    return mean_of_counted(F.softplus(against - scores), partners)  # - log (e^a / (e^a + e^b)) = softplus(b - a)


def of_one_group(groups: Tensor) -> Tensor:
    """Which samples of all ranks are of the same group (recording, report, sentence) as each of this rank's: (B,) int64 -> (B, N) bool."""
    return groups.unsqueeze(1) == gather(groups)


def same_time(row: Tensor, about: Tensor, span: Tensor) -> Tensor:
    """Pairs (B, N) of samples whose times overlap, where the text of one is about the recording of the other's clip: what is said of one may well be
    true of the other.

    row (B,) int64: the recording of each clip; about (B, K) int64: the recordings that each text is about, -1 where there are fewer; span (B, 2)
    int64: from when to when. To touch is not to overlap, but for single moments.
    """
    rows, abouts, (starts, ends) = gather(row), gather(about), gather(span).unbind(1)
    mine = (about.unsqueeze(1) == rows.view(1, -1, 1)).any(dim=2)
    theirs = (row.view(-1, 1, 1) == abouts.unsqueeze(0)).any(dim=2)
    start, end = span.unsqueeze(2).unbind(1)
    first, last = torch.maximum(start, starts), torch.minimum(end, ends)
    moment = (start == end) | (starts == ends)
    return (mine | theirs) & ((first < last) | ((first == last) & moment))


def set_apart(facts: Mapping[str, Tensor]) -> Tensor:
    """Pairs (B, N) that a contrast leaves out: of the same words, and (where `facts`, those of `Aligning.facts`, say when and of what they are) of
    times that overlap."""
    same = of_one_group(facts["words"])
    return same | same_time(facts["row"], facts[ABOUT], facts[SPAN]) if SPAN in facts else same


def sharing(*facts: Tensor) -> Tensor:
    """Which samples of all ranks share one or more of every kind of fact with each of this rank's: each (B, L) of zeros and ones -> (B, N) bool."""
    found = [fact.float() @ gather(fact.float()).T > 0.5 for fact in facts]
    return torch.stack(found).all(dim=0)


def sharing_numbers(*facts: Tensor) -> Tensor:
    """`sharing` of lists: each (B, L) int64 of numbers, -1 in empty places -> (B, N) bool, which samples have a number of every list in common."""

    def one(own: Tensor) -> Tensor:
        everyone = gather(own)
        found = [((own == other.unsqueeze(1).unsqueeze(2)) & (own >= 0)).any(dim=2) for other in everyone.unbind(dim=1)]
        return torch.stack(found).any(dim=0).T

    return torch.stack([one(fact) for fact in facts]).all(dim=0)


def _itself(own: int, everyone: int, device: torch.device) -> Tensor:
    """(own, everyone) bool: where a sample of this rank meets itself."""
    return places(own, device).unsqueeze(1) == torch.arange(everyone, device=device)
