"""FreqAug: which frequencies a clip loses, that the rest of the batch stays as it is, and that off is off."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from store_factory import make_prepared
from torch import Tensor

from domains.base import AugmentPolicies, AugmentSettings, ClipSettings, SpatialDrop, TemporalDrop
from domains.errors import ConfigError
from domains.store.clips import EVERYTHING, Clip, DrawnClip, draw_views
from domains.store.prepared import Prepared
from recipes.config import Layer, parse_assignments, resolve
from recipes.encoders.base import Geometry
from recipes.training.data import collate, normalise, pixel_values
from recipes.training.frequency import keep_frequencies

CLIP = ClipSettings(frames=8, size=16, rate=12.5)
GEOMETRY = Geometry(frames=8, size=16)
CPU = torch.device("cpu")
ALL = torch.tensor([EVERYTHING], dtype=torch.float64)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("store") / "prepared"
    return make_prepared(folder, videos=2, patients=2, frames=60, size=24).prepared


def draw(prepared: Prepared, policy: AugmentSettings, seed: int = 0) -> DrawnClip:
    return draw_views(prepared, 0, {"a": Clip("weak")}, CLIP, AugmentPolicies(weak=policy), seed, 0)["a"]


def wave(cycles: float, length: int) -> Tensor:
    return torch.cos(2 * math.pi * cycles * torch.arange(length) / length + 0.3)


def band(least: float, below: float) -> Tensor:
    return torch.tensor([[least, below]], dtype=torch.float64)


@pytest.mark.parametrize("frames", [8, 7])
def test_frequencies_in_time_are_dropped_below_or_from_the_cutoff(frames: int) -> None:
    """A level, one cycle a clip and three: the cutoff of two cycles a clip lies between."""
    level, slow, fast = torch.full((frames,), 2.0), wave(1, frames), wave(3, frames)
    clip = (level + slow + fast).view(1, frames, 1, 1, 1).expand(1, frames, 3, 4, 4).contiguous()
    motion = keep_frequencies(clip.clone(), band(2 / frames, 1.0), ALL)
    torch.testing.assert_close(motion[0, :, 2, 1, 3], fast, rtol=0, atol=1e-5)
    still = keep_frequencies(clip.clone(), band(0.0, 2 / frames), ALL)
    torch.testing.assert_close(still[0, :, 0, 0, 0], level + slow, rtol=0, atol=1e-5)
    assert keep_frequencies(clip.clone(), band(*EVERYTHING), ALL).equal(clip)


def test_a_cutoff_at_a_frequency_of_the_clip_keeps_it_among_the_high() -> None:
    clip = wave(2, 8).view(1, 8, 1, 1, 1).clone()
    torch.testing.assert_close(keep_frequencies(clip.clone(), band(0.25, 1.0), ALL), clip, rtol=0, atol=1e-6)
    assert keep_frequencies(clip.clone(), band(0.0, 0.25), ALL).abs().max() < 1e-6


def test_frequencies_in_the_picture_count_in_any_direction() -> None:
    """(3, 4) cycles over 16 pixels are 5 / 16 cycles a pixel, (4, 0) are 4 / 16."""
    steep, flat = diagonal(3, 4), wave(4, 16).unsqueeze(1).expand(16, 16)
    clip = (steep + flat + 1.5).view(1, 1, 1, 16, 16).expand(1, 2, 3, 16, 16).contiguous()
    edges = keep_frequencies(clip.clone(), ALL, band(4.5 / 16, 1.0))
    torch.testing.assert_close(edges[0, 1, 2], steep, rtol=0, atol=1e-5)
    smooth = keep_frequencies(clip.clone(), ALL, band(0.0, 4.5 / 16))
    torch.testing.assert_close(smooth[0, 0, 0], flat + 1.5, rtol=0, atol=1e-5)


def diagonal(down: int, across: int) -> Tensor:
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    return torch.cos(2 * math.pi * (down * y + across * x) / 16 + 0.3)


def test_the_other_clips_of_a_batch_stay_as_they_are_to_the_bit() -> None:
    clips = torch.randn(4, 8, 3, 16, 16)
    temporal, spatial = ALL.repeat(4, 1), ALL.repeat(4, 1)
    temporal[1], spatial[1], spatial[3] = band(0.1, 1.0)[0], band(0.0, 0.2)[0], band(0.01, 1.0)[0]
    out = keep_frequencies(clips.clone(), temporal, spatial)
    assert out[[0, 2]].equal(clips[[0, 2]])
    assert out[1].mean(dim=0).abs().max() < 1e-6
    assert out[3].mean(dim=(-1, -2)).abs().max() < 1e-6
    alone = keep_frequencies(clips[1:2].clone(), temporal[1:2], spatial[1:2])
    torch.testing.assert_close(out[1:2], alone)


def test_off_is_off_and_changes_no_other_draw(prepared: Prepared) -> None:
    policy = AugmentSettings(crop_scales=(1.0, 0.75, 0.5), flip=0.5, brightness=0.2, contrast=0.2)
    always = policy.model_copy(
        update={"temporal_drop": TemporalDrop(probability=1), "spatial_drop": SpatialDrop(probability=1)}
    )
    for seed in range(5):
        off, on = draw(prepared, policy, seed), draw(prepared, always, seed)
        assert off.keep_temporal == off.keep_spatial == EVERYTHING
        assert (on.keep_temporal, on.keep_spatial) == ((0.1, 1.0), (0.01, 1.0))
        assert np.array_equal(off.frames, on.frames)
        assert (off.flip, off.brightness, off.contrast) == (on.flip, on.brightness, on.contrast)
    sample = {"views": {"a": draw(prepared, AugmentSettings())}, "seed": 0, "row": 0, "targets": {}, "failures": []}
    view = collate([sample])["views"]["a"]
    plain = normalise(view["frames"].movedim(-1, 2).float().div(255), GEOMETRY)
    assert pixel_values(view, GEOMETRY, CPU).equal(plain)


def test_a_batch_loses_what_was_drawn_for_each_clip(prepared: Prepared) -> None:
    policy = AugmentSettings(temporal_drop=TemporalDrop(probability=0.5))
    drawn = [draw(prepared, policy, seed) for seed in range(40)]
    dropped = torch.tensor([one.keep_temporal != EVERYTHING for one in drawn])
    assert 10 <= dropped.sum() <= 30
    samples = [{"views": {"a": one}, "seed": 0, "row": 0, "targets": {}, "failures": []} for one in drawn]
    pixels = pixel_values(collate(samples)["views"]["a"], GEOMETRY, CPU)
    still = pixels.mean(dim=1).abs().flatten(1).amax(dim=1) < 1e-5  # nothing is left that does not change
    assert still.equal(dropped)
    high = draw(prepared, AugmentSettings(spatial_drop=SpatialDrop(probability=1, band="high", cutoff=0.3)))
    assert high.keep_spatial == (0.0, 0.3)


def test_a_view_that_is_like_another_loses_the_same(prepared: Prepared) -> None:
    policies = AugmentPolicies(weak=AugmentSettings(temporal_drop=TemporalDrop(probability=0.5)))
    views = {"a": Clip("weak"), "b": Clip("weak", like="a"), "c": Clip("weak")}
    drawn = [draw_views(prepared, 0, views, CLIP, policies, seed, 0) for seed in range(20)]
    assert all(one["b"].keep_temporal == one["a"].keep_temporal for one in drawn)
    assert any(one["c"].keep_temporal != one["a"].keep_temporal for one in drawn)


def test_it_is_a_setting_of_any_run() -> None:
    words = ["augment.strong.temporal_drop.probability=0.5", "augment.weak.spatial_drop.band=high"]
    resolved = resolve([Layer("a", {"method": "simclr"}), Layer("test", parse_assignments(words))])
    assert resolved.config.augment.strong.temporal_drop == TemporalDrop(probability=0.5, band="low", cutoff=0.1)
    assert resolved.config.augment.weak.spatial_drop == SpatialDrop(probability=0, band="high", cutoff=0.01)
    with pytest.raises(ConfigError, match="cutoff"):
        resolve([Layer("test", parse_assignments(["augment.strong.temporal_drop.cutoff=0.7"]))])
