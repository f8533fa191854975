"""SwAV on video: clips of a recording predict each other's cluster."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings, Progress
from recipes.parts.branch import Branch
from recipes.parts.crops import of_crops
from recipes.parts.distributed import rank, world_size
from recipes.parts.heads import mlp, renormalise
from recipes.parts.prototypes import Prototypes, sinkhorn
from recipes.parts.queue import Queue
from recipes.parts.rho import cross_entropy_across, stacked
from recipes.parts.usage import Usages
from recipes.parts.views import rho_views


class SwAV(Objective):
    """Swapped assignments between views (Caron et al., NeurIPS 2020), on rho clips of a recording (Feichtenhofer et al., CVPR 2021).

        loss = mean over clips i and views s other than i of  - sum_k q_ik log softmax(c_s / tau)_k
            c = cos(head(encoder(view)), prototypes)          (B, K); views: the rho clips, and small crops of each
            q = Sinkhorn(exp(c / epsilon))                    of whole clips only, without gradient: balanced over all samples of all ranks

    The prototypes are brought back to length one after every step, and wait for the encoder over `prototypes_wait` of a run. Where a batch holds
    fewer samples than prototypes, `queue` balances over embeddings of earlier batches as well, from `queue_from` of a run on.

    Conventions of ours: a small crop is a box of tokens of a clip, seen in its own place and at its own scale, since encoders see clips of one
    size. The queue holds one clip of each sample. Batch norm in the head has neither gain nor running statistics (`BatchStandardise`).
    """

    class Settings(ObjectiveSettings):
        """Settings of SwAV; the defaults are the paper's."""

        rho: PositiveInt = Field(2, description="clips of each recording; 1: two augmentations of one clip")
        crops: NonNegativeInt = Field(3, description="small crops of each clip; a fifth of a clip's cost each, or less")
        crop_side: float = Field(
            0.43, gt=0, le=1, description="height and width of a small crop, as a share of the clip's"
        )
        crop_frames: float = Field(1.0, gt=0, le=1, description="length of a small crop, as a share of the clip's")
        head_hidden: PositiveInt = Field(2048, description="hidden width of the head")
        head_outputs: PositiveInt = Field(128, description="width that is compared with the prototypes")
        head_motion: bool = Field(False, description="the head also reads how tokens change over time")
        prototypes: PositiveInt = Field(3000, description="K; fewer for small data")
        prototypes_wait: float = Field(0.0125, ge=0, le=1, description="share of a run in which prototypes are held")
        temperature: PositiveFloat = Field(0.1, description="tau")
        sinkhorn_epsilon: PositiveFloat = Field(0.05, description="of the assignments q; lower is harder")
        sinkhorn_iterations: PositiveInt = Field(3, description="rounds of balancing")
        queue: NonNegativeInt = Field(
            0, description="earlier embeddings that assignments are balanced with; for small batches"
        )
        queue_from: float = Field(0.15, ge=0, le=1, description="share of a run after which the queue counts")

    name = "swav"
    paper = "Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS 2020"
    views: Mapping[str, Clip] = rho_views(2, Clip(augment="strong"))
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s = settings
        self.views = rho_views(s.rho, Clip(augment="strong"))
        self.head = mlp(Branch.width(encoder, motion=s.head_motion), s.head_hidden, s.head_outputs, standardise=True)
        self.prototypes = Prototypes(s.head_outputs, s.prototypes)
        self.queue = Queue(s.queue, s.head_outputs) if s.queue else None
        self.usage = Usages({"prototype_entropy": s.prototypes})
        self.before_step(Progress(0, 1, 0.0))

    def forward(self, batch: Batch) -> Losses:
        """V views (B, T, 3, H, W) -> the loss, the entropy of the assignments, and how often two views have the same nearest prototype."""
        s, clips, views = self.settings, stacked(batch.clips, self.views), len(self.views)
        branch = Branch(self.encoder, self.head, motion=s.head_motion)
        whole = branch(clips)
        embedded = whole.unflatten(0, (views, -1))  # V, B, D
        scores = self.prototypes(embedded)
        small = None
        if s.crops:
            crops = of_crops(branch, clips, batch.seeds, views, s.crops, frames=s.crop_frames, side=s.crop_side)
            small = self.prototypes(crops)
        assignments = torch.stack([self.assign(one) for one in scores.detach()])
        if self.queue is not None:
            self.queue.push(embedded[0])
        self.usage.observe("prototype_entropy", scores)
        nearest = scores.detach().argmax(dim=-1)
        loss = cross_entropy_across(assignments, scores, s.temperature, small)
        return {"loss": loss, "agreement": (nearest[0] == nearest[1]).float().mean()}

    def assign(self, scores: Tensor) -> Tensor:
        """Balanced assignments (B, K) of one clip of each sample, with the queue where it counts."""
        s, own = self.settings, len(scores)
        if self.queue is not None and self.queue_counts:
            # Every rank holds the same queue: each brings its share of it, so that no row counts twice.
            earlier = self.prototypes(self.queue.rows[rank() :: world_size()]).detach()
            scores = torch.cat([scores, earlier])
        return sinkhorn(scores, s.sinkhorn_epsilon, s.sinkhorn_iterations)[:own]

    def before_step(self, progress: Progress) -> None:
        """Whether prototypes are held, and whether the queue counts."""
        self.prototypes.held = progress.fraction < self.settings.prototypes_wait
        self.queue_counts = progress.fraction >= self.settings.queue_from

    def after_step(self, progress: Progress) -> None:
        """Prototypes back to length one."""
        renormalise(self.prototypes)
