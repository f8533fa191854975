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
    modalities: Sequence[Tensor], scale: float | Tensor, seeds: Tensor, strangers: Strangers = "shuffled"
) -> Tensor:
    """Symile (Saporta et al., NeurIPS 2024): which of these samples goes with this one, all modalities taken together.

        loss = mean over anchors a of CE over candidates c of scale * <r_a, c>,   c = product over m other than a of r_m

    modalities: two or more (B, D) of this rank, of any length (brought to length one, in fp32), D alike. Candidates of sample i are its own product
    and strangers: "shuffled", N - 1 products of rows in an order that is drawn for each modality (O(N) for each sample); "all", every other
    combination of rows, N^(M-1) - 1 (O(N^2) with three modalities). seeds (B,) int64 (`Batch.seeds`): the orders follow from those of the batch.
    Averaged over ranks, values and gradients are those of one rank with the whole batch. Every rank must hold as many samples.

    A shuffled row may happen to be the sample's own product: it is left out, where the official code has it as a stranger. With two modalities
    and all strangers this is InfoNCE in both directions. A missing modality is stood in for by `Placeholder`.
    """
    own = [F.normalize(one.float(), dim=-1) for one in modalities]
    everyone = [gather(one) for one in own]
    with as_they_are(own[0]):
        one_by_one = [
            _all(own[a], [*everyone[:a], *everyone[a + 1 :]], scale)
            if strangers == "all"
            else _shuffled(own[a], [*everyone[:a], *everyone[a + 1 :]], scale, seeds, f"symile {a}")
            for a in range(len(own))
        ]
    return torch.stack(one_by_one).mean()


def _shuffled(anchors: Tensor, others: Sequence[Tensor], scale: float | Tensor, seeds: Tensor, name: str) -> Tensor:
    """Against one product of shuffled rows in every place but the sample's own, where its own product stands."""
    drawn = draws.uniform(gather(seeds.to(anchors.device)).cpu(), (len(others),), name=name)
    orders = drawn.argsort(dim=0).to(anchors.device)  # (N, M - 1): an order of the batch for each modality
    place = places(len(anchors), anchors.device)
    scores = anchors @ _product([one[orders[:, m]] for m, one in enumerate(others)]).T * scale
    repeated = (orders.unsqueeze(0) == place.view(-1, 1, 1)).all(dim=2)  # (B, N): the sample's own product, elsewhere
    itself = place.unsqueeze(1) == torch.arange(len(orders), device=place.device)
    own = (anchors * _product([one[place] for one in others])).sum(dim=1, keepdim=True) * scale
    scores = torch.where(itself, own, scores.masked_fill(repeated, torch.finfo(scores.dtype).min))
    return F.cross_entropy(scores, place)


def _all(anchors: Tensor, others: Sequence[Tensor], scale: float | Tensor) -> Tensor:
    """Against every combination of rows."""
    count = len(others[0])
    combined = reduce(lambda left, right: (left.unsqueeze(1) * right).flatten(0, 1), others)  # (N^(M-1), D)
    # Row (j_1, ..., j_M) stands at j_1 N^(M-1) + ... + j_M: with all of them i, at i times this.
    step = sum(count**power for power in range(len(others)))
    return F.cross_entropy(anchors @ combined.T * scale, places(len(anchors), anchors.device) * step)


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
