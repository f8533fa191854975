"""Tokens by which frames hear of each other, in image models and in VideoMAE."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from encoder_factory import write_encoder
from objective_factory import build, small_encoder
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, CLIPVisionConfig, CLIPVisionModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from domains.errors import ConfigError, ModelError
from recipes.encoders import open_encoder
from recipes.encoders.base import VideoEncoder
from recipes.encoders.between import Messages, MessageSettings, Proxies, ProxySettings, mean_of_frames
from recipes.parts.depths import tokens_at

SHAPE = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 32, "patch_size": 8,
}  # fmt: skip
MODELS = {
    "vit": (ViTModel, ViTConfig),
    "dinov2": (Dinov2Model, Dinov2Config),
    "clip": (CLIPVisionModel, CLIPVisionConfig),
}
KINDS = [*MODELS, "videomae"]
ADDED = ["messages", "proxies"]


def encoder_of(kind: str, folder: Path, added: str = "") -> VideoEncoder:
    """Of 4 frames, weights scaled up so that attention matters, with what is added."""
    torch.manual_seed(0)
    if kind == "videomae":
        encoder = small_encoder()
    else:
        model, config = MODELS[kind]
        model(config(**SHAPE)).save_pretrained(folder / kind)
        encoder = open_encoder(folder / kind, frames=4)
    for parameter in encoder.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(5)
    if added == "messages":
        encoder.messages = Messages(MessageSettings(width=24, depth=2, heads=2))
    elif added == "proxies":
        encoder.proxies = Proxies(ProxySettings(count=3, width=24))
        encoder.proxies.tokens.data.mul_(50)
    return encoder.eval()


def clips() -> Tensor:
    return torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("kind", list(MODELS))
def test_frames_of_an_image_model_hear_of_each_other(kind: str, tmp_path: Path) -> None:
    clip, other = clips(), clips()
    other[:, 0] += 3
    last = slice(3 * 16, 4 * 16)
    silent = encoder_of(kind, tmp_path)
    torch.testing.assert_close(silent(other)[:, last], silent(clip)[:, last])
    for added in ADDED:
        encoder = encoder_of(kind, tmp_path, added)
        assert not encoder(other)[:, last].allclose(encoder(clip)[:, last], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("kind", KINDS)
def test_every_token_visible_is_the_whole_clip_and_hidden_pixels_reach_nothing(kind: str, added: str, tmp_path: Path) -> None:  # fmt: skip
    encoder, clip = encoder_of(kind, tmp_path, added), clips()
    whole = encoder(clip)
    order = torch.randperm(encoder.tokens, generator=torch.Generator().manual_seed(0)).expand(2, -1)
    seen = encoder(clip, order)
    torch.testing.assert_close(seen, whole[:, order[0]], rtol=1e-4, atol=1e-4)
    places = encoder.tokens // encoder.grid[0]
    first_gone = torch.arange(places, encoder.tokens).expand(2, -1)  # all of the first time is hidden
    other = clip.clone()
    other[:, : 4 // encoder.grid[0]] += 3
    torch.testing.assert_close(encoder(other, first_gone), encoder(clip, first_gone))
    several = encoder(clip, torch.stack([order[:, :9], order[:, 9:18]], dim=1))
    torch.testing.assert_close(several[:, 1], encoder(clip, order[:, 9:18]), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_saved_beside_the_model_and_a_block_still_says_its_tokens(kind: str, added: str, tmp_path: Path) -> None:  # fmt: skip
    encoder, clip = encoder_of(kind, tmp_path, added), clips()
    encoder.save(tmp_path / "run")
    assert (tmp_path / "run" / f"{added}.safetensors").is_file()
    again = open_encoder(tmp_path / "run").eval()
    torch.testing.assert_close(again(clip), encoder(clip))
    AutoModel.from_pretrained(tmp_path / "run")  # the model alone, for whom vfm is not at hand
    first, last = tokens_at(encoder, clip, [1, 2])
    assert first.shape == last.shape == (2, encoder.tokens, 24)
    for block in list(encoder.blocks)[1:]:
        block.forward = lambda hidden, *mask, **more: hidden  # type: ignore[assignment]
    torch.testing.assert_close(F.layer_norm(encoder(clip), (24,)), first, rtol=1e-3, atol=1e-3)
    (tmp_path / "run" / f"{added}.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="added to the encoder cannot be used"):
        open_encoder(tmp_path / "run")


def test_the_mean_of_a_frame_is_of_its_tokens() -> None:
    tokens = torch.tensor([[[1.0], [3.0], [5.0]]])
    assert mean_of_frames(tokens, torch.tensor([[0, 2, 0]]), 3).flatten().tolist() == [3.0, 0.0, 3.0]


@pytest.mark.parametrize("method", ["xclip", "clipvip"])
def test_an_encoder_without_a_place_for_them_is_refused(method: str, tmp_path: Path) -> None:
    encoder = open_encoder(write_encoder(tmp_path / "vjepa2", "vjepa2"))
    with pytest.raises(ConfigError, match=rf"'{method}' puts tokens between frames.*type 'vjepa2'.*VideoMAE"):
        build(method, encoder)
