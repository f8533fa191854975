"""Finding an encoder: the built-in one, a local folder, a vfm run, or a hub name that is in the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from domains.base import ClipSettings
from domains.errors import ModelError
from domains.schema import parse
from recipes.config import EncoderSettings
from recipes.encoders.adapt import apply_mode
from recipes.encoders.base import GEOMETRY_FILE, IMAGENET_MEAN, IMAGENET_STD, Geometry, VideoEncoder
from recipes.encoders.videomae import VideoMAEEncoder, build
from recipes.encoders.vjepa2 import VJEPA2Encoder

BUILT_IN = {"vfm-tiny": {"width": 192, "depth": 6, "heads": 3, "tubelet": 2, "patch": 16}}
SUPPORTED = ("videomae", "vjepa2")


def build_encoder(settings: EncoderSettings, clip: ClipSettings, *, online: bool = False, seed: int = 0) -> VideoEncoder:
    """The encoder of a run: opened, at the run's clip geometry, with its training mode applied."""
    encoder = open_encoder(
        settings.name, frames=settings.frames or clip.frames, size=settings.size or clip.size, online=online, seed=seed
    )
    encoder.geometry = encoder.geometry.model_copy(update={"rate": clip.rate, "stride": clip.stride})
    apply_mode(encoder, settings)
    return encoder


def open_encoder(
    name: str | Path, *, frames: int | None = None, size: int | None = None, online: bool = False, seed: int = 0
) -> VideoEncoder:
    """An encoder by name, at its own geometry or at `frames` and `size`.

    name: `vfm-tiny` (random weights from `seed`), a folder in transformers' format, a vfm run folder, or a hub name.
    Raises ModelError: no such folder, no weights in it, a model type that is not a video encoder, a hub name that is not in the cache.
    """
    if str(name) in BUILT_IN:
        geometry = Geometry(frames=frames or 16, size=size or 112, random_start=True)
        return build(geometry, seed=seed, **BUILT_IN[str(name)])
    folder = encoder_folder(name)
    source = str(folder or name)
    config = read_config(source, online)
    model = load_model(source, config, online)
    geometry = find_geometry(folder, config)
    changed = {key: value for key, value in (("frames", frames), ("size", size)) if value is not None}
    wrapper = VideoMAEEncoder if config.model_type == "videomae" else VJEPA2Encoder
    return wrapper(model, geometry.model_copy(update=changed))


def encoder_folder(name: str | Path) -> Path | None:
    """The local folder that `name` means, None for a hub name. Raises ModelError for a path that is not there or holds no encoder."""
    path = Path(name)
    looks_local = str(name).startswith((".", "/", "~")) or str(name).count("/") != 1
    path = path.expanduser()
    if not path.exists():
        if looks_local:
            known = ", ".join(BUILT_IN)
            raise ModelError("no such folder", where=path, do=f"Give {known}, a folder with config.json, a vfm run, or a hub name")
        return None
    if (path / "encoder" / "config.json").is_file():
        path = path / "encoder"
    if not (path / "config.json").is_file():
        hint = "The run may not have ended: its encoder is written at the end" if (path / "config.resolved.yaml").exists() else "Give a folder in transformers' format"
        raise ModelError("not an encoder folder (no config.json)", where=path, do=hint)
    if not any(path.glob("*.safetensors")):
        unsafe = sorted(entry.name for entry in path.iterdir() if entry.suffix in {".bin", ".pt", ".pth", ".ckpt"})
        found = f"only {unsafe[0]}, which can run code when it is loaded" if unsafe else "no weights in it"
        do = "Save it as safetensors: model.save_pretrained(folder)" if unsafe else "Copy model.safetensors beside config.json"
        raise ModelError(f"{found}: model.safetensors is missing", where=path, do=do)
    return path


def read_config(source: str, online: bool) -> Any:
    """transformers' config; raises ModelError where it cannot be had or is not a video encoder's."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source, local_files_only=not online, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        if Path(source).exists():
            raise ModelError(f"its config.json cannot be used ({str(error).splitlines()[0][:120]})", where=source) from None
        do = "Check the name and the connection" if online else "Give a local folder, or allow the download: --online"
        raise ModelError("not in the offline cache" if not online else "cannot be had from the hub", where=source, do=do) from None
    if config.model_type not in SUPPORTED:
        raise ModelError(f"a '{config.model_type}' model is not a supported video encoder", where=source, do=f"Supported: {', '.join(SUPPORTED)}")
    return config


def load_model(source: str, config: Any, online: bool) -> Any:
    """The transformers module with its weights, from safetensors only."""
    from transformers import VideoMAEModel, VJEPA2Model

    kind = VideoMAEModel if config.model_type == "videomae" else VJEPA2Model
    try:
        model, info = kind.from_pretrained(
            source, config=config, local_files_only=not online, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else error.__class__.__name__
        raise ModelError(f"its weights cannot be loaded ({reason})", where=source) from None
    except Exception as error:  # safetensors has an exception of its own for a damaged file
        raise ModelError(f"its weights are damaged ({error.__class__.__name__}: {str(error)[:120]})", where=source) from None
    if lost := sorted(key for key in info["missing_keys"] if not key.startswith(("layernorm", "predictor"))):
        raise ModelError(f"{len(lost)} weights are missing from the file (e.g. {lost[0]})", where=source, do="Copy the folder again")
    return model.eval()


def find_geometry(folder: Path | None, config: Any) -> Geometry:
    """vfm's own record where there is one, else transformers' config and preprocessor_config.json, else ImageNet statistics."""
    if folder is not None and (folder / GEOMETRY_FILE).is_file():
        return parse(Geometry, json.loads((folder / GEOMETRY_FILE).read_text(encoding="utf-8")), folder / GEOMETRY_FILE)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    processor = folder / "preprocessor_config.json" if folder else None
    if processor is None:
        from transformers.utils import cached_file

        found = cached_file(config._name_or_path, "preprocessor_config.json", local_files_only=True, _raise_exceptions_for_missing_entries=False)
        processor = Path(found) if found else None
    if processor is not None and processor.is_file():
        said = json.loads(processor.read_text(encoding="utf-8"))
        mean, std = tuple(said.get("image_mean", mean)), tuple(said.get("image_std", std))
    if config.model_type == "vjepa2":
        return Geometry(frames=config.frames_per_clip, size=config.crop_size, mean=mean, std=std)
    return Geometry(frames=config.num_frames, size=config.image_size, mean=mean, std=std)
