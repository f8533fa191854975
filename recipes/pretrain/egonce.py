"""EgoNCE: a clip and what was said of it, where all who did the same to the same thing are right answers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from recipes.objective import Losses
from recipes.parts.acting import Acting, ActingSettings
from recipes.parts.alignment import shared_nce
from recipes.parts.contrast import accuracy


class EgoNCE(Acting):
    """Egocentric video-language pretraining (EgoVLP, Lin et al., NeurIPS 2022).

        loss = 1/2 mean over i of [ - log  sum over k in P_i of exp(v_i . t_k / tau)  /  sum over j of exp(v_i . t_j / tau),  and the same from t_i ]

    v, t: clips and texts of all ranks, of length one. P_i: i itself, texts with the same words, and those that share at least one verb and one noun
    with its own (`positives`): "opens the drawer" of another kitchen is no wrong answer. Which verbs and nouns a narration holds is what the data set
    tags, or else what a small rule over its words says (`domains.store.actions`). Sums of exponentials are logsumexp.

    Conventions of ours: the mean of the two directions, where the official code has their sum. The paper's scene-aware strangers, a second clip of
    every video close in time, are those that a batch happens to hold: narrations of one recording are samples like all others.
    """

    class Settings(ActingSettings):
        """Settings of EgoNCE; the defaults are the paper's."""

    name = "egonce"
    paper = "Lin et al., Egocentric Video-Language Pretraining, NeurIPS 2022"
    settings: Settings

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """v, t of the whole batch -> the loss, how many right answers a clip has, and how often its own text is the nearest."""
        clips, texts, positives = embedded["clips"], embedded["texts"], self.positives(embedded)
        return {
            "loss": shared_nce(clips, texts, self.settings.temperature, positives),
            "positives": positives.float().sum(dim=1).mean(),
            "accuracy": accuracy(clips, texts),
        }
