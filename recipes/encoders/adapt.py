"""What of an encoder is trained: all of it, LoRA adapters, the last blocks, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from domains.errors import ConfigError, ModelError
from recipes.config import LoRASettings
from recipes.encoders.base import VideoEncoder


class Tower(Protocol):
    """What can be adapted: a `VideoEncoder`, a `TextEncoder`."""

    model: Any
    source: str
    adapter: tuple[Any, ...]

    @property
    def blocks(self) -> nn.ModuleList: ...
    @property
    def final_norm(self) -> nn.Module | None: ...
    @property
    def lora_targets(self) -> str: ...
    def unused(self) -> Iterator[nn.Parameter]: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def requires_grad_(self, requires_grad: bool = True) -> Any: ...


class Adapting(Protocol):
    """The settings that say how: of an encoder, or of a text tower."""

    @property
    def mode(self) -> str: ...
    @property
    def last_k(self) -> int: ...
    @property
    def lora(self) -> LoRASettings: ...


def adapt(encoder: Tower, settings: Adapting, section: str = "encoder") -> None:
    """Set which parameters of `encoder` have a gradient, as `settings.mode` says; `section`: where those settings stand. Raises ConfigError for more
    blocks than there are."""
    modes: dict[str, Callable[[], None]] = {
        "full": lambda: train_all(encoder),
        "lora": lambda: add_lora(encoder, settings.lora),
        "last_k": lambda: train_last(encoder, settings.last_k, section),
        "frozen": lambda: _freeze(encoder),
    }
    modes[settings.mode]()


def train_all(encoder: Tower) -> None:
    """Every parameter that the encoder's forward uses."""
    encoder.requires_grad_(True)
    for parameter in encoder.unused():
        parameter.requires_grad_(False)


def train_last(encoder: Tower, k: int, section: str = "encoder") -> None:
    """The last k blocks and the final norm."""
    if k > len(encoder.blocks):
        raise ConfigError(f"{section}.last_k is {k}, the {section} has {len(encoder.blocks)} blocks")
    _freeze(encoder)
    for block in list(encoder.blocks)[len(encoder.blocks) - k :]:
        block.requires_grad_(True)
    if encoder.final_norm is not None:
        encoder.final_norm.requires_grad_(True)
    for parameter in encoder.unused():
        parameter.requires_grad_(False)


def add_lora(encoder: Tower, settings: LoRASettings) -> None:
    """Low-rank adapters beside the attention and MLP layers of the encoder's blocks; nothing else is trained.

    peft has no defaults for video models and a bare list of names would also catch decoders and predictors: the
    targets are the encoder's own.
    """
    from peft import LoraConfig, get_peft_model  # 8 s to import: only where it is used

    if encoder.adapter:
        raise ModelError("the encoder has LoRA adapters already", where=encoder.source)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=encoder.lora_targets,  # peft itself notes the folder that the model was loaded from
    )
    encoder.adapter = (get_peft_model(encoder.model, config),)
    inside = {id(parameter) for parameter in encoder.model.parameters()}
    for parameter in encoder.parameters():  # what vfm adds to a model: it stays as it is
        if id(parameter) not in inside:
            parameter.requires_grad_(False)


def save_adapter(encoder: VideoEncoder, folder: Path) -> None:
    """Write the adapters alone, in peft's format: `PeftModel.from_pretrained(base, folder)` loads them. Raises
    ModelError where the encoder has none."""
    if not encoder.adapter:
        raise ModelError("the encoder has no LoRA adapters to save", where=encoder.source)
    encoder.adapter[0].save_pretrained(str(folder))


def load_adapter(encoder: VideoEncoder, folder: Path, *, trainable: bool = False) -> None:
    """Put saved adapters onto `encoder`.

    Raises ModelError unless the adapter fills every adapter weight it declares and has none left over: peft only warns,
    and an adapter trained on another class of model would do nothing at all.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights = folder / "adapter_model.safetensors"
    for path in (folder / "adapter_config.json", weights):
        if not path.is_file():
            raise ModelError(
                f"no {path.name}", where=folder, do="An adapter folder holds what `vfm finetune` or peft saved"
            )
    if encoder.adapter:
        raise ModelError("the encoder has LoRA adapters already", where=encoder.source)
    try:
        config = LoraConfig.from_pretrained(str(folder))
        state = load_file(weights)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ModelError(f"the adapter cannot be read ({error.__class__.__name__})", where=folder) from None
    config.inference_mode = not trainable
    try:
        wrapped = get_peft_model(encoder.model, config)
        expected = {name.replace(".default", "") for name in wrapped.state_dict() if ".lora_" in name}
        fits = expected == set(state)
        result = set_peft_model_state_dict(wrapped, state) if fits else None
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"the adapter does not fit the encoder: {_first_line(error)}", where=folder) from None
    if result is None or result.unexpected_keys:
        missing, extra = expected - set(state), set(state) - expected
        wrapped.unload()
        raise ModelError(
            f"the adapter does not fit the encoder: {len(missing)} weights missing, {len(extra)} unknown "
            f"(e.g. {sorted(missing | extra)[0]})",
            where=folder,
            do=f"It was trained on another model than {encoder.source or encoder.kind}",
        )
    encoder.adapter = (wrapped,)


def _freeze(encoder: Tower) -> None:
    encoder.requires_grad_(False)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
