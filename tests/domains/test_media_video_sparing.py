"""What is passed over between the frames that are asked for, and what opening takes on trust: never another frame than the right one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from test_media_video import EVEN, UNEVEN, read_number, write

from domains.errors import MediaError
from domains.media import open_reader, video_index
from domains.media import video as video_module
from domains.media.sparing import can_spare
from domains.media.video_index import forget

# Every way in which H.264 orders its frames: B-frames that others lean on and that none does, open groups, fields, slices, no keyframe.
STREAMS = {
    "no B-frames": {"g": "250", "bf": "0"},
    "B-frames": {"g": "30", "bf": "3", "x264-params": "b-pyramid=none"},
    "B-frames that are leant on": {"g": "250", "bf": "5", "x264-params": "b-pyramid=normal:b-adapt=0"},
    "open groups": {"g": "12", "bf": "3", "x264-params": "open-gop=1:b-adapt=0"},
    "fields": {"g": "30", "bf": "2", "flags": "+ilme+ildct", "x264-params": "tff=1"},
    "slices, weights": {"g": "40", "bf": "2", "x264-params": "slices=4:weightp=2:weightb=1"},
    "refreshed without keyframes": {"g": "20", "bf": "2", "x264-params": "intra-refresh=1"},
    "many references": {"g": "250", "bf": "4", "refs": "8", "x264-params": "b-adapt=0"},
}

ONE_GROUP = {"g": "250", "x264-params": "scenecut=0"}


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the time of every frame that leaves the decoder."""
    times: list[int] = []
    there = video_module.VideoReader._frames

    def counted(self, every):
        for frame in there(self, every):
            times.append(frame.pts)
            yield frame

    monkeypatch.setattr(video_module.VideoReader, "_frames", counted)
    return times


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("times", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_frames_are_the_same_whatever_lies_between_them(tmp_path: Path, kind: str, times: list[int]) -> None:
    path = write(tmp_path / "a.mp4", "libx264", times, **STREAMS[kind])
    with open_reader(path) as reader:
        every = reader.frames(range(len(reader)))
    numbers = [read_number(frame) for frame in every]
    assert numbers == list(range(60))
    for wanted in ([0, 59], [5, 9, 13, 17, 41], list(range(1, 60, 4)), list(range(2, 60, 7)), [33], [34, 35, 36, 58]):
        forget()
        with open_reader(path) as reader:
            assert np.array_equal(reader.frames(wanted), every[wanted])
            assert np.array_equal(reader.frames(wanted[::-1]), every[wanted[::-1]])
            after = [min(index + 1, 59) for index in wanted]  # what the call before had passed over
            assert np.array_equal(reader.frames(after), every[after])


HEVC = {
    "pyramid": "bframes=4:b-pyramid=1:keyint=250",
    "open groups": "bframes=3:open-gop=1:keyint=12:min-keyint=12",
    "layers in time": "bframes=3:temporal-layers=2:keyint=30",
}


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("kind", HEVC)
def test_hevc_of_one_layer_is_passed_over_too(
    tmp_path: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        tmp_path / name, "libx265", EVEN, **{"x265-params": f"{HEVC[kind]}:b-adapt=0:scenecut=0:log-level=none"}
    )
    with open_reader(path) as reader:
        every = reader.frames(range(len(reader)))
        assert reader._sparing == (kind != "layers in time")
    assert [read_number(frame) for frame in every] == list(range(60))
    decoded = count_decoded(monkeypatch)
    for wanted in (list(range(1, 60, 4)), [5, 9, 13, 41], [34, 35, 58]):
        with open_reader(path) as reader:
            assert np.array_equal(reader.frames(wanted), every[wanted])
    if kind == "pyramid":
        assert len(decoded) < 0.8 * (58 + 42 + 59)


def test_a_record_that_is_none_spares_nothing() -> None:
    record = bytes([1, *[0] * 21, 1, 0x21, 0, 1, 0, 4, 0x42, 1, 0x01, 0])
    assert can_spare("hevc", record)
    assert not can_spare("hevc", record.replace(b"\x42\x01\x01", b"\x42\x01\x03"))  # two layers
    for damaged in (None, b"", b"\0\0\0\1" + record, record[:25], record[:23]):
        assert not can_spare("hevc", damaged)
    assert can_spare("h264", None)
    assert not can_spare("av1", record)


def test_frames_that_nothing_leans_on_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", "libx264", EVEN, **STREAMS["B-frames"])
    len(open_reader(path))  # from now on it is known
    decoded = count_decoded(monkeypatch)
    with open_reader(path) as reader:
        assert [read_number(frame) for frame in reader.frames(range(0, 30, 8))] == [0, 8, 16, 24]
    assert len(decoded) <= 14  # one of four, and the four


def test_pictures_are_those_of_plain_pyav(tmp_path: Path) -> None:
    for name, pix_fmt in (("a.mp4", "yuv420p"), ("b.mp4", "yuv444p"), ("c.mkv", "yuv420p10le"), ("d.mkv", "gray")):
        path = write(tmp_path / name, "ffv1" if pix_fmt == "gray" else "libx264", EVEN[:10], pix_fmt=pix_fmt)
        kind = "gray" if pix_fmt == "gray" else "rgb24"
        with av.open(str(path)) as container:
            plain = np.stack([frame.to_ndarray(format=kind) for frame in container.decode(video=0)])
        with open_reader(path) as reader:
            assert np.array_equal(reader.frames(range(10)), plain.reshape(10, 64, 64, -1))


def test_a_width_that_fills_no_row(tmp_path: Path) -> None:
    """Rows of a decoded frame are longer than the picture is wide."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 50, 38, "yuv420p"
        ramp = np.broadcast_to(np.arange(50, dtype=np.uint8)[None, :, None] * 4 + 20, (38, 50, 3))
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(ramp), format="rgb24")))
        container.mux(stream.encode())
    with open_reader(tmp_path / "a.mkv") as reader:
        picture = reader.frames([2])[0].astype(int)
    assert picture.shape == (38, 50, 3)
    assert np.abs(picture - ramp).max() < 12


def test_opening_decodes_no_more_than_the_first_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", "libx264", EVEN, g="250", bf="2")
    decoded = count_decoded(monkeypatch)
    reader = open_reader(path)
    assert len(decoded) == 1
    assert [read_number(frame) for frame in reader.frames([0, 1])] == [0, 1]
    assert len(decoded) == 2
    assert len(reader) == 60  # tries the last
    assert decoded[-1] == reader._times[-1]
    there = len(decoded)
    assert len(reader) == len(open_reader(path)) == 60
    assert len(decoded) == there


def blank(path: Path, share: float, until: float = 1.0) -> None:
    """Zeros over a part of the frames, as a download leaves them that was never finished; the index of the file is whole."""
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4 if data.index(b"moov") > start else len(data)
    first, last = start + int((end - start) * share), start + int((end - start) * until)
    data[first:last] = bytes(last - first)
    path.write_bytes(data)


def test_a_tail_of_zeros_is_found_when_it_matters(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", EVEN, **ONE_GROUP, bf="2")
    blank(path, 0.7)
    with open_reader(path) as reader:  # the length was not asked for: what is there is found without
        assert [read_number(frame) for frame in reader.frames([3, 20])] == [3, 20]
        assert reader.note == ""
        with pytest.raises((MediaError, IndexError)):
            reader.frames([59])
        assert "60 frames claimed" in reader.note
    forget()
    with open_reader(path) as reader:
        count = len(reader)
        assert 20 < count < 60
        assert f"60 frames claimed, {count} can be decoded" in reader.note
        numbers = [read_number(frame) for frame in reader.frames(range(count))]
        assert numbers[:20] == list(range(20))
        assert numbers == sorted(set(numbers))
        with pytest.raises(IndexError):
            reader.frames([count])
    with open_reader(path) as reader:  # remembered
        assert (len(reader), reader._sequential) == (count, True)


def test_damage_within_the_last_group_is_counted_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", EVEN, **ONE_GROUP, bf="0")
    blank(path, 0.5, 0.56)
    with open_reader(path) as reader:
        try:
            numbers = [read_number(frame) for frame in reader.frames([0, 10, 55])]
        except IndexError:
            numbers = []
        count = len(reader)
        assert 40 < count < 60
        assert "claimed" in reader.note
        assert not numbers or numbers[:2] == [0, 10]
        assert len(reader.frames(range(count))) == count


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    monkeypatch.setattr(video_index, "MOST_TIMES", 130)
    paths = [write(tmp_path / f"{number}.mp4", "libx264", EVEN) for number in range(3)]
    for path in paths:
        assert len(open_reader(path)) == 60
    assert [video_index.recall(video_index.identify(path)) is not None for path in paths] == [False, True, True]
    monkeypatch.setattr(video_index, "MOST_TIMES", 10)  # the file at hand is remembered, however long
    assert len(open_reader(paths[0])) == 60
    assert [video_index.recall(video_index.identify(path)) is not None for path in paths] == [True, False, False]


def test_a_rate_of_the_frames_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", EVEN, base=Fraction(1, 1000), **ONE_GROUP, bf="0")
    blank(path, 0.8)
    with open_reader(path) as reader:
        assert len(reader) < 60
        assert reader.fps == pytest.approx(25, rel=0.1)
