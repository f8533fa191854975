"""Region maps: what a domain says of its pictures, drawn with the view that they belong to."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from store_factory import make_prepared

from domains.base import AugmentPolicies, AugmentSettings, ClipSettings, RegionMapSettings, load_domain
from domains.errors import ConfigError, DataError, MediaError
from domains.store.clips import Clip, draw_views
from domains.store.prepared import Prepared
from domains.store.region_map import check_region_maps, moving_parts, picture_of, read_map, region_map

VIEWS = {"clip": Clip(), "regions": Clip(near="clip", within=0.0, length=0.0, like="clip", regions=True)}
CLIP = ClipSettings(frames=4, size=32)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return make_prepared(tmp_path_factory.mktemp("regions") / "prepared", videos=3, patients=3, size=48).prepared


def sector() -> np.ndarray:
    """(6, 48, 48, 1): a bright square on black with a dark hole, of which one corner blinks."""
    frames = np.zeros((6, 48, 48, 1), np.uint8)
    frames[:, 8:40, 8:40] = 100
    frames[:, 20:28, 20:28] = 0
    frames[::2, 8:24, 8:24] = 200
    return frames


def test_the_picture_is_what_is_not_black_and_what_that_surrounds() -> None:
    found = picture_of(sector())
    expected = np.zeros((48, 48), np.uint8)
    expected[8:40, 8:40] = 1
    assert np.array_equal(found, expected)
    assert not picture_of(np.full((2, 16, 16, 1), 5, np.uint8)).any()


def test_what_moves_most_is_a_region_of_its_own() -> None:
    found = moving_parts(sector(), 0.2)
    inside = picture_of(sector()) == 1
    assert (found[~inside] == 0).all()
    assert (found[inside] == 2).mean() == pytest.approx(0.2, abs=0.02)
    assert (found[10:18, 10:18] == 2).all()
    assert (found[30:38, 30:38] == 1).all()


def test_a_map_is_cut_as_its_clip_is(prepared: Prepared, tmp_path: Path) -> None:
    """The map's numbers are where the clip's pixels are: both show a picture of the same squares."""
    drawn_map = np.zeros((48, 48), np.uint8)
    drawn_map[:24, 24:] = 7
    cv2.imwrite(str(tmp_path / "map.png"), drawn_map)
    settings = RegionMapSettings(source="map", path=str(tmp_path / "map.png"))
    policies = AugmentPolicies(weak=AugmentSettings(crop_scales=(0.7,), flip=0.5, brightness=0.5, contrast=0.5))
    flips, covers = set(), set()
    for epoch in range(12):
        drawn = draw_views(prepared, 0, VIEWS, CLIP, policies, 0, epoch, regions=settings)
        clip, regions = drawn["clip"], drawn["regions"]
        assert regions.frames.shape == (1, 32, 32, 1)
        assert set(np.unique(regions.frames)) <= {0, 7}
        assert regions.flip == clip.flip
        assert (regions.brightness, regions.contrast) == (0.0, 1.0)
        flips.add(clip.flip)
        covers.add(int((regions.frames == 7).sum()))
    assert flips == {True, False}
    assert len(covers) > 3  # by crop
    whole = draw_views(prepared, 0, VIEWS, CLIP, AugmentPolicies(), 0, 0, regions=settings)["regions"]
    assert np.array_equal(whole.frames[0, :, :, 0], cv2.resize(drawn_map, (32, 32), interpolation=cv2.INTER_NEAREST))


def test_motion_is_that_of_the_frames_that_are_drawn(prepared: Prepared) -> None:
    settings = RegionMapSettings(source="motion", moving=0.3)
    drawn = draw_views(prepared, 1, VIEWS, ClipSettings(frames=4, size=48), AugmentPolicies(), 0, 0, regions=settings)
    assert np.array_equal(drawn["regions"].frames[0, :, :, 0], moving_parts(drawn["clip"].frames, 0.3))
    alone = draw_views(prepared, 1, {"clip": Clip()}, ClipSettings(frames=4, size=48), AugmentPolicies(), 0, 0)
    assert np.array_equal(alone["clip"].frames, drawn["clip"].frames)  # the map changes no other view


def test_no_map_is_an_error_and_never_a_random_mask(prepared: Prepared, tmp_path: Path) -> None:
    nothing = RegionMapSettings()
    with pytest.raises(ConfigError, match=r"domain 'ours' has no region map\. Set region_map\.source"):
        check_region_maps(prepared, [0, 1, 2], nothing, "ours")
    with pytest.raises(ConfigError, match="has no region map"):
        region_map(prepared, 0, nothing, sector())
    folder = RegionMapSettings(source="folder", path=str(tmp_path))
    cv2.imwrite(str(tmp_path / f"{prepared.video_id(1)}.png"), np.full((24, 24), 3, np.uint8))
    with pytest.raises(DataError, match="2 of 3 recordings have no region map"):
        check_region_maps(prepared, [0, 1, 2], folder, "ours")
    check_region_maps(prepared, [1], folder, "ours")
    assert (region_map(prepared, 1, folder, sector()) == 3).all()
    with pytest.raises(MediaError, match="cannot be read"):
        region_map(prepared, 0, folder, sector())
    cv2.imwrite(str(tmp_path / "colour.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "text.png").write_text("no picture")
    for name in ("colour.png", "text.png"):
        with pytest.raises(MediaError, match="square PNG of one channel"):
            read_map(tmp_path / name, 48)
    with pytest.raises(ValueError, match="needs a path"):
        RegionMapSettings(source="map")


def test_a_path_in_a_domain_is_seen_from_its_yaml(tmp_path: Path) -> None:
    yaml = "name: ours\ntitle: Ours\nregion_map: {source: map, path: face.png}\n"
    (tmp_path / "ours.yaml").write_text(yaml)
    layer = load_domain(str(tmp_path / "ours.yaml")).run_layer()
    assert layer["region_map"] == {"source": "map", "path": str(tmp_path / "face.png")}
    assert load_domain("echo").region_map.source == "motion"
