"""Image models seen frame by frame, and attention over time on top of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTModel,
)

from domains.base import ClipSettings
from domains.errors import ModelError
from recipes.config import EncoderSettings, LoRASettings
from recipes.encoders import build_encoder, open_encoder
from recipes.encoders.adapt import adapt
from recipes.encoders.base import quiet
from recipes.encoders.image import ImageEncoder
from recipes.encoders.temporal import TemporalModule, TemporalSettings

SHAPE = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
KINDS = ("vit", "dinov2", "clip_vision_model", "clip")


def write(folder: Path, kind: str) -> Path:
    """A random model of `kind`, its weights scaled up so that attention matters."""
    torch.manual_seed(0)
    model = {
        "vit": lambda: ViTModel(ViTConfig(**SHAPE)),
        "dinov2": lambda: Dinov2Model(Dinov2Config(**SHAPE)),
        "clip_vision_model": lambda: CLIPVisionModel(CLIPVisionConfig(**SHAPE)),
        "clip": lambda: CLIPModel(
            CLIPConfig(
                text_config={
                    "hidden_size": 8,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 1,
                    "intermediate_size": 8,
                    "vocab_size": 9,
                },
                vision_config=SHAPE,
                projection_dim=8,
            )
        ),
    }[kind]()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(5)
    with quiet():
        model.save_pretrained(folder)
    return folder


def opened(folder: Path, kind: str, frames: int = 3) -> ImageEncoder:
    encoder = open_encoder(write(folder, kind), frames=frames)
    assert isinstance(encoder, ImageEncoder)
    return encoder.eval()


def clips(frames: int = 3, size: int = 32) -> Tensor:
    return torch.randn(2, frames, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_is_what_transformers_makes_of_it(kind: str, tmp_path: Path) -> None:
    encoder, clip = opened(tmp_path, kind), clips()
    assert encoder.grid == (3, 4, 4)
    assert encoder.kind == ("clip_vision_model" if kind == "clip" else kind)
    model = AutoModel.from_pretrained(tmp_path).eval()
    model = model.vision_model if kind == "clip" else model
    said = model(pixel_values=clip.flatten(0, 1)).last_hidden_state[:, 1:]
    if "clip" in kind:
        said = model.post_layernorm(said)
    torch.testing.assert_close(encoder(clip), said.unflatten(0, (2, 3)).flatten(1, 2), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS[:3])
def test_hidden_tokens_and_other_frames_are_not_seen(kind: str, tmp_path: Path) -> None:
    encoder, clip = opened(tmp_path, kind), clips()
    everything = torch.arange(48).expand(2, -1)
    torch.testing.assert_close(encoder(clip, everything), encoder(clip), rtol=1e-4, atol=1e-5)
    views = torch.tensor([[[33, 2, 5, 17], [40, 0, 1, 3]], [[4, 9, 30, 31], [47, 46, 20, 8]]])
    found = encoder(clip, views)
    assert found.shape == (2, 2, 4, 24)
    encoder.set_geometry(encoder.geometry.model_copy(update={"frames": 1}))
    alone = encoder(clip[:1, :1], torch.tensor([[2, 5]]))  # the visible ones of the first frame, in the first view
    torch.testing.assert_close(found[0, 0, 1:3], alone[0], rtol=1e-4, atol=1e-5)
    alone = encoder(clip[1:, 1:2], torch.tensor([[30 - 16, 31 - 16]]))
    torch.testing.assert_close(found[1, 0, 2:], alone[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS[:3])
def test_other_sizes_get_positions_in_between(kind: str, tmp_path: Path) -> None:
    encoder = opened(tmp_path, kind)
    _, native = encoder.positions(torch.float32)
    encoder.set_geometry(encoder.geometry.model_copy(update={"size": 64, "frames": 2}))
    _, finer = encoder.positions(torch.float32)
    assert encoder(clips(2, 64)).shape == (2, 2 * 64, 24)
    fit = F.interpolate(native.T.view(1, 24, 4, 4), size=(8, 8), mode="bicubic", antialias=True)
    torch.testing.assert_close(finer, fit[0].flatten(1).T)
    with pytest.raises(ModelError, match="does not divide into patches of 8"):
        encoder.set_geometry(encoder.geometry.model_copy(update={"size": 60}))
    with pytest.raises(ModelError, match="set to clips of 2 frames"):
        encoder(clips(3, 64))


@pytest.mark.parametrize(("kind", "mean"), [("vit", 0.5), ("dinov2", 0.485), ("clip", 0.48145466)])
def test_pixels_are_normalised_as_the_authors_did(kind: str, mean: float, tmp_path: Path) -> None:
    encoder = opened(tmp_path, kind)
    assert encoder.geometry.mean[0] == mean
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [0.2] * 3}))
    assert open_encoder(tmp_path).geometry.mean == (0.1, 0.1, 0.1)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_all_of_it_is_trained_but_what_has_no_part(kind: str, tmp_path: Path) -> None:
    encoder = opened(tmp_path, kind)
    adapt(encoder, EncoderSettings(mode="full"))
    encoder.embed(clips()).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    resting = {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}
    assert all("pooler" in name or "mask_token" in name for name in resting)
    adapt(encoder, EncoderSettings(mode="last_k", last_k=1))
    assert all(p.requires_grad for p in encoder.blocks[1].parameters())
    assert not any(p.requires_grad for p in encoder.blocks[0].parameters())


@pytest.mark.parametrize("kind", KINDS[:3])
def test_lora_reaches_attention_and_mlp_of_every_block(kind: str, tmp_path: Path) -> None:
    encoder = opened(tmp_path, kind)
    linear = [name for name, module in encoder.model.named_modules() if isinstance(module, nn.Linear)]
    hit = [name for name in linear if re.fullmatch(encoder.lora_targets, name)]
    assert len(hit) == 2 * 6
    assert not any("pooler" in name for name in hit)
    adapt(encoder, EncoderSettings(mode="lora", lora=LoRASettings(rank=2)))
    trained = [name for name, p in encoder.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 2 * 6
    assert all("lora" in name for name in trained)


def with_temporal(folder: Path, kind: str = "vit") -> ImageEncoder:
    encoder = opened(folder, kind)
    torch.manual_seed(3)
    encoder.temporal = TemporalModule(TemporalSettings(width=24, depth=2, heads=2))
    for parameter in encoder.temporal.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape))
    return encoder.eval()


@torch.no_grad()
def test_a_new_temporal_module_changes_nothing_but_the_scale() -> None:
    module, tokens = TemporalModule(TemporalSettings(width=24, depth=2, heads=2)), torch.randn(2, 12, 24)
    torch.testing.assert_close(module(tokens, (3, 2, 2)), F.layer_norm(tokens, (24,)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_time_is_seen_at_each_place_alone(tmp_path: Path) -> None:
    encoder = with_temporal(tmp_path)
    assert encoder.temporal is not None
    module, tokens, grid = encoder.temporal, torch.randn(1, 12, 24), (3, 2, 2)
    whole = module(tokens, grid)
    changed = tokens.clone()
    changed[0, 5] += torch.randn(24)  # place 1 at time 1
    moved = (module(changed, grid) - whole)[0].abs().amax(dim=-1) > 1e-5
    assert moved.nonzero().flatten().tolist() == [1, 5, 9]
    assert not torch.allclose(module(tokens.flip(1), grid).flip(1), whole, atol=1e-3)  # it knows before from after
    order = torch.randperm(12).unsqueeze(0)
    torch.testing.assert_close(module(tokens[:, order[0]], grid, order), whole[:, order[0]], rtol=1e-4, atol=1e-5)
    few = torch.tensor([[[0, 4, 5], [9, 1, 2]]])
    found = module(tokens[0][few], grid, few)
    line = module(tokens[:, [1, 9]], grid, torch.tensor([[1, 9]]))
    torch.testing.assert_close(found[0, 1, :2], line[0].flip(0), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS[:3])
def test_both_are_saved_and_opened_together(kind: str, tmp_path: Path) -> None:
    encoder, clip = with_temporal(tmp_path / "model", kind), clips()
    encoder.save(tmp_path / "run")
    again = open_encoder(tmp_path / "run")
    assert (again.geometry, again.kind) == (encoder.geometry, kind)
    torch.testing.assert_close(again.describe(clip), encoder.describe(clip))
    seen = AutoModel.from_pretrained(tmp_path / "run").eval()(pixel_values=clip[:, 0]).last_hidden_state
    assert seen.shape == (2, 17, 24)  # for whom vfm is not at hand: the image model
    settings = EncoderSettings(name=str(tmp_path / "model"), init_from=str(tmp_path / "run"), frames=3)
    taken = build_encoder(settings, ClipSettings(frames=3, size=32))
    torch.testing.assert_close(taken.describe(clip), encoder.describe(clip))
    (tmp_path / "run" / "temporal.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="added to the encoder cannot be used"):
        open_encoder(tmp_path / "run")
