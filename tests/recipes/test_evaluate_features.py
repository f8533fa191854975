"""Features: every video is read, averaged and normalised as the encoder wants it, and one that fails is left out and
named.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from store_factory import make_prepared

from domains.base import ClipSettings
from domains.errors import DataError
from domains.store.clips import evaluation_clips
from domains.store.manifest import frame_file
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.evaluate.baselines import random_like
from recipes.evaluate.features import clip_of, extract, extract_all, pixel_statistics
from recipes.evaluate.pixels import pixel_features
from recipes.training.data import plain_pixel_values

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 16}
GEOMETRY = Geometry(frames=4, size=32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0), rate=12.5)
DEVICE = torch.device("cpu")


@pytest.fixture
def prepared(tmp_path):
    return make_prepared(tmp_path / "prepared", videos=5, patients=3).prepared


@pytest.fixture
def encoder():
    return fresh_videomae(GEOMETRY, seed=0, tubelet_size=2, **SMALL)


def test_pixel_values_are_normalised_with_the_encoders_own_statistics():
    clips = np.full((1, 2, 4, 4, 1), 51, np.uint8)  # 0.2 of full scale
    values = plain_pixel_values(torch.from_numpy(clips), GEOMETRY, DEVICE)
    assert values.shape == (1, 2, 3, 4, 4)
    np.testing.assert_allclose(values[0, 1, :, 2, 3].numpy(), [0.2, 0, -0.1], atol=1e-6)


def test_colour_keeps_its_channels():
    clips = np.zeros((1, 1, 2, 2, 3), np.uint8)
    clips[..., 1] = 255
    np.testing.assert_allclose(
        plain_pixel_values(torch.from_numpy(clips), GEOMETRY, DEVICE)[0, 0, :, 0, 0].numpy(),
        [-0.2, 3.2, -0.3],
        atol=1e-6,
    )


def test_features_are_the_mean_over_clips_of_the_video(prepared, encoder):
    encoder.train()
    found = extract(encoder, prepared, [3, 1], clips_per_video=3, device=DEVICE)
    assert encoder.training  # given back as it was
    assert found.index.tolist() == [3, 1]
    encoder.eval()
    clips = evaluation_clips(prepared, 1, clip_of(GEOMETRY), 3)
    expected = np.mean(
        [
            encoder.describe(plain_pixel_values(torch.from_numpy(clip[None]), GEOMETRY, DEVICE))[0].detach().numpy()
            for clip in clips
        ],
        axis=0,
    )
    np.testing.assert_allclose(found.values[1], expected, atol=1e-5)
    np.testing.assert_allclose(found.at([1, 3]), found.values[::-1])


def test_a_video_that_cannot_be_read_is_left_out_and_named_never_replaced(prepared, encoder):
    whole = extract(encoder, prepared, range(5), device=DEVICE)
    frame_file(prepared.folder, prepared.video_id(2)).unlink()
    seen = []
    found = extract(encoder, prepared, range(5), device=DEVICE, progress=lambda done, total: seen.append((done, total)))
    assert found.index.tolist() == [0, 1, 3, 4]
    np.testing.assert_array_equal(found.values, whole.values[[0, 1, 3, 4]])
    assert [(f.video_id, "missing" in f.reason) for f in found.failed] == [(prepared.video_id(2), True)]
    assert seen == [(n, 5) for n in range(1, 6)]


def test_nothing_readable_is_an_error(prepared, encoder):
    for index in range(2):
        frame_file(prepared.folder, prepared.video_id(index)).write_bytes(b"")
    with pytest.raises(DataError, match="none of 2 videos could be read; the first: frame"):
        extract(encoder, prepared, [0, 1], device=DEVICE)


def test_all_kinds_of_features_see_the_same_clips_decoded_once(prepared, monkeypatch):
    seen = {"a": [], "b": []}

    def keep(name):
        def extractor(clips):
            seen[name].append(clips)
            return clips.mean(axis=(1, 2, 3, 4))

        return extractor

    extract_all({name: keep(name) for name in seen}, prepared, range(5), ClipSettings(frames=4, size=32), 2)
    assert all(a is b for a, b in zip(seen["a"], seen["b"], strict=True))


def test_pixel_statistics_by_hand():
    """Left half 0, right half flickers between 100 and 200: mean 150, deviation 50 there, nothing elsewhere."""
    clips = np.zeros((2, 4, 32, 32, 1), np.uint8)
    clips[:, ::2, :, 16:], clips[:, 1::2, :, 16:] = 100, 200
    found = pixel_features(clips)
    assert found.shape == (512,)
    mean, deviation = found.reshape(2, 16, 16) * 255
    np.testing.assert_allclose(mean[:, :8], 0)
    np.testing.assert_allclose(mean[:, 8:], 150)
    np.testing.assert_allclose(deviation[:, :8], 0)
    np.testing.assert_allclose(deviation[:, 8:], 50, rtol=1e-6)


def test_pixel_statistics_of_colour_are_of_its_luminance():
    clips = np.zeros((1, 2, 16, 16, 3), np.uint8)
    clips[..., 1] = 255
    np.testing.assert_allclose(pixel_features(clips)[:256], 0.587, rtol=1e-6)


def test_pixel_statistics_of_videos(prepared):
    found = pixel_statistics(prepared, [0, 4], ClipSettings(frames=8, size=32), 2)
    assert found.values.shape == (2, 512)
    expected = pixel_features(evaluation_clips(prepared, 4, ClipSettings(frames=8, size=32), 2))
    np.testing.assert_array_equal(found.values[1], expected)


def test_random_twin_has_the_same_shape_other_weights_and_touches_nothing(encoder):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    twin = random_like(encoder)
    assert torch.equal(torch.rand(3), expected)
    assert twin.geometry == encoder.geometry
    weight = "model.encoder.layer.0.attention.attention.query.weight"
    assert not torch.equal(twin.state_dict()[weight], before[weight])
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    again = random_like(encoder)
    assert torch.equal(again.state_dict()[weight], twin.state_dict()[weight])
