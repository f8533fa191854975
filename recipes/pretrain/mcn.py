"""MCN: all modalities of one time attract each other, and the cluster that they say together."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Losses, Progress
from recipes.parts.alignment import both_ways, set_apart
from recipes.parts.centroids import Centroids
from recipes.parts.contrast import accuracy
from recipes.parts.distributed import gather
from recipes.parts.modalities import Modalities, ModalitySettings


class MCN(Modalities):
    """Multimodal clustering networks for self-supervised learning from unlabeled videos (Chen et al., ICCV 2021).

        loss = sum over pairs of modalities of InfoNCE both ways(x, y; tau)
             + w * mean over samples and modalities of  - log softmax over centroids k of (z . c_k / tau') at k'

    k': the centroid nearest to the mean of all modalities of the sample. Centroids are found by k-means over such means of the last batches, anew
    every `refit` steps, and are not learned (`recipes.parts.centroids`); there is no second term before the share `begin` of the run: groups of
    embeddings that have not parted yet would stay.

    Conventions of ours: InfoNCE both ways, where the paper has masked margin softmax, its like with a margin; the mean over pairs, so that more
    modalities do not weigh more; a sample counts in the pairs that it has. The paper's towers stand on frozen features, and a third loss
    reconstructs these; here the encoder itself is trained, and there is nothing to reconstruct. Texts of the same words, or of times that overlap,
    are no strangers.
    """

    class Settings(ModalitySettings):
        """Settings of MCN."""

        temperature: PositiveFloat = Field(0.1, description="tau, of the contrast between modalities")
        clusters: PositiveInt = Field(
            32, description="K, centroids; a few times as many as kinds of things that there are"
        )
        memory: PositiveInt = Field(1024, description="samples of the last batches that centroids are found of")
        begin: float = Field(0.3, ge=0, lt=1, description="share of the run before centroids are found at all")
        refit: PositiveInt = Field(10, description="steps after which k-means is run anew")
        temperature_cluster: PositiveFloat = Field(0.1, description="tau', of the contrast with centroids")
        margin: NonNegativeFloat = Field(0.0, description="taken from the cosine with the own centroid")
        weight_cluster: NonNegativeFloat = Field(1.0, description="w, of the contrast with centroids")

    name = "mcn"
    paper = "Chen et al., Multimodal Clustering Networks for Self-supervised Learning from Unlabeled Videos, ICCV 2021"
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        super().__init__(encoder, settings, text, scale=1 / settings.temperature, learned=False)
        self.centroids = Centroids(settings.clusters, settings.outputs, settings.memory)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """As `Modalities.embed`, and the recordings (B,)."""
        embedded = super().embed(batch)
        return {**embedded, "recordings": batch.index.to(embedded["present"].device, non_blocking=True)}

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """modalities of the whole batch -> the loss and its parts, and the share of clips whose nearest text is their own. Fills the memory."""
        s, found, present = self.settings, embedded["modalities"], embedded["present"]
        own = self.between(found, present, set_apart(embedded))
        clusters = self.centroids(found.unbind(1), s.temperature_cluster, margin=s.margin, present=present)
        self.centroids.observe(found, embedded["recordings"], present)
        return {
            "loss": own + s.weight_cluster * clusters,
            "loss_own": own.detach(),
            "loss_cluster": clusters.detach(),
            "accuracy": accuracy(found[:, 1], found[:, 0]),
        }

    def between(self, found: Tensor, present: Tensor, apart: Tensor) -> Tensor:
        """The first term: found (B, M, D), present (B, M); who lacks one of a pair is nobody's partner or stranger there."""
        losses = []
        for first, second in combinations(range(found.shape[1]), 2):
            both = present[:, first] & present[:, second]
            lacking = ~(gather(both.long()) > 0)
            pair = both_ways(
                found[:, first],
                found[:, second],
                self.settings.temperature,
                apart=apart | lacking,
                weights=both.float(),
            )
            losses.append(pair)
        return torch.stack(losses).mean()

    def after_step(self, progress: Progress) -> None:
        """The centroids anew, when it is time."""
        if progress.fraction >= self.settings.begin and progress.step % self.settings.refit == 0:
            self.centroids.fit()
