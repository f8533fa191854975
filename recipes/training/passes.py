"""One forward and backward pass: of a batch at once, or of a contrastive one in pieces."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from domains.errors import ConfigError
from recipes.config import TrainSettings
from recipes.objective import Batch, Contrast, Objective
from recipes.parts.gradient_cache import GradientCache
from recipes.training.phases import Phases
from recipes.training.sharding import Weights


def learn(
    accelerator: Accelerator,
    weights: Weights,
    batch: Batch,
    train: TrainSettings,
    time: Phases,
    *,
    last: bool,
) -> Mapping[str, Tensor]:
    """Add the gradients of `batch` over `train.accumulate`; its losses.

    last: of the passes before an update; gradients are averaged over processes then, and not before (but where they are spread over them).
    With `train.piece`, a contrastive objective has no more samples than that in memory at once (`GradientCache`).
    """
    objective, wrapped = weights.learner, weights.wrapped
    if isinstance(objective, Contrast) and train.piece is not None and train.piece < len(batch):
        pieces = batch.pieces(train.piece)
        with time("forward"), accelerator.autocast():
            cache = GradientCache(pieces, weights.embed, objective.compare)
        for number, (piece, slopes) in enumerate(cache, start=1):
            with _averaged(accelerator, wrapped, last and number == len(pieces)):
                with time("forward"):
                    loss = wrapped(piece, slopes)["loss"]
                with time("backward"):
                    accelerator.backward(loss / train.accumulate)
        return cache.losses
    with _averaged(accelerator, wrapped, last):
        with time("forward"):
            losses: Mapping[str, Tensor] = wrapped(batch)
        with time("backward"):
            accelerator.backward(losses["loss"] / train.accumulate)
    return losses


def check_piece(objective: Objective, train: TrainSettings) -> None:
    """Raises ConfigError where `train.piece` would be read and not used."""
    if train.piece is not None and not isinstance(objective, Contrast):
        half = max(1, train.batch_size // 2)
        do = f"Leave it out; less memory: train.batch_size={half} train.accumulate={train.accumulate * 2}"
        raise ConfigError(f"'train.piece' is for contrastive methods, and '{objective.name}' is none", do=do)


def _averaged(accelerator: Accelerator, wrapped: Any, last: bool) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if last else accelerator.no_sync(wrapped)
