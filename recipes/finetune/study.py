"""A task of studies as an objective: attention over what an encoder said of each clip, and of which view the clip is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from domains.store.clips import Clip
from recipes.encoders.base import VideoEncoder
from recipes.finetune.task import TARGET, TaskHeadSettings
from recipes.finetune.temporal import DESCRIPTIONS, INSIDE, PIECE, Silent
from recipes.objective import Batch, Losses, Objective

VIEW = "view"  # targets of a batch: (B, K) int64, the view of each clip as labels tell it, -1 where they do not
FIRST = "first"
UNKNOWN = -1
LOWEST = torch.finfo(torch.float32).min


class StudyHeadSettings(TaskHeadSettings):
    """What a head over studies says and how it is trained; written beside its weights as head.json."""

    level: Literal["study"] = "study"
    channels: PositiveInt = Field(description="D, channels of a description")
    views: Literal["probe", "labels", "none"] = Field("none", description="what tells the view of a clip")
    view_names: tuple[str, ...] = Field((), description="views in order")
    width: PositiveInt = 32
    attention: PositiveInt = 16
    clips_per_video: PositiveInt = Field(3, description="clips of a recording whose descriptions are averaged")


class StudyHead(nn.Module):
    """Gated attention over the clips of a study (Ilse et al., Attention-based Deep Multiple Instance Learning, ICML 2018), informed of their views.

        h_k = GELU(P (x_k - mean) / deviation + E v_k)                   x_k (D,): clip k; v_k (V,): how likely it is of each view
        a_k = softmax over k of  w . [ tanh(A h_k) * sigmoid(B h_k) ]    over all clips of the study, how many and of which views they may be
        y   = sum over k of a_k (r_k + W h_k + c)                        r_k: what a linear probe says of the clip

    EchoPrime weighs clips by a fixed table of (section of the report, view); here weights are learned, and see the clip as well as its view. y is
    the weighted mean of what each clip says alone. At first all clips weigh alike and W is 0, so that the head begins as the mean of a probe's
    answers: from the labels of some hundred patients that is hard to beat, and all that is learned is what weights and views add. Of training clips,
    r_k is said by probes that saw none of their patients (stacking, Wolpert 1992): a probe knows its own clips too well to learn from.
    """

    mean: Tensor
    deviation: Tensor
    low: Tensor
    high: Tensor
    first_weight: Tensor
    first_bias: Tensor
    probe_weight: Tensor
    probe_bias: Tensor

    def __init__(self, settings: StudyHeadSettings) -> None:
        super().__init__()
        s, views = settings, len(settings.view_names)
        self.views, self.classes = settings.views, settings.kind == "classification"
        self.enter = nn.Linear(s.channels, s.width)
        self.of_view = nn.Linear(views, s.width, bias=False) if views else None
        self.dropout = nn.Dropout(s.dropout)
        self.value, self.gate = nn.Linear(s.width, s.attention), nn.Linear(s.width, s.attention)
        self.score = nn.Linear(s.attention, 1, bias=False)
        self.answer = nn.Linear(s.width, s.outputs)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.answer.weight)
        nn.init.zeros_(self.answer.bias)
        self.register_buffer("mean", torch.zeros(s.channels))
        self.register_buffer("deviation", torch.ones(s.channels))
        self.register_buffer("low", torch.full((s.channels,), -torch.inf))
        self.register_buffer("high", torch.full((s.channels,), torch.inf))
        self.register_buffer("first_weight", torch.zeros(s.outputs, s.channels))
        self.register_buffer("first_bias", torch.zeros(s.outputs))
        if s.views == "probe":
            self.register_buffer("probe_weight", torch.zeros(views, s.channels))
            self.register_buffer("probe_bias", torch.zeros(views))

    def even(self, descriptions: Tensor) -> Tensor:
        """(..., D), of mean 0 and deviation 1 over the training recordings, and held within their range (`recipes.evaluate.linear`)."""
        return ((descriptions - self.mean) / self.deviation).clamp(self.low, self.high)

    def first(self, descriptions: Tensor) -> Tensor:
        """(..., D) -> r (..., outputs), by the probe: deviations from the mean, or log-probabilities."""
        said = F.linear(self.even(descriptions), self.first_weight, self.first_bias)
        return said.log_softmax(dim=-1) if self.classes else said

    def view_of(self, descriptions: Tensor, told: Tensor) -> Tensor | None:
        """How likely each clip is of each view (..., V): by the probe, or as told (...) int64, all 0 where UNKNOWN; None: views are not told."""
        if self.of_view is None:
            return None
        if self.views == "probe":
            # An encoder that learns is not to be taught to look as if a clip were of another view.
            return F.linear(self.even(descriptions.detach()), self.probe_weight, self.probe_bias).softmax(dim=-1)
        return F.one_hot(told + 1, self.of_view.in_features + 1)[..., 1:].to(descriptions.dtype)

    def read(self, descriptions: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """Each clip by itself: descriptions (..., D), told (...) -> h (..., W) and the logit of its weight (...)."""
        hidden = self.enter(self.dropout(self.even(descriptions)))
        views = self.view_of(descriptions, told)
        if views is not None and self.of_view is not None:
            hidden = hidden + self.of_view(views)
        hidden = F.gelu(hidden)
        logit: Tensor = self.score(self.value(hidden).tanh() * self.gate(hidden).sigmoid()).squeeze(-1)
        return hidden, logit

    def forward(
        self, descriptions: Tensor, inside: Tensor, told: Tensor, first: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """descriptions (B, K, D), inside (B, K): 1 where there is a clip, told (B, K) int64; first (B, K, outputs): r of training clips, by probes
        that saw none of their patients -> answers (B, outputs), weights (B, K)."""
        hidden, logit = self.read(descriptions, told)
        weights = logit.masked_fill(inside == 0, LOWEST).softmax(dim=1)
        first = self.first(descriptions) if first is None else first
        pooled, begun = ((weights.unsqueeze(-1) * one).sum(dim=1) for one in (hidden, first))
        return begun + self.answer(self.dropout(pooled)), weights


class StudyObjective(Objective):
    """Learn one answer to all clips of a study; the encoder stays as it is, and what it says was written before.

    regression: loss = Huber(y, (truth - mean) / std)      classification: loss = cross-entropy, classes weighted

    Batch.targets: descriptions (B, K, D); inside (B, K), 1 where there is a clip; view (B, K); first (B, K, outputs), see `StudyHead`; target (B,).
    """

    name = "study"
    paper = "Ilse et al., ICML 2018; EchoPrime (Vukadinovic et al., 2024)"
    Settings = StudyHeadSettings
    views: Mapping[str, Clip] = {}
    asks_encoder = False
    lighter = "fewer clips of a study (task.study.clips)"

    settings: StudyHeadSettings

    def __init__(self, settings: StudyHeadSettings) -> None:
        super().__init__(cast(VideoEncoder, Silent()), settings)
        self.head = StudyHead(settings)
        self.class_weights: Tensor | None
        weights = torch.tensor(settings.class_weights) if settings.class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, batch: Batch) -> Losses:
        """The loss, the figure a person watches, and to how many clips a study's weights amount (exp of their entropy)."""
        given = (batch.targets[name] for name in (DESCRIPTIONS, INSIDE, VIEW, FIRST))
        output, weights = self.head(*given)
        return self.judge(output, weights, batch.targets[TARGET])

    def judge(self, output: Tensor, weights: Tensor, target: Tensor) -> Losses:
        """Answers (B, outputs), weights (B, K), truth (B,) -> what `forward` returns."""
        entropy = -(weights * weights.clamp_min(1e-9).log()).sum(dim=1)
        found = {"clips_used": entropy.exp().mean().detach()}
        if self.settings.kind == "classification":
            loss = F.cross_entropy(output.float(), target.long(), weight=self.class_weights)
            return {"loss": loss, "accuracy": (output.argmax(dim=1) == target).float().mean(), **found}
        wanted, said = (target.float() - self.settings.mean) / self.settings.std, output.float().squeeze(1)
        loss = F.huber_loss(said, wanted) if self.settings.loss == "huber" else F.l1_loss(said, wanted)
        return {"loss": loss, "mae": (said.detach() - wanted).abs().mean() * self.settings.std, **found}

    @torch.inference_mode()
    def predict(
        self, descriptions: NDArray[np.float32], told: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """The clips of one study (K, D), of any number, and their views (K,) as labels tell them.

        Returns the answer, () in the target's unit or (classes,) probabilities; the weight of each clip (K,), of sum 1; and what each clip says by
        itself, (K,) or (K, classes). In evaluation mode only (`load_study_head`).
        """
        device = self.head.mean.device
        views = torch.full((len(descriptions),), UNKNOWN) if told is None else torch.from_numpy(np.array(told))
        pieces = [
            self._alone(torch.from_numpy(np.array(descriptions[at])).to(device), views[at].to(device))
            for at in (slice(first, first + PIECE) for first in range(0, len(descriptions), PIECE))
        ]
        outputs = torch.cat([piece[0] for piece in pieces])
        weights = torch.cat([piece[1] for piece in pieces]).softmax(dim=0)
        answer = self.said((weights.unsqueeze(1) * outputs).sum(dim=0, keepdim=True))[0]
        found = (answer, weights, self.said(outputs))
        return cast(
            tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
            tuple(one.double().cpu().numpy() for one in found),
        )

    def _alone(self, descriptions: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (K, outputs) of each clip by itself, and the logit of its weight (K,)."""
        hidden, logit = self.head.read(descriptions, told)
        return self.head.first(descriptions) + self.head.answer(hidden), logit

    def said(self, output: Tensor) -> Tensor:
        """Outputs (n, outputs) -> (n,) in the target's unit, or (n, classes) probabilities."""
        if self.settings.kind == "classification":
            return output.float().softmax(dim=1)
        return output.float().squeeze(1) * self.settings.std + self.settings.mean
