"""A task of studies whose encoder learns too: its clips go through the encoder in every step, and the answer of the study teaches it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence

from domains.store.clips import Clip
from recipes.encoders.base import VideoEncoder
from recipes.finetune.study import FIRST, UNKNOWN, VIEW, StudyHeadSettings, StudyObjective
from recipes.finetune.task import TARGET
from recipes.finetune.temporal import DESCRIPTIONS
from recipes.objective import Batch, Contrast, Losses

HEAD = "head."  # before the names of the head's weights among what is embedded
STUDY = "study"  # targets of a batch: (N,) int64, which study of the batch each clip is of; those of one study follow each other


class StudyClipsObjective(Contrast, StudyObjective):
    """Learn one answer to all clips of a study, the head and the encoder (`encoder.mode`) together.

        x_k = describe(clip_k)      y, a = StudyHead(x)      r_k = probe(x_k) + o_k      loss as of `StudyObjective`

    A sample of a batch is a clip; of a study there are as many as were drawn. `train.piece` bounds how many clips have activations in the encoder at
    once, with the gradients of the whole batch (`GradientCache`): x is all that the answers of studies need of them.

    The probe is the one that the head begins as; what it says follows the encoder. It was taught these very clips, and errs less about them than
    about others: o_k, which stays, is what probes say that saw nothing of the clip's patient, less what this one says, both before the encoder has
    learned anything. So the encoder learns from errors as large as those about new patients.

    Batch.targets: study (N,); view (N,); first (N, outputs), o; target (N,).
    """

    name = "study_clips"
    # As predictions see them, but from anywhere in the recording: that is what the probe was taught. Cropped or brighter clips throw it off, by 20
    # points of an ejection fraction and more on the echo phantom, and the encoder would learn to undo that instead.
    views = {"clip": Clip(augment="none")}  # noqa: RUF012  the contract's own form
    asks_encoder = True

    def __init__(self, encoder: VideoEncoder, settings: StudyHeadSettings, head_scale: float = 1.0) -> None:
        """`head_scale`: learning rate of the head as a multiple of the encoder's."""
        StudyObjective.__init__(self, settings)
        self.encoder = encoder
        for parameter in self.head.parameters():
            parameter.lr_scale = head_scale  # type: ignore[attr-defined]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """What the encoder says of each clip, (N, D), and what `compare` has to know of it: also the head's weights, N times (N, ...). All that is to
        have gradients of a batch in pieces passes through here."""
        known = {name: batch.targets[name] for name in (STUDY, VIEW, FIRST, TARGET)}
        head = {HEAD + name: value.expand(len(batch), *value.shape) for name, value in self.head.named_parameters()}
        return {DESCRIPTIONS: self.encoder.describe(batch["clip"]), **known, **head}

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """Clips of several studies, those of one next to each other -> what `StudyObjective` returns. In full precision: a probe adds up many
        channels."""
        with torch.autocast(embedded[DESCRIPTIONS].device.type, enabled=False):
            _, count = torch.unique_consecutive(embedded[STUDY], return_counts=True)
            descriptions, told, off, target = (
                pad_sequence(list(embedded[name].split(count.tolist())), batch_first=True, padding_value=fill)
                for name, fill in ((DESCRIPTIONS, 0), (VIEW, UNKNOWN), (FIRST, 0), (TARGET, 0))
            )
            inside = torch.arange(descriptions.shape[1], device=count.device) < count.unsqueeze(1)
            descriptions = descriptions.float()
            first = self.head.first(descriptions) + off
            head = {name: embedded[HEAD + name].mean(dim=0) for name, _ in self.head.named_parameters()}
            output, weights = functional_call(self.head, head, (descriptions, inside, told, first))
            return self.judge(output, weights, target[:, 0])
