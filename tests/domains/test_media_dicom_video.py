"""Video inside DICOM: every codec and way of packing it, exact frames, what the header says against what the stream says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate
from test_media_dicom import write
from test_media_video import SIZE, numbered, read_number

from domains.errors import MediaError
from domains.media import decoders, open_reader, sniff
from domains.media.dicom import DicomReader
from domains.media.fragments import Joined

COUNT = 30
H264, MPEG2, HEVC = (
    uid.UID("1.2.840.10008.1.2.4.102"),
    uid.UID("1.2.840.10008.1.2.4.100"),
    uid.UID("1.2.840.10008.1.2.4.107"),
)


def stream(codec: str, container: str, count: int = COUNT, rate: int = 30) -> bytes:
    """`count` numbered frames, as a bare stream or in a container."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as out:
        video: Any = out.add_stream(codec, rate=rate)
        video.width = video.height = SIZE
        video.pix_fmt = "yuv420p"
        video.options = {"g": "10", "bf": "2"} | ({"x265-params": "log-level=none"} if codec == "libx265" else {})
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts = number
            out.mux(video.encode(frame))
        out.mux(video.encode())
    return target.getvalue()


def wrap(path: Path, syntax: str, video: bytes, fragments: int = 1, **tags: Any) -> Path:
    """The video as the pixel data of a DICOM file, cut into `fragments`."""
    pixels = encapsulate([video], fragments_per_frame=fragments, has_bot=False)
    claims = {"Rows": SIZE, "Columns": SIZE, "NumberOfFrames": COUNT, **tags}
    return write(path, syntax, pixels, 3, "YBR_PARTIAL_420", **claims)


@pytest.mark.parametrize("fragments", [1, 7])
@pytest.mark.parametrize(
    ("syntax", "codec", "container"),
    [
        (MPEG2, "mpeg2video", "mpeg2video"),
        ("1.2.840.10008.1.2.4.101", "mpeg2video", "vob"),
        ("1.2.840.10008.1.2.4.101.1", "mpeg2video", "mpegts"),
        (H264, "libx264", "h264"),
        ("1.2.840.10008.1.2.4.103", "libx264", "mp4"),
        ("1.2.840.10008.1.2.4.104.1", "libx264", "mpegts"),
        (HEVC, "libx265", "hevc"),
        ("1.2.840.10008.1.2.4.108", "libx265", "mp4"),
    ],
)
def test_the_frame_that_is_asked_for(tmp_path: Path, syntax: str, codec: str, container: str, fragments: int) -> None:
    path = wrap(tmp_path / "IM1", syntax, stream(codec, container), fragments, CineRate=30, PatientID="kept")
    assert sniff(path) == "dicom"
    with open_reader(path) as reader:
        assert (len(reader), reader.height, reader.width, reader.channels) == (COUNT, SIZE, SIZE, 3)
        assert (reader.media, reader.header.PatientID, reader.note) == ("dicom", "kept", "")
        assert (reader.fps, reader.fps_source) == (30, "CineRate")
        wanted = [29, 0, 17, 16, 3, 3, 28]
        frames = reader.frames(wanted)
        assert [read_number(frame) for frame in frames] == wanted
        assert np.abs(frames[2].astype(int) - numbered(17)).mean() < 8
        with pytest.raises(IndexError):
            reader.frames([COUNT])
    assert [entry.name for entry in tmp_path.iterdir()] == ["IM1"]  # nothing is unpacked


def test_the_stream_decides_and_what_disagrees_is_noted(tmp_path: Path) -> None:
    with open_reader(wrap(tmp_path / "a", H264, stream("libx264", "mp4"), NumberOfFrames=99, FrameTime="50")) as reader:
        assert len(reader) == COUNT
        assert "NumberOfFrames says 99, the video holds 30" in reader.note
        assert (reader.fps, reader.fps_source) == (20, "FrameTime")
        assert "the video stream 30" in reader.note
    with open_reader(
        wrap(tmp_path / "b", H264, stream("libx264", "h264", rate=24), NumberOfFrames=None, Rows=None)
    ) as reader:
        assert (len(reader), reader.fps, reader.fps_source, reader.note) == (COUNT, 24, "the video stream", "")


def test_a_cut_file_gives_what_is_there(tmp_path: Path) -> None:
    whole = wrap(tmp_path / "whole", MPEG2, stream("mpeg2video", "mpegts")).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: int(len(whole) * 0.6)])
    with open_reader(tmp_path / "cut") as reader:
        assert 5 < len(reader) < COUNT
        assert [read_number(frame) for frame in reader.frames(range(5))] == list(range(5))
        assert reader.note.startswith("the pixel data is cut short; NumberOfFrames says 30")


@pytest.mark.parametrize(
    ("video", "tags", "reason"),
    [
        (stream("libx264", "mp4"), {"Rows": 480}, "the header says 64x480, the video is 64x64"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n", {}, "no video stream"),
        (b"\0\0\1\xb3" + bytes(range(256)) * 4, {}, "video"),
    ],
)
def test_what_cannot_be_used_has_a_reason(tmp_path: Path, video: bytes, tags: dict[str, Any], reason: str) -> None:
    path = wrap(tmp_path / "a", H264, video, **tags)
    with pytest.raises(MediaError, match=reason):
        open_reader(path)


def test_frames_of_an_absurd_size_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domains.media.video.MOST_PIXELS", SIZE * SIZE - 1)
    with pytest.raises(MediaError, match="absurd size"):
        open_reader(wrap(tmp_path / "a", MPEG2, stream("mpeg2video", "mpeg2video")))


def test_a_file_cut_before_its_video(tmp_path: Path) -> None:
    whole = wrap(tmp_path / "whole", H264, stream("libx264", "mp4")).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: whole.index(b"ftyp") - 4])
    with pytest.raises(MediaError, match="no video in the pixel data") as caught:
        open_reader(tmp_path / "cut")
    assert caught.value.category == "truncated"


def test_pieces_read_as_one_file(tmp_path: Path) -> None:
    content = bytes(range(100))
    (tmp_path / "a").write_bytes(content)
    with (tmp_path / "a").open("rb") as file:
        joined = Joined(file, [(10, 5), (50, 0), (30, 20), (90, 10)])
        expected = content[10:15] + content[30:50] + content[90:]
        assert joined.read() == expected
        assert joined.read(3) == b""
        assert (joined.seek(-12, io.SEEK_END), joined.read(7), joined.tell()) == (23, expected[23:30], 30)
        assert (joined.seek(4), joined.seek(1, io.SEEK_CUR), joined.read(1)) == (4, 5, expected[5:6])
        joined.close()
        assert not file.closed


def test_decoders_know_the_video_syntaxes() -> None:
    (video,) = [decoder for decoder in decoders() if decoder.name.startswith("video")]
    assert video.available
    assert {MPEG2, H264, HEVC, "1.2.840.10008.1.2.4.106.1"} <= set(video.syntaxes)


def test_a_reader_that_is_closed_lets_go_of_both(tmp_path: Path) -> None:
    reader = open_reader(wrap(tmp_path / "a", H264, stream("libx264", "mp4")))
    assert isinstance(reader, DicomReader)
    reader.close()
    assert reader._file.closed


def test_a_dicomdir_is_an_index(tmp_path: Path) -> None:
    path = write(tmp_path / "DICOMDIR", uid.ExplicitVRLittleEndian, b"\0\0", 1, "MONOCHROME2")
    content = path.read_bytes()
    old, new = b"1.2.840.10008.5.1.4.1.1.3.1\0", str(uid.MediaStorageDirectoryStorage).encode()
    path.write_bytes(content.replace(old, new + b"\0" * (len(old) - len(new)), 1))
    with pytest.raises(MediaError, match="DICOMDIR: an index, not a recording") as caught:
        open_reader(path)
    assert caught.value.category == "not a recording"
