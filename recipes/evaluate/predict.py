"""Predictions of a fine-tuned model: read as for features, so that no video is replaced and none is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from domains.store.prepared import Prepared
from recipes.evaluate.features import Extractor, Features, ReadProgress, clip_of, extract_all
from recipes.evaluate.metrics import Array
from recipes.finetune.task import TaskObjective
from recipes.training.data import plain_pixel_values


@contextmanager
def predicting(objective: TaskObjective, device: torch.device) -> Iterator[Extractor]:
    """The model as an extractor: evaluation mode, no gradients; its mode is restored afterwards."""
    was_training = objective.training
    objective.to(device).eval()

    def extractor(clips: NDArray[np.uint8]) -> Array:
        with torch.inference_mode():
            pixels = plain_pixel_values(torch.from_numpy(clips), objective.encoder.geometry, device)
            return objective.predict(pixels).double().mean(dim=0).cpu().numpy()

    try:
        yield extractor
    finally:
        objective.train(was_training)


def predict(
    objective: TaskObjective,
    prepared: Prepared,
    index: Sequence[int] | NDArray[np.int64],
    clips_per_video: int,
    device: torch.device,
    progress: ReadProgress | None = None,
) -> Features:
    """`values` (n,) in the target's unit or (n, classes) probabilities, averaged over clips of each video."""
    clip = clip_of(objective.encoder.geometry)
    with predicting(objective, device) as extractor:
        return extract_all({"": extractor}, prepared, index, clip, clips_per_video, progress=progress)[""]
