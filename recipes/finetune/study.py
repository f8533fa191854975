"""A task of studies as an objective: attention over what an encoder said of each clip, and of which view the clip is."""

from __future__ import annotations

from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from recipes.encoders.base import VideoEncoder
from recipes.finetune.task import TARGET, TaskHeadSettings
from recipes.finetune.temporal import DESCRIPTIONS, INSIDE, PIECE, Silent
from recipes.objective import Batch, Losses, Objective

VIEW = "view"  # targets of a batch: (B, K) int64, the view of each clip as labels tell it, -1 where they do not
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
        y   = W (sum over k of a_k h_k) + c  =  sum over k of a_k (W h_k + c)

    EchoPrime weighs clips by a fixed table of (section of the report, view); here weights are learned, and see the clip as well as its view. y is
    also the weighted mean of what each clip says alone. At first, all clips weigh alike, and every study is told the mean.
    """

    mean: Tensor
    deviation: Tensor
    probe_weight: Tensor
    probe_bias: Tensor

    def __init__(self, settings: StudyHeadSettings) -> None:
        super().__init__()
        s, views = settings, len(settings.view_names)
        self.views = settings.views
        self.enter = nn.Linear(s.channels, s.width)
        self.of_view = nn.Linear(views, s.width, bias=False) if views else None
        self.dropout = nn.Dropout(s.dropout)
        self.value, self.gate = nn.Linear(s.width, s.attention), nn.Linear(s.width, s.attention)
        self.score = nn.Linear(s.attention, 1, bias=False)
        self.answer = nn.Linear(s.width, s.outputs)
        nn.init.zeros_(self.score.weight)
        nn.init.trunc_normal_(self.answer.weight, std=0.01)
        nn.init.zeros_(self.answer.bias)
        self.register_buffer("mean", torch.zeros(s.channels))
        self.register_buffer("deviation", torch.ones(s.channels))
        if s.views == "probe":
            self.register_buffer("probe_weight", torch.zeros(views, s.channels))
            self.register_buffer("probe_bias", torch.zeros(views))

    def even(self, descriptions: Tensor) -> Tensor:
        """(..., D), of mean 0 and deviation 1 over the training recordings."""
        return (descriptions - self.mean) / self.deviation

    def view_of(self, descriptions: Tensor, told: Tensor) -> Tensor | None:
        """How likely each clip is of each view (..., V): by the probe, or as told (...) int64, all 0 where UNKNOWN; None: views are not told."""
        if self.of_view is None:
            return None
        if self.views == "probe":
            return F.linear(self.even(descriptions), self.probe_weight, self.probe_bias).softmax(dim=-1)
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

    def forward(self, descriptions: Tensor, inside: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """descriptions (B, K, D), inside (B, K): 1 where there is a clip, told (B, K) int64 -> answers (B, outputs), weights (B, K)."""
        hidden, logit = self.read(descriptions, told)
        weights = logit.masked_fill(inside == 0, LOWEST).softmax(dim=1)
        return self.answer(self.dropout((weights.unsqueeze(-1) * hidden).sum(dim=1))), weights


class StudyObjective(Objective):
    """Learn one answer to all clips of a study; the encoder stays as it is, and what it says was written before.

    regression: loss = Huber(y, (truth - mean) / std)      classification: loss = cross-entropy, classes weighted

    Batch.targets: descriptions (B, K, D); inside (B, K), 1 where there is a clip; view (B, K); target (B,).
    """

    name = "study"
    paper = "Ilse et al., ICML 2018; EchoPrime (Vukadinovic et al., 2024)"
    Settings = StudyHeadSettings
    views = {}  # noqa: RUF012  the contract's own form
    asks_encoder = False

    settings: StudyHeadSettings

    def __init__(self, settings: StudyHeadSettings) -> None:
        super().__init__(cast(VideoEncoder, Silent()), settings)
        self.head = StudyHead(settings)
        self.class_weights: Tensor | None
        weights = torch.tensor(settings.class_weights) if settings.class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, batch: Batch) -> Losses:
        """The loss, the figure a person watches, and to how many clips a study's weights amount (exp of their entropy)."""
        given = (batch.targets[name] for name in (DESCRIPTIONS, INSIDE, VIEW))
        output, weights = self.head(*given)
        entropy = -(weights * weights.clamp_min(1e-9).log()).sum(dim=1)
        found = {"clips_used": entropy.exp().mean().detach()}
        target = batch.targets[TARGET]
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
            self.head.read(torch.from_numpy(np.array(descriptions[at])).to(device), views[at].to(device))
            for at in (slice(first, first + PIECE) for first in range(0, len(descriptions), PIECE))
        ]
        hidden = torch.cat([piece[0] for piece in pieces])
        weights = torch.cat([piece[1] for piece in pieces]).softmax(dim=0)
        answer = self.said(self.head.answer((weights.unsqueeze(1) * hidden).sum(dim=0, keepdim=True)))[0]
        alone = self.said(self.head.answer(hidden))
        found = (answer, weights, alone)
        return cast(
            tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
            tuple(one.double().cpu().numpy() for one in found),
        )

    def said(self, output: Tensor) -> Tensor:
        """Outputs (n, outputs) -> (n,) in the target's unit, or (n, classes) probabilities."""
        if self.settings.kind == "classification":
            return output.float().softmax(dim=1)
        return output.float().squeeze(1) * self.settings.std + self.settings.mean
