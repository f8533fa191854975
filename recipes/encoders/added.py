"""What vfm adds to a model of transformers, saved beside it: a temporal module, tokens between frames, a transformer over sets of clips, and an
adapter that tells which way a clip goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from domains.errors import ModelError
from domains.schema import parse
from recipes.encoders.between import Messages, MessageSettings, Proxies, ProxySettings
from recipes.encoders.context import ContextSettings, SetTransformer
from recipes.encoders.temporal import TemporalModule, TemporalSettings
from recipes.encoders.trajectory import Trajectory, TrajectorySettings

if TYPE_CHECKING:
    from recipes.encoders.base import VideoEncoder

ADDED: dict[str, tuple[Any, Any]] = {
    "temporal": (TemporalSettings, TemporalModule),
    "context": (ContextSettings, SetTransformer),
    "trajectory": (TrajectorySettings, Trajectory),
    "messages": (MessageSettings, Messages),
    "proxies": (ProxySettings, Proxies),
}


def save_added(encoder: VideoEncoder, folder: Path) -> dict[str, Any]:
    """Write the weights, `<name>.safetensors` each. Returns their shapes, by name, which belong into `vfm_encoder.json`."""
    shapes = {}
    for name in ADDED:
        module = getattr(encoder, name)
        if module is not None:
            tensors = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
            save_file(tensors, folder / f"{name}.safetensors")
            shapes[name] = module.settings.model_dump(mode="json")
    return shapes


def load_added(encoder: VideoEncoder, about: Mapping[str, Any], folder: Path) -> None:
    """Put back what `vfm_encoder.json` (about) speaks of. Raises ModelError where weights are gone or do not fit, ConfigError for shapes that make no
    sense."""
    for name, (settings, kind) in ADDED.items():
        if name not in about:
            continue
        path = folder / f"{name}.safetensors"
        module = kind(parse(settings, about[name], folder / "vfm_encoder.json"))
        try:
            module.load_state_dict(load_file(path))
        except (OSError, RuntimeError, SafetensorError) as error:
            what = f"the weights that were added to the encoder cannot be used ({error.__class__.__name__})"
            raise ModelError(what, where=path, do="Copy the whole folder that the run left") from None
        setattr(encoder, name, module)
