"""What hospitals and disks do to files: swapped bytes, wrong counts, missing tails, headers that claim the impossible."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence
from test_media_dicom import COLUMNS, FRAMES, ROWS, jpegs, pictures, write
from test_media_video import EVEN, numbered, read_number
from test_media_video import write as write_video

from domains.errors import MediaError
from domains.media import open_reader, sniff
from domains.media import video as video_module
from domains.media.greys import ToBytes
from domains.media.jpeg import is_whole, read_head
from domains.media.quiet import quiet


def big_endian_words(path: Path, frames: np.ndarray) -> Path:
    """8-bit RGB as 16-bit big-endian words, each pair of bytes swapped, as the standard wants it (PS3.5 A.2)."""
    rows, columns = frames.shape[1:3]
    file = pydicom.dcmread(
        write(
            path, uid.ExplicitVRLittleEndian, b"\0\0", 3, "RGB", Rows=rows, Columns=columns, NumberOfFrames=len(frames)
        )
    )
    samples = frames.tobytes() + b"\0" * (frames.nbytes % 2)
    file.PixelData = np.frombuffer(samples, "<u2").byteswap().tobytes()
    file["PixelData"].VR = "OW"
    file.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    pydicom.dcmwrite(path, file, implicit_vr=False, little_endian=False, force_encoding=True)
    return path


@pytest.mark.parametrize("size", [(ROWS, COLUMNS), (5, 3)])  # frames of 45 bytes begin in the middle of words
def test_bytes_of_big_endian_words_are_put_back(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = np.ascontiguousarray(pictures()[:, : size[0], : size[1]])
    with open_reader(big_endian_words(tmp_path / "a", frames)) as reader:
        assert np.array_equal(reader.frames([0, 3, 4, 1]), frames[[0, 3, 4, 1]])


def test_a_deflated_file_is_inflated_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = pictures()
    path = write(tmp_path / "a", uid.DeflatedExplicitVRLittleEndian, frames.tobytes(), 3, "RGB")
    assert np.array_equal(open_reader(path).frames([2]), frames[[2]])
    packed = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packed.compress(b"\0" * 8_000_000) + packed.flush()
    whole = path.read_bytes()
    meta = 128 + 4 + 12 + struct.unpack("<I", whole[140:144])[0]  # preamble, DICM, group length element, the group
    (tmp_path / "bomb").write_bytes(whole[:meta] + bomb)
    monkeypatch.setattr("domains.media.dicom.MOST_INFLATED", 1_000_000)
    with pytest.raises(MediaError, match="inflates to more than"):
        open_reader(tmp_path / "bomb")


def test_the_unfinished_last_frame_of_a_cut_file_is_left_out(tmp_path: Path) -> None:
    frames = pictures()
    pixels = encapsulate(jpegs(frames), fragments_per_frame=3, has_bot=False)
    whole = write(tmp_path / "a", uid.JPEGBaseline8Bit, pixels, 3, "YBR_FULL_422").read_bytes()
    # One whole fragment and the start of the next are missing: what is left of the last frame ends without its end marker.
    (tmp_path / "cut").write_bytes(whole[: len(whole) - 8 - len(jpegs(frames)[4]) // 2])
    with open_reader(tmp_path / "cut") as reader:
        assert len(reader) == FRAMES - 1
        assert "cut short" in reader.note
        assert np.abs(reader.frames([3])[0].astype(int) - frames[3]).mean() < 4


def test_extended_offset_table(tmp_path: Path) -> None:
    frames = pictures()
    pixels, offsets, lengths = encapsulate_extended(jpegs(frames))
    tables = {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    with open_reader(write(tmp_path / "a", uid.JPEGBaseline8Bit, pixels, 3, "YBR_FULL_422", **tables)) as reader:
        assert len(reader) == FRAMES
        assert np.abs(reader.frames([4])[0].astype(int) - frames[4]).mean() < 4


def test_an_offset_table_that_points_elsewhere_is_not_followed(tmp_path: Path) -> None:
    pixels = bytearray(encapsulate(jpegs(pictures()), has_bot=True))
    pixels[12:16] = struct.pack("<I", 13)  # the second entry
    with open_reader(write(tmp_path / "a", uid.JPEGBaseline8Bit, bytes(pixels), 3, "YBR_FULL_422")) as reader:
        assert len(reader) == FRAMES
        assert np.abs(reader.frames([1])[0].astype(int) - pictures()[1]).mean() < 4


def test_jpegs_whose_components_are_rgb_are_not_converted(tmp_path: Path) -> None:
    """Where no marker says what the components are, the tag does: OpenCV alone would take them for YCbCr."""
    frames = pictures()
    options = [cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    planes = [cv2.imencode(".jpg", frame, options)[1].tobytes() for frame in frames]
    # OpenCV writes YCbCr of what it takes for BGR. Decoded without transform, the same stream holds Y, Cb, Cr; with it, the picture.
    bare = [
        stream[:2] + stream[4 + int.from_bytes(stream[4:6], "big") :] for stream in planes
    ]  # without its JFIF marker
    tagged_rgb = open_reader(write(tmp_path / "rgb", uid.JPEGBaseline8Bit, encapsulate(bare), 3, "RGB")).frames([1])[0]
    untouched = cv2.cvtColor(frames[1], cv2.COLOR_BGR2YCrCb)[..., [0, 2, 1]]
    assert np.abs(tagged_rgb.astype(int) - untouched).mean() < 3
    tagged_ybr = open_reader(write(tmp_path / "ybr", uid.JPEGBaseline8Bit, encapsulate(bare), 3, "YBR_FULL")).frames(
        [1]
    )[0]
    assert np.abs(tagged_ybr.astype(int) - frames[1][..., ::-1]).mean() < 3


def test_monochrome1_in_jpeg_is_inverted(tmp_path: Path) -> None:
    grey = pictures(1)
    path = write(tmp_path / "a", uid.JPEGBaseline8Bit, encapsulate(jpegs(grey)), 1, "MONOCHROME1")
    assert np.abs(open_reader(path).frames([2])[0].astype(int) - (255 - grey[2].astype(int))).mean() < 2


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.RLELossless])
def test_claims_beyond_the_stream_are_refused_at_opening(tmp_path: Path, syntax: str) -> None:
    file = pydicom.dcmread(write(tmp_path / "a", uid.ExplicitVRLittleEndian, pictures().tobytes(), 3, "RGB"))
    file.compress(syntax)
    file.Rows = file.Columns = 7000
    file.save_as(tmp_path / "b")
    with pytest.raises(MediaError, match="7000x7000"):
        open_reader(tmp_path / "b")


def test_one_bit_frames_that_begin_within_bytes(tmp_path: Path) -> None:
    masks = np.random.default_rng(0).random((3, 5, 7)) < 0.5
    pixels = np.packbits(masks.ravel(), bitorder="little").tobytes()
    tags = {"Rows": 5, "Columns": 7, "NumberOfFrames": 3, "BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    path = write(
        tmp_path / "a", uid.ExplicitVRLittleEndian, pixels + b"\0" * (len(pixels) % 2), 1, "MONOCHROME2", **tags
    )
    assert np.array_equal(open_reader(path).frames([2, 0])[..., 0], masks[[2, 0]] * 255)


def test_a_window_of_the_shared_groups_and_every_function() -> None:
    header, groups, window, transform = (pydicom.Dataset() for _ in range(4))
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = 100, 200, "LINEAR_EXACT"
    transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = 2, -50, "US"
    groups.FrameVOILUTSequence, groups.PixelValueTransformationSequence = Sequence([window]), Sequence([transform])
    header.SharedFunctionalGroupsSequence = Sequence([groups])
    stored = np.array([[25, 75, 125, 4000]], np.uint16)  # 0, 100, 200 and beyond, after the transform
    assert ToBytes(header, "MONOCHROME2", 12, False)(stored)[0, :, 0].tolist() == [0, 128, 255, 255]
    window.VOILUTFunction = "SIGMOID"
    expected = [round(255 / (1 + np.exp(-4 * (value - 100) / 200))) for value in (0, 100, 200)]
    assert np.abs(ToBytes(header, "MONOCHROME2", 12, False)(stored)[0, :3, 0] - np.array(expected)).max() <= 1
    signed = np.array([[-2048, 0, 2047]], np.int16)
    assert ToBytes(pydicom.Dataset(), "MONOCHROME2", 12, True)(signed)[0, :, 0].tolist() == [0, 128, 255]


def test_sizes_in_the_streams_own_headers() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (128, 160, 3), np.uint8)
    stream = cv2.imencode(".jp2", frame)[1].tobytes()
    code = stream[stream.index(b"\xff\x4f\xff\x51") :]
    head = read_head(code)
    assert head is not None
    assert (head.height, head.width, head.components, head.precision, head.baseline) == (128, 160, 3, 8, False)
    assert is_whole(code)
    assert not is_whole(code[:-6])
    jpeg_ls = b"\xff\xd8\xff\xf7" + struct.pack(">HBHHB", 11, 8, 40, 60, 1) + b"\x01\x11\x00"
    head = read_head(jpeg_ls)
    assert head is not None
    assert (head.height, head.width, head.colour) == (40, 60, "grey")


@pytest.mark.parametrize(
    "head",
    [
        b"\x00\x00\x01\x00\x01\x00",
        b"\0\0\0\x18ftypheic\0\0\0\0",
        b"\0\0\0\x1cftypavif\0\0\0\0",
        b"RIFF\0\0\0\0WEBPVP8 ",
    ],
)
def test_pictures_in_the_containers_of_videos_are_none(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a").write_bytes(head + b"\0" * 600)
    assert sniff(tmp_path / "a") is None


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediaError, match="not a file"):
        open_reader(tmp_path / "pipe")


def test_reading_piece_by_piece_decodes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = open_reader(write_video(tmp_path / "a.mp4", "libx264", EVEN, g="250", bf="2"))
    seeks: list[int] = []
    there = video_module.VideoReader._from
    monkeypatch.setattr(
        video_module.VideoReader, "_from", lambda self, key, **how: (seeks.append(key), there(self, key, **how))[1]
    )
    numbers = [
        read_number(frame) for start in range(0, 60, 7) for frame in reader.frames(range(start, min(60, start + 7)))
    ]
    assert numbers == list(range(60))
    assert len(seeks) == 0  # it goes on from the frame that opening looked at
    assert read_number(reader.frames([3])[0]) == 3
    assert len(seeks) == 1


def test_containers_without_seeking_are_read_in_order(tmp_path: Path) -> None:
    reader = open_reader(write_video(tmp_path / "a.ts", "libx264", EVEN, g="12", bf="2"))
    assert len(reader) == 60
    assert [read_number(frame) for frame in reader.frames([50, 2, 51])] == [50, 2, 51]
    assert [read_number(frame) for frame in reader.frames([3])] == [3]


@pytest.mark.parametrize("camera", ["0", "1"])
def test_transport_streams_of_both_packet_sizes(tmp_path: Path, camera: str) -> None:
    """Cameras write a time before each packet: the name is as often .m2ts as .mts or nothing."""
    with av.open(
        str(tmp_path / "00001"), "w", format="mpegts", container_options={"mpegts_m2ts_mode": camera}
    ) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    head = (tmp_path / "00001").read_bytes()[:400]
    assert (head[0] == 0x47) != (camera == "1")
    assert sniff(tmp_path / "00001") == "video"
    with open_reader(tmp_path / "00001") as reader:
        assert [read_number(frame) for frame in reader.frames([11, 4])] == [11, 4]


def test_chance_is_no_transport_stream(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 1000), np.uint8)
    noise[:, [0, 188]] = 0x47  # twice is chance
    for number, row in enumerate(noise):
        (tmp_path / str(number)).write_bytes(row.tobytes())
        assert sniff(tmp_path / str(number)) is None
    (tmp_path / "text").write_bytes(b"G" + b"o" * 187 + b"G")
    assert sniff(tmp_path / "text") is None


@pytest.mark.parametrize(("says", "fps", "source"), [("1", 25, "stream"), ("0", None, "unknown")])
def test_a_bare_stream_may_say_no_rate(tmp_path: Path, says: str, fps: float | None, source: str) -> None:
    """Where it says none FFmpeg would name its default."""
    options = f"log-level=none:vui-timing-info={says}"
    path = write_video(
        tmp_path / "a.hevc", "libx265", list(range(10)), base=Fraction(1, 25), **{"x265-params": options}
    )
    with open_reader(path) as reader:
        assert (len(reader), reader.fps, reader.fps_source) == (10, fps, source)


def test_what_is_remembered_of_a_file_goes_with_its_content(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "libx264", EVEN)
    assert len(open_reader(path)) == len(open_reader(path)) == 60
    other = write_video(tmp_path / "b.mp4", "libx264", EVEN[:20])
    path.write_bytes(other.read_bytes())
    again = open_reader(path)
    assert len(again) == 20
    assert read_number(again.frames([19])[0]) == 19


@pytest.mark.parametrize(("pix_fmt", "channels"), [("gray", 1), ("yuv420p10le", 3)])
def test_grey_and_ten_bit_pixels(tmp_path: Path, pix_fmt: str, channels: int) -> None:
    reader = open_reader(
        write_video(tmp_path / "a.mkv", "ffv1" if channels == 1 else "libx264", EVEN[:12], pix_fmt=pix_fmt)
    )
    assert reader.channels == channels
    frame = reader.frames([9])[0]
    assert frame.shape == (64, 64, channels)
    assert read_number(frame) == 9
    assert np.abs(frame.astype(int) - numbered(9)[..., :channels]).mean() < 12


def test_decoders_do_not_talk_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = jpegs(pictures())
    at = len(broken[2]) // 2
    broken[2] = broken[2][:at] + b"\xff\xff\xd9" * 9 + broken[2][at:]
    cv2.imdecode(np.frombuffer(broken[2], np.uint8), cv2.IMREAD_COLOR)
    assert "JPEG" in capfd.readouterr().err
    with open_reader(write(tmp_path / "a", uid.JPEGBaseline8Bit, encapsulate(broken), 3, "YBR_FULL_422")) as reader:
        reader.frames([2])
    assert capfd.readouterr().err == ""
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_silence_ends_with_the_last_thread(capfd: pytest.CaptureFixture[str]) -> None:
    begun, end = threading.Event(), threading.Event()

    def other() -> None:
        with quiet():
            begun.set()
            end.wait()

    thread = threading.Thread(target=other)
    with quiet():
        thread.start()
        begun.wait()
    os.write(2, b"unheard")
    end.set()
    thread.join()
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_frames_of_other_sizes_are_scaled_to_the_first(tmp_path: Path) -> None:
    """Motion JPEG has every frame's size in the frame itself."""
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p"
        for number in range(6):
            side = 64 if number < 4 else 32
            picture = cv2.resize(numbered(number), (side, side), interpolation=cv2.INTER_AREA)
            packet = av.Packet(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, number, number, True
            container.mux(packet)
    with open_reader(tmp_path / "a.avi") as reader:
        assert (len(reader), reader.height, reader.width) == (6, 64, 64)
        assert [read_number(frame) for frame in reader.frames([5, 1])] == [5, 1]
        assert "size changes" in reader.note
