import dataclasses
import functools
import hashlib
import http.server
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_factory import Troubled, fill, held, in_memory

from domains.errors import ConfigError, MediaError, MissingError, StorageError, UnreachableError
from domains.remote import fetched as fetching
from domains.remote import storage
from domains.remote.fetched import Kept, Remote, fetched
from domains.remote.place import Url


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Url]:
    with in_memory(monkeypatch) as url:
        yield url


def remote_of(url: Url, relative: str, *beside: str) -> Remote:
    entries = {entry.relative: entry for entry in storage.listing(url)}
    return Remote(url, relative, tuple(entries[name] for name in (relative, *beside)))


def test_a_listing_has_every_object_in_order_and_reads_none(folder: Url):
    fill(folder, {"b/2": b"22", "a": b"1", "b/1": b"", "b/c/d": b"333"})
    entries = storage.listing(folder)
    assert [(entry.relative, entry.size) for entry in entries] == [("a", 1), ("b/1", 0), ("b/2", 2), ("b/c/d", 3)]
    assert [entry.relative for entry in storage.listing(folder, deep=False)] == ["a"]
    assert not [call for call in Troubled.calls if call.startswith("read")]


def test_a_url_of_one_file_is_listed_by_its_name(folder: Url):
    fill(folder, {"x/clip.avi": b"abc"})
    assert [entry.relative for entry in storage.listing(folder / "x/clip.avi")] == ["clip.avi"]


def test_a_version_changes_with_the_object_and_only_then(folder: Url):
    fill(folder, {"a": b"1", "b": b"1"})
    before = {entry.relative: entry.version for entry in storage.listing(folder)}
    fill(folder, {"b": b"2"})
    after = {entry.relative: entry.version for entry in storage.listing(folder)}
    assert before["a"] == after["a"]
    assert before["b"] != after["b"]


def test_what_is_not_there_is_missing(folder: Url):
    with pytest.raises(MissingError, match="nothing is there"):
        storage.listing(folder)
    with pytest.raises(MissingError) as error:
        storage.read(folder, storage.at(folder, "gone", 3))
    assert error.value.exit_code == 3


@pytest.mark.parametrize(
    "error", [ConnectionResetError("x"), TimeoutError("x"), OSError(5, "EIO"), OSError(16, "SlowDown")]
)
def test_what_may_pass_is_tried_again(folder: Url, error: Exception):
    fill(folder, {"a": b"hello"})
    Troubled.errors = [error] * 3
    assert storage.read(folder, storage.at(folder, "a", 5), 1, 3) == b"el"
    assert len(Troubled.calls) == 4


def test_what_stays_ends_in_one_line_without_the_librarys_words(folder: Url):
    fill(folder, {"a": b"hello"})
    Troubled.errors = [ConnectionResetError("Authorization: SECRETWORD")] * 4
    with pytest.raises(UnreachableError, match="cannot be reached") as error:
        storage.read(folder, storage.at(folder, "a", 5))
    assert len(Troubled.calls) == storage.ATTEMPTS
    assert "SECRETWORD" not in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 5


def test_a_refusal_is_not_tried_again(folder: Url):
    fill(folder, {"a": b"hello"})
    Troubled.errors = [PermissionError("SECRETWORD")]
    with pytest.raises(UnreachableError, match="access denied") as error:
        storage.read(folder, storage.at(folder, "a", 5))
    assert len(Troubled.calls) == 1
    assert "SECRETWORD" not in str(error.value)


def test_an_unknown_scheme_and_a_missing_package_say_what_to_do(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="no storage is known by 'nosuch://'"):
        storage.listing(Url("nosuch://a/b"))

    def absent(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", absent)
    monkeypatch.setattr(storage, "_shared", {})
    with pytest.raises(ConfigError, match=r"vfm\[s3\]"):
        storage.listing(Url("s3://bucket/x"))


def test_a_file_is_fetched_privately_in_pieces_and_gone_afterwards(
    folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage, "CHUNK", 1000)
    data = bytes(range(256)) * 10
    fill(folder, {"in/IM 1.dcm": data})
    beats: list[int] = []
    with fetched(remote_of(folder, "in/IM 1.dcm"), tmp_path, lambda: beats.append(1)) as path:
        assert path.name == "IM 1.dcm"
        assert path.read_bytes() == data
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(beats) == 3
    assert not list(tmp_path.iterdir())


def test_what_belongs_together_lies_together(folder: Url, tmp_path: Path):
    fill(folder, {"a/x.mhd": b"header", "a/x.raw": b"pixels"})
    with fetched(remote_of(folder, "a/x.mhd", "a/x.raw"), tmp_path) as path:
        assert (path.with_name("x.raw").read_bytes(), path.read_bytes()) == (b"pixels", b"header")


def test_an_object_that_cannot_be_had_costs_itself_where_the_storage_answers(folder: Url, tmp_path: Path):
    fill(folder, {"a": b"hello"})
    Troubled.errors = [PermissionError("x")]
    with pytest.raises(MediaError, match="cannot be fetched: access denied"), fetched(remote_of(folder, "a"), tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_storage_that_is_gone_is_told_apart(folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(folder, {"a": b"hello"})
    remote = remote_of(folder, "a")
    Troubled.errors = [ConnectionError("x")] * 4
    monkeypatch.setattr(storage, "answers", lambda url: False)
    with pytest.raises(UnreachableError), fetched(remote, tmp_path):
        pass


def test_an_object_that_became_another_is_taken_as_it_is_now(
    folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage, "CHUNK", 4)
    fill(folder, {"a": b"0123456789"})
    remote = remote_of(folder, "a")
    fill(folder, {"a": b"abcdef"})
    with fetched(remote, tmp_path) as path:
        assert path.read_bytes() == b"abcdef"


def test_a_tag_that_only_looks_like_a_checksum_does_no_harm(
    folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill(folder, {"a": b"hello"})
    (entry,) = (dataclasses.replace(one, version="0" * 32) for one in storage.listing(folder))
    monkeypatch.setattr(storage, "_again", lambda url, entry: entry)
    with fetched(Remote(folder, "a", (entry,)), tmp_path) as path:
        assert path.read_bytes() == b"hello"
    changing = iter(range(1, 9))
    monkeypatch.setattr(
        storage, "_again", lambda url, entry: dataclasses.replace(entry, version=f"{next(changing):032}")
    )
    monkeypatch.setattr(storage, "answers", lambda url: True)
    with pytest.raises(MediaError, match="changes while it is read"), fetched(Remote(folder, "a", (entry,)), tmp_path):
        pass


def test_an_object_that_is_gone_is_named_so(folder: Url, tmp_path: Path):
    fill(folder, {"a": b"0123456789", "b": b""})
    remote = remote_of(folder, "a")
    Troubled.store.pop(f"/{folder.host}/a")
    with pytest.raises(MediaError, match="gone since"), fetched(remote, tmp_path):
        pass


def test_a_full_disk_is_told_before_anything_is_fetched(folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(folder, {"a": b"0123456789"})
    monkeypatch.setattr(fetching, "SPARE", 1 << 60)
    with pytest.raises(StorageError, match="to be fetched"), fetched(remote_of(folder, "a"), tmp_path):
        pass
    assert not [call for call in Troubled.calls if call.startswith("read")]


@pytest.mark.parametrize("name", ["..", "x" * 250 + ".dcm"])
def test_no_name_leads_out_or_is_too_long(folder: Url, tmp_path: Path, name: str):
    entry = storage.Entry(f"/{folder.host}/a", f"d/{name}", 1, "")
    fill(folder, {"a": b"1"})
    with fetched(Remote(folder, f"d/{name}", (entry,)), tmp_path) as path:
        assert path.name.startswith("object")
        assert path.parent.parent == tmp_path


def test_an_archive_stays_until_another_is_asked_for(folder: Url, tmp_path: Path):
    fill(folder, {"a.zip": b"a", "b.zip": b"b"})
    kept, first, second = Kept(), remote_of(folder, "a.zip"), remote_of(folder, "b.zip")
    path = kept.path(first, tmp_path)
    assert kept.path(first, tmp_path) == path
    assert len(Troubled.calls) == 1
    assert kept.path(second, tmp_path).read_bytes() == b"b"
    assert not path.exists()


def test_files_are_put_and_removed(folder: Url, tmp_path: Path):
    (tmp_path / "x").write_bytes(b"new")
    storage.put(tmp_path / "x", folder / "deep/er/x")
    assert held(folder) == {"deep/er/x": b"new"}
    entry = storage.listing(folder)[0]
    assert storage.sha256(folder, entry) == hashlib.sha256(b"new").hexdigest()
    storage.remove(folder, [entry, entry])
    assert held(folder) == {}


def test_ranges_of_one_object(folder: Url):
    fill(folder, {"a": b"0123456789"})
    assert storage.read_ranges(folder, storage.at(folder, "a", 10), [(0, 2), (5, 9)]) == [b"01", b"5678"]


def test_a_web_server_that_lists_links(tmp_path: Path):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: https:// is not read")
    (tmp_path / "www/a").mkdir(parents=True)
    (tmp_path / "www/a/IM 1.dcm").write_bytes(b"hello")
    (tmp_path / "www/empty").write_bytes(b"")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path / "www"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = Url(f"http://127.0.0.1:{server.server_port}")
        found = storage.listing(url)
        assert [(entry.relative, entry.size) for entry in found] == [("a/IM 1.dcm", 5), ("empty", 0)]
        assert all(entry.version for entry in found)
        with fetched(Remote(url, "a/IM 1.dcm", (found[0],)), tmp_path) as path:
            assert path.read_bytes() == b"hello"
        with pytest.raises(MissingError):
            storage.listing(url / "nowhere")
    finally:
        server.shutdown()
