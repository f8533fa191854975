"""Two to n modalities at once: the multilinear inner product of their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.parts import draws
from recipes.parts.distributed import gather, places
from recipes.parts.precision import as_they_are

Strangers = Literal["shuffled", "all"]


def symile(
    modalities: Sequence[Tensor],
    scale: float | Tensor,
    seeds: Tensor,
    strangers: Strangers = "shuffled",
    *,
    apart: Tensor | None = None,
) -> Tensor:
    """Symile (Saporta et al., NeurIPS 2024): which of these samples goes with this one, all modalities taken together.

        loss = mean over anchors a of CE over candidates c of scale * <r_a, c>,   c = product over m other than a of r_m

    modalities: two or more (B, D) of this rank, of any length (brought to length one, in fp32), D alike. Candidates of sample i are its own product
    and strangers: "shuffled", N - 1 products, of a row of the first modality that is not its own and of rows of the others in an order that is
    drawn (O(N) for each sample); "all", every other combination of rows, N^(M-1) - 1 (O(N^2) with three modalities). seeds (B,) int64, on the CPU
    (`Batch.seeds`): the orders follow from those of the batch, and not from the samples' places in it. Candidates all of whose rows `apart` (B, N)
    bool sets aside from the sample (`alignment.set_apart`) are left out. Averaged over ranks, values and gradients are those of one rank with the
    whole batch. Every rank must hold as many samples.

    The official code pairs rows by their places after a shuffle, so that a stranger may happen to be the sample's own product; here it cannot. With
    two modalities this is InfoNCE in both directions. A missing modality is stood in for by `Placeholder`.
    """
    own = [F.normalize(one.float(), dim=-1) for one in modalities]
    everyone = [gather(one) for one in own]
    place = places(len(own[0]), own[0].device)
    alike = place.unsqueeze(1) == torch.arange(len(everyone[0]), device=place.device)
    alike = alike if apart is None else alike | apart
    losses = []
    with as_they_are(own[0]):
        for a, anchors in enumerate(own):
            others = [*everyone[:a], *everyone[a + 1 :]]
            if strangers == "all":
                losses.append(_all(anchors, others, scale, alike, place))
            else:
                drawn = draws.uniform(seeds, (len(others),), name=f"symile {a}").to(place.device, non_blocking=True)
                losses.append(_shuffled(anchors, others, scale, gather(drawn), alike, place))
    return torch.stack(losses).mean()


def _shuffled(
    anchors: Tensor, others: Sequence[Tensor], scale: float | Tensor, drawn: Tensor, alike: Tensor, place: Tensor
) -> Tensor:
    """Against one product for every row of the first modality but the sample's own, where its own product stands. drawn (N, M - 1)."""
    orders = drawn.argsort(dim=0)
    rows = orders[orders[:, 0].argsort()]  # (N, M - 1): the candidates, in the order of the first modality's rows
    scores = anchors @ _product([one[rows[:, m]] for m, one in enumerate(others)]).T * scale
    left_out = torch.stack([alike[:, rows[:, m]] for m in range(len(others))]).all(dim=0)
    own = (anchors * _product([one[place] for one in others])).sum(dim=1, keepdim=True) * scale
    itself = place.unsqueeze(1) == torch.arange(len(rows), device=place.device)
    scores = torch.where(itself, own, scores.masked_fill(left_out, torch.finfo(scores.dtype).min))
    return F.cross_entropy(scores, place)


def _all(anchors: Tensor, others: Sequence[Tensor], scale: float | Tensor, alike: Tensor, place: Tensor) -> Tensor:
    """Against every combination of rows."""
    count = len(others[0])
    combined = reduce(lambda left, right: (left.unsqueeze(1) * right).flatten(0, 1), others)  # (N^(M-1), D)
    left_out = reduce(lambda left, _: (left.unsqueeze(2) & alike.unsqueeze(1)).flatten(1), others[1:], alike)
    # Row (j_1, ..., j_M) stands at j_1 N^(M-1) + ... + j_M: with all of them i, at i times this.
    itself = place * sum(count**power for power in range(len(others)))
    left_out = left_out.scatter(1, itself.unsqueeze(1), False)
    scores = (anchors @ combined.T * scale).masked_fill(left_out, torch.finfo(anchors.dtype).min)
    return F.cross_entropy(scores, itself)


def _product(rows: Sequence[Tensor]) -> Tensor:
    return reduce(torch.mul, rows)


class Placeholder(nn.Module):
    """What stands in for a modality where a sample has none of it, with the word that it is so (Symile's missing modalities).

    embeddings (B, D), present (B,) bool -> (B, D): a linear layer of [the embedding or a learned vector, an indicator of two]. What `embeddings`
    holds where nothing is present is never looked at.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stand_in = nn.Parameter(torch.zeros(width))
        self.join = nn.Linear(width + 2, width)
        with torch.no_grad():  # starts as the identity: a modality that is there is left as it is
            self.join.weight.copy_(torch.cat([torch.eye(width), torch.zeros(width, 2)], dim=1))
            self.join.weight[:, -1] = F.normalize(torch.randn(width), dim=0)
            self.join.bias.zero_()

    def forward(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """See the class."""
        held = torch.where(present.unsqueeze(1), embeddings, self.stand_in.to(embeddings.dtype))
        indicator = torch.stack([present, ~present], dim=1).to(embeddings.dtype)
        joined: Tensor = self.join(torch.cat([held, indicator], dim=1))
        return joined
