import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from source_factory import HEIGHT, SECTOR, WIDTH, cine, overlay_mask, region_item, sector_mask

from domains.prepare import region
from domains.prepare.classify import Region, SetAside, read_regions


def regions(*items: Dataset) -> list[Region]:
    header = Dataset()
    header.SequenceOfUltrasoundRegions = Items(list(items))
    return read_regions(header)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return cine(20)


@pytest.mark.parametrize("with_box", [False, True])
def test_the_sector_is_kept_and_nothing_drawn_beside_it(frames: np.ndarray, with_box: bool):
    # The box of the header is generous, as it is in life: text and ECG lie in it.
    found = regions(region_item((0, 0, WIDTH - 1, HEIGHT - 1))) if with_box else []
    picture = region.find(frames, found, min_fraction=0.03)
    fan = sector_mask()
    assert (picture.mask & fan).sum() > 0.98 * fan.sum()
    assert (picture.mask & ~fan).sum() < 0.06 * fan.sum()
    assert (picture.mask & overlay_mask()).sum() == 0
    assert picture.source == ("regions+motion" if with_box else "motion")
    assert picture.cm_per_pixel == (0.05 if with_box else None)
    x0, y0, x1, y1 = picture.box
    assert picture.mask[y0:y1, x0:x1].sum() == picture.mask.sum()
    assert np.abs(np.subtract(picture.box, SECTOR)).max() < 10


def test_the_box_cuts_what_moves_outside_of_it(frames: np.ndarray):
    box = (60, 15, 200, 195)
    picture = region.find(frames, regions(region_item(box)), 0.03)
    assert picture.box[2] <= 201
    assert not picture.mask[:, 201:].any()


def test_a_large_recording_is_searched_small_and_masked_large(frames: np.ndarray):
    large = np.repeat(np.repeat(frames, 3, axis=1), 3, axis=2)
    picture = region.find(large, [], 0.03)
    fan = np.repeat(np.repeat(sector_mask(), 3, axis=0), 3, axis=1)
    drawn = np.repeat(np.repeat(overlay_mask(), 3, axis=0), 3, axis=1)
    assert picture.mask.shape == fan.shape
    assert (picture.mask & fan).sum() > 0.98 * fan.sum()
    assert (picture.mask & drawn).sum() == 0


@pytest.mark.parametrize("quality", [90, 50])
def test_what_compression_smears_around_the_trace_stays_out(frames: np.ndarray, quality: int):
    # Chroma is stored at half size: around a green trace that scrolls, whole blocks flicker.
    jpegs = [cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for frame in frames]
    smeared = np.stack([cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1] for jpeg in jpegs])
    picture = region.find(smeared, [], 0.03)
    assert (picture.mask & sector_mask()).sum() > 0.98 * sector_mask().sum()
    assert (picture.mask & overlay_mask()).sum() == 0


def test_what_does_not_move_is_set_aside(frames: np.ndarray):
    still = np.repeat(frames[:1], 20, axis=0)
    with pytest.raises(SetAside) as caught:
        region.find(still, regions(region_item()), 0.03)
    assert caught.value.category == "no region"
    assert "header's region" in caught.value.reason


def test_a_moving_trace_alone_is_no_picture():
    only_drawn = cine(20) * overlay_mask()[None, :, :, None].astype(np.uint8)
    with pytest.raises(SetAside, match="no picture found"):
        region.find(only_drawn, [], 0.03)


def test_a_box_of_another_frame_size_is_not_believed(frames: np.ndarray):
    # pydicom's examples_ybr_color.dcm: exported at half size with the tags of the full one.
    assert region.header_box(regions(region_item((84, 31, 595, 414))), HEIGHT, WIDTH) is None
    picture = region.find(frames, regions(region_item((84, 31, 595, 414))), 0.03)
    assert picture.source == "motion"
    assert picture.cm_per_pixel is None


def test_the_largest_2d_region_counts_and_is_clipped():
    found = regions(
        region_item((0, 0, 319, 239), spatial_format=4, data_type=10),
        region_item((10, 10, 40, 40)),
        region_item((50, 20, 320, 240)),
    )
    box = region.header_box(found, HEIGHT, WIDTH)
    assert box is not None
    assert box.box == (50, 20, 320, 240)


def test_whole_keeps_everything():
    picture = region.whole(30, 50)
    assert picture.mask.all()
    assert picture.box == (0, 0, 50, 30)


def scope(radius: float, light: tuple[int, int] = (60, 160), count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Frames (count, 120, 160, 3) through a round border, with noise in the black and a name written there; and the disc."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:120, :160]
    disc = np.hypot(x - 84, y - 58) < radius
    frames = rng.integers(*light, (count, 120, 160, 3))
    frames[:, ~disc] = rng.integers(0, 14, (count, int((~disc).sum()), 3))
    frames = frames.astype(np.uint8)
    for frame in frames:
        cv2.putText(frame, "DOE", (1, 10), cv2.FONT_HERSHEY_SIMPLEX, 0.34, (230, 230, 230), 1)
        cv2.putText(frame, "1931", (137, 119), cv2.FONT_HERSHEY_SIMPLEX, 0.34, (230, 230, 230), 1)
    return frames, disc


@pytest.mark.parametrize("radius", [52.0, 66.0, 74.0])
def test_the_round_picture_of_an_endoscope_without_what_is_written_beside_it(radius: float):
    frames, disc = scope(radius)
    picture = region.endoscope(frames, 0.1)
    assert picture.source == "endoscope"
    assert (picture.mask & disc).sum() > 0.94 * disc.sum()
    assert (picture.mask & ~disc).sum() <= 4  # where the round is cut by the edge of the frame
    assert frames[:, picture.mask & ~disc].max(initial=0) < 14  # black, and no letter
    x0, y0, x1, y1 = picture.box
    assert picture.mask[y0:y1, x0:x1].sum() == picture.mask.sum()


def test_a_menu_that_is_shown_for_a_while_is_no_part_of_the_picture():
    frames, disc = scope(52.0)
    frames[:2, 60:100, :60] = 200  # reaches into the border
    assert not (region.endoscope(frames, 0.1).mask & ~disc).any()


def test_an_endoscope_without_a_border_keeps_its_dark_corners():
    frames, _ = scope(300.0)
    frames[:, :14, :14] = 3
    picture = region.endoscope(frames, 0.1)
    assert picture.mask.all()
    assert picture.box == (0, 0, 160, 120)


def test_black_bars_are_a_border():
    frames, _ = scope(300.0)
    frames[:, :, :22] = frames[:, :, 140:] = 4
    x0, y0, x1, y1 = region.endoscope(frames, 0.1).box
    assert abs(x0 - 22) <= 2
    assert abs(x1 - 140) <= 2
    assert (y0, y1) == (0, 120)


def test_a_dark_recording_is_set_aside():
    frames, _ = scope(52.0, light=(0, 14))
    with pytest.raises(SetAside, match=r"less than 10% of the frame is lit") as caught:
        region.endoscope(frames, 0.1)
    assert caught.value.category == "no region"
