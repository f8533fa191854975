"""A task of moments as an objective: a temporal convolutional network over what an encoder said of a procedure, moment by moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from domains.store.moments import UNLABELLED
from recipes.encoders.base import Geometry, VideoEncoder
from recipes.objective import Batch, Losses, Objective, ObjectiveSettings

DESCRIPTIONS, TRUTH, INSIDE = "descriptions", "truth", "inside"  # targets of a batch
PIECE = 4096  # moments whose descriptions are in memory at once
RAREST = 20.0  # a positive of a rare class counts at most as much as this many negatives


class TemporalHeadSettings(ObjectiveSettings):
    """What a temporal head says and how it is trained; written beside its weights as head.json."""

    task: str = Field(description="name of the task")
    kind: Literal["phases", "presence"]
    classes: tuple[str, ...] = Field(description="class names in the order of the outputs")
    parts: tuple[str, ...] = Field((), description="presence: what class names are made of")
    nothing: tuple[str, ...] = Field((), description="presence: classes, or words of parts, that stand for nothing")
    head: Literal["causal", "offline"] = "causal"
    rate: PositiveFloat = Field(1.0, description="moments a second")
    channels: PositiveInt = Field(description="D, channels of a description")
    stages: PositiveInt = 2
    layers: PositiveInt = 9
    width: PositiveInt = 64
    dropout: float = Field(0.0, ge=0, lt=1)
    smooth: NonNegativeFloat = 0.15
    smooth_limit: PositiveFloat = 4.0
    class_weights: tuple[float, ...] = Field((), description="weight of each class in the loss; empty: all alike")


class DilatedLayer(nn.Module):
    """x + W relu(conv_d(x)): a convolution over moments t - 2 d, t - d, t (causal) or t - d, t, t + d."""

    def __init__(self, width: int, dilation: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.dilation, self.causal = dilation, causal
        self.conv = nn.Conv1d(width, width, 3, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """x (B, W, T), inside (B, 1, T): 1 within the procedure, 0 in what only fills the batch -> (B, W, T)."""
        reach = 2 * self.dilation
        padded = F.pad(x, (reach, 0) if self.causal else (self.dilation, self.dilation))
        found: Tensor = self.dropout(self.mix(F.relu(self.conv(padded))))
        return (x + found) * inside


class Stage(nn.Module):
    """Layers whose dilation doubles, and an answer for every moment."""

    def __init__(self, inputs: int, s: TemporalHeadSettings) -> None:
        super().__init__()
        self.enter = nn.Conv1d(inputs, s.width, 1)
        causal = s.head == "causal"
        self.layers = nn.ModuleList(DilatedLayer(s.width, 2**level, causal, s.dropout) for level in range(s.layers))
        self.answer = nn.Conv1d(s.width, len(s.classes), 1)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """(B, D, T) -> logits (B, C, T)."""
        return self.over(self.enter(x), inside)

    def over(self, entered: Tensor, inside: Tensor) -> Tensor:
        """What `forward` does with inputs that have entered already, (B, W, T)."""
        hidden = entered * inside
        for layer in self.layers:
            hidden = layer(hidden, inside)
        found: Tensor = self.answer(hidden)
        return found * inside


class TemporalHead(nn.Module):
    """Multi-stage temporal convolutional network (MS-TCN, Farha and Gall, CVPR 2019); causal, that of TeCNO (Czempiel et al., MICCAI 2020).

    The first stage reads descriptions, brought to mean 0 and deviation 1 over the training moments; each other one the answers of the one before it.
    Causal: an answer depends on no later moment, nor on how long the recording goes on.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, settings: TemporalHeadSettings) -> None:
        super().__init__()
        self.phases = settings.kind == "phases"
        inputs = [settings.channels, *[len(settings.classes)] * (settings.stages - 1)]
        self.stages = nn.ModuleList(Stage(count, settings) for count in inputs)
        self.register_buffer("mean", torch.zeros(settings.channels))
        self.register_buffer("deviation", torch.ones(settings.channels))

    def forward(self, descriptions: Tensor, inside: Tensor) -> list[Tensor]:
        """descriptions (B, T, D), inside (B, T) -> logits (B, C, T) of every stage."""
        return self.refine(self.enter(descriptions), inside.unsqueeze(1).to(descriptions.dtype))

    def enter(self, descriptions: Tensor) -> Tensor:
        """(B, T, D) -> (B, W, T): each moment by itself."""
        entered: Tensor = self.first.enter(((descriptions - self.mean) / self.deviation).transpose(1, 2))
        return entered

    def refine(self, entered: Tensor, inside: Tensor) -> list[Tensor]:
        """(B, W, T), inside (B, 1, T) -> logits (B, C, T) of every stage."""
        answers = [self.first.over(entered, inside)]
        for stage in list(self.stages)[1:]:
            answers.append(stage(self.probabilities(answers[-1]) * inside, inside))
        return answers

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, C, T): of phases they sum to 1."""
        return logits.softmax(dim=1) if self.phases else logits.sigmoid()

    @property
    def first(self) -> Stage:
        """The stage that reads descriptions."""
        return cast(Stage, self.stages[0])


class Silent(nn.Module):
    """In the place of the encoder, whose descriptions were written before the run: it has no weights and is asked nothing."""

    geometry = Geometry(frames=1, size=1)


class TemporalObjective(Objective):
    """Say the phase, or what is present, at every moment of a procedure.

    loss = mean over stages of [ CE(phases) or BCE(presence) over labelled moments + smooth * T-MSE ]
    T-MSE = mean of min(|log p_t - log p_(t-1)|, smooth_limit)^2, with no gradient into p_(t-1)    (MS-TCN, equation 4)

    Batch.targets: descriptions (B, T, D); truth (B, T) class numbers or (B, T, C) of 0 and 1, UNLABELLED where nothing is known; inside (B, T), 1
    up to the end of each procedure.
    """

    name = "temporal"
    paper = "TeCNO (Czempiel et al., MICCAI 2020), MS-TCN (Farha and Gall, CVPR 2019)"
    Settings = TemporalHeadSettings
    views = {}  # noqa: RUF012  the contract's own form
    asks_encoder = False
    lighter = "shorter windows (task.temporal.window)"

    settings: TemporalHeadSettings

    def __init__(self, settings: TemporalHeadSettings) -> None:
        super().__init__(cast(VideoEncoder, Silent()), settings)
        self.head = TemporalHead(settings)
        self.class_weights: Tensor | None
        weights = torch.tensor(settings.class_weights) if settings.class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, batch: Batch) -> Losses:
        """The loss and its parts; of phases the share of labelled moments that the last stage tells rightly."""
        truth, inside = batch.targets[TRUTH], batch.targets[INSIDE].float()
        answers = self.head(batch.targets[DESCRIPTIONS].float(), inside)
        told = torch.stack([self.told(logits.float(), truth) for logits in answers]).mean()
        smooth = torch.stack([self.jumps(logits.float(), inside) for logits in answers]).mean()
        found = {
            "loss": told + self.settings.smooth * smooth,
            "loss_told": told.detach(),
            "loss_smooth": smooth.detach(),
        }
        if self.settings.kind == "phases":
            right = (answers[-1].argmax(dim=1) == truth).float().sum()
            found["accuracy"] = right / (truth != UNLABELLED).sum().clamp_min(1)
        return found

    def told(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Weighted mean of the cross-entropies of labelled moments; 0 where nothing is labelled."""
        if self.settings.kind == "phases":
            each = F.cross_entropy(logits, truth, weight=self.class_weights, ignore_index=UNLABELLED, reduction="none")
            weight = logits.new_ones(logits.shape[1]) if self.class_weights is None else self.class_weights
            return each.sum() / (weight[truth.clamp_min(0)] * (truth != UNLABELLED)).sum().clamp_min(1e-8)
        known, logits = (truth != UNLABELLED).float(), logits.transpose(1, 2)
        wanted = truth.clamp_min(0).float()
        each = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=self.class_weights, reduction="none")
        return (each * known).sum() / known.sum().clamp_min(1)

    def jumps(self, logits: Tensor, inside: Tensor) -> Tensor:
        """T-MSE within procedures."""
        said = logits.log_softmax(dim=1) if self.settings.kind == "phases" else F.logsigmoid(logits)
        jump = (said[..., 1:] - said[..., :-1].detach()).abs().clamp_max(self.settings.smooth_limit) ** 2
        both = (inside[:, 1:] * inside[:, :-1]).unsqueeze(1)
        return (jump * both).sum() / (both.sum() * logits.shape[1]).clamp_min(1)

    @torch.inference_mode()
    def predict(self, descriptions: NDArray[np.float32]) -> NDArray[np.float64]:
        """(T, D), mapped or not -> probabilities (T, C) of a whole procedure; hours of it are no more in memory than T x width."""
        device = self.head.mean.device
        pieces = [
            self.head.enter(torch.from_numpy(np.array(descriptions[first : first + PIECE])).to(device).unsqueeze(0))
            for first in range(0, len(descriptions), PIECE)
        ]
        entered = torch.cat(pieces, dim=2)
        logits = self.head.refine(entered, entered.new_ones(1, 1, entered.shape[2]))[-1]
        found: NDArray[np.float64] = self.head.probabilities(logits)[0].T.double().cpu().numpy()
        return found


def balanced(truths: Sequence[NDArray[np.int64]], kind: str, classes: int) -> tuple[float, ...]:
    """Weights of classes by the training moments. phases: inversely to how often they occur, a moment weighing 1 on average, and 0 for one that never
    occurs. presence: of a positive, as many as there are negatives to it, at most RAREST."""
    whole = np.concatenate(list(truths))
    if kind == "phases":
        count = np.bincount(whole[whole != UNLABELLED], minlength=classes)
        present = int((count > 0).sum())
        return tuple(float(count.sum() / (present * n)) if n else 0.0 for n in count.tolist())
    positive = (whole == 1).sum(axis=0)
    return tuple(float(np.clip((len(whole) - n) / max(1, n), 1 / RAREST, RAREST)) for n in positive.tolist())
