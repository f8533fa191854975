"""`vfm debug replay`: the step at which a run stopped, run again."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from domains.errors import ModelError
from domains.schema import parse
from recipes.encoders import build_encoder
from recipes.encoders.text import build_text
from recipes.finetune.study import StudyHeadSettings, StudyObjective
from recipes.finetune.study_clips import StudyClipsObjective
from recipes.finetune.task import TaskHeadSettings, TaskObjective
from recipes.finetune.temporal import TemporalHeadSettings, TemporalObjective
from recipes.objective import Objective
from recipes.pretrain import build_method, method
from recipes.training.broken import BrokenStep, read_broken
from recipes.training.checkpoint import restore
from recipes.training.replay import Replay, replay


def replay_run(run: Path, *, precision: str | None = None, online: bool = False) -> tuple[BrokenStep, Replay]:
    """The broken step of a run and what it does when it is run again in this process, on the GPU where there is one.

    precision: fp32 or bf16 instead of the run's own. Raises ConfigError where the run has no broken step, ModelError where it is damaged.
    """
    broken = read_broken(run)
    objective = build(broken, online)
    try:
        restore(objective, load_file(broken.weights), broken.weights)
    except (OSError, SafetensorError) as error:
        what = f"the weights of the step cannot be read ({error.__class__.__name__})"
        raise ModelError(what, where=broken.weights) from None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return broken, replay(objective, broken, precision or broken.precision, device)


def build(broken: BrokenStep, online: bool = False) -> Objective:
    """The objective of a broken step, without its weights, and without the data and labels that its settings were made from."""
    if broken.objective == TemporalObjective.name:
        return TemporalObjective(parse(TemporalHeadSettings, broken.settings, "step.json"))
    if broken.objective == StudyObjective.name:
        return StudyObjective(parse(StudyHeadSettings, broken.settings, "step.json"))
    settings = broken.config.encoder.model_copy(update={"init_from": None})
    with torch.random.fork_rng(devices=[]):
        encoder = build_encoder(settings, broken.config.clip, online=online, seed=broken.config.train.seed)
        if broken.objective == TaskObjective.name:
            return TaskObjective(encoder, parse(TaskHeadSettings, broken.settings, "step.json"))
        if broken.objective == StudyClipsObjective.name:
            return StudyClipsObjective(encoder, parse(StudyHeadSettings, broken.settings, "step.json"))
        text = None
        if method(broken.objective).texts:
            text = build_text(broken.config.text, online=online, seed=broken.config.train.seed)
        return build_method(broken.objective, broken.settings, broken.config.pretext, encoder, "step.json", text=text)
