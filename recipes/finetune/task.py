"""A fine-tuning task as an objective: a head on pooled tokens, for regression or classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from domains.errors import DataError
from domains.store.clips import Clip
from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Losses, Objective, ObjectiveSettings

TARGET = "target"


class TaskHeadSettings(ObjectiveSettings):
    """What a head predicts and how it is trained; written beside its weights as head.json."""

    task: str = Field(description="name of the task")
    kind: Literal["regression", "classification"]
    unit: str = Field("", description="unit of a regression target")
    classes: tuple[str, ...] = Field((), description="class names in the order of the outputs")
    mean: float = Field(0.0, description="mean of the training patients' targets, in the target's unit")
    std: PositiveFloat = Field(1.0, description="their standard deviation; the head predicts (target - mean) / std")
    loss: Literal["huber", "l1"] = Field("huber", description="regression: Huber with delta one deviation, or absolute")
    class_weights: tuple[float, ...] = Field((), description="weight of each class in the loss; empty: all alike")
    dropout: float = Field(0.0, ge=0, lt=1, description="before the head")

    @property
    def outputs(self) -> int:
        """Width of the head's output."""
        return len(self.classes) if self.kind == "classification" else 1


class TaskObjective(Objective):
    """Predict a label of a video from the mean of the encoder's tokens.

        prediction = W dropout(embed(clip)) + b
    regression:      loss = Huber(prediction, (y - mean) / std)      classification: loss = cross-entropy, classes
    weighted

    Batch.targets["target"]: (B,) values in the target's unit, or (B,) class numbers.
    """

    name = "task"
    Settings = TaskHeadSettings
    views = {"clip": Clip(augment="weak")}  # noqa: RUF012  the contract's own form

    settings: TaskHeadSettings

    def __init__(self, encoder: VideoEncoder, settings: TaskHeadSettings, head_scale: float = 1.0) -> None:
        """`head_scale`: learning rate of the head as a multiple of the encoder's."""
        super().__init__(encoder, settings)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(encoder.description, settings.outputs)
        # A small start: the first predictions are the training mean, and the first gradients do not tear the encoder.
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        for parameter in self.head.parameters():
            parameter.lr_scale = head_scale  # type: ignore[attr-defined]
        self.class_weights: Tensor | None
        weights = torch.tensor(settings.class_weights) if settings.class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, batch: Batch) -> Losses:
        """The loss, and the figure a person watches: the mean absolute error in the target's unit, or the accuracy."""
        output = self.head(self.dropout(self.encoder.describe(batch["clip"]))).float()
        target = batch.targets[TARGET]
        if self.settings.kind == "classification":
            loss = F.cross_entropy(output, target.long(), weight=self.class_weights)
            return {"loss": loss, "accuracy": (output.argmax(dim=1) == target).float().mean()}
        wanted = (target.float() - self.settings.mean) / self.settings.std
        found = output.squeeze(1)
        loss = F.huber_loss(found, wanted) if self.settings.loss == "huber" else F.l1_loss(found, wanted)
        return {"loss": loss, "mae": (found.detach() - wanted).abs().mean() * self.settings.std}

    def predict(self, pixel_values: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B,) values in the target's unit, or (B, classes) probabilities."""
        output = self.head(self.dropout(self.encoder.describe(pixel_values))).float()
        if self.settings.kind == "classification":
            return output.softmax(dim=1)
        return output.squeeze(1) * self.settings.std + self.settings.mean


def head_settings(
    task: str,
    kind: Literal["regression", "classification"],
    unit: str,
    classes: Sequence[str],
    truth: np.ndarray,
    *,
    loss: Literal["huber", "l1"] = "huber",
    balance: bool = False,
    dropout: float = 0.0,
) -> TaskHeadSettings:
    """Settings of the head for training targets `truth` (n,): their mean and deviation, or weights of the classes.

    balance: classes count inversely to how often they occur, so that each has the same say; the mean weight of a video
    stays 1. Raises DataError where the training targets do not vary.
    """
    if len(np.unique(truth)) < 2:
        what = f"the {len(truth)} training videos all have the same {task}"
        raise DataError(what, where=f"task {task}", do="Use more labelled patients: a larger task.label_fraction")
    if kind == "regression":
        mean, std = float(truth.mean()), float(truth.std())
        return TaskHeadSettings(task=task, kind=kind, unit=unit, mean=mean, std=std, loss=loss, dropout=dropout)
    weights: tuple[float, ...] = ()
    if balance:
        count = np.bincount(truth.astype(int), minlength=len(classes))
        present = (count > 0).sum()
        weights = tuple(float(len(truth) / (present * n)) if n else 0.0 for n in count)
    return TaskHeadSettings(
        task=task, kind=kind, unit=unit, classes=tuple(classes), class_weights=weights, dropout=dropout
    )
