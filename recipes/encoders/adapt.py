"""What of an encoder is trained: all of it, low-rank adapters, its last blocks, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from domains.errors import ConfigError, ModelError
from recipes.config import EncoderSettings, LoRASettings
from recipes.encoders.base import VideoEncoder


def apply_mode(encoder: VideoEncoder, settings: EncoderSettings) -> None:
    """Set `requires_grad` (and add adapters) as `settings.mode` says. Raises ConfigError for more blocks than there are."""
    if settings.mode == "lora":
        add_lora(encoder, settings.lora)
    elif settings.mode == "frozen":
        encoder.requires_grad_(False)
    elif settings.mode == "last_k":
        if settings.last_k > len(encoder.blocks):
            raise ConfigError(
                f"'encoder.last_k' is {settings.last_k}, the encoder has {len(encoder.blocks)} blocks", do="Choose fewer, or encoder.mode=full"
            )
        encoder.requires_grad_(False)
        for block in list(encoder.blocks)[len(encoder.blocks) - settings.last_k :]:
            block.requires_grad_(True)
        final_norm(encoder).requires_grad_(True)


def final_norm(encoder: VideoEncoder) -> nn.Module:
    """The norm after the last block; an empty module where the encoder has none."""
    holder = encoder.model.encoder if encoder.kind == "vjepa2" else encoder.model
    return holder.layernorm or nn.Identity()


def add_lora(encoder: VideoEncoder, settings: LoRASettings) -> None:
    """Wrap the encoder's linear layers with peft's LoRA; only the adapters stay trainable."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=encoder.lora_targets, bias="none"
    )
    object.__setattr__(encoder, "peft_model", get_peft_model(encoder.model, config))


def save_adapter(encoder: VideoEncoder, folder: Path) -> None:
    """peft's own files: `PeftModel.from_pretrained(base, folder)` loads them."""
    if encoder.peft_model is None:
        raise ModelError("this encoder has no adapter", do="Train it with encoder.mode=lora")
    encoder.peft_model.save_pretrained(folder)


def load_adapter(encoder: VideoEncoder, folder: Path) -> None:
    """Put the adapter in `folder` on the encoder.

    Raises ModelError where the adapter does not fit: peft itself only warns of missing keys, and an adapter trained on another class of
    the same model would then change nothing.
    """
    from peft import PeftConfig, get_peft_model
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    try:
        config = PeftConfig.from_pretrained(str(folder))
        weights: dict[str, Any] = load_peft_weights(str(folder), device="cpu")
    except (OSError, ValueError) as error:
        raise ModelError(f"no adapter that peft can read ({error.__class__.__name__})", where=folder) from None
    peft_model = get_peft_model(encoder.model, config)
    outcome = set_peft_model_state_dict(peft_model, weights)
    missing = [key for key in outcome.missing_keys if "lora_" in key]
    if missing or outcome.unexpected_keys:
        odd = (missing or outcome.unexpected_keys)[0]
        raise ModelError(
            f"the adapter does not fit this encoder: {len(missing)} keys missing, {len(outcome.unexpected_keys)} unknown (e.g. {odd})",
            where=folder,
            do="Use the encoder that it was trained on",
        )
    object.__setattr__(encoder, "peft_model", peft_model)
