"""EgoExoNCE: first-person clips and clips of standing cameras meet in the words that both are described with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.objective import EXO, Batch, Losses
from recipes.parts.acting import Acting, ActingSettings, same_act
from recipes.parts.alignment import shared_nce
from recipes.parts.contrast import accuracy
from recipes.parts.distributed import gather, global_mean, global_sum


class EgoExoNCE(Acting):
    """Ego and exo through shared text (EgoInstructor, Xu et al., CVPR 2024).

        loss = mean over both views of the mean over their clips i of
               - log  sum over k in P_i of exp(v_i . t_k / tau) / sum over j of exp(v_i . t_j / tau)

    and the same from texts to clips, half each. j runs over texts of both views, and P_i over those of either that share a verb and a noun with i's
    own: a first-person clip and one of a standing camera need not be of one event, nor even of one data set, to be drawn together by what both do. Of
    a batch each view counts half, however many clips it has; where there is but one view this is `egonce`.

    Conventions of ours: one encoder and one projection for both views, where the authors keep the exo tower fixed: what is left behind reads either.
    """

    class Settings(ActingSettings):
        """Settings of EgoExoNCE; the defaults are the paper's."""

    name = "egoexonce"
    paper = "Xu et al., Retrieval-Augmented Egocentric Video Captioning, CVPR 2024"
    settings: Settings

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """As `Acting.embed`; whether each is of a standing camera (B,) bool."""
        return {**super().embed(batch), EXO: batch.targets[EXO]}

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """v, t of the whole batch -> the loss; how often a clip's own text is the nearest, and the nearest clip of the other view of the same act."""
        clips, texts, exo = embedded["clips"], embedded["texts"], embedded[EXO]
        return {
            "loss": shared_nce(
                clips, texts, self.settings.temperature, self.positives(embedded), weights=view_weights(exo)
            ),
            "exo": global_mean(exo.float()),
            "accuracy": accuracy(clips, texts),
            "crossed": crossed(clips, same_act(embedded), exo),
        }


@torch.no_grad()
def view_weights(exo: Tensor) -> Tensor:
    """exo (B,) bool -> (B,): what makes a mean over samples of all ranks the mean of both views' means; 1 where only one view is there."""
    of_exo, total = global_sum(exo.float().sum()), global_sum(torch.ones_like(exo, dtype=torch.float32).sum())
    share = torch.where(exo, of_exo, total - of_exo) / total
    both = (of_exo > 0) & (of_exo < total)
    return torch.where(both, 0.5 / share, torch.ones_like(share))


@torch.no_grad()
def crossed(clips: Tensor, same: Tensor, exo: Tensor) -> Tensor:
    """Share of clips whose nearest clip of the other view is of the same act, of those for which there is one; all ranks. 0 where there are none."""
    rows = F.normalize(clips.float(), dim=-1)
    other = exo.unsqueeze(1) != gather(exo.long()).bool()
    nearest = (rows @ gather(rows).T).masked_fill(~other, -2.0).argmax(dim=1, keepdim=True)
    counted = (same & other).any(dim=1).float()
    right = (same & other).gather(1, nearest).squeeze(1).float()
    return global_sum((right * counted).sum()) / global_sum(counted.sum()).clamp_min(1)
