"""A trained head on disk: `head.safetensors` with its weights, `head.json` with what they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from domains.errors import ModelError
from domains.schema import Strict, parse
from recipes.encoders.base import VideoEncoder
from recipes.finetune.study import StudyHeadSettings, StudyObjective
from recipes.finetune.task import TaskHeadSettings, TaskObjective
from recipes.finetune.temporal import TemporalHeadSettings, TemporalObjective

S = TypeVar("S", bound=Strict)
H = TypeVar("H", TemporalObjective, StudyObjective)
RECORDINGS, MOMENTS, STUDIES = "single recordings", "moments", "whole studies"
LEVELS: dict[type[Strict], str] = {
    TaskHeadSettings: RECORDINGS,
    TemporalHeadSettings: MOMENTS,
    StudyHeadSettings: STUDIES,
}
WEIGHTS, MEANING = "head.safetensors", "head.json"


def save_head(objective: TaskObjective | TemporalObjective | StudyObjective, folder: Path) -> None:
    """Write the head of `objective` into `folder`."""
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in objective.head.state_dict().items()},
        folder / WEIGHTS,
    )
    meaning = objective.settings.model_dump(mode="json")
    (folder / MEANING).write_text(json.dumps(meaning, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def level_of(folder: Path) -> str:
    """What the head in a run folder answers for: one of the values of LEVELS. Raises ModelError where there is none."""
    try:
        return _level(json.loads((folder / MEANING).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        what = f"no head (no {MEANING} that can be read)"
        raise ModelError(what, where=folder, do="Give the folder of a finished 'vfm finetune' run") from None


def load_head(encoder: VideoEncoder, folder: Path) -> TaskObjective:
    """The task in `folder` on `encoder`, ready to `predict`. Raises ModelError: there is none, or it does not fit."""
    settings, weights = _read(TaskHeadSettings, folder)
    objective = TaskObjective(encoder, settings)
    wanted = {name: tuple(value.shape) for name, value in objective.head.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if wanted != found:
        what = f"the head takes {found.get('weight', ('?', '?'))[-1]} channels, the encoder gives {encoder.description}"
        raise ModelError(what, where=folder, do="Use the encoder that it was trained with: the run's own encoder/")
    objective.head.load_state_dict(weights)
    return objective.eval()


def load_temporal_head(folder: Path) -> TemporalObjective:
    """The task of moments in `folder`, ready to `predict` from descriptions. Raises ModelError."""
    settings, weights = _read(TemporalHeadSettings, folder)
    return _filled(TemporalObjective(settings), weights, folder)


def load_study_head(folder: Path) -> StudyObjective:
    """The task of studies in `folder`, ready to `predict` from descriptions. Raises ModelError."""
    settings, weights = _read(StudyHeadSettings, folder)
    return _filled(StudyObjective(settings), weights, folder)


def _filled(objective: H, weights: dict[str, Tensor], folder: Path) -> H:
    """A head over descriptions with its weights, in evaluation mode."""
    try:
        objective.head.load_state_dict(weights)
    except RuntimeError:
        what = f"{WEIGHTS} and {MEANING} do not belong together"
        raise ModelError(what, where=folder, do="Copy the run folder again, both from one run") from None
    return objective.eval()


def _level(meaning: Any) -> str:
    """What a head's outputs are about, by what is written beside it."""
    said = meaning if isinstance(meaning, dict) else {}
    return STUDIES if said.get("level") == "study" else MOMENTS if "rate" in said else RECORDINGS


def _read(kind: type[S], folder: Path) -> tuple[S, dict[str, Tensor]]:
    """What a head means, and its weights. Raises ModelError."""
    try:
        meaning = json.loads((folder / MEANING).read_text(encoding="utf-8"))
        if (is_of := _level(meaning)) != (wanted := LEVELS[kind]):
            do = "Give the folder of another 'vfm finetune' run"
            raise ModelError(f"its head answers for {is_of}, not for {wanted}", where=folder, do=do)
        return parse(kind, meaning, folder / MEANING), load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        what = f"no {Path(error.filename or WEIGHTS).name}"
        raise ModelError(what, where=folder, do="Give the folder of a finished 'vfm finetune' run") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"the head cannot be read ({error.__class__.__name__})", where=folder) from None
