"""Masked methods with targets or tokens of their own: EVEREST."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from objective_factory import build, make_batch, small_encoder
from pydantic import ValidationError

from domains.base import ClipSettings
from recipes.config import EncoderSettings
from recipes.encoders import build_encoder, open_encoder
from recipes.encoders.tokens import deviation_at_places, patches, temporal_change
from recipes.jobs.start import Start
from recipes.objective import Batch
from recipes.pretrain.everest import EVEREST, largest


def test_change_by_hand() -> None:
    """Three tubelets of two places; the first counts as much as the second."""
    tokens = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [3.0, 4.0], [1.0, 1.0], [3.0, 4.0], [1.0, 3.0]]])
    assert temporal_change(tokens, 3).tolist() == [[5.0, 0.0, 5.0, 0.0, 0.0, 2.0]]
    assert temporal_change(tokens, 1).tolist() == [[0.0] * 6]
    assert largest(torch.tensor([[1.0, 3.0, 3.0, 2.0]]), 2).tolist() == [[1, 2]]


def test_deviation_at_places_by_hand() -> None:
    """Place 4 holds 1 and 3 (deviation 1), place 0 three equal tokens, place 2 a single one, which says nothing of time."""
    tokens = torch.tensor([[[1.0], [7.0], [3.0], [7.0], [7.0], [5.0]]])
    assert deviation_at_places(tokens, torch.tensor([[4, 0, 4, 0, 0, 2]]), 5).item() == pytest.approx(0.5, abs=1e-5)
    assert deviation_at_places(tokens[:, :2], torch.tensor([[4, 0]]), 5).item() == 0


def blinking(encoder_places: tuple[int, ...]) -> torch.Tensor:
    """(2, 4, 3, 32, 32): still, but for the patches of 8 pixels at these places of the 4 x 4, which change in the second tubelet."""
    clip = torch.randn(1, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).repeat(2, 4, 1, 1, 1)
    for place in encoder_places:
        y, x = 8 * (place // 4), 8 * (place % 4)
        clip[:, 2:, :, y : y + 8, x : x + 8] += 3
    return clip


def test_everest_sees_and_predicts_what_changes_alone() -> None:
    objective = build("everest", frame_factor=1.0, drop_ratio=0.75, mask_ratio=0.9)
    assert isinstance(objective, EVEREST)
    asked = []
    decoder = objective.decoder.forward
    objective.decoder.forward = lambda *given: (asked.append(given[1:]), decoder(*given))[1]
    batch = Batch({"clip": blinking((1, 6, 11, 12))}, torch.tensor([4, 9]))
    losses = objective(batch)
    (visible, hidden), *_ = asked
    assert visible.shape == (2, 3)
    for row in range(2):  # 8 of 32 tokens: four places, in both tubelets
        assert sorted([*visible[row].tolist(), *hidden[row].tolist()]) == [1, 6, 11, 12, 17, 22, 27, 28]
    assert not torch.equal(visible[0], visible[1])
    assert losses["change_kept"].item() == pytest.approx(1.0, abs=1e-4)


def test_everest_chooses_frames_in_which_something_happens() -> None:
    objective = build("everest", frame_factor=3.0, drop_ratio=0.8)
    assert objective.views["clip"].length == 3.0
    clip = torch.zeros(50, 12, 3, 32, 32)
    clip[:, 4:6] = torch.randn(
        3, 32, 32, generator=torch.Generator().manual_seed(0)
    )  # tubelets 2 and 3 differ from those before them
    chosen = objective.informative_frames(clip, torch.arange(50))
    assert chosen.shape == (50, 4, 3, 32, 32)
    assert (chosen[:, 0] == chosen[:, 1]).all()  # whole tubelets
    shown = chosen.unflatten(1, (2, 2))[:, :, 0].flatten(2).any(dim=2)
    assert shown.any(dim=1).all()  # what happens is never left out
    assert torch.equal(objective.informative_frames(clip[7:8], torch.tensor([7]))[0], chosen[7])
    noise = torch.randn(1, 12, 3, 32, 32)  # all changes alike: any frames, in order
    picked = objective.informative_frames(noise.expand(40, -1, -1, -1, -1), torch.arange(40))[:, :, 0, 0, :1]
    picked = (picked == noise[0, :, 0, 0, 0]).long().argmax(dim=2)
    assert (picked.diff(dim=1) > 0).all()
    assert len({tuple(row.tolist()) for row in picked}) > 5


def test_everest_compares_all_tubelets() -> None:
    """The authors' code knows clips of 8 tubelets only."""
    objective = build("everest", frame_factor=2.5)
    clip = torch.zeros(1, 10, 3, 32, 32)
    clip[:, 8:] = 1 + torch.randn(3, 32, 32)
    change = objective.change(clip).view(5, 16)
    assert (change[4] > 0).all()
    assert not change[:4].any()


def test_everest_needs_something_to_predict() -> None:
    with pytest.raises(ValidationError, match="below mask_ratio"):
        EVEREST.Settings(mask_ratio=0.5, drop_ratio=0.6)


def test_an_encoder_that_keeps_what_changes(tmp_path: Path) -> None:
    """keep: redundant tokens are dropped before the first block, wherever whole clips are read, and it is saved with the encoder."""
    encoder = small_encoder().eval()
    clip = blinking((1, 6, 11, 12))
    assert encoder.changing(clip) is None
    encoder.set_geometry(encoder.geometry.model_copy(update={"keep": 0.25}))
    visible = encoder.changing(clip)
    assert visible is not None
    assert visible.tolist() == [[1, 6, 11, 12, 17, 22, 27, 28]] * 2
    tokens = encoder(clip, visible)
    torch.testing.assert_close(encoder.embed(clip), tokens.mean(dim=1))
    expected = tokens.unflatten(1, (2, 4)).std(dim=1, correction=0).mean(dim=1)
    torch.testing.assert_close(encoder.describe(clip), torch.cat([tokens.mean(dim=1), expected], dim=1))
    encoder.save(tmp_path / "saved")
    torch.testing.assert_close(open_encoder(tmp_path / "saved").eval().describe(clip), encoder.describe(clip))
    encoder.describe(clip).sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)


def test_statistics_of_a_whole_grid_are_the_same_either_way() -> None:
    encoder = small_encoder()
    tokens = torch.randn(2, 32, 24)
    everything = torch.arange(32).expand(2, -1)
    torch.testing.assert_close(encoder.statistics(tokens, everything), encoder.statistics(tokens))


def test_everest_predicts_normalised_pixels() -> None:
    """A decoder that says zero costs the mean square of the target: of 384 unbiased values a patch and channel, (n - 1) / n."""
    objective = build("everest")
    torch.nn.init.zeros_(objective.decoder.leave.weight)
    torch.nn.init.zeros_(objective.decoder.leave.bias)
    pixels = patches(make_batch(objective)["clip"], 2, 8)
    assert pixels.shape[-1] == 3 * 128
    assert objective(make_batch(objective))["loss"].item() == pytest.approx(127 / 128, abs=1e-4)


def test_a_run_sets_what_its_encoder_keeps(tmp_path: Path) -> None:
    """encoder.keep_tokens is saved with the encoder, and holds where nothing else is said."""
    small_encoder().save(tmp_path / "start")
    clip = ClipSettings(frames=4, size=32)
    kept = build_encoder(EncoderSettings(name=str(tmp_path / "start"), keep_tokens=0.5), clip)
    assert kept.geometry.keep == 0.5
    kept.save(tmp_path / "kept")
    assert build_encoder(EncoderSettings(name=str(tmp_path / "kept")), clip).geometry.keep == 0.5
    assert build_encoder(EncoderSettings(name=str(tmp_path / "kept"), keep_tokens=1.0), clip).geometry.keep == 1.0
    assert (
        Start(str(tmp_path / "start"), 0, "", tmp_path).open(kept.geometry).geometry.keep == 0.5
    )  # compared like with like
