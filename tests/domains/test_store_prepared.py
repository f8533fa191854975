import json
import multiprocessing
import pickle
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from store_factory import make_prepared

from domains.errors import DataError, MediaError
from domains.store import frames as jpeg
from domains.store.index import open_index, write_index
from domains.store.manifest import INDEX, MANIFEST, SCHEMA, frame_file
from domains.store.prepared import Prepared


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return make_prepared(tmp_path / "prepared", videos=6, patients=3, frames=12, size=32).prepared


def test_frames_come_in_the_order_asked_for_and_equal_the_jpegs_in_the_file(prepared: Prepared):
    row = prepared.row(2)
    blob = frame_file(prepared.folder, row.video_id).read_bytes()
    clip = prepared.frames(2, [5, 0, 5, 11])
    assert clip.shape == (4, 32, 32, 1)
    for place, index in enumerate([5, 0, 5, 11]):
        part = np.frombuffer(blob[row.offsets[index] : row.offsets[index + 1]], np.uint8)
        assert (clip[place, ..., 0] == cv2.imdecode(part, cv2.IMREAD_GRAYSCALE)).all()
    assert len(blob) == row.bytes == row.offsets[-1]


def test_colour_survives_in_its_order():
    red = np.zeros((1, 16, 16, 3), np.uint8)
    red[..., 0] = 200
    blob, offsets = jpeg.encode(red, quality=95)
    frame = jpeg.decode(blob[: offsets[1]], channels=3)
    assert frame is not None
    assert np.abs(frame.reshape(-1, 3).mean(axis=0) - [200, 0, 0]).max() < 4


def test_what_a_row_says(prepared: Prepared):
    row = prepared.row(1)
    assert row.n_frames == 12 == prepared.length(1)
    assert prepared.fps(1) == 25.0
    assert prepared.index_of(row.video_id) == 1
    assert prepared.patients[1] == row.patient
    assert row.region == (0, 0, 32, 32)
    assert len(set(prepared.patients)) == 3
    assert prepared.summary()["frames"] == 72
    with pytest.raises(DataError, match="no video 'nobody'"):
        prepared.index_of("nobody")
    with pytest.raises(IndexError):
        prepared.row(6)


def test_an_unknown_frame_is_an_index_error(prepared: Prepared):
    for index in (12, -1):
        with pytest.raises(IndexError, match=f"frame {index} of 12"):
            prepared.frames(0, [0, index])


def test_damage_is_a_media_error_and_verify_names_it(prepared: Prepared):
    assert prepared.verify() == []
    paths = [frame_file(prepared.folder, prepared.video_id(index)) for index in range(3)]
    paths[0].unlink()
    blob = bytearray(paths[1].read_bytes())
    start = prepared.row(1).offsets[3]
    blob[start : start + 200] = bytes(200)
    paths[1].write_bytes(blob)
    paths[2].write_bytes(paths[2].read_bytes()[:-600])
    with pytest.raises(MediaError, match="missing"):
        prepared.frames(0, [0])
    assert len(prepared.frames(1, [0, 2, 4])) == 3
    with pytest.raises(MediaError, match="frame 3 is damaged"):
        prepared.frames(1, [2, 3])
    with pytest.raises(MediaError, match="frame 11 is damaged"):
        prepared.frames(2, [11])
    assert [error.path for error in prepared.verify()] == paths


def test_a_frame_of_another_size_is_damage(prepared: Prepared):
    path = frame_file(prepared.folder, prepared.video_id(0))
    other, offsets = jpeg.encode(np.zeros((1, 16, 16, 1), np.uint8), 90)
    path.write_bytes(other)
    with pytest.raises(MediaError, match="frame 0 is damaged"):
        jpeg.read(path, offsets, [0], 32, 1)


def read_in_child(prepared: Prepared, pipe: object) -> None:
    pipe.send(prepared.frames(0, [3]).tobytes())  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_can_be_sent_to_other_processes(prepared: Prepared, method: str):
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    child = context.Process(target=read_in_child, args=(prepared, theirs))
    child.start()
    assert ours.recv() == prepared.frames(0, [3]).tobytes()
    child.join()


def test_a_pickle_holds_the_folder_and_not_the_manifest(prepared: Prepared):
    assert len(pickle.dumps(prepared)) < 300
    assert pickle.loads(pickle.dumps(prepared)).column("video_id") == prepared.column("video_id")


def test_folders_that_are_not_prepared_ones_say_so(prepared: Prepared, tmp_path: Path):
    with pytest.raises(DataError, match="no such folder"):
        Prepared.open(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"not a prepared folder \(no prepared.json\)"):
        Prepared.open(tmp_path / "other")
    info = prepared.folder / "prepared.json"
    text = info.read_text()
    info.write_text(json.dumps({**json.loads(text), "format": 99}))
    with pytest.raises(DataError, match="format 99, this vfm reads 1"):
        Prepared.open(prepared.folder)
    info.write_text("{")
    with pytest.raises(DataError, match=r"prepared.json cannot be read"):
        Prepared.open(prepared.folder)
    info.write_text(text)
    (prepared.folder / MANIFEST).write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"manifest.parquet cannot be read"):
        Prepared.open(prepared.folder)


def test_a_manifest_without_a_column_says_which(prepared: Prepared):
    table = pq.read_table(prepared.folder / MANIFEST)
    pq.write_table(table.drop_columns(["offsets", "fps"]), prepared.folder / MANIFEST)
    with pytest.raises(DataError, match="lacks fps, offsets"):
        Prepared.open(prepared.folder)


def test_the_schema_is_the_documented_one():
    page = Path(__file__).resolve().parents[2] / "docs/architecture.md"
    columns = page.read_text().split("Manifest columns:")[1].split("Labels are joined")[0]
    assert all(f"`{name}`" in columns for name in SCHEMA.names)


def test_the_index_is_mapped_and_says_what_the_manifest_says(prepared: Prepared) -> None:
    index = open_index(prepared.folder)
    rows = [prepared.row(number) for number in range(len(prepared))]
    assert index.video_ids() == [row.video_id for row in rows] == prepared.column("video_id")
    assert index.n_frames.tolist() == [row.n_frames for row in rows]
    assert [index.offsets(number).tolist() for number in range(len(rows))] == [list(row.offsets) for row in rows]
    assert not index.offsets(0).flags.writeable  # a view of the file
    assert not index.n_frames.flags.owndata
    assert index.video_id(-1) == rows[-1].video_id
    with pytest.raises(IndexError):
        index.video_id(len(rows))


@pytest.mark.parametrize("spoil", ["absent", "damaged", "of another manifest"])
def test_an_index_that_does_not_fit_is_made_anew(prepared: Prepared, spoil: str, tmp_path: Path) -> None:
    folder = prepared.folder
    expected = prepared.column("video_id")
    if spoil == "absent":
        (folder / INDEX).unlink()
    elif spoil == "damaged":
        (folder / INDEX).write_bytes((folder / INDEX).read_bytes()[:-40])
    else:
        table = pq.read_table(folder / MANIFEST)
        pq.write_table(table.slice(1), folder / MANIFEST)
        expected = expected[1:]
    opened = Prepared.open(folder)
    assert [opened.video_id(number) for number in range(len(opened))] == expected
    assert opened.row(0).video_id == expected[0]
    assert opened.fps(0) == opened.row(0).fps


def test_rows_are_read_from_any_row_group(prepared: Prepared) -> None:
    table = pq.read_table(prepared.folder / MANIFEST)
    pq.write_table(table, prepared.folder / MANIFEST, row_group_size=2)
    opened = Prepared.open(prepared.folder)
    order = [len(opened) - 1, 0, 3, 4, 1, -1]
    assert [opened.row(number).video_id for number in order] == [opened.video_id(number) for number in order]


def test_a_folder_of_an_earlier_version_withholds_nothing(prepared: Prepared):
    """Its manifest and its index lack the columns that came later."""
    folder = prepared.folder
    table = pq.read_table(folder / MANIFEST).drop_columns(["source_fps", "outside"])
    pq.write_table(table, folder / MANIFEST)
    for written in (False, True):
        if written:
            write_index(folder)
        old = Prepared.open(folder)
        assert old.outside(3).shape == (0, 2)
        assert (old.row(3).source_fps, old.row(3).outside) == (None, ())
        assert (old.column("outside"), old.column("source_fps")) == ([()] * 6, [None] * 6)
        assert "outside" not in old.summary()
    with pytest.raises(KeyError):
        prepared.column("nothing")
