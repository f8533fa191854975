"""Encoders by name: what is found, what is refused and with which words, and what is left behind."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from encoder_factory import VIDEOMAE, clips, tokens_by_transformers, write_encoder
from safetensors.torch import load_file
from transformers import AutoModel, BertConfig, BertModel, VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel

from domains.base import ClipSettings
from domains.errors import ModelError
from recipes.config import EncoderSettings
from recipes.encoders import build_encoder, open_encoder
from recipes.encoders.loading import SHIPPED, renamed_weights


@pytest.fixture(params=["videomae", "vjepa2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "model", request.param)


@torch.no_grad()
def test_saved_files_are_transformers_own(folder: Path, tmp_path: Path) -> None:
    encoder = open_encoder(folder).eval()
    encoder.save(tmp_path / "saved")
    again = open_encoder(tmp_path / "saved").eval()
    assert torch.equal(again(clips()), encoder(clips()))
    expected = tokens_by_transformers(tmp_path / "saved", encoder.kind, clips())
    torch.testing.assert_close(expected, encoder(clips()), rtol=0, atol=2e-5)
    assert not list((tmp_path / "saved").glob("*.bin"))


def test_a_run_folder_is_an_encoder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    open_encoder(write_encoder(tmp_path / "model", "videomae")).save(run / "encoder")
    assert open_encoder(str(run)).width == 24
    shutil.rmtree(run / "encoder")
    (run / "config.resolved.yaml").write_text("method: discovr\n")
    with pytest.raises(ModelError, match=r"left no encoder yet.*--resume"):
        open_encoder(run)


def test_a_pretraining_checkpoint_is_an_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = VideoMAEForPreTraining(VideoMAEConfig(**VIDEOMAE))
    whole.save_pretrained(tmp_path / "whole")
    capsys.readouterr()
    encoder = open_encoder(tmp_path / "whole")
    for name, parameter in whole.videomae.named_parameters():
        assert torch.equal(encoder.model.get_parameter(name), parameter)
    said = capsys.readouterr()
    assert said.out + said.err == ""  # no progress bar, no report of unused decoder weights


def test_normalisation_belongs_to_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    assert open_encoder(folder).geometry.mean == (0.485, 0.456, 0.406)
    half = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (folder / "preprocessor_config.json").write_text(json.dumps(half))
    encoder = open_encoder(folder)
    assert (encoder.geometry.mean, encoder.geometry.std) == ((0.5,) * 3, (0.25,) * 3)
    encoder.save(tmp_path / "saved")
    written = json.loads((tmp_path / "saved" / "preprocessor_config.json").read_text())
    assert (written["image_mean"], written["image_std"]) == ([0.5] * 3, [0.25] * 3)
    assert open_encoder(tmp_path / "saved").geometry == encoder.geometry


def test_build_takes_the_runs_clips(folder: Path) -> None:
    clip = ClipSettings(frames=8, size=48, rate=12.5, stride=2)
    encoder = build_encoder(EncoderSettings(name=str(folder)), clip)
    geometry = encoder.geometry
    assert (geometry.frames, geometry.size, geometry.rate, geometry.stride) == (8, 48, 12.5, 2)
    smaller = build_encoder(EncoderSettings(name=str(folder), frames=4, size=32), clip)
    assert smaller.grid == (2, 4, 4)


@pytest.mark.parametrize(
    ("name", "shape"), [("vfm-tiny-random", (192, (8, 7, 7), 6, 3)), ("vfm-small-random", (256, (8, 7, 7), 8, 4))]
)
def test_a_random_one_follows_from_its_seed_and_says_so(tmp_path: Path, name: str, shape: tuple[object, ...]) -> None:
    state = torch.get_rng_state()
    one, two, other = (open_encoder(name, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random state is left alone
    assert one.random_start
    assert (one.width, one.grid, len(one.blocks), one.heads, one.patch) == (*shape, (2, 16))
    assert one.source == name
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.blocks[0].output.dense.weight, other.blocks[0].output.dense.weight)
    one.save(tmp_path / "tiny")
    assert not open_encoder(tmp_path / "tiny").random_start


@pytest.mark.parametrize(("name", "shape", "limit"), [("vfm-tiny", (192, 6), 12e6), ("vfm-small", (256, 8), 14e6)])
def test_built_in_ones_have_the_weights_that_ship(name: str, shape: tuple[int, int], limit: float) -> None:
    """Whatever the seed, at any geometry, and as transformers itself reads them; half precision, with a card."""
    one, other = (open_encoder(name, frames=8, size=64, seed=seed) for seed in (0, 1))
    folder = SHIPPED[name]
    assert not one.random_start
    assert (one.source, one.grid, one.width, len(one.blocks)) == (name, (4, 4, 4), *shape)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    own = one.model.state_dict()
    names = renamed_weights(VideoMAEModel)  # none but with transformers 5.17
    model = AutoModel.from_pretrained(folder, dtype="float32", **({"key_mapping": names} if names else {}))
    assert all(torch.equal(weight, own[name]) for name, weight in model.state_dict().items())
    fresh = open_encoder(f"{name}-random").model.state_dict()
    assert all(not torch.equal(own[name], fresh[name]) for name in own if name.endswith("dense.weight"))
    assert {weight.dtype for weight in load_file(folder / "model.safetensors").values()} == {torch.float16}
    assert sum(path.stat().st_size for path in folder.iterdir()) < limit
    assert "Apache-2.0" in (folder / "README.md").read_text(encoding="utf-8")
    assert name in (folder / "README.md").read_text(encoding="utf-8")


def test_missing_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors is missing.*Copy the weights"):
        open_encoder(folder)


def test_pickles_are_never_loaded(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    touched = folder / "touched"
    bomb = f"cposix\nsystem\n(S'touch {touched}'\ntR."
    (folder / "pytorch_model.bin").write_bytes(bomb.encode())
    with pytest.raises(ModelError, match=r"pickle \(pytorch_model\.bin\).*save_pretrained"):
        open_encoder(folder)
    assert not touched.exists()


def test_damaged_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ModelError, match="weights cannot be loaded") as error:
        open_encoder(folder)
    assert "\n" not in str(error.value)


def test_weights_that_lack_a_layer_are_not_filled_with_random_numbers(folder: Path) -> None:
    from safetensors.torch import save_file

    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "encoder.layer.1." in name and name.endswith("weight"))
    save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 of the encoder's weights are missing, e\.g\. encoder\.layer\.1"):
        open_encoder(folder)


def test_another_kind_of_model(tmp_path: Path) -> None:
    small = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    BertModel(small).save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelError, match=r"type 'bert'.*Supported: videomae, vjepa2, vit, dinov2, clip"):
        open_encoder(tmp_path / "bert")


@pytest.mark.parametrize("name", ["{tmp}/nothing", "./nothing", "nothing", "a/b/c"])
def test_nothing_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"no such encoder folder.*vfm-tiny"):
        open_encoder(name.format(tmp=tmp_path))


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        open_encoder(tmp_path)


def test_a_hub_name_is_looked_up_in_the_cache_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("reached for the network"))
    with pytest.raises(ModelError, match=r"not in the local hub cache.*--online"):
        open_encoder("some-lab/some-encoder")


def test_a_cached_hub_model_opens_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    snapshot = tmp_path / "models--some-lab--some-encoder" / "snapshots" / ("0" * 40)
    write_encoder(snapshot, "videomae")
    refs = tmp_path / "models--some-lab--some-encoder" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants", huggingface_hub.constants)
    encoder = open_encoder("some-lab/some-encoder")
    assert (encoder.width, encoder.source) == (24, "some-lab/some-encoder")
