"""Enhanced multi-frame DICOM: one plane over time, by the functional groups; planes are never taken for time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from enhanced_factory import ENHANCED_MR, PLACE, groups, write_enhanced

from domains.errors import MediaError
from domains.media import open_reader
from domains.media.enhanced import data_types, pixel_spacing

PLANES, TIMES = 5, 4


def coded(places: list[int], times: list[int], kinds: list[int] | None = None) -> np.ndarray:
    """(N, 12, 16) uint8: a frame is 50 * plane + 10 * kind + time all over."""
    kinds = kinds or [0] * len(places)
    values = [50 * place + 10 * kind + time for place, time, kind in zip(places, times, kinds, strict=True)]
    return np.stack([np.full((12, 16), value, np.uint8) for value in values])


def scan() -> tuple[list[int], list[int]]:
    """(plane, time) of every frame of a volume over time, volume after volume."""
    return [n % PLANES for n in range(PLANES * TIMES)], [n // PLANES for n in range(PLANES * TIMES)]


def shown(path: Path) -> list[int]:
    with open_reader(path) as reader:
        return [int(frame[0, 0, 0]) for frame in reader.frames(range(len(reader)))]


def volume(path: Path, order: list[int] | None = None, **tags: Any) -> Path:
    places, times = scan()
    order = list(range(len(places))) if order is None else order
    places, times = [places[n] for n in order], [times[n] for n in order]
    own = [
        groups(
            at=(0.0, 0.0, 1.5 * place), seconds=0.05 * time, kind="TISSUE_INTENSITY", indices=(time + 1, place + 1, 1)
        )
        for place, time in zip(places, times, strict=True)
    ]
    return write_enhanced(path, coded(places, times), own, **tags)


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_plane_in_the_middle_of_a_volume_over_time(tmp_path: Path, shuffled: bool) -> None:
    order = np.random.default_rng(0).permutation(PLANES * TIMES).tolist() if shuffled else None
    path = volume(tmp_path / "a", order, FrameTime=10.0)  # of planes, not of volumes
    assert shown(path) == [100, 101, 102, 103]
    with open_reader(path) as reader:
        assert len(reader) == TIMES
        assert (reader.fps, reader.fps_source) == (pytest.approx(20), "TemporalPositionTimeOffset")
        assert reader.note == "a volume over time: plane 3 of 5 is taken"
        assert [int(frame[0, 0, 0]) for frame in reader.frames([3, 0, 3])] == [103, 100, 103]
        with pytest.raises(IndexError):
            reader.frames([TIMES])
        assert pixel_spacing(reader.header) == pytest.approx(0.05)


def test_a_volume_at_one_time_is_no_recording(tmp_path: Path) -> None:
    own = [groups(at=(0.0, 0.0, 2.0 * n), seconds=0.0, indices=(1, n + 1, 1)) for n in range(8)]
    path = write_enhanced(tmp_path / "a", coded([0] * 8, list(range(8))), own, organised="3D")
    with pytest.raises(MediaError, match="a volume of 8 planes at one time") as caught:
        open_reader(path)
    assert caught.value.category == "volume"


def test_planes_taken_one_after_the_other_are_no_time(tmp_path: Path) -> None:
    """A sweep: every plane has a time of its own, and is seen once."""
    own = [groups(at=(0.0, 0.0, 2.0 * n), seconds=0.1 * n) for n in range(8)]
    path = write_enhanced(tmp_path / "a", coded([0] * 8, list(range(8))), own, organised="3D")
    with pytest.raises(MediaError, match="8 planes"):
        open_reader(path)


@pytest.mark.parametrize("by", ["stack", "patient", "dimension"])
def test_planes_are_told_by_what_the_header_has(tmp_path: Path, by: str) -> None:
    places, times = scan()
    own = []
    for place, time in zip(places, times, strict=True):
        where: dict[str, Any] = {
            "stack": {"StackID": "1", "InStackPositionNumber": place + 1},
            "patient": {"patient": (10.0, 20.0 - 3 * place, 5.0)},
            "dimension": {"indices": (time + 1, place + 1, 1)},
        }[by]
        own.append(groups(seconds=0.04 * time, **where))
    path = write_enhanced(tmp_path / "a", coded(places, times), own)
    assert shown(path) == [100, 101, 102, 103]
    with open_reader(path) as reader:
        assert reader.fps == pytest.approx(25)


@pytest.mark.parametrize(
    ("clock", "fps", "source"),
    [
        (lambda n: {"FrameReferenceDateTime": f"2026010112{n:02}30"}, None, "unknown"),
        (lambda n: {"FrameReferenceDateTime": f"20260101120000.{40000 * n:06}"}, 25, "FrameReferenceDateTime"),
        (lambda n: {"FrameAcquisitionDateTime": f"20260101120000.{20000 * n:06}+0100"}, 50, "FrameAcquisitionDateTime"),
        (lambda n: {"TemporalPositionIndex": n + 1}, None, "unknown"),
        (lambda n: {"indices": (n + 1, 1, 1)}, None, "unknown"),
    ],
)
def test_clocks(tmp_path: Path, clock: Any, fps: float | None, source: str) -> None:
    """One plane over time, stored backwards: put in order by whatever clock there is; those that only count say no rate, nor do minutes."""
    own = [groups(at=(0.0, 0.0, 0.0), **clock(n)) for n in reversed(range(6))]
    path = write_enhanced(tmp_path / "a", coded([0] * 6, list(reversed(range(6)))), own)
    assert shown(path) == list(range(6))
    with open_reader(path) as reader:
        if fps is not None:
            assert (reader.fps, reader.fps_source) == (pytest.approx(fps), source)
        else:  # pauses of half a minute are no rate
            assert (reader.fps, reader.fps_source) == (None, "unknown")
        assert reader.note == ""


def test_times_of_the_frames_go_before_a_rate_to_be_shown_at(tmp_path: Path) -> None:
    own = [groups(at=(0.0, 0.0, 0.0), seconds=n / 40) for n in range(6)]
    path = write_enhanced(tmp_path / "a", coded([0] * 6, list(range(6))), own, RecommendedDisplayFrameRate=25)
    with open_reader(path) as reader:
        assert (reader.fps, reader.fps_source) == (pytest.approx(40), "TemporalPositionTimeOffset")
        assert "RecommendedDisplayFrameRate 25" in reader.note


def test_a_clock_of_whole_seconds_gives_way_to_a_count(tmp_path: Path) -> None:
    own = [
        groups(at=(0.0, 0.0, 0.0), FrameReferenceDateTime=f"2026010112000{n // 3}", TemporalPositionIndex=n + 1)
        for n in (4, 5, 3, 1, 0, 2)
    ]
    path = write_enhanced(tmp_path / "a", coded([0] * 6, [4, 5, 3, 1, 0, 2]), own)
    assert shown(path) == list(range(6))


def test_flow_beside_tissue_is_left_out(tmp_path: Path) -> None:
    places, times, kinds = [0] * 8, [n // 2 for n in range(8)], [n % 2 for n in range(8)]
    own = [
        groups(at=(0.0, 0.0, 0.0), seconds=0.1 * time, kind=("FLOW_VELOCITY", "TISSUE_INTENSITY")[kind])
        for time, kind in zip(times, kinds, strict=True)
    ]
    path = write_enhanced(tmp_path / "a", coded(places, times, kinds), own)
    assert shown(path) == [10, 11, 12, 13]
    with open_reader(path) as reader:
        assert reader.note == "4 frames of another kind (FLOW_VELOCITY) are left out"
        assert data_types(reader.header) == {"FLOW_VELOCITY", "TISSUE_INTENSITY"}


def test_dimensions_of_other_kinds_are_not_mixed(tmp_path: Path) -> None:
    """Echo times, segments, whatever: frames that differ in one are not of one recording."""
    own = [groups(at=(0.0, 0.0, 0.0), indices=(1 + n // 2, 1 + n % 2), seconds=0.1 * (n // 2)) for n in range(8)]
    dimensions = [(0x0020930D, 0x00209310), (0x00189082, 0x00189114)]
    path = write_enhanced(tmp_path / "a", coded([n % 2 for n in range(8)], [n // 2 for n in range(8)]), own, dimensions=dimensions)  # fmt: skip
    assert shown(path) == [0, 1, 2, 3]
    with open_reader(path) as reader:
        assert reader.note == "4 frames of another kind are left out"


def test_a_ragged_volume_gives_a_plane_that_is_whole(tmp_path: Path) -> None:
    places, times = scan()
    kept = [n for n in range(len(places)) if not (places[n] == 2 and times[n] == 1)]  # the middle plane lost a frame
    path = volume(tmp_path / "a", kept)
    found = shown(path)
    assert found in ([50, 51, 52, 53], [150, 151, 152, 153])
    assert len({value // 50 for value in found}) == 1


@pytest.mark.parametrize("with_groups", [True, False])
def test_a_volume_that_says_nothing_of_its_planes_is_refused(tmp_path: Path, with_groups: bool) -> None:
    own = [groups(seconds=0.1 * (n // 4)) for n in range(8)] if with_groups else None
    path = write_enhanced(tmp_path / "a", coded([0] * 8, list(range(8))), own)
    with pytest.raises(MediaError, match="a volume") as caught:
        open_reader(path)
    assert caught.value.category == "volume"


def test_several_frames_of_each_plane_and_no_time_are_refused(tmp_path: Path) -> None:
    own = [groups(at=(0.0, 0.0, float(n % 4))) for n in range(8)]
    path = write_enhanced(tmp_path / "a", coded([0] * 8, list(range(8))), own, dimensions=[PLACE])
    with pytest.raises(MediaError, match="nothing says which plane and time"):
        open_reader(path)


def test_tiles_of_a_slide_are_refused(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "a", coded([0] * 4, list(range(4))), None, organised="TILED_FULL")
    with pytest.raises(MediaError, match="tiles of one picture"):
        open_reader(path)


@pytest.mark.parametrize("own", [None, [groups(FrameComments="x") for _ in range(4)]])
def test_other_enhanced_files_that_say_nothing_are_noted(tmp_path: Path, own: Any) -> None:
    path = write_enhanced(tmp_path / "a", coded([0] * 4, list(range(4))), own, sop_class=ENHANCED_MR, organised=None)
    assert shown(path) == [0, 1, 2, 3]
    with open_reader(path) as reader:
        assert "does not say whether its frames are pictures over time" in reader.note


def test_frames_that_the_header_does_not_place_are_left_out(tmp_path: Path) -> None:
    own = [groups(at=(0.0, 0.0, 0.0), seconds=0.1 * n) for n in range(6)]
    path = write_enhanced(tmp_path / "a", coded([0] * 8, list(range(8))), own)
    assert shown(path) == list(range(6))
    with open_reader(path) as reader:
        assert "2 frames without a place" in reader.note


def test_a_cut_volume_gives_the_times_that_are_there(tmp_path: Path) -> None:
    path = volume(tmp_path / "a")
    path.write_bytes(path.read_bytes()[: -12 * 16 * PLANES])  # the last volume is lost
    assert shown(path) == [100, 101, 102]


def test_an_ordinary_cine_is_as_it_was(tmp_path: Path) -> None:
    plain = {"sop_class": "1.2.840.10008.5.1.4.1.1.3.1", "organised": None, "FrameTime": 40}
    path = write_enhanced(tmp_path / "a", coded([0] * 4, list(range(4))), None, **plain)
    with open_reader(path) as reader:
        assert (len(reader), reader.fps, reader.note, pixel_spacing(reader.header)) == (4, 25, "", None)


@pytest.mark.parametrize("spacing", [(0.5, 0.6), (0.0, 0.0), (0.5,), None])
def test_pixels_that_are_not_square_have_no_size(tmp_path: Path, spacing: Any) -> None:
    own = [groups(at=(0.0, 0.0, 0.0), seconds=0.1 * n) for n in range(2)]
    path = write_enhanced(tmp_path / "a", coded([0] * 2, [0, 1]), own, spacing=spacing)
    with open_reader(path) as reader:
        assert pixel_spacing(reader.header) is None


def test_damaged_groups_are_a_reason(tmp_path: Path) -> None:
    own = [groups(at=(0.0, 0.0, float(n)), FrameReferenceDateTime="20260101") for n in range(2)]
    path = write_enhanced(tmp_path / "a", coded([0] * 2, [0, 1]), own)
    path.write_bytes(path.read_bytes().replace(b"20260101", b"2026xx01"))
    with pytest.raises(MediaError):
        open_reader(path)
