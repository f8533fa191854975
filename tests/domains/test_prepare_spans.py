"""Chunks of one recording, redacted stretches and boxes that are blanked: what is stored of them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

from domains.base import ClipSettings, load_domain
from domains.errors import ConfigError, DataError, MediaError
from domains.layouts import open_layout
from domains.layouts.egoclip import EgoClip
from domains.media import content_files, open_reader, sniff
from domains.prepare.find import find_files
from domains.prepare.ingest import prepare
from domains.prepare.outside import joined, redacted_frames
from domains.store.clips import clips_from, frame_indices
from domains.store.prepared import Prepared

KEY = bytes(range(32))
SIDE = 64


def write(path: Path, greys: np.ndarray, fps: int = 10, side: int = SIDE) -> None:
    """A video whose frames are of these grey levels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width = stream.height = side
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "10", "g": "5"}
        for grey in greys:
            picture = np.full((side, side, 3), grey, np.uint8)
            picture[::8] = np.clip(int(grey) + 20, 0, 255)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def data_set(folder: Path, recording: str, spans: list[str] | None = None, **changes: object) -> Prepared:
    """A data set of one recording, prepared."""
    about = {"title": "Cut", "domain": "egocentric", "changes": {"store": {"size": SIDE}, **changes}}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(about))
    (folder / "recordings.csv").write_text(f"recording\n{recording}\n")
    (folder / "spans.csv").write_text("\n".join(["recording,start,end,label,value", *(spans or [])]) + "\n")
    layout = open_layout(folder)
    prepare(
        folder,
        folder.parent / "prepared",
        load_domain("egocentric").changed(layout.changes),
        key=KEY,
        layout=layout,
        overwrite=True,
    )
    return Prepared.open(folder.parent / "prepared")


@pytest.fixture
def chunks(tmp_path: Path) -> Path:
    """Three chunks of 20 frames each: grey rises by 3 a frame from the first to the last."""
    greys = 20 + 3 * np.arange(60)
    for number in range(3):
        write(tmp_path / "set" / "long" / f"{number}.mp4", greys[20 * number : 20 * (number + 1)])
    return tmp_path / "set"


def test_chunks_are_one_recording_with_one_clock(chunks: Path) -> None:
    assert sniff(chunks / "long") == "chunks"
    assert [file.name for file in content_files(chunks / "long")] == ["0.mp4", "1.mp4", "2.mp4"]
    with open_reader(chunks / "long") as reader:
        assert len(reader) == 60
        assert reader.times() == pytest.approx(np.arange(60) / 10)
        found = reader.frames([18, 19, 20, 21, 59, 0])[:, 1, 1, 0].astype(int)
        assert found == pytest.approx(20 + 3 * np.array([18, 19, 20, 21, 59, 0]), abs=3)
        with pytest.raises(IndexError):
            reader.frames([60])
    assert len(find_files(chunks)) == 3  # nobody says that they belong together: three recordings


def test_a_clip_goes_on_over_the_border_of_two_chunks(chunks: Path) -> None:
    prepared = data_set(chunks, "long", ["long,1.5,2.5,verb,cut"])
    assert (len(prepared), prepared.length(0), prepared.fps(0)) == (1, 60, 10.0)
    assert "3 chunks in a row" in prepared.row(0).note
    clip = ClipSettings(frames=8, size=32, rate=5)
    frames = clips_from(prepared, 0, clip, np.array([14.0]))[0][:, 1, 1, 0].astype(int)
    assert frames == pytest.approx(
        20 + 3 * frame_indices(60, 10.0, clip, 14.0), abs=4
    )  # 14, 16, ... 28: evenly, through frame 20


def test_chunks_that_do_not_fit_are_said(chunks: Path, tmp_path: Path) -> None:
    (chunks / "long" / "1.mp4").unlink()
    with pytest.raises(MediaError, match="chunk 1 is missing"):
        open_reader(chunks / "long")
    write(chunks / "long" / "1.mp4", np.full(20, 90), fps=25)
    with pytest.raises(MediaError, match="chunk 1 has 25"):
        open_reader(chunks / "long")
    write(chunks / "long" / "1.mp4", np.full(20, 90), side=32)
    with pytest.raises(MediaError, match="chunk 1 is 32x32, the first is 64x64"):
        open_reader(chunks / "long")
    (chunks / "long" / "notes.mp4").write_bytes((chunks / "long" / "0.mp4").read_bytes())
    assert sniff(chunks / "long") is None


def test_egoclip_finds_the_chunks_of_a_video(tmp_path: Path) -> None:
    for name in ("videos/ab-1/0.mp4", "videos/ab-1/1.mp4", "videos/cd-2.mp4", "videos/ef-3/0.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    columns = [
        "clip_idx",
        "video_uid",
        "narration_source",
        "narration_ind",
        "clip_start",
        "clip_end",
        "clip_text",
        "tag_verb",
        "tag_noun",
    ]
    lines = [
        "\t".join([str(n), uid, "one", "0", "601.5", "603", "#C C cuts", "[1]", "[2]"])
        for n, uid in enumerate(("ab-1", "cd-2", "ef-3"))
    ]
    (tmp_path / "egoclip.csv").write_text("\n".join(["\t".join(columns), *lines]) + "\n")
    layout = EgoClip(tmp_path)
    assert [one.path for one in layout.recordings()] == ["videos/ab-1", "videos/cd-2.mp4", "videos/ef-3/0.mp4"]
    assert layout.unlisted() == []
    assert next((text.recording, text.start) for text in layout.texts()) == ("videos/ab-1", 601.5)  # of the whole video


def test_redacted_stretches_are_blank_and_no_clip_is_drawn_there(tmp_path: Path) -> None:
    write(tmp_path / "set" / "one.mp4", np.full(60, 120))
    prepared = data_set(tmp_path / "set", "one.mp4", ["one.mp4,2,3.05,redacted,face", "one.mp4,5,9,redacted,face"])
    frames = prepared.frames(0, range(60))
    hidden = frames.reshape(60, -1).max(1) < 4
    assert np.flatnonzero(hidden).tolist() == [*range(20, 32), *range(50, 60)]
    assert prepared.outside(0).tolist() == [[20, 32], [50, 60]]
    again = data_set(tmp_path / "set", "one.mp4", [])  # the table changes, the file does not
    assert not len(again.outside(0))


def test_redacted_frames_by_hand() -> None:
    assert redacted_frames([(1.0, 2.0)], 100, 10.0) == (10, 21)
    assert redacted_frames([(0.25, 0.26)], 100, 10.0) == (2, 4)
    assert redacted_frames([(1.0, 2.0)], 100, None) == (0, 100)  # nobody knows which
    assert redacted_frames([], 100, 10.0) == ()
    assert joined((0, 5, 20, 30), (3, 8, 30, 31)) == (0, 8, 20, 31)
    assert joined((), (3, 8)) == (3, 8)


def test_boxes_of_a_display_are_blanked(tmp_path: Path) -> None:
    write(tmp_path / "set" / "one.mp4", np.full(20, 120))
    prepared = data_set(tmp_path / "set", "one.mp4", region={"blank": [[0.0, 0.0, 0.5, 0.25]]})
    frames = prepared.frames(0, range(20))
    assert frames[:, :12, :28].max() < 10
    assert frames[:, 20:, :].min() > 90
    assert frames[:, :12, 36:].min() > 90
    with pytest.raises(ConfigError, match="a box is x0, y0, x1, y1"):
        load_domain("egocentric").changed({"region": {"blank": [[0.5, 0.0, 0.2, 1.0]]}})


def test_signals_that_are_missing_or_elsewhere_are_said_before_work_begins(tmp_path: Path) -> None:
    write(tmp_path / "set" / "one.mp4", np.full(20, 120))
    for file, what in (("imu.csv", "no such file, the signal 'imu'"), ("../imu.csv", "the path of a signal leads out")):
        (tmp_path / "set" / "signals.csv").write_text(f"recording,name,file\none.mp4,imu,{file}\n")
        with pytest.raises(DataError, match=what):
            data_set(tmp_path / "set", "one.mp4")
        assert not (tmp_path / "prepared.partial").exists()
    (tmp_path / "set" / "signals.csv").write_text("recording,name,file\none.mp4,imu,a.csv\none.mp4,imu,b.csv\n")
    with pytest.raises(DataError, match="a second signal of that name"):
        data_set(tmp_path / "set", "one.mp4")


def test_events_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path / "set" / "one.mp4", np.full(20, 120))
    data_set(tmp_path / "set", "one.mp4")
    for line, what in (("one.mp4,game,,1", "an event without a camera"), ("one.mp4,game,left,yes", "'exo' is 'yes'")):
        (tmp_path / "set" / "recordings.csv").write_text(f"recording,event,camera,exo\n{line}\n")
        with pytest.raises(DataError, match=what):
            list(open_layout(tmp_path / "set").recordings())
    (tmp_path / "set" / "recordings.csv").write_text(
        "recording,event,camera,team,exo,offset,drift\none.mp4,game,left,red,0,-1.5,0.001\n"
    )
    (one,) = open_layout(tmp_path / "set").recordings()
    assert (one.event, one.camera, one.team, one.exo, one.offset, one.drift) == (
        "game",
        "left",
        "red",
        False,
        -1.5,
        0.001,
    )
