"""Encoders are transformers' own, see only what is visible, and keep every token at its place."""

from pathlib import Path

import pytest
import torch
from encoder_factory import clips, tokens_by_transformers, write_encoder

from domains.errors import ModelError
from recipes.encoders import VideoEncoder, open_encoder
from recipes.encoders.positions import interpolate_positions, sincos_table
from recipes.encoders.tokens import embed_patches, patches

VISIBLE = torch.tensor([[0, 5, 17, 30], [2, 3, 16, 31]])


@pytest.fixture(scope="module", params=["videomae", "vjepa2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture
def encoder(folder: Path) -> VideoEncoder:
    return open_encoder(folder).eval()


def disturb_hidden(encoder: VideoEncoder, pixels: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Every pixel of every token that is not visible, changed."""
    tubelet, patch = encoder.patch
    t, h, w = encoder.grid
    hidden = torch.ones(len(visible), t * h * w, dtype=torch.bool).scatter(1, visible, False)
    mask = hidden.view(-1, t, h, w).repeat_interleave(tubelet, 1)
    mask = mask.repeat_interleave(patch, 2).repeat_interleave(patch, 3).unsqueeze(2)
    return torch.where(mask, pixels + 100, pixels)


@torch.no_grad()
def test_all_tokens_equal_transformers_own(encoder: VideoEncoder, folder: Path) -> None:
    expected = tokens_by_transformers(folder, encoder.kind, clips())
    torch.testing.assert_close(encoder(clips()), expected, rtol=0, atol=2e-5)
    everything = torch.arange(encoder.tokens).expand(2, -1)
    torch.testing.assert_close(encoder(clips(), everything), expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(encoder.embed(clips()), expected.mean(dim=1), rtol=0, atol=2e-5)


@torch.no_grad()
def test_hidden_pixels_cannot_reach_the_output(encoder: VideoEncoder) -> None:
    before = encoder(clips(), VISIBLE)
    disturbed = disturb_hidden(encoder, clips(), VISIBLE)
    assert not torch.equal(disturbed, clips())
    assert torch.equal(encoder(disturbed, VISIBLE), before)
    disturbed[0, 0, 0, 0, 0] += 1  # token 0 of the first clip is visible
    after = encoder(disturbed, VISIBLE)
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])


@torch.no_grad()
def test_the_order_of_visible_is_the_order_of_the_output(encoder: VideoEncoder) -> None:
    order = torch.tensor([2, 0, 3, 1])
    straight, permuted = encoder(clips(), VISIBLE), encoder(clips(), VISIBLE[:, order])
    torch.testing.assert_close(permuted, straight[:, order], rtol=0, atol=2e-5)
    assert not torch.allclose(permuted, straight, atol=1e-2)


@torch.no_grad()
def test_views_of_one_clip_do_not_see_each_other(encoder: VideoEncoder) -> None:
    views = torch.stack([VISIBLE, VISIBLE.flip(0)], dim=1)
    together = encoder(clips(), views)
    assert together.shape == (2, 2, 4, 24)
    torch.testing.assert_close(together[:, 0], encoder(clips(), VISIBLE), rtol=0, atol=2e-5)
    torch.testing.assert_close(together[:, 1], encoder(clips(), VISIBLE.flip(0)), rtol=0, atol=2e-5)


@torch.no_grad()
def test_a_masked_token_keeps_its_own_position(encoder: VideoEncoder) -> None:
    """The same two patches, once beside each other and once far apart, are not the same to the encoder."""
    near = clips()
    far = near.clone()
    far[:, 2:, :, 24:, 24:] = near[:, :2, :, :8, 8:16]  # what token 1 shows, at the place of token 31
    a = encoder(near, torch.tensor([[0, 1], [0, 1]]))
    b = encoder(far, torch.tensor([[0, 31], [0, 31]]))
    assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize(("frames", "size"), [(8, 32), (4, 48), (2, 16)])
@torch.no_grad()
def test_another_geometry(folder: Path, tmp_path: Path, frames: int, size: int) -> None:
    encoder = open_encoder(folder, frames=frames, size=size).eval()
    x = clips(frames, size)
    side = size // 8
    assert encoder.grid == (frames // 2, side, side)
    assert encoder(x).shape == (2, encoder.tokens, 24)
    everything = torch.arange(encoder.tokens).expand(2, -1)
    torch.testing.assert_close(encoder(x, everything), encoder(x), rtol=0, atol=2e-5)
    encoder.save(tmp_path / "saved")
    again = open_encoder(tmp_path / "saved").eval()
    assert again.geometry == encoder.geometry
    assert torch.equal(again(x), encoder(x))


@torch.no_grad()
def test_vjepa2_of_another_geometry_is_what_transformers_computes_for_it(tmp_path: Path) -> None:
    encoder = open_encoder(write_encoder(tmp_path / "model", "vjepa2"), frames=8, size=48).eval()
    encoder.save(tmp_path / "saved")
    expected = tokens_by_transformers(tmp_path / "saved", "vjepa2", clips(8, 48))
    torch.testing.assert_close(encoder(clips(8, 48)), expected, rtol=0, atol=2e-5)


def test_clips_of_another_geometry_are_refused(encoder: VideoEncoder) -> None:
    for wrong in (clips(frames=8), clips(size=48), clips()[..., :16]):
        with pytest.raises(ModelError, match="4 frames of 32x32"):
            encoder(wrong)


def test_a_geometry_that_patches_do_not_fill_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"size 30 .*e\.g\. 32"):
        open_encoder(folder, size=30)
    with pytest.raises(ModelError, match=r"frames 5 .*e\.g\. 4"):
        open_encoder(folder, frames=5)


@torch.no_grad()
def test_pooling_without_a_final_norm(tmp_path: Path) -> None:
    encoder = open_encoder(write_encoder(tmp_path / "classifier", "videomae", use_mean_pooling=True)).eval()
    assert encoder.final_norm is None
    pooled = encoder.embed(clips())
    torch.testing.assert_close(pooled.mean(dim=-1), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(pooled.var(dim=-1, unbiased=False), torch.ones(2), rtol=0, atol=1e-3)


def test_the_position_table_moves_with_the_model(tmp_path: Path) -> None:
    encoder = open_encoder(write_encoder(tmp_path / "model", "videomae"))
    assert "model.embeddings.position_embeddings" not in encoder.state_dict()
    encoder.to(torch.float64)
    assert encoder.model.embeddings.position_embeddings.dtype == torch.float64
    assert encoder(clips().double()).dtype == torch.float64


def test_the_table_is_videomaes_own() -> None:
    from transformers.models.videomae.modeling_videomae import get_sinusoid_encoding_table

    torch.testing.assert_close(sincos_table(50, 24), get_sinusoid_encoding_table(50, 24)[0], rtol=0, atol=1e-6)


def test_interpolated_positions_keep_their_place() -> None:
    t, h, w = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), torch.arange(6.0), indexing="ij")
    table = torch.stack([t, h, w], dim=-1).view(-1, 3)
    fine = interpolate_positions(table, (4, 6, 6), (8, 12, 12)).view(8, 12, 12, 3)
    time, place = (torch.arange(8) + 0.5) / 2 - 0.5, (torch.arange(12) + 0.5) / 2 - 0.5
    torch.testing.assert_close(fine[1:-1, 5, 5, 0], time[1:-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(fine[3, 4:-4, 5, 1], place[4:-4], rtol=0, atol=0.06)  # a cubic bends a ramp a little
    torch.testing.assert_close(fine[3, 5, 4:-4, 2], place[4:-4], rtol=0, atol=0.06)
    assert torch.equal(interpolate_positions(table, (4, 6, 6), (4, 6, 6)), table)
    assert interpolate_positions(table.half(), (4, 6, 6), (8, 6, 6)).dtype == torch.float32


def test_patches_are_in_raster_order() -> None:
    x = torch.zeros(1, 4, 3, 16, 16)
    x[0, 2:4, :, 8:, :8] = 1  # t = 1, h = 1, w = 0
    expected = 1 * 4 + 1 * 2 + 0
    assert patches(x, 2, 8).sum(-1).nonzero()[:, 1].tolist() == [expected]
    assert patches(x, 2, 8, torch.tensor([[expected, 0]])).sum(-1).tolist() == [[3.0 * 2 * 64, 0.0]]


def test_patch_embedding_equals_the_convolution() -> None:
    convolution = torch.nn.Conv3d(3, 5, (2, 8, 8), stride=(2, 8, 8))
    expected = convolution(clips().transpose(1, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed_patches(convolution, clips()), expected, rtol=0, atol=1e-5)
    wanted = embed_patches(convolution, clips(), VISIBLE)
    torch.testing.assert_close(wanted, expected.gather(1, VISIBLE.unsqueeze(-1).expand(-1, -1, 5)), rtol=0, atol=1e-5)


def test_description_holds_what_changes_over_time(encoder: VideoEncoder) -> None:
    with torch.no_grad():
        tokens = encoder(clips()).unflatten(1, encoder.grid)
        mean, change = encoder.describe(clips()).chunk(2, dim=-1)
        torch.testing.assert_close(mean, encoder.embed(clips()), rtol=0, atol=1e-6)
        by_hand = ((tokens - tokens.mean(1, keepdim=True)) ** 2).mean(1).sqrt().mean((1, 2))
        torch.testing.assert_close(change, by_hand, rtol=0, atol=1e-5)
        assert change.min() > 0
