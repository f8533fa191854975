from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from source_factory import cine, region_item, sector_mask

from domains.prepare.classify import (
    SetAside,
    coloured_share,
    judge_camera,
    judge_colour,
    judge_header,
    judge_sweep,
    read_regions,
)


def header(*regions: Dataset, **tags: object) -> Dataset:
    found = Dataset()
    found.Modality = "US"
    if regions:
        found.SequenceOfUltrasoundRegions = Items(list(regions))
    for keyword, value in tags.items():
        setattr(found, keyword, value)
    return found


def category(found: Dataset, frames: int = 30, colour_doppler: str = "exclude") -> str:
    try:
        judge_header(found, frames, 8, colour_doppler)
    except SetAside as what:
        return what.category
    return "cine"


def test_tags_tell_the_kinds_apart():
    tissue, ecg = region_item(), region_item(spatial_format=4, data_type=10)
    assert category(header(tissue, ecg)) == "cine"
    assert category(header(tissue), frames=7) == "still"
    assert category(header(tissue), frames=8) == "cine"
    assert category(header(region_item(data_type=2))) == "colour Doppler"
    assert category(header(region_item(data_type=2)), colour_doppler="keep") == "cine"
    assert category(header(tissue, region_item(spatial_format=2))) == "M-mode"
    assert category(header(tissue, region_item(spatial_format=3, data_type=3))) == "spectral"
    assert category(header(tissue, region_item(spatial_format=3, data_type=4))) == "spectral"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("0001", "cine"), ("0011", "colour Doppler"), ("0101", "colour Doppler"), ("0003", "M-mode"), ("0009", "spectral"),
     ("0005", "spectral"), ("none", "cine")],
)  # fmt: skip
def test_image_type_flags_count_where_regions_lack(flags: str, expected: str):
    assert category(header(ImageType=["ORIGINAL", "PRIMARY", "", flags])) == expected


def test_other_modalities_are_named_and_free_text_is_not():
    def reason(modality: str) -> str:
        with pytest.raises(SetAside) as caught:
            judge_header(header(Modality=modality), 30, 8, "exclude")
        assert caught.value.category == "not ultrasound"
        return caught.value.reason

    assert reason("MR") == "modality MR"
    assert reason("DOE JANE") == "modality unknown"


def test_a_secondary_capture_with_regions_is_ultrasound():
    assert category(header(region_item(), Modality="OT")) == "cine"


def test_broken_regions_are_as_good_as_none():
    item = region_item()
    del item.RegionLocationMaxX1
    assert read_regions(header(item, region_item((1, 2, 30, 40)))) == read_regions(header(region_item((1, 2, 30, 40))))
    assert read_regions({}) == []


def test_regions_are_half_open_and_carry_a_scale_only_where_it_is_one():
    (region,) = read_regions(header(region_item((10, 20, 109, 69), delta=-0.05)))
    assert region.box == (10, 20, 110, 70)
    assert region.area == 5000
    assert region.cm_per_pixel == pytest.approx(0.05)
    uneven = region_item()
    uneven.PhysicalDeltaY = 0.08
    seconds = region_item()
    seconds.PhysicalUnitsXDirection = 4
    assert [region.cm_per_pixel for region in read_regions(header(uneven, seconds))] == [None, None]


def test_flow_is_coloured_and_tints_are_not():
    mask = sector_mask()
    grey, flow = cine(8, overlay=False), cine(8, colour=True, overlay=False)
    box = (flow[0].max(axis=-1) - flow[0].min(axis=-1).astype(int) > 60) & mask
    assert coloured_share(flow, mask) == pytest.approx(box.sum() / mask.sum(), rel=0.02)
    assert coloured_share(grey, mask) == 0
    sepia = (grey * np.array([1.0, 0.7, 0.3])).astype(np.uint8)
    assert coloured_share(sepia, mask) == 0
    assert coloured_share(grey[..., :1], mask) == 0


def test_one_way_flow_beside_grey_tissue_is_flow():
    frames = cine(8, overlay=False)
    frames[:, 100:140, 150:170] = (230, 30, 10)
    with pytest.raises(SetAside, match="by its pixels"):
        judge_colour(frames, sector_mask(), {})


def test_a_tag_that_announces_colour_lowers_the_bar():
    frames, mask = cine(8, overlay=False), sector_mask()
    frames[:, 100:110, 155:165] = (230, 30, 10)  # 0.5 % of the sector
    judge_colour(frames, mask, {})
    with pytest.raises(SetAside, match="colour Doppler"):
        judge_colour(frames, mask, {"UltrasoundColorDataPresent": 1})
    judge_colour(cine(8, overlay=False), mask, {"UltrasoundColorDataPresent": 1})  # a palette of greys is no flow


def test_a_camera_is_told_from_a_tinted_display_and_from_flow():
    mask = sector_mask()
    grey, flow = cine(8, overlay=False), cine(8, colour=True, overlay=False)
    judge_camera(grey, mask)
    judge_camera(flow, mask)
    judge_camera((grey * np.array([1.0, 0.8, 0.6])).astype(np.uint8), mask)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    scene = np.stack([90 + 20 * np.sin(x / 30), 90 + 20 * np.sin(y / 20), 90 + 20 * np.cos(x / 25)], axis=-1)
    with pytest.raises(SetAside, match="a camera's picture") as caught:
        judge_camera(np.repeat(scene[None].astype(np.uint8), 8, axis=0), mask)
    assert caught.value.category == "not ultrasound"


def test_a_sweep_is_told_from_tissue():
    rng = np.random.default_rng(0)
    mask = np.ones((120, 160), bool)
    trace = cv2.GaussianBlur(rng.gamma(1, 80, (120, 160)), (3, 3), 0).clip(0, 255).astype(np.uint8)
    sweep = np.zeros((60, 120, 160, 1), np.uint8)
    for t in range(1, 60):
        sweep[t] = sweep[t - 1]
        sweep[t, :, 2 * t : 2 * t + 4, 0] = trace[:, 2 * t : 2 * t + 4]
    first = np.linspace(0, 58, 6).astype(int)
    steps = np.stack([first, first + 1], axis=1).ravel()
    with pytest.raises(SetAside, match="narrow strip"):
        judge_sweep(sweep[steps], mask)
    tissue = cine(60, overlay=False)
    judge_sweep(tissue[steps], sector_mask())


@pytest.mark.shared
def test_real_colour_doppler_is_known_by_its_tags():
    folder = Path(__file__).resolve().parents[2] / "../shared/data/echo/us"
    if not folder.exists():
        pytest.skip("needs ../shared/data")
    import pydicom

    found = pydicom.dcmread(folder / "IM00001.implicit_little_endian.dcm", stop_before_pixels=True)
    assert category(found, frames=8) == "colour Doppler"
