"""Two towers in one space, saved and opened again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from objective_factory import small_encoder
from text_factory import small_text

from domains.errors import ModelError
from recipes.encoders.aligned import Aligned, Alignment, is_aligned, open_aligned, save_aligned

TEXTS = ["a ring that beats", "two chamber view", "a ring that hardly beats"]


def made(motion: bool = False, hidden: int | None = None) -> Aligned:
    torch.manual_seed(0)
    encoder, text = small_encoder(), small_text()
    alignment = Alignment.between(encoder, text, 8, hidden=hidden, motion=motion)
    alignment.log_scale.data.fill_(2.0)
    alignment.bias.data.fill_(-3.0)
    return Aligned(encoder, text, alignment).eval()


def saved(aligned: Aligned, run: Path) -> Path:
    aligned.encoder.save(run / "encoder")
    save_aligned(run, aligned.text, aligned.alignment)
    return run


@torch.no_grad()
@pytest.mark.parametrize(("motion", "hidden"), [(False, None), (True, 12)])
def test_saved_and_opened(motion: bool, hidden: int | None, tmp_path: Path) -> None:
    aligned = made(motion, hidden)
    run = saved(aligned, tmp_path / "run")
    assert is_aligned(run)
    again = open_aligned(run)
    clips = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert again.embed_clips(clips).equal(aligned.embed_clips(clips))
    assert again.embed_texts(TEXTS).equal(aligned.embed_texts(TEXTS))
    assert (again.width, again.bias) == (8, -3.0)
    assert again.scale == pytest.approx(7.389, abs=1e-3)
    torch.testing.assert_close(again.embed_clips(clips).norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(again.embed_texts(TEXTS).norm(dim=-1), torch.ones(3))
    assert not again.training


@torch.no_grad()
def test_what_the_vectors_are() -> None:
    aligned = made()
    clip = torch.randn(1, 4, 3, 32, 32)
    by_hand = aligned.alignment.video.weight @ aligned.encoder.embed(clip)[0]
    torch.testing.assert_close(aligned.embed_clips(clip)[0], by_hand / by_hand.norm())
    by_hand = aligned.alignment.text.weight @ aligned.text.embed(TEXTS[:1])[0]
    torch.testing.assert_close(aligned.embed_texts(TEXTS)[0], by_hand / by_hand.norm(), rtol=1e-4, atol=1e-5)
    many = aligned.embed_texts(TEXTS * 20)  # more than are embedded at once
    torch.testing.assert_close(many[57:60], aligned.embed_texts(TEXTS), rtol=1e-4, atol=1e-5)
    assert aligned.embed_texts([]).shape == (0, 8)
    with pytest.raises(ValueError, match="without a word"):
        aligned.embed_texts(["  "])


def test_other_frames_and_size(tmp_path: Path) -> None:
    run = saved(made(), tmp_path / "run")
    assert open_aligned(run, frames=8, size=16).embed_clips(torch.randn(1, 8, 3, 16, 16)).shape == (1, 8)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    run = saved(made(), tmp_path / "run")
    with pytest.raises(ModelError, match=r"no alignment.json.*--recipe clip"):
        open_aligned(tmp_path)
    small_encoder(width=48).save(run / "encoder")
    with pytest.raises(ModelError, match=r"towers are 48 and 16 wide, its projections read 24 and 16"):
        open_aligned(run)
    (run / "alignment.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="projections cannot be used"):
        open_aligned(run)
