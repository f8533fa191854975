"""A step that was not finite, kept so that it can be run again: `vfm debug replay RUN`.

broken/step_00000012/ is the 12th step as it was before its update: objective.safetensors (all weights), rank_0000.safetensors (the clips of
each forward pass of that process, as they came from the loader, and the state of torch's generators), rank_0000.json (which recordings
they are of, the losses), and step.json, written last (settings, number of processes). No pickle.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from domains.errors import ConfigError, ModelError, TrainingError
from domains.schema import parse
from domains.store.prepared import Prepared
from recipes.config import RunConfig
from recipes.objective import Objective, Progress
from recipes.training.checkpoint import latest_step, tensors_of
from recipes.training.run import RunFolder

STEP, WEIGHTS = "step.json", "objective.safetensors"


def seed_step(seed: int, step: int, rank: int) -> None:
    """Dropout draws from a generator that is a function of the step, so that a resumed run needs no saved generator state."""
    torch.manual_seed(hash((seed, step, rank)) % 2**63)


def stop_not_finite(
    accelerator: Accelerator,
    objective: Objective,
    config: RunConfig,
    run: RunFolder,
    prepared: Prepared,
    progress: Progress,
    done: Sequence[tuple[Mapping[str, Any], Mapping[str, Tensor]]],
) -> NoReturn:
    """Keep the step after `progress` for `vfm debug replay` and raise TrainingError, on all ranks.

    done: the collated samples and the losses of each of its forward passes.
    """
    forwards = [(collated, {name: float(v) for name, v in losses.items()}) for collated, losses in done]
    terms = [name for _, losses in forwards for name, value in losses.items() if not math.isfinite(value)]
    terms = gather_object(terms)  # of all ranks: the main one keeps and says them
    what = f"the gradient of step {progress.step + 1} is not finite"
    if terms:  # `loss` is the sum of the others: they say more
        term = min(terms, key=lambda name: name == "loss")
        what = f"the loss of step {progress.step + 1} is not finite ({term})"
    videos = [[prepared.video_id(row) for row in collated["rows"].tolist()] for collated, _ in forwards]
    kept = f"'vfm debug replay {run.path}' tells where it comes from"
    try:
        precision = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
        rank, processes = accelerator.process_index, accelerator.num_processes
        write_broken(run.broken, what, precision, progress, objective, config, forwards, videos, rank, processes)
    except (OSError, SafetensorError) as error:
        kept = f"The step could not be kept ({getattr(error, 'strerror', None) or error})"
    accelerator.wait_for_everyone()  # a rank that leaves ends the others
    good = latest_step(run.checkpoints)
    do = f"--resume from step {good}, the last good checkpoint," if good else "Start again with --overwrite,"
    names = ", ".join([name for forward in videos for name in forward][:2])
    raise TrainingError(
        f"{what}; the weights were not changed (videos {names}, ...)",
        where=run.path,
        do=f"{kept}. {do} with a lower optim.lr or train.precision=fp32",
    )


@dataclass(frozen=True)
class BrokenStep:
    """What is read back.

    step: counted from 1; progress: before it. what: as the run said it. precision: fp32 or bf16. objective, settings: what was trained.
    forwards, videos: the collated samples of each forward pass and the recordings they are of, those of all processes joined, in rank
    order. weights: the file. generator: torch's state as the step of the first process began.
    """

    step: int
    what: str
    precision: str
    progress: Progress
    config: RunConfig
    objective: str
    settings: Mapping[str, Any]
    forwards: list[dict[str, Any]]
    videos: list[list[str]]
    weights: Path
    generator: Tensor
    generator_cuda: Tensor | None


def write_broken(
    folder: Path,
    what: str,
    precision: str,
    progress: Progress,
    objective: Objective,
    config: RunConfig,
    forwards: Sequence[tuple[Mapping[str, Any], Mapping[str, float]]],
    videos: Sequence[Sequence[str]],
    rank: int,
    processes: int,
) -> None:
    """This process's part of the step after `progress`: (collated, losses) and the recordings of each forward pass.

    Every process calls it; the first writes weights and settings too. Raises OSError and SafetensorError.
    """
    weights = tensors_of(objective, keep=rank == 0)  # before anything can go wrong in one process and not in the others
    place = folder / f"step_{progress.step + 1:08d}"
    place.mkdir(parents=True, exist_ok=True)
    seed_step(config.train.seed, progress.step, rank)  # the generators, as they were when the step began
    tensors = {"generator": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["generator_cuda"] = torch.cuda.get_rng_state()
    for number, (collated, _) in enumerate(forwards):
        tensors |= flat(collated, str(number))
    write_tensors(tensors, place / f"rank_{rank:04d}.safetensors")
    said = [
        {"videos": list(names), "losses": dict(losses)} for names, (_, losses) in zip(videos, forwards, strict=True)
    ]
    (place / f"rank_{rank:04d}.json").write_text(json.dumps({"forwards": said}, indent=2) + "\n", encoding="utf-8")
    if rank:
        return
    for other in folder.glob("step_*"):
        if other != place:
            shutil.rmtree(other, ignore_errors=True)
    write_tensors(weights, place / WEIGHTS)
    about = {
        "what": what, "precision": precision, "progress": asdict(progress), "processes": processes, "forwards": len(forwards),
        "objective": objective.name, "settings": objective.settings.model_dump(mode="json"), "config": config.model_dump(mode="json"),
    }  # fmt: skip
    (place / STEP).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def write_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    """Under its name only once it is whole."""
    draft = file.with_name(file.name + ".tmp")
    save_file(tensors, draft)
    draft.replace(file)


def read_broken(run: Path) -> BrokenStep:
    """The broken step of a run. Raises ConfigError where there is none, ModelError where a part of it is missing or damaged."""
    steps = sorted((run / "broken").glob(f"step_????????/{STEP}"))
    if not steps:
        what = "no step of this run was kept: none was found that is not finite"
        raise ConfigError(what, where=run, do="Give the folder of a run that stopped at such a step")
    place = steps[-1].parent
    try:
        about = json.loads(steps[-1].read_text(encoding="utf-8"))
        ranks = range(int(about["processes"]))
        parts = [load_file(place / f"rank_{rank:04d}.safetensors") for rank in ranks]
        said = [json.loads((place / f"rank_{rank:04d}.json").read_text(encoding="utf-8"))["forwards"] for rank in ranks]
        count = int(about["forwards"])
        forwards = [joined([nested(part, str(number)) for part in parts]) for number in range(count)]
        videos = [[name for rank in said for name in rank[number]["videos"]] for number in range(count)]
        progress = Progress(**about["progress"])
        return BrokenStep(
            progress.step + 1, about["what"], about["precision"], progress, parse(RunConfig, about["config"], steps[-1]),
            about["objective"], about["settings"], forwards, videos, place / WEIGHTS, parts[0]["generator"], parts[0].get("generator_cuda"),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
        raise ModelError(f"the step that was kept cannot be read ({error.__class__.__name__})", where=place) from None


def flat(collated: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """Nested mapping of tensors -> `prefix/name/name` -> tensor."""
    tensors: dict[str, Tensor] = {}
    for name, value in collated.items():
        if isinstance(value, Mapping):
            tensors |= flat(value, f"{prefix}/{name}")
        elif isinstance(value, Tensor):
            tensors[f"{prefix}/{name}"] = value.contiguous().clone()
    return tensors


def nested(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """The inverse of `flat`, with `views` and `targets` even where there are none."""
    values: dict[str, Any] = {"views": {}, "targets": {}}
    for key, tensor in tensors.items():
        if not key.startswith(f"{prefix}/"):
            continue
        _, *path, last = key.split("/")
        inner = values
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = tensor
    return values


def joined(parts: Sequence[Any]) -> Any:
    """Mappings of the same tensors -> one, joined along the samples."""
    if isinstance(parts[0], Mapping):
        return {name: joined([part[name] for part in parts]) for name in parts[0]}
    if (
        parts[0].ndim > 1 and len({part.shape[1:] for part in parts}) > 1
    ):  # tokens: each process has its own longest text
        most = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
        parts = [
            F.pad(part, [n for m, s in zip(most[::-1], part.shape[:0:-1], strict=True) for n in (0, m - s)], value=-1)
            for part in parts
        ]
    return torch.cat(list(parts))
