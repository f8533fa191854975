"""Encoders by name: `vfm-tiny`, a folder in transformers' format, a vfm run, or a hub model in the local cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from domains.base import ClipSettings
from domains.errors import ModelError
from domains.schema import parse
from recipes.config import EncoderSettings
from recipes.encoders.adapt import adapt
from recipes.encoders.added import load_added
from recipes.encoders.base import ENCODER_FILE, Geometry, VideoEncoder, quiet

TINY, TINY_RANDOM = "vfm-tiny", "vfm-tiny-random"
SMALL, SMALL_RANDOM = "vfm-small", "vfm-small-random"
# Where the weights of those that are built in lie, in transformers' format and half precision, with their model cards.
SHIPPED = {TINY: Path(__file__).with_name("vfm_tiny"), SMALL: Path(__file__).with_name("vfm_small")}
BUILT_IN = (TINY, TINY_RANDOM, SMALL, SMALL_RANDOM)
RANDOM = (TINY_RANDOM, SMALL_RANDOM)
IMAGES = ("vit", "dinov2", "clip", "clip_vision_model")  # seen frame by frame
SUPPORTED = ("videomae", "vjepa2", *IMAGES)
IMAGE_FRAMES = 16
# Where a folder does not say how pixels were normalised: what the authors of these did; ImageNet's mean and deviation for all others.
NORMALISED = {
    "vit": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
NORMALISED["clip_vision_model"] = NORMALISED["clip"]
NOT_NEEDED = ("predictor.", "pooler.", "embeddings.mask_token")  # of V-JEPA 2, of ViT, of DINOv2
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def open_encoder(
    name: str | Path, *, frames: int | None = None, size: int | None = None, online: bool = False, seed: int = 0
) -> VideoEncoder:
    """The encoder `name`: a built-in one (vfm-tiny, vfm-small), a local folder, a vfm run folder, or a hub name.

    frames, size: what it shall see; None: what it was saved with. Nothing is fetched unless `online`. `seed` draws the
    weights of vfm-tiny-random and vfm-small-random. Raises ModelError: no such model, no weights, another kind of model, weights that do not fit.
    """
    name = str(name)
    wanted = {key: value for key, value in (("frames", frames), ("size", size)) if value is not None}
    built_in = not Path(name).is_dir()
    if built_in and name in RANDOM:
        from recipes.encoders.tiny import random_encoder

        return random_encoder(name, **wanted, seed=seed)
    folder = SHIPPED[name] if built_in and name in SHIPPED else find_folder(name, online)
    config = read_config(folder, SUPPORTED, TINY)
    weights = check_weights(folder)
    geometry = _saved_geometry(folder, config)
    encoder = _load(folder, name, config["model_type"], geometry.model_copy(update=wanted), weights)
    load_added(encoder, read_json(folder / ENCODER_FILE) or {}, folder)
    return encoder


@lru_cache(maxsize=1)
def shipped_weights() -> dict[str, str]:
    """Built-in encoder -> which weights this version brings: the beginning of their SHA-256. Runs record it."""
    found = {}
    for name, folder in SHIPPED.items():
        with (folder / WEIGHTS[0]).open("rb") as handle:
            found[name] = hashlib.file_digest(handle, "sha256").hexdigest()[:12]
    return found


def build_encoder(
    settings: EncoderSettings, clip: ClipSettings, *, online: bool = False, seed: int = 0
) -> VideoEncoder:
    """The encoder of a run: opened, set to the run's clips, and with the parameters of its mode trainable; what is new in it follows from
    `seed`, and the caller's random state is left alone. Raises ModelError."""
    frames, size = settings.frames or clip.frames, settings.size or clip.size
    encoder = open_encoder(settings.name, frames=frames, size=size, online=online, seed=seed)
    keep = encoder.geometry.keep if settings.keep_tokens is None else settings.keep_tokens
    encoder.set_geometry(encoder.geometry.model_copy(update={"rate": clip.rate, "stride": clip.stride, "keep": keep}))
    if settings.init_from is not None:
        take_weights(encoder, settings.init_from)
    with torch.random.fork_rng(devices=[]):  # adapters are born with random weights
        torch.manual_seed(seed)
        adapt(encoder, settings)
    encoder.checkpointing = settings.checkpointing
    return encoder


def take_weights(encoder: VideoEncoder, source: str | Path) -> None:
    """Weights of another run's encoder, into this one. Raises ModelError where they do not fit."""
    other = open_encoder(source, frames=encoder.geometry.frames, size=encoder.geometry.size)
    try:
        encoder.model.load_state_dict(other.model.state_dict())
    except RuntimeError as error:
        raise ModelError(
            f"its weights do not fit this encoder ({str(error).splitlines()[-1].strip()[:120]})", where=source
        ) from None
    encoder.random_start, encoder.temporal, encoder.context = other.random_start, other.temporal, other.context
    encoder.trajectory = other.trajectory
    encoder.messages, encoder.proxies = other.messages, other.proxies


def find_folder(name: str, online: bool = False, *, part: str = "encoder", built_in: str = TINY) -> Path:
    """The folder that holds the model `name`, of a run its `part` (encoder, text). Raises ModelError where there is none."""
    path = Path(name).expanduser()
    if path.is_dir():
        if (path / part).is_dir() and not (path / "config.json").is_file():
            return path / part
        if (path / "config.resolved.yaml").is_file():
            what = "the run has left no encoder yet"
            if (path / "encoder").is_dir():
                what = f"the run is of a recipe that leaves no {part}"
            raise ModelError(what, where=path, do="Let it finish: the same command with --resume")
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        do = f"Give a folder, a hub name (owner/model) or {built_in}"
        raise ModelError(f"no such {part} folder", where=name, do=do)
    return _from_hub(name, online, built_in)


def _from_hub(name: str, online: bool, built_in: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    files = ["*.json", "*.safetensors", "vocab.txt", "merges.txt", "*.model"]  # no pickles, no repository code
    try:
        return Path(snapshot_download(name, local_files_only=not online, allow_patterns=files))
    except HFValidationError:
        raise ModelError("neither a folder nor a hub name", where=name, do=f"The built-in one is {built_in}") from None
    except LocalEntryNotFoundError:
        do = "Check the connection" if online else "Add --online to fetch it, or give a local folder"
        raise ModelError("no such folder, and not in the local hub cache", where=name, do=do) from None
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"the hub did not give it ({error.__class__.__name__})", where=name, do="Check the name"
        ) from None


def check_weights(folder: Path) -> Path:
    """The weights' file. Raises ModelError with what is missing; pickled weights are never loaded."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    if pickles := sorted(path.name for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".ckpt"}):
        raise ModelError(
            f"the weights are a pickle ({pickles[0]}), which can run code and is not loaded",
            where=folder,
            do="Convert it where you trust it: transformers' save_pretrained writes model.safetensors",
        )
    raise ModelError(
        f"the folder has a config.json and no weights ({WEIGHTS[0]} is missing)",
        where=folder,
        do="Copy the weights there, or download the model again",
    )


def read_config(folder: Path, supported: tuple[str, ...], built_in: str) -> dict[str, Any]:
    """config.json of a model of one of the `supported` types. Raises ModelError."""
    config = read_json(folder / "config.json")
    if config is None:
        do = f"Give a folder that save_pretrained wrote (config.json and {WEIGHTS[0]}), a vfm run, or {built_in}"
        raise ModelError("not an encoder folder (no config.json)", where=folder, do=do)
    kind = config.get("model_type")
    if kind not in supported:
        raise ModelError(f"a model of type '{kind}'", where=folder, do=f"Supported: {', '.join(supported)}")
    return config


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file. Raises ModelError for a damaged one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read as JSON ({error.__class__.__name__})", where=path) from None
    if not isinstance(values, dict):
        raise ModelError("holds no JSON object", where=path)
    return values


def _saved_geometry(folder: Path, config: dict[str, Any]) -> Geometry:
    """What vfm saved; else the model's own frames and size, with its image processor's normalisation or ImageNet's."""
    about = read_json(folder / ENCODER_FILE)
    if about is not None:
        return parse(Geometry, about.get("geometry", {}), folder / ENCODER_FILE)
    if config["model_type"] == "videomae":
        values = {"frames": config.get("num_frames", 16), "size": config.get("image_size", 224)}
    elif config["model_type"] in IMAGES:
        values = {"frames": IMAGE_FRAMES, "size": config.get("vision_config", config).get("image_size", 224)}
        if config["model_type"] in NORMALISED:
            values["mean"], values["std"] = NORMALISED[config["model_type"]]
    else:
        values = {"frames": config.get("frames_per_clip", 64), "size": config.get("crop_size", 256)}
    for name in ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"):
        processor = read_json(folder / name) or {}
        processor = processor.get("video_processor") or processor.get("image_processor") or processor
        if "image_mean" in processor and "image_std" in processor:
            values |= {"mean": processor["image_mean"], "std": processor["image_std"]}
            break
    return parse(Geometry, values, folder / "config.json")


def _load(folder: Path, name: str, kind: str, geometry: Geometry, weights: Path) -> VideoEncoder:
    model_class, encoder_class = _classes(kind)
    return encoder_class(load_model(model_class, folder, weights), geometry, name)


def load_model(model_class: Any, folder: Path, weights: Path, **settings: Any) -> Any:
    """A model of transformers from `folder`, in fp32. Raises ModelError for weights that are damaged, or lack what is used of them."""
    from safetensors import SafetensorError

    renamed = renamed_weights(model_class)
    try:
        with quiet():
            model, report = model_class.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                dtype="float32",
                **({"key_mapping": renamed} if renamed else {}),
                **settings,
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        why = (str(error).strip().splitlines() or [error.__class__.__name__])[0][:200]
        raise ModelError(
            f"the weights cannot be loaded: {why}", where=weights, do="Download or copy the model again"
        ) from None
    # transformers fills what is missing with random numbers and only warns; what is not used here may be missing
    unneeded = {key for key in report["missing_keys"] if key.startswith(NOT_NEEDED)}
    if renamed:
        unneeded |= _without_key_bias(model, report["missing_keys"])
    missing = sorted(set(report["missing_keys"]) - unneeded)
    if missing:
        what = f"{len(missing)} of the encoder's weights are missing, e.g. {missing[0]}"
        raise ModelError(what, where=weights, do="Download or copy the model again")
    return model


# How VideoMAE's checkpoints call two biases that its class has under other names. transformers knows that from 5.18 on; 5.17 does not, and
# would draw them at random.
VIDEOMAE_BIASES = {
    r"attention\.attention\.q_bias": "attention.attention.query.bias",
    r"attention\.attention\.v_bias": "attention.attention.value.bias",
}
KEY_BIAS = ".attention.attention.key.bias"


def renamed_weights(model_class: Any) -> dict[str, str]:
    """The names that this version of transformers must be told; none for most."""
    config = getattr(model_class, "config_class", None)
    old = config is not None and config.model_type == "videomae" and hasattr(config(), "qkv_bias")
    return VIDEOMAE_BIASES if old else {}


def _without_key_bias(model: Any, missing: Collection[str]) -> set[str]:
    """Those of the missing weights that are biases of keys, which an old class has and VideoMAE has not: 0 from here on. (What they add to a query's
    scores is the same for all keys, so that the softmax does not see it, whatever they are.)
    """
    found = {key for key in missing if key.endswith(KEY_BIAS)}
    for key in found:
        bias = model.get_parameter(key)
        bias.data.zero_()
        bias.requires_grad_(False)
    return found


def _classes(kind: str) -> tuple[Any, Any]:
    """The class of transformers that loads a model of this `model_type`, and ours around it."""
    import transformers

    from recipes.encoders.image import ImageEncoder
    from recipes.encoders.videomae import VideoMAEEncoder
    from recipes.encoders.vjepa2 import VJEPA2Encoder

    if kind == "videomae":
        return transformers.VideoMAEModel, VideoMAEEncoder
    if kind == "vjepa2":
        return transformers.VJEPA2Model, VJEPA2Encoder
    images = {"vit": transformers.ViTModel, "dinov2": transformers.Dinov2Model}
    return images.get(kind, transformers.CLIPVisionModel), ImageEncoder
