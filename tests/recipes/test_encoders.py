"""Encoders are transformers' own, see only what is visible, and survive saving, loading and adapting."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel, ViTConfig, ViTModel, VJEPA2Config, VJEPA2Model

from domains.base import ClipSettings
from domains.errors import ConfigError, ModelError
from recipes.config import EncoderSettings, LoRASettings
from recipes.encoders import VideoEncoder, build_encoder, open_encoder
from recipes.encoders.adapt import load_adapter, save_adapter
from recipes.encoders.tokens import cut_tubelets, interpolate_positions

VIDEOMAE = {
    "image_size": 32, "patch_size": 8, "num_frames": 4, "tubelet_size": 2, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 48, "decoder_hidden_size": 12, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 1, "decoder_intermediate_size": 24,
}  # fmt: skip
VJEPA2 = {
    "crop_size": 32, "patch_size": 8, "frames_per_clip": 4, "tubelet_size": 2, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "pred_hidden_size": 12, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 1,
}  # fmt: skip


@pytest.fixture(params=["videomae", "vjepa2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = VideoMAEModel(VideoMAEConfig(**VIDEOMAE)) if request.param == "videomae" else VJEPA2Model(VJEPA2Config(**VJEPA2))
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def encoder(folder: Path) -> VideoEncoder:
    return open_encoder(folder).eval()


def clips(frames: int = 4, size: int = 32, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, frames, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_all_tokens_equal_transformers_own_output(encoder: VideoEncoder, folder: Path) -> None:
    theirs = AutoModel.from_pretrained(folder).eval()
    x = clips()
    key = "pixel_values_videos" if encoder.kind == "vjepa2" else "pixel_values"
    with torch.no_grad():
        expected = theirs(**{key: x}).last_hidden_state
        torch.testing.assert_close(encoder(x), expected, rtol=0, atol=1e-6)
        everything = torch.arange(encoder.tokens).expand(2, -1)
        torch.testing.assert_close(encoder(x, everything), expected, rtol=0, atol=1e-5)


def test_hidden_pixels_cannot_reach_the_output(encoder: VideoEncoder) -> None:
    visible = torch.tensor([[0, 5, 17, 30], [2, 3, 16, 31]])
    x = clips()
    with torch.no_grad():
        before = encoder(x, visible)
        disturbed = x.clone()
        tubelet, patch = encoder.patch
        _, h, w = encoder.grid
        for row in range(2):
            for token in set(range(encoder.tokens)) - set(visible[row].tolist()):
                t, y, z = token // (h * w), token // w % h, token % w
                disturbed[row, t * tubelet : (t + 1) * tubelet, :, y * patch : (y + 1) * patch, z * patch : (z + 1) * patch] += 100
        assert torch.equal(encoder(disturbed, visible), before)
        disturbed[0, :2, :, :8, :8] += 1  # token 0 of the first clip is visible
        assert not torch.equal(encoder(disturbed, visible)[0], before[0])
        assert torch.equal(encoder(disturbed, visible)[1], before[1])


def test_visible_order_is_the_output_order(encoder: VideoEncoder) -> None:
    visible = torch.tensor([[0, 5, 17, 30], [2, 3, 16, 31]])
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        torch.testing.assert_close(encoder(clips(), visible[:, order]), encoder(clips(), visible)[:, order], rtol=0, atol=1e-6)


def test_position_of_a_visible_token_matters(encoder: VideoEncoder) -> None:
    here = clips()
    there = here.clone()
    there[:, 2:, :, 24:, 24:] = here[:, :2, :, :8, 8:16]  # what token 1 shows, at the place of token 31
    with torch.no_grad():
        a, b = encoder(here, torch.tensor([[0, 1], [0, 1]])), encoder(there, torch.tensor([[0, 31], [0, 31]]))
    assert (a - b).abs().max() > 1e-5


@pytest.mark.parametrize(("frames", "size"), [(8, 32), (4, 48), (2, 16)])
def test_other_geometry(folder: Path, frames: int, size: int) -> None:
    encoder = open_encoder(folder, frames=frames, size=size)
    tokens = encoder(clips(frames, size))
    assert tokens.shape == (2, frames // 2 * (size // 8) ** 2, 24)
    assert encoder.embed(clips(frames, size)).shape == (2, 24)
    with pytest.raises(ModelError, match="frames"):
        encoder(clips(6, size))


def test_interpolated_positions_keep_their_place() -> None:
    t, h, w = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), torch.arange(6.0), indexing="ij")
    table = torch.stack([t, h, w], dim=-1).reshape(1, -1, 3)
    fine = interpolate_positions(table, (4, 6, 6), (8, 12, 12)).reshape(8, 12, 12, 3)
    expected = (torch.arange(8) + 0.5) / 2 - 0.5
    torch.testing.assert_close(fine[1:-1, 5, 5, 0], expected[1:-1], rtol=0, atol=1e-5)
    inner = (torch.arange(12) + 0.5) / 2 - 0.5
    torch.testing.assert_close(fine[3, 4:-4, 5, 1], inner[4:-4], rtol=0, atol=0.06)  # torch's cubic kernel bends a ramp a little
    assert interpolate_positions(table, (4, 6, 6), (4, 6, 6)).equal(table)


def test_cut_tubelets_is_raster_order() -> None:
    x = torch.zeros(1, 4, 3, 16, 16)
    x[0, 2:4, :, 8:, :8] = 1  # t=1, h=1, w=0
    assert cut_tubelets(x, 2, 8).sum(-1).nonzero()[:, 1].tolist() == [1 * 4 + 1 * 2 + 0]


def test_save_and_load_without_us(encoder: VideoEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "saved")
    again = open_encoder(tmp_path / "saved").eval()
    assert again.geometry == encoder.geometry
    theirs = AutoModel.from_pretrained(tmp_path / "saved").eval()
    key = "pixel_values_videos" if encoder.kind == "vjepa2" else "pixel_values"
    with torch.no_grad():
        assert torch.equal(again(clips()), encoder(clips()))
        torch.testing.assert_close(theirs(**{key: clips()}).last_hidden_state, encoder(clips()), rtol=0, atol=1e-6)


def test_other_geometry_survives_saving(folder: Path, tmp_path: Path) -> None:
    encoder = open_encoder(folder, frames=8, size=48).eval()
    encoder.save(tmp_path / "saved")
    AutoModel.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(open_encoder(tmp_path / "saved").eval()(clips(8, 48)), encoder(clips(8, 48)))


def test_pretraining_checkpoint_is_an_encoder(tmp_path: Path) -> None:
    whole = VideoMAEForPreTraining(VideoMAEConfig(**VIDEOMAE))
    whole.save_pretrained(tmp_path / "pretraining")
    encoder = open_encoder(tmp_path / "pretraining")
    assert torch.equal(encoder.blocks[0].output.dense.weight, whole.videomae.encoder.layer[0].output.dense.weight)


def test_vfm_tiny_is_reproducible_and_says_it_is_random() -> None:
    one, two, other = open_encoder("vfm-tiny", seed=3), open_encoder("vfm-tiny", seed=3), open_encoder("vfm-tiny", seed=4)
    assert one.geometry.random_start
    assert (one.width, one.grid, len(one.blocks)) == (192, (8, 7, 7), 6)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.blocks[0].output.dense.weight, other.blocks[0].output.dense.weight)


def build(folder: Path, **settings: object) -> VideoEncoder:
    return build_encoder(EncoderSettings(name=str(folder), **settings), ClipSettings(frames=4, size=32))


def test_modes_train_what_they_say(folder: Path) -> None:
    def trained(encoder: VideoEncoder) -> set[str]:
        return {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}

    assert trained(build(folder, mode="frozen")) == set()
    last = trained(build(folder, mode="last_k", last_k=1))
    assert last
    assert all(".layer.1." in name or name.endswith(("layernorm.weight", "layernorm.bias")) for name in last)
    adapters = trained(build(folder, mode="lora"))
    assert adapters
    assert all("lora_" in name and "predictor" not in name for name in adapters)
    full = trained(build(folder, mode="full"))
    assert len(full) > len(last)
    with pytest.raises(ConfigError, match="2 blocks"):
        build(folder, mode="last_k", last_k=5)


def test_lora_acts_saves_and_loads_with_plain_peft(folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    plain = open_encoder(folder).eval()
    encoder = build(folder, mode="lora", lora=LoRASettings(rank=2)).eval()
    with torch.no_grad():
        assert torch.equal(encoder(clips()), plain(clips()))  # B starts at zero
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
        changed = encoder(clips())
        assert not torch.allclose(changed, plain(clips()), atol=1e-3)
        save_adapter(encoder, tmp_path / "adapter")
        theirs = PeftModel.from_pretrained(AutoModel.from_pretrained(folder), tmp_path / "adapter").eval()
        key = "pixel_values_videos" if encoder.kind == "vjepa2" else "pixel_values"
        torch.testing.assert_close(theirs(**{key: clips()}).last_hidden_state, changed, rtol=0, atol=1e-3)
        encoder.save(tmp_path / "merged")
        torch.testing.assert_close(open_encoder(tmp_path / "merged").eval()(clips()), changed, rtol=0, atol=1e-3)
        again = open_encoder(folder).eval()
        load_adapter(again, tmp_path / "adapter")
        assert torch.equal(again(clips()), changed)


def test_an_adapter_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    VideoMAEModel(VideoMAEConfig(**VIDEOMAE)).save_pretrained(tmp_path / "two")
    VideoMAEModel(VideoMAEConfig(**{**VIDEOMAE, "num_hidden_layers": 3})).save_pretrained(tmp_path / "three")
    save_adapter(build(tmp_path / "two", mode="lora"), tmp_path / "adapter")
    with pytest.raises(ModelError, match="does not fit"):
        load_adapter(open_encoder(tmp_path / "three"), tmp_path / "adapter")


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no weights in it: model\.safetensors is missing"):
        open_encoder(folder)
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pytorch_model\.bin, which can run code"):
        open_encoder(folder)


def test_damaged_weights_and_wrong_models(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ModelError, match="weights"):
        open_encoder(folder)
    ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)).save_pretrained(tmp_path / "vit")
    with pytest.raises(ModelError, match="'vit' model is not a supported video encoder"):
        open_encoder(tmp_path / "vit")
    with pytest.raises(ModelError, match="no such folder"):
        open_encoder(tmp_path / "nothing")
    with pytest.raises(ModelError, match="--online"):
        open_encoder("some-lab/some-encoder")
