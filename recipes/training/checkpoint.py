"""Checkpoints that are whole or absent: folders of safetensors and JSON, no pickle.

checkpoints/step_00000200/{objective,optimiser}.safetensors, state.json, manifest.json (sizes and SHA-256); `latest` names the newest.
A folder is written beside its final name, synchronised to disk, renamed; the pointer moves last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from domains.errors import ConfigError, ModelError, StorageError
from recipes.training.retention import Retention
from recipes.training.sharding import share_of, whole_tensor

LATEST = "latest"
STATE = "state.json"
TENSORS = ("objective.safetensors", "optimiser.safetensors")


def save_checkpoint(
    folder: Path,
    objective: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: Retention,
    *,
    write: bool = True,
) -> Path:
    """Write `folder/step_N` for N = state["step"] and remove those that `keep` lets go; it reads state["losses"] and ["figures"].

    Every process calls it and the main one writes (`write`): the others have their parts of what is spread over them. A checkpoint does not say
    how it was spread. Raises StorageError where the disk refuses; earlier checkpoints stay as they were and nothing half-written remains.
    """
    name = f"step_{state['step']:08d}"
    draft, final = folder / f"{name}.tmp", folder / name
    if not write:
        tensors_of(objective, keep=False)
        optimiser_tensors(objective, optimiser, keep=False)
        return final
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_file(tensors_of(objective), draft / TENSORS[0])
        save_file(optimiser_tensors(objective, optimiser), draft / TENSORS[1])
        (draft / STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        files = sorted(draft.iterdir())
        manifest = {path.name: {"bytes": path.stat().st_size, "sha256": digest(path)} for path in files}
        (draft / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for path in [*files, draft / "manifest.json", draft]:
            synchronise(path)
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        write_latest(folder, name)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)
        do = "Free some space, then continue with --resume"
        raise StorageError(
            f"the checkpoint of step {state['step']} cannot be written ({reason})", where=folder, do=do
        ) from None
    prune(folder, state["step"], keep)
    return final


def prune(folder: Path, newest: int, keep: Retention) -> None:
    """Remove the checkpoints that `keep` lets go. What cannot be removed stays: it does no harm."""
    found = {int(path.name.removeprefix("step_")): figures_of(path) for path in folder.glob("step_????????")}
    for step in set(found) - keep.kept(found, newest):
        shutil.rmtree(folder / f"step_{step:08d}", ignore_errors=True)


def figures_of(path: Path) -> dict[str, float]:
    """What was last logged when a checkpoint was written; nothing where it cannot be read."""
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        return {**state["losses"], **state["figures"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def load_checkpoint(
    folder: Path,
    objective: nn.Module,
    optimiser: torch.optim.Optimizer,
    warn: Callable[[str], None],
    step: int | None = None,
) -> dict[str, Any] | None:
    """Put the newest whole checkpoint back, or that of `step`, and return its state; None where there is none.

    A damaged one is said and passed over, not so one that was asked for. Raises ModelError where none is whole, or it does not fit the
    objective.
    """
    names = candidates(folder) if step is None else [chosen(folder, step)]
    for name in names:
        path = folder / name
        if (damage := find_damage(path)) is not None:
            warn(f"checkpoint {name} is damaged ({damage})" + ("; trying the one before it" if step is None else ""))
            continue
        # Files are mapped, not read: of what is spread over the processes each reads its part.
        restore(objective, load_file(path / TENSORS[0]), path)
        restore_optimiser(objective, optimiser, load_file(path / TENSORS[1]), path)
        state: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
        return state
    if names:
        what = "none of its checkpoints is whole" if step is None else f"the checkpoint of step {step} is damaged"
        do = "Start the run again with --overwrite" if step is None else "Choose another --from-step"
        raise ModelError(what, where=folder, do=do)
    return None


def chosen(folder: Path, step: int) -> str:
    """Name of the checkpoint of `step`. Raises ConfigError with those that there are."""
    names, wanted = candidates(folder), f"step_{step:08d}"
    if wanted not in names:
        steps = ", ".join(str(int(name.removeprefix("step_"))) for name in sorted(names)) or "none"
        raise ConfigError(f"no checkpoint of step {step} was kept", where=folder, do=f"There are: {steps}")
    return wanted


def point_to(folder: Path, step: int) -> None:
    """Make the checkpoint of `step` the one to go on from, even if nothing new is saved: later ones are gone. Raises StorageError."""
    try:
        write_latest(folder, f"step_{step:08d}")
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror})", where=folder, do="Free some space") from None
    for name in candidates(folder):
        if int(name.removeprefix("step_")) > step:
            shutil.rmtree(folder / name, ignore_errors=True)


def candidates(folder: Path) -> list[str]:
    """Names of checkpoints, the one that `latest` points to first, then from new to old. Drafts never count."""
    names = sorted((path.name for path in folder.glob("step_????????") if path.is_dir()), reverse=True)
    with contextlib.suppress(OSError, ValueError):  # what is no text points nowhere
        pointed = (folder / LATEST).read_text(encoding="utf-8").strip()
        if pointed in names:
            names.sort(key=lambda name: name != pointed)
    return names


def latest_step(folder: Path) -> int | None:
    """Step of the checkpoint that a run would go on from; None where there is none."""
    return next((int(name.removeprefix("step_")) for name in candidates(folder)), None)


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint folder; None where every file is there with its size and hash and holds what it should."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        for name, said in manifest.items():
            if (path / name).stat().st_size != said["bytes"]:
                return f"{name} has another size"
            if digest(path / name) != said["sha256"]:
                return f"{name} has another content"
        for name in TENSORS:
            with safe_open(path / name, framework="pt"):
                pass  # its header is read: a file of another kind is refused here, and never unpickled
        json.loads((path / STATE).read_text(encoding="utf-8"))
    except SafetensorError:
        return f"{name} holds no tensors"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{error.__class__.__name__} in its manifest"
    return None


def tensors_of(module: nn.Module, *, keep: bool = True) -> dict[str, Tensor]:
    """State of a module as contiguous tensors that share no memory, as safetensors wants them. Every process must ask; nothing where not `keep`."""
    return gathered(module.state_dict().items(), keep)


def optimiser_tensors(
    objective: nn.Module, optimiser: torch.optim.Optimizer, *, keep: bool = True
) -> dict[str, Tensor]:
    """`<parameter>/<exp_avg | exp_avg_sq | step>` -> tensor, by the parameter's name in the objective; see `tensors_of`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in objective.named_parameters()}
    states = ((names[parameter], state) for parameter, state in optimiser.state.items())
    return gathered(((f"{name}/{key}", value) for name, state in states for key, value in state.items()), keep)


def gathered(tensors: Iterable[tuple[str, Tensor]], keep: bool) -> dict[str, Tensor]:
    """Whole and on the CPU, one after another."""
    found = {}
    for name, tensor in tensors:
        whole = whole_tensor(tensor.detach())
        if keep:
            found[name] = whole.cpu().contiguous().clone()
    return found


def restore(objective: nn.Module, tensors: dict[str, Tensor], where: Path) -> None:
    """Load a state, all of it. Raises ModelError."""
    own = objective.state_dict()
    try:
        objective.load_state_dict({name: share_of(tensor, own.get(name, tensor)) for name, tensor in tensors.items()})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()[:160]
        raise ModelError(
            f"the checkpoint does not fit this run ({reason})", where=where, do="Resume with the settings it began with"
        ) from None


def restore_optimiser(
    objective: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor], where: Path
) -> None:
    """Moments and counters of every trained parameter; those that begin late (`optim.encoder_begin`) may not have any yet. Raises ModelError where
    one is missing."""
    parameters = dict(objective.named_parameters())
    trained = {id(parameter): group["begin"] for group in optimiser.param_groups for parameter in group["params"]}
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, part = key.rpartition("/")
        found.setdefault(name, {})[part] = value
    for name, parameter in parameters.items():
        if id(parameter) not in trained:
            continue
        if name not in found:
            if trained[id(parameter)]:
                continue
            raise ModelError(f"the checkpoint has no optimiser state for {name}", where=where)
        optimiser.state[parameter] = {
            part: share_of(value, parameter).to(parameter.device) if part != "step" else value.to(parameter.device)
            for part, value in found[name].items()
        }


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def synchronise(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_latest(folder: Path, name: str) -> None:
    """Move the pointer in one step."""
    draft = folder / f"{LATEST}.tmp"
    draft.write_text(name + "\n", encoding="utf-8")
    synchronise(draft)
    draft.rename(folder / LATEST)
    synchronise(folder)
