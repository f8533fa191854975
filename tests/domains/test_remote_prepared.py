import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from remote_factory import Troubled, fill, held, in_memory
from store_factory import make_prepared

from domains.errors import ConfigError, DataError, MediaError, UnreachableError
from domains.remote import cache
from domains.remote.place import Url
from domains.store.manifest import INDEX, INFO, frame_file, read_row
from domains.store.prepared import Prepared


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Url]:
    monkeypatch.setenv("VFM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_room", cache._Room())
    with in_memory(monkeypatch) as url:
        yield url / "echo"


def send(local: Path, url: Url) -> None:
    fill(url, {path.relative_to(local).as_posix(): path.read_bytes() for path in local.rglob("*") if path.is_file()})


@pytest.fixture
def both(folder: Url, tmp_path: Path) -> tuple[Prepared, Prepared]:
    """The same prepared folder here, and at a URL."""
    here = make_prepared(tmp_path / "prepared", videos=4, patients=2, frames=12).prepared
    send(here.folder, folder)
    return here, Prepared.open(folder)


def reads(name: str = "") -> list[str]:
    return [call for call in Troubled.calls if call.startswith("read") and name in call]


def test_it_is_the_same_at_a_url(both: tuple[Prepared, Prepared], folder: Url):
    here, there = both
    assert (there.url, there.place, len(there)) == (folder, folder, 4)
    assert there.summary() == here.summary()
    assert [there.row(i) for i in range(4)] == [here.row(i) for i in range(4)]
    for i in range(4):
        np.testing.assert_array_equal(there.frames(i, [3, 0, 11, 3]), here.frames(i, [3, 0, 11, 3]))


def test_what_was_read_once_is_not_asked_for_again(both: tuple[Prepared, Prepared], folder: Url):
    _, there = both
    there.frames(0, [1])
    assert len(reads("mjpeg")) == 1
    there.frames(0, [2, 3])
    Prepared.open(str(folder)).frames(0, [5])
    assert len(reads("mjpeg")) == 1
    assert len(reads("manifest")) == 1


def test_a_worker_asks_the_storage_for_nothing_that_is_in_the_cache(both: tuple[Prepared, Prepared]):
    _, there = both
    there.frames(1, [0])
    before = list(Troubled.calls)
    again = pickle.loads(pickle.dumps(there))
    assert again.url == there.url
    np.testing.assert_array_equal(again.frames(1, [4]), there.frames(1, [4]))
    assert Troubled.calls == before


def test_another_upload_is_seen_and_shares_what_did_not_change(
    both: tuple[Prepared, Prepared], folder: Url, tmp_path: Path
):
    _, there = both
    there.frames(0, [0])
    info = json.loads((there.folder / INFO).read_text())
    fill(folder, {INFO: json.dumps({**info, "domain": "other"}).encode()})
    again = Prepared.open(folder)
    assert (there.domain, again.domain) == ("echo", "other")
    again.frames(0, [0])
    assert len(reads("mjpeg")) == 1


def test_a_table_that_went_bad_in_the_cache_is_fetched_again(both: tuple[Prepared, Prepared], folder: Url):
    _, there = both
    table = there.folder / INDEX
    damaged = bytearray(table.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    table.write_bytes(damaged)
    assert Prepared.open(folder).video_id(0) == there.video_id(0)
    assert len(reads(INDEX)) == 2


def test_a_frame_file_that_went_bad_in_the_cache_is_fetched_again(both: tuple[Prepared, Prepared]):
    here, there = both
    there.frames(0, [0])
    cached = cache.object_file(there.row(0).sha256)
    cached.write_bytes(b"\0" * cached.stat().st_size)
    np.testing.assert_array_equal(there.frames(0, [7]), here.frames(0, [7]))
    assert len(reads("mjpeg")) == 2


def test_a_frame_file_that_is_bad_or_gone_at_the_url_is_named(both: tuple[Prepared, Prepared], folder: Url):
    here, there = both
    names = [frame_file(here.folder, here.video_id(i)).relative_to(here.folder).as_posix() for i in range(4)]
    blob = held(folder)[names[0]]
    fill(folder, {names[0]: b"\0" * len(blob)})
    Troubled.store.pop(f"/{folder.host}/{folder.path}/{names[1]}")
    with pytest.raises(MediaError, match="differs from what was written"):
        there.frames(0, [0])
    with pytest.raises(MediaError, match="no such object"):
        there.frames(1, [0])
    assert [error.path.stem for error in there.verify()] == [here.video_id(0), here.video_id(1)]


def test_verify_reads_the_storage_and_not_the_cache(both: tuple[Prepared, Prepared], folder: Url):
    here, there = both
    assert there.verify() == []
    there.frames(2, [0])
    name = frame_file(here.folder, here.video_id(2)).relative_to(here.folder).as_posix()
    fill(folder, {name: held(folder)[name][:-1] + b"x"})
    assert [error.path.stem for error in there.verify()] == [here.video_id(2)]


def test_a_storage_that_does_not_answer_is_no_fault_of_the_video(both: tuple[Prepared, Prepared]):
    _, there = both
    Troubled.errors = [ConnectionError("x")] * 4
    with pytest.raises(UnreachableError):
        there.frames(0, [0])
    there.frames(0, [0])


def test_large_files_are_read_by_the_blocks_that_are_asked_for(
    both: tuple[Prepared, Prepared], monkeypatch: pytest.MonkeyPatch
):
    here, there = both
    monkeypatch.setattr(cache, "WHOLE", 100)
    monkeypatch.setattr(cache, "BLOCK", 1000)
    for indices in ([9, 2, 3, 9], [11], list(range(12))):
        np.testing.assert_array_equal(there.frames(0, indices), here.frames(0, indices))
        kept = [path.stat().st_size for path in (cache.cache_folder() / "objects").rglob("*.*")]
        blocks = {
            number
            for i in indices
            for number in range(there.offsets(0)[i] // 1000, -(-there.offsets(0)[i + 1] // 1000))
        }
        assert len(kept) >= len(blocks)
        assert len(reads("mjpeg")) == len(kept)  # no block is asked for twice
    assert sum(kept) == there.row(0).bytes
    before = list(Troubled.calls)
    there.frames(0, [5, 6])
    assert Troubled.calls == before


def test_a_block_that_went_bad_in_the_cache_is_fetched_again(
    both: tuple[Prepared, Prepared], monkeypatch: pytest.MonkeyPatch
):
    here, there = both
    monkeypatch.setattr(cache, "WHOLE", 100)
    monkeypatch.setattr(cache, "BLOCK", 1000)
    there.frames(0, [0])
    for block in (cache.cache_folder() / "objects").rglob("*.0"):
        block.write_bytes(b"\0" * 1000)
    np.testing.assert_array_equal(there.frames(0, [0]), here.frames(0, [0]))


def test_a_cache_that_cannot_be_written_is_done_without(both: tuple[Prepared, Prepared]):
    here, there = both
    (cache.cache_folder() / "objects").write_text("in the way")
    np.testing.assert_array_equal(there.frames(0, [2, 2]), here.frames(0, [2, 2]))


def test_the_cache_keeps_to_its_bound(both: tuple[Prepared, Prepared], monkeypatch: pytest.MonkeyPatch):
    _, there = both
    sizes = [there.row(i).bytes for i in range(4)]
    monkeypatch.setenv("VFM_CACHE_GB", str((sizes[2] + sizes[3]) * 1.2 / 1e9))
    for i in range(4):
        there.frames(i, [0])
        cache.object_file(there.row(i).sha256).touch()
        os.utime(cache.object_file(there.row(i).sha256), (1000 + i, 1000 + i))
    cache.trim(cache.cache_bound())
    left = [cache.object_file(there.row(i).sha256).exists() for i in range(4)]
    assert left == [False, False, left[2], True]
    there.frames(0, [0])  # fetched again


@pytest.mark.parametrize("said", ["many", "-1", "nan"])
def test_a_bound_that_is_no_number_is_refused(said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VFM_CACHE_GB", said)
    with pytest.raises(ConfigError, match="VFM_CACHE_GB"):
        cache.cache_bound()


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("VFM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.cache_folder() == Path("/x/vfm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == Path("~/.cache/vfm").expanduser()
    monkeypatch.setenv("VFM_CACHE", "/y")
    assert cache.cache_folder() == Path("/y")


def test_a_folder_that_is_not_whole_is_refused(both: tuple[Prepared, Prepared], folder: Url):
    Troubled.store.pop(f"/{folder.host}/{folder.path}/{INFO}")
    with pytest.raises(DataError, match="not whole yet"):
        Prepared.open(folder)
    with pytest.raises(DataError, match=r"nothing is there|no such"):
        Prepared.open(folder / "nowhere")


def test_one_that_is_replaced_while_it_is_read_is_not_mixed(
    folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = make_prepared(tmp_path / "a", videos=4, patients=2, frames=12, seed=1).prepared
    second = make_prepared(tmp_path / "b", videos=6, patients=2, frames=12, seed=2).prepared
    send(first.folder, folder)
    real = cache._fetch_tables

    def replaced_meanwhile(url: Url, entries: list, target: Path) -> None:
        real(url, entries, target)
        if len(held(folder)) < 12:
            send(second.folder, folder)

    monkeypatch.setattr(cache, "_fetch_tables", replaced_meanwhile)
    found = Prepared.open(folder)
    assert len(found) == 6
    assert found.video_id(0) == second.video_id(0)


def test_an_index_of_an_earlier_version_is_made_anew(tmp_path: Path):
    import pyarrow as pa

    here = make_prepared(tmp_path / "p", videos=2, patients=2, frames=12).prepared
    table = pa.ipc.open_file(str(here.folder / INDEX)).read_all()
    with (
        pa.OSFile(str(here.folder / INDEX), "wb") as sink,
        pa.ipc.new_file(sink, table.drop_columns(["sha256"]).schema) as writer,
    ):
        writer.write_table(table.drop_columns(["sha256"]))
    again = Prepared.open(here.folder)
    assert again._index.sha256(1) == here.row(1).sha256
    assert read_row(vars(again.row(0))) == here.row(0)
    shutil.rmtree(here.folder)
