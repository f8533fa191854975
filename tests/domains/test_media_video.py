"""Video by exact frame, whatever the container: constant and variable rates, B-frames, damage."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from domains.errors import MediaError
from domains.media import open_reader, sniff

SIZE = 64


def numbered(number: int) -> np.ndarray:
    """(64, 64, 3): the number in eight black or white blocks that survive any codec."""
    picture = np.full((SIZE, SIZE, 3), 128, np.uint8)
    for bit in range(8):
        picture[16:48, bit * 8 : bit * 8 + 8] = 235 if number >> bit & 1 else 16
    return picture


def read_number(picture: np.ndarray) -> int:
    return sum(int(picture[24:40, bit * 8 + 2 : bit * 8 + 6].mean() > 128) << bit for bit in range(8))


def write(
    path: Path,
    codec: str,
    times: list[int],
    *,
    base: Fraction = Fraction(1, 1000),
    pix_fmt: str = "yuv420p",
    **options: str,
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = SIZE
        stream.pix_fmt, stream.time_base = pix_fmt, base
        stream.codec_context.time_base = base
        stream.options = options
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = time, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


EVEN = [40 * number for number in range(60)]
UNEVEN = list(np.cumsum(np.random.default_rng(0).integers(10, 120, 60)).tolist())


@pytest.mark.parametrize(
    ("name", "codec", "times", "options"),
    [
        ("a.mp4", "libx264", EVEN, {"g": "12", "bf": "2"}),
        ("vfr.mp4", "libx264", UNEVEN, {"g": "12", "bf": "3"}),
        ("one_key.mkv", "libx264", EVEN, {"g": "250", "bf": "2"}),
        ("a.mkv", "mpeg4", EVEN, {"g": "10"}),
        ("a.avi", "mjpeg", EVEN, {}),
        ("a.webm", "libvpx", EVEN, {"g": "15"}),
    ],
)
def test_the_frame_that_is_asked_for(
    tmp_path: Path, name: str, codec: str, times: list[int], options: dict[str, str]
) -> None:
    kwargs = {"pix_fmt": "yuvj420p", "base": Fraction(1, 25)} if codec == "mjpeg" else {}
    stamps = list(range(60)) if codec == "mjpeg" else times
    path = write(tmp_path / name, codec, stamps, **kwargs, **options)  # type: ignore[arg-type]
    assert sniff(path) == "video"
    with open_reader(path) as reader:
        assert (len(reader), reader.height, reader.width, reader.channels) == (60, SIZE, SIZE, 3)
        wanted = [59, 0, 31, 30, 7, 7, 45, 12, 58]
        assert [read_number(frame) for frame in reader.frames(wanted)] == wanted
        assert [read_number(frame) for frame in reader.frames(range(60))] == list(range(60))
        with pytest.raises(IndexError):
            reader.frames([60])


def test_frame_rate_from_timestamps(tmp_path: Path) -> None:
    reader = open_reader(write(tmp_path / "a.mp4", "libx264", EVEN))
    assert reader.fps == pytest.approx(25, rel=1e-3)
    assert reader.fps_source == "timestamps"
    uneven = open_reader(write(tmp_path / "b.mp4", "libx264", UNEVEN))
    assert uneven.fps == pytest.approx(59 / (UNEVEN[-1] - UNEVEN[0]) * 1000, rel=1e-3)


def test_a_truncated_file_gives_what_is_readable(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mkv", "libx264", EVEN, g="10").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: int(len(whole) * 0.6)])
    with open_reader(tmp_path / "cut.mkv") as reader:
        assert 10 < len(reader) < 60
        numbers = [read_number(frame) for frame in reader.frames(range(len(reader)))]
        # B-frames of the last group may be lost while the frame they lean on is there: a gap, never a wrong order.
        assert numbers == sorted(set(numbers))
        assert numbers[:20] == list(range(20))


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 8)
    with pytest.raises(MediaError) as caught:
        open_reader(tmp_path / "noise.mp4")
    assert caught.value.path.name == "noise.mp4"
    (tmp_path / "empty.avi").touch()
    with pytest.raises(MediaError, match="empty"):
        open_reader(tmp_path / "empty.avi")
    with pytest.raises(MediaError, match="No such file"):
        open_reader(tmp_path / "nothing.avi")
