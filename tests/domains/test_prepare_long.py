"""Hours of video at a frame a second: the frame that was on screen, its true time, and no more memory than a short one needs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from domains.base import Domain, RegionSettings, StoreSettings
from domains.media.reader import Reader
from domains.prepare import source
from domains.prepare.find import Source
from domains.prepare.ingest import prepare
from domains.prepare.source import Task, Usable, _kept, examine
from domains.store.prepared import Prepared

MILLISECOND = Fraction(1, 1000)
SECOND = Domain(
    name="long", title="Long", region=RegionSettings(text="keep"), store=StoreSettings(size=32, rate=1.0, quality=95),
)  # fmt: skip


def shades(path: Path, times: list[int]) -> Path:
    """A video whose frame n is of grey level 3 n and is shown from times[n] milliseconds on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt, stream.time_base = "yuv420p", MILLISECOND
        stream.codec_context.time_base = MILLISECOND
        stream.options = {"crf": "10", "g": "12", "bf": "2"}
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 3 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("times", "rate", "kept", "fps"),
    [
        (np.arange(75) / 25, 1.0, [0, 25, 50], 1.0),
        (
            np.arange(75) / 25,
            2.0,
            [0, 12, 25, 37, 50, 62],
            2.0,
        ),  # 12.5 frames: the 13th begins at 0.52 s, the 12th is still shown
        (np.arange(90) / 29.97, 1.0, [0, 30, 59], 1.0),  # a millisecond late counts as in time, two do not
        (
            np.array([0, 0.5, 1.0, 4.2, 4.6, 4.7, 4.8, 4.9]),
            1.0,
            [0, 2, 2, 2, 2],
            1.0,
        ),  # the recorder hung for three seconds
        (np.arange(5) / 1.0, 1.0, [0, 1, 2, 3, 4], None),
        (np.arange(5) * 2.0, 1.0, [0, 1, 2, 3, 4], None),
        (None, 1.0, [0, 1, 2, 3, 4], None),
        (np.arange(5) / 25, None, [0, 1, 2, 3, 4], None),
    ],
)
def test_which_frames_are_on_screen(
    times: np.ndarray | None, rate: float | None, kept: list[int], fps: float | None
) -> None:
    found, stored = _kept(5 if times is None else len(times), times, rate)
    assert (list(found), stored) == (kept, fps)


def test_a_stored_frame_is_the_one_on_screen_at_its_second(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(0).integers(20, 260, 70)).tolist()
    times = [time - times[0] for time in times]
    shades(tmp_path / "in/a.mp4", times)
    prepare(tmp_path / "in", tmp_path / "out", SECOND, key=b"k" * 32)
    store = Prepared.open(tmp_path / "out")
    row = store.row(0)
    assert (row.fps, row.n_frames) == (1.0, times[-1] // 1000 + 1)
    assert row.source_fps == pytest.approx(69 / times[-1] * 1000, rel=1e-3)
    shown = store.frames(0, list(range(row.n_frames))).mean(axis=(1, 2, 3))
    expected = [
        max(number for number, time in enumerate(times) if time <= 1000 * second) for second in range(row.n_frames)
    ]
    assert np.round(shown / 3).astype(int).tolist() == expected


def test_the_rate_of_a_table_says_which_frames_and_a_fast_store_keeps_all(tmp_path: Path) -> None:
    """By its own clock the file lasts 2 s; a data set says 10 frames a second: 5 s."""
    path = shades(tmp_path / "a.mp4", [40 * number for number in range(50)])

    def row(domain: Domain, fps: float | None) -> object:
        found = examine(
            Task(Source(path, "a.mp4", fps=fps), tmp_path / "out", tmp_path, domain, b"k" * 32), lambda: None
        )
        assert isinstance(found, Usable)
        return found.row.n_frames, found.row.fps, found.row.fps_source, found.row.source_fps, found.row.note

    assert row(SECOND, None) == (2, 1.0, "timestamps", pytest.approx(25.0), "")
    odd = "25 frames a second in the file, 10 in the data set's table: the table's is used"
    assert row(SECOND, 10.0) == (5, 1.0, "layout", 10.0, odd)
    fast = SECOND.model_copy(update={"store": StoreSettings(size=32, rate=30.0)})
    assert row(fast, None) == (50, pytest.approx(25.0), "timestamps", None, "")


class Endless(Reader):
    """Two hours and more at 25 frames a second, made as they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path, self.header, self.note, self.media, self.codec = path, {}, "", "video", "none"
        self.height, self.width, self.channels, self.fps, self.fps_source = 36, 48, 3, 25.0, "timestamps"
        self.most = 0

    def __len__(self) -> int:
        return 200_000

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        self.most = max(self.most, max(indices) - min(indices) + 1)
        return np.random.default_rng(indices[0]).integers(0, 255, (len(indices), 36, 48, 3), np.uint8)


def test_memory_does_not_grow_with_the_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8000 stored frames are 12 MB; no more than a part of them is ever held, and signs of life come every few seconds of video."""
    reader = Endless(tmp_path / "a.mp4")
    reader.path.write_bytes(b"x")
    monkeypatch.setattr(source, "sniff", lambda path: "video")
    monkeypatch.setattr(source, "open_reader", lambda path: reader)
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    tracemalloc.start()
    found = examine(Task(Source(reader.path, "a.mp4"), tmp_path / "out", tmp_path, SECOND, b"k" * 32), beat)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(found, Usable)
    row = found.row
    assert (row.n_frames, row.fps, row.source_fps) == (8000, 1.0, 25.0)
    assert (
        row.bytes == (tmp_path / "out/frames" / row.video_id[:2] / f"{row.video_id}.mjpeg").stat().st_size > 8_000_000
    )
    assert peak < 6_000_000
    assert reader.most <= source.DECODED
    assert beats > 8000 * 25 / source.DECODED
