"""Who of a batch saw the same moment: recordings of one event by several people and cameras.

The stream of a method that asks for them `together` puts recordings of one moment side by side; how many there are varies, and nothing stands in for
those that are missing. Every function compares this rank's B samples with the N of all ranks, so that a moment that is cut at the edge of a batch is
whole again where the next process has the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.parts.distributed import gather, global_sum, places, world_size


@dataclass(frozen=True)
class Met:
    """(B, N) bool each. partners: saw the same moment from elsewhere. apart: neither partners nor strangers, and everybody with itself."""

    partners: Tensor
    apart: Tensor

    @property
    def strangers(self) -> Tensor:
        """All others."""
        return ~(self.partners | self.apart)


def teammates(moment: Tensor, team: Tensor) -> Met:
    """Partners are of one team and moment. Of a moment where a team is not known (-1), nobody can say: those pairs are left out.

    moment, team (B,) int64.
    """
    there = gather(team)
    same, itself = moment.unsqueeze(1) == gather(moment), _itself(moment)
    known = (team.unsqueeze(1) >= 0) & (there >= 0)
    return Met(same & known & (team.unsqueeze(1) == there) & ~itself, (same & ~known) | itself)


def cameras(moment: Tensor, camera: Tensor) -> Met:
    """Partners are other cameras of one moment; the same camera at the same moment is the same clip, or nearly, and left out.

    moment, camera (B,) int64.
    """
    same = moment.unsqueeze(1) == gather(moment)
    other = camera.unsqueeze(1) != gather(camera)
    return Met(same & other, same & ~other)


def _itself(rows: Tensor) -> Tensor:
    everyone = torch.arange(len(rows) * world_size(), device=rows.device)
    return places(len(rows), rows.device).unsqueeze(1) == everyone


@torch.no_grad()
def met_figures(rows: Tensor, met: Met) -> dict[str, Tensor]:
    """What a person watches: `partners`, how many a sample has; `accuracy`, the share of those with one whose nearest other sample is one;
    `agreement`, how much more alike partners are than strangers (a difference of mean cosines). Of all ranks; 0 where there is nobody to compare."""
    rows = F.normalize(rows.float(), dim=-1)
    scores = rows @ gather(rows).T
    counted = met.partners | met.strangers
    nearest = scores.masked_fill(~counted, -2.0).argmax(dim=1, keepdim=True)
    right = met.partners.gather(1, nearest).squeeze(1).float()
    has = met.partners.any(dim=1).float()

    def mean(values: Tensor, weights: Tensor) -> Tensor:
        return global_sum((values * weights).sum()) / global_sum(weights.sum()).clamp_min(1)

    near, far = (mean(scores, one.float()) for one in (met.partners, met.strangers))
    some = (global_sum(met.partners.sum()) > 0).float() * (global_sum(met.strangers.sum()) > 0).float()
    return {
        "partners": mean(met.partners.sum(dim=1).float(), torch.ones_like(has)),
        "accuracy": mean(right, has),
        "agreement": (near - far) * some,
    }
