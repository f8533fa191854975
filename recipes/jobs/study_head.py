"""A new head over studies, and what it learns from: what the encoder said, or where the encoder learns too, the clips themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recipes.config import RunConfig
from recipes.encoders import VideoEncoder
from recipes.evaluate.described import Descriptions, Said
from recipes.evaluate.features import clip_of
from recipes.evaluate.metrics import Array
from recipes.evaluate.procedures import edges, spread
from recipes.evaluate.stacked import first_answers
from recipes.evaluate.studies import StudyClips, StudyData
from recipes.finetune.study import StudyHeadSettings, StudyObjective
from recipes.finetune.study_clips import StudyClipsObjective
from recipes.finetune.task import head_settings
from recipes.jobs.study_material import Material, probed, view_probe
from recipes.training.reporter import Reporter

FAR = torch.finfo(torch.float32).max


def adapts(config: RunConfig) -> bool:
    """Whether the encoder learns with the head (`encoder.mode`)."""
    return config.encoder.mode != "frozen"


def build_head(
    config: RunConfig, encoder: VideoEncoder, material: Material, reporter: Reporter
) -> tuple[StudyObjective, Material, NDArray[np.float32]]:
    """A new head for what the training studies hold, its weights from the run's seed, with the encoder where that learns too; the material with views
    as the head is told them; and of training clips what probes say that saw none of their patients (`StudyData`), or how far that is from what
    the head's own probe says (`StudyClipsObjective`)."""
    wanted, study, rows = config.task, config.task.study, [row for own in material.train.rows for row in own]
    mean, deviation = spread(material.described.pieces(rows))
    low, high = (
        (edge - mean) / deviation for edge in edges(material.described.pieces(rows), material.described.channels)
    )

    def even(descriptions: NDArray[np.float32]) -> Array:  # as the head does
        return np.clip((descriptions - mean) / deviation, low, high).astype(np.float64)

    mode, views, probe = material.mode, material.views, None
    if mode == "probe":
        views, probe = view_probe(material, rows, even)
        if probe is None:
            reporter.warn("the training patients have clips of fewer than two views: views are not told")
            mode = "none"
    settings = head_settings(
        wanted.name, "regression" if material.task.kind == "regression" else "classification", material.task.unit,
        material.labels.classes, material.train.values.astype(np.float64), loss=wanted.loss, balance=wanted.balance, dropout=wanted.dropout,
    )  # fmt: skip
    own = {
        "channels": material.described.channels, "views": mode, "view_names": views.names if mode != "none" else (), "width": study.width,
        "attention": study.attention, "clips_per_video": wanted.clips_per_video,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        wished = StudyHeadSettings.model_validate({**settings.model_dump(), **own})
        objective = (
            StudyClipsObjective(encoder, wished, head_scale=wanted.lr_head / config.optim.lr)
            if adapts(config)
            else StudyObjective(wished)
        )
    head, train, classes = objective.head, material.train, len(material.labels.classes)
    values = train.values.astype(np.float64)
    first = first_answers(
        material.described, train, values if classes else (values - settings.mean) / settings.std, even, classes
    )
    for buffer, found in (
        (head.mean, mean), (head.deviation, deviation), (head.low, low), (head.high, high), (head.first_weight, first.weight),
        (head.first_bias, first.bias),
    ):  # fmt: skip
        buffer.copy_(torch.from_numpy(found))
    if probe is not None:
        objective.head.probe_weight.copy_(torch.from_numpy(probe[0]))
        objective.head.probe_bias.copy_(torch.from_numpy(probe[1]))
        views = probed(
            objective, material.described, [row for part in material.parts.values() for own in part.rows for row in own]
        )
    said = first.said
    if adapts(config):
        # Nothing is held within the range that the encoder's first descriptions had: what it learns to say may leave it.
        head.low.fill_(-FAR)
        head.high.fill_(FAR)
        own_of = [head.first(torch.from_numpy(piece)).numpy() for piece in material.described.pieces(rows)]
        said[rows] -= np.concatenate(own_of)
    return objective, replace(material, mode=mode, views=views), said


def samples(config: RunConfig, objective: StudyObjective, material: Material, first: NDArray[np.float32]) -> StudyData:
    """What is learned from: descriptions of studies, or their clips."""
    study = config.task.study
    same: dict[str, Any] = {
        "clips": study.clips, "drop": study.drop, "seed": config.train.seed, "draws": config.data.clips_per_video
    }  # fmt: skip
    if not adapts(config):
        return StudyData(material.described, material.train, material.views, first, **same)
    return StudyClips(material.described, material.train, material.views, first, objective.views, config.clip, **same)


def sayings(config: RunConfig, encoder: VideoEncoder, material: Material) -> Descriptions:
    """What the validation studies are predicted from: what the encoder says of their recordings, for good or by now."""
    if not adapts(config):
        return material.described
    return Said(encoder, material.prepared, clip_of(encoder.geometry), config.task.clips_per_video)
