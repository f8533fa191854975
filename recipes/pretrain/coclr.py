"""CoCLR: two networks, one for pictures and one for motion, name each other's positives."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Contrast, Losses, ObjectiveSettings, Progress
from recipes.parts.branch import Branch
from recipes.parts.contrast import accuracy
from recipes.parts.mining import nce_of_many, nearest
from recipes.parts.motion import derivative
from recipes.parts.projection import ProjectionSettings, projection_head
from recipes.parts.queue import Queue
from recipes.parts.teacher import MomentumTeacher
from recipes.parts.views import clips_of, with_more

MODES = ("picture", "motion")


class CoCLR(Contrast):
    """Self-supervised co-training (Han et al., NeurIPS 2020).

        loss = L(picture) + L(motion)
        L(m) = mean over i of - log  [ exp(q_i . k_i / tau) + sum over n in P_i of exp(q_i . n / tau) ]
                                   / [ sum over j of exp(q_i . k_j / tau) + sum over n in queue_m of exp(q_i . n / tau) ]

        q (B, D): network m on one clip; k: its momentum teacher on another clip of the recording; all of length one
        P_i: the rows of queue_m at whose places the *other* network's queue holds the nearest `positives` to its own k_i

    Two recordings of the same thing look unlike in pictures and alike in motion, or the other way round: what one network holds to be a stranger the
    other knows to be none. Rows of the same recording are positives too. For the first `alone` of the run P_i is these alone, and each network
    learns by itself.

    Conventions of ours: motion is differences of neighbouring frames, brought to one scale, where the paper has optical flow. Both networks learn in
    every step, and the other's slow teacher does the naming; the paper trains them in turn with the other one frozen. The queues start with random
    directions, which are nobody's positives. Keys of the others in the batch are strangers too: against a queue alone a young
    network runs away from where it was, all clips together. The picture's network is what is left behind; the other starts as its copy.
    """

    class Settings(ProjectionSettings, ObjectiveSettings):
        """Settings of CoCLR; the defaults are the paper's."""

        positives: PositiveInt = Field(5, description="rows of the queue that the other network names for each sample")
        alone: float = Field(0.6, ge=0, le=1, description="share of the run in which each network learns by itself")
        temperature: PositiveFloat = Field(0.07, description="tau; lower looks at the nearest strangers only")
        queue: PositiveInt = Field(2048, description="K, keys of earlier batches; for small data fewer than recordings")
        teacher_momentum: float = Field(0.999, ge=0, le=1, description="of both teachers; smaller for short runs")

    name = "coclr"
    paper = "Han et al., Self-supervised Co-training for Video Representation Learning, NeurIPS 2020"
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.views = clips_of(2, with_more(Clip(augment="strong"), encoder.geometry.frames, 1))
        self.motion_encoder = copy.deepcopy(encoder)
        self.heads = nn.ModuleDict({mode: projection_head(encoder, settings) for mode in MODES})
        self.teachers = nn.ModuleDict({mode: MomentumTeacher(self.student(mode)) for mode in MODES})
        self.queues = nn.ModuleDict({mode: Queue(settings.queue, settings.head_outputs) for mode in MODES})
        self.before_step(Progress(0, 1, 0.0))

    def student(self, mode: str) -> Branch:
        """The network of a mode: encoder and head."""
        encoder = self.encoder if mode == "picture" else self.motion_encoder
        return Branch(encoder, self.heads[mode], motion=self.settings.head_motion)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """first, second (B, T + 1, 3, H, W) -> q of the first and k of the second in both modes (B, D), and which recordings they are of (B,)."""
        frames = self.encoder.geometry.frames
        found = {}
        for order, mode in enumerate(MODES):
            found[f"query_{mode}"] = self.student(mode)(derivative(batch["first"], order, frames))
            found[f"key_{mode}"] = self.teachers[mode](derivative(batch["second"], order, frames))
        return {**found, "recordings": batch.index.to(found["key_motion"].device, non_blocking=True)}

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """Queries, keys and recordings of the whole batch -> the loss, its parts, how often a query finds its own key, and the share of
        positives on which both networks agree. Fills the queues."""
        recordings = embedded["recordings"]
        losses: list[Tensor] = []
        shown: Losses = {}
        named = {mode: self.named(embedded[f"key_{mode}"], mode, recordings) for mode in MODES}
        for mode, other in (MODES, MODES[::-1]):
            query, key, queue = embedded[f"query_{mode}"], embedded[f"key_{mode}"], self.queue_of(mode)
            positive = named[other] | queue.of(recordings)
            losses.append(nce_of_many(query, key, queue.rows, positive, self.settings.temperature))
            shown |= {f"loss_{mode}": losses[-1].detach(), f"accuracy_{mode}": accuracy(query, key)}
        both = (named["picture"] & named["motion"]).sum() / named["picture"].sum().clamp_min(1)
        for mode in MODES:
            self.queue_of(mode).push(embedded[f"key_{mode}"], recordings)
        return {"loss": torch.stack(losses).sum(), **shown, "named_by_both": both}

    def named(self, keys: Tensor, mode: str, recordings: Tensor) -> Tensor:
        """The places (B, K) of the positives that the network of `mode` names; none while each learns by itself."""
        positives = self.settings.positives
        found = nearest(keys, self.queue_of(mode), recordings, positives)
        return found if self.mining else torch.zeros_like(found)

    def queue_of(self, mode: str) -> Queue:
        """Earlier keys of a mode; both modes hold the same clips at the same places."""
        queue = self.queues[mode]
        assert isinstance(queue, Queue)
        return queue

    def before_step(self, progress: Progress) -> None:
        """Whether the networks name each other's positives yet."""
        self.mining = progress.fraction >= self.settings.alone

    def after_step(self, progress: Progress) -> None:
        """The teachers follow."""
        for mode in MODES:
            teacher = self.teachers[mode]
            assert isinstance(teacher, MomentumTeacher)
            teacher.update(self.student(mode), self.settings.teacher_momentum)
