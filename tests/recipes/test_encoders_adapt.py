"""What each mode trains, and that adapters do something, survive, and are refused where they do not fit."""

import json
from pathlib import Path

import pytest
import torch
from encoder_factory import VIDEOMAE, clips, tokens_by_transformers, write_encoder
from transformers import AutoModel, VideoMAEConfig, VideoMAEForPreTraining

from domains.base import ClipSettings
from domains.errors import ConfigError, ModelError
from recipes.config import EncoderSettings, LoRASettings
from recipes.encoders import VideoEncoder, build_encoder, load_adapter, open_encoder, save_adapter


@pytest.fixture(params=["videomae", "vjepa2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "model", request.param)


def build(folder: Path, **settings: object) -> VideoEncoder:
    return build_encoder(EncoderSettings(name=str(folder), **settings), ClipSettings(frames=4, size=32))


def trained(encoder: VideoEncoder) -> set[str]:
    return {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}


def train_adapter(encoder: VideoEncoder) -> None:
    """One large gradient step, so that the adapters differ from their start."""
    encoder(clips()).square().mean().backward()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad and parameter.grad is not None:
                parameter += parameter.grad.sign() * 0.1


def test_modes_train_what_they_say(folder: Path) -> None:
    assert trained(build(folder, mode="frozen")) == set()
    last = trained(build(folder, mode="last_k", last_k=1))
    assert last
    assert all(".layer.1." in name or name.endswith(("layernorm.weight", "layernorm.bias")) for name in last)
    adapters = trained(build(folder, mode="lora"))
    assert adapters
    assert all("lora_" in name and "predictor" not in name for name in adapters)
    full = trained(build(folder, mode="full"))
    assert {name for name in full if ".layer.0." in name}
    assert not {name for name in full if "predictor" in name}
    with pytest.raises(ConfigError, match="last_k is 5, the encoder has 2 blocks"):
        build(folder, mode="last_k", last_k=5)


def test_full_mode_trains_nothing_that_has_no_gradient(folder: Path) -> None:
    encoder = build(folder, mode="full")
    encoder(clips()).square().mean().backward()
    assert not [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]


def test_every_linear_layer_of_every_block_has_an_adapter(folder: Path) -> None:
    encoder = build(folder, mode="lora")
    linear = [n for n, m in open_encoder(folder).blocks.named_modules() if isinstance(m, torch.nn.Linear)]
    adapters = [name for name in trained(encoder) if "lora_A" in name]
    assert len(adapters) == len(linear) == 12


def test_lora_starts_as_nothing_then_changes_the_output(folder: Path) -> None:
    plain = open_encoder(folder).eval()
    encoder = build(folder, mode="lora", lora=LoRASettings(rank=2)).eval()
    frozen = {name: p.clone() for name, p in encoder.named_parameters() if not p.requires_grad}
    with torch.no_grad():
        assert torch.equal(encoder(clips()), plain(clips()))
    train_adapter(encoder)
    with torch.no_grad():
        assert (encoder(clips()) - plain(clips())).abs().max() > 1e-2
    assert all(torch.equal(encoder.get_parameter(name), p) for name, p in frozen.items())
    assert not any(name.startswith("adapter") for name, _ in encoder.named_parameters())  # counted once


def test_an_adapter_loads_with_plain_peft_and_with_us(folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    encoder = build(folder, mode="lora", lora=LoRASettings(rank=2)).eval()
    train_adapter(encoder)
    save_adapter(encoder, tmp_path / "adapter")
    key = "pixel_values" if encoder.kind == "videomae" else "pixel_values_videos"
    with torch.no_grad():
        changed = encoder(clips())
        theirs = PeftModel.from_pretrained(AutoModel.from_pretrained(folder), str(tmp_path / "adapter")).eval()
        torch.testing.assert_close(theirs(**{key: clips()}).last_hidden_state, changed, rtol=0, atol=1e-4)
        again = open_encoder(folder).eval()
        load_adapter(again, tmp_path / "adapter")
        assert torch.equal(again(clips()), changed)
    assert trained(again) == set()


def test_saving_merges_and_goes_on_training(folder: Path, tmp_path: Path) -> None:
    encoder = build(folder, mode="lora", lora=LoRASettings(rank=2)).eval()
    train_adapter(encoder)
    encoder.save(tmp_path / "merged")
    with torch.no_grad():
        expected = tokens_by_transformers(tmp_path / "merged", encoder.kind, clips())
        torch.testing.assert_close(encoder(clips()), expected, rtol=0, atol=1e-4)
    assert trained(encoder)
    assert all("lora_" in name for name in trained(encoder))


def test_an_adapter_of_another_model_is_an_error(tmp_path: Path) -> None:
    """peft itself applies nothing and only warns."""
    from peft import LoraConfig, get_peft_model

    whole = VideoMAEForPreTraining(VideoMAEConfig(**VIDEOMAE))
    targets = r".*encoder\.layer\.\d+\..*(query|key|value)"
    get_peft_model(whole, LoraConfig(r=2, target_modules=targets)).save_pretrained(str(tmp_path / "adapter"))
    encoder = open_encoder(write_encoder(tmp_path / "model", "videomae")).eval()
    before = encoder(clips())
    with pytest.raises(ModelError, match=r"does not fit.*12 weights missing, 12 unknown"):
        load_adapter(encoder, tmp_path / "adapter")
    assert torch.equal(encoder(clips()), before)
    assert not encoder.adapter


def test_an_adapter_that_lacks_a_weight_is_an_error(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_adapter(build(folder, mode="lora"), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path)
    with pytest.raises(ModelError, match="1 weights missing, 0 unknown"):
        load_adapter(open_encoder(folder), tmp_path / "adapter")


def test_what_is_no_adapter(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        load_adapter(open_encoder(folder), tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"junk")
    with pytest.raises(ModelError, match="cannot be read"):
        load_adapter(open_encoder(folder), tmp_path)
    with pytest.raises(ModelError, match="no LoRA adapters to save"):
        save_adapter(open_encoder(folder), tmp_path / "none")


def test_a_copied_encoder_has_its_own_adapters(folder: Path) -> None:
    """A momentum teacher is such a copy: training the student must not move it."""
    import copy

    encoder = build(folder, mode="lora").eval()
    twin = copy.deepcopy(encoder)
    train_adapter(encoder)
    with torch.no_grad():
        assert not torch.allclose(twin(clips()), encoder(clips()), atol=1e-3)
        assert torch.equal(twin(clips()), open_encoder(folder).eval()(clips()))
    assert twin.adapter[0].base_model.model is twin.model


def test_adapters_follow_from_the_seed(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "model", "videomae")
    asked, clip = EncoderSettings(name=str(folder), mode="lora"), ClipSettings(frames=4, size=32)
    found = []
    for state, seed in ((1, 7), (2, 7), (1, 8)):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        found.append(build_encoder(asked, clip, seed=seed).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    born = [name for name in found[0] if "lora_A" in name]
    assert born
    assert all(torch.equal(found[0][name], found[1][name]) for name in born)
    assert not any(torch.equal(found[0][name], found[2][name]) for name in born)
