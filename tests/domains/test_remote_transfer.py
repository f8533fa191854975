import dataclasses
import hashlib
import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from remote_factory import Troubled, fill, held, in_memory
from source_factory import cine, write_dicom
from test_prepare_ingest import ECHO, KEY

from domains.errors import ConfigError, DataError, StorageError, UnreachableError
from domains.prepare.to_storage import BEGUN, prepare_to
from domains.remote import storage, transfer
from domains.remote.place import Url
from domains.remote.transfer import download, upload
from domains.store.manifest import INFO
from domains.store.prepared import Prepared


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Url]:
    monkeypatch.setenv("VFM_CACHE", str(tmp_path / "cache"))
    with in_memory(monkeypatch) as url:
        yield url / "echo"


def puts() -> list[str]:
    return [call.rpartition("/")[2] for call in Troubled.calls if call.startswith("put")]


def make(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_makes_it_whole_is_sent_last(folder: Url, tmp_path: Path):
    local = make(tmp_path / "p", {"z": "1", "a/b": "2", "whole.json": "{}", "m": "3"})
    seen: list[tuple[int, int]] = []
    assert upload(local, folder, "whole.json", tmp_path / "record", lambda *at: seen.append(at)) == 4
    assert held(folder) == contents(local)
    assert puts()[-1] == "whole.json"
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert stat.S_IMODE((tmp_path / "record").stat().st_mode) == 0o600


def test_what_is_there_is_not_sent_again_and_strays_go(folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    local = make(tmp_path / "p", {"a": "1", "b": "2", "whole.json": "{}"})
    upload(local, folder, "whole.json", tmp_path / "record")
    fill(folder, {"stray": b"old"})
    tagged(monkeypatch, lambda name, data: hashlib.md5(data).hexdigest())
    (tmp_path / "record").unlink()
    make(local, {"b": "3"})
    Troubled.calls.clear()
    upload(local, folder, "whole.json", tmp_path / "record")
    assert puts() == ["b", "whole.json"]
    assert held(folder) == contents(local)
    Troubled.calls.clear()
    assert upload(local, folder, "whole.json", tmp_path / "record") == 0
    assert puts() == []


def tagged(monkeypatch: pytest.MonkeyPatch, tag: Callable[[str, bytes], str]) -> None:
    """A storage that gives every object a tag."""
    plain = storage.listing

    def with_tags(url: Url, deep: bool = True) -> list[storage.Entry]:
        data = held(url)
        entries = plain(url, deep)
        return [dataclasses.replace(entry, version=tag(entry.relative, data[entry.relative])) for entry in entries]

    monkeypatch.setattr(storage, "listing", with_tags)


def test_tags_of_encrypted_objects_are_not_taken_for_checksums(
    folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tagged(monkeypatch, lambda name, data: hashlib.md5(b"key" + data).hexdigest())
    local = make(tmp_path / "p", {"a": "1", "b": "2", "whole.json": "{}"})
    upload(local, folder, "whole.json", tmp_path / "record")
    Troubled.calls.clear()
    assert upload(local, folder, "whole.json", tmp_path / "record") == 0
    fill(folder, {"a": b"X"})  # by somebody else
    upload(local, folder, "whole.json", tmp_path / "record")
    assert puts() == ["a", "whole.json"]
    assert held(folder) == contents(local)


def test_one_tag_that_is_wrong_among_checksums_is_an_error(
    folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tagged(monkeypatch, lambda name, data: hashlib.md5(data if name != "b" else b"spoilt").hexdigest())
    local = make(tmp_path / "p", {"a": "1", "b": "2", "whole.json": "{}"})
    with pytest.raises(StorageError, match="what arrived differs"):
        upload(local, folder, "whole.json", tmp_path / "record")
    assert "whole.json" not in held(folder)


def test_a_killed_upload_is_never_whole_and_goes_on(folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfer, "AT_ONCE", 1)
    local = make(tmp_path / "p", {f"f{number}": str(number) for number in range(9)} | {"whole.json": "{}"})

    def killed(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upload(local, folder, "whole.json", tmp_path / "record", killed)
    assert "whole.json" not in held(folder)
    with (tmp_path / "record").open("a") as file:
        file.write('\n["f8", "cut of')
    Troubled.calls.clear()
    upload(local, folder, "whole.json", tmp_path / "record")
    assert held(folder) == contents(local)
    assert not {"f0", "f1", "f2", "f3"} & set(puts())


def test_a_changed_file_is_sent_again_though_its_size_is_the_same(
    folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    local = make(tmp_path / "p", {"a": "1", "b": "2", "whole.json": "{}"})
    Troubled.only, Troubled.errors = "whole.json", [PermissionError("x")]
    with pytest.raises(UnreachableError):
        upload(local, folder, "whole.json", tmp_path / "record")
    make(local, {"a": "X"})
    Troubled.calls.clear()
    upload(local, folder, "whole.json", tmp_path / "record")
    assert puts() == ["a", "whole.json"]
    assert held(folder)["a"] == b"X"


def test_a_whole_folder_is_not_whole_while_it_is_replaced(folder: Url, tmp_path: Path):
    local = make(tmp_path / "p", {"a": "1", "whole.json": "{}"})
    upload(local, folder, "whole.json", tmp_path / "record")
    make(local, {"a": "2"})
    Troubled.only, Troubled.errors = "/a", [PermissionError("x")]
    with pytest.raises(UnreachableError, match="access denied"):
        upload(local, folder, "whole.json", tmp_path / "record")
    assert set(held(folder)) == {"a"}


def test_a_blip_is_waited_out_and_what_arrived_is_compared(
    folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    local = make(tmp_path / "p", {"a": "1", "whole.json": "{}"})
    Troubled.errors = [TimeoutError("x"), ConnectionError("x")]
    upload(local, folder, "whole.json", tmp_path / "record")
    assert held(folder) == contents(local)
    monkeypatch.setattr(Troubled, "put_file", lambda self, lpath, rpath, **_: self.pipe_file(rpath, b"cut short"))
    make(local, {"a": "2"})
    with pytest.raises(StorageError, match="what arrived differs"):
        upload(local, folder, "whole.json", tmp_path / "record")


def test_download_gives_the_same_and_no_name_leads_out(folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(folder, {"a/b": b"1", "c": b""})
    (tmp_path / "d").mkdir()
    download(folder, tmp_path / "d")
    assert contents(tmp_path / "d") == {"a/b": b"1", "c": b""}
    entry = storage.Entry("x", "../c", 1, "")
    monkeypatch.setattr(storage, "listing", lambda url: [entry])
    with pytest.raises(DataError, match="no file may have"):
        download(folder, tmp_path / "d")
    assert not (tmp_path / "c").exists()


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    for number in range(3):
        write_dicom(tmp_path / f"studies/DOE {number}.dcm", cine(10, seed=number), PatientID=f"MRN-{number}")
    return tmp_path / "studies"


def test_prepare_to_a_url_keeps_here_what_leads_back(folder: Url, studies: Path, tmp_path: Path):
    local = tmp_path / "work" / "echo"
    result = prepare_to(studies, folder, local, ECHO, key=KEY)
    assert result.videos == 3
    assert held(folder) == contents(local)
    assert not any("DOE" in name or b"DOE" in data or b"MRN" in data for name, data in held(folder).items())
    private = {path.name for path in (tmp_path / "work/echo.private").iterdir()}
    assert private == {"sources.csv", "journal.jsonl", "uploaded.jsonl"}
    assert len(Prepared.open(folder)) == 3


def test_a_killed_prepare_goes_on_with_sending(folder: Url, studies: Path, tmp_path: Path):
    local = tmp_path / "echo"
    Troubled.only, Troubled.errors = INFO, [ConnectionError("x")] * 4
    with pytest.raises(UnreachableError):
        prepare_to(studies, folder, local, ECHO, key=KEY)
    assert json.loads((tmp_path / "echo.private" / BEGUN).read_text()) == {"url": str(folder)}
    assert INFO not in held(folder)
    assert len(held(folder)) > 3
    Troubled.calls.clear()
    result = prepare_to(studies, folder, local, ECHO, key=KEY)  # the same call
    assert (result.videos, result.reused) == (3, 3)
    assert not [name for name in puts() if name.endswith(".mjpeg")]
    assert held(folder) == contents(local)
    assert not (tmp_path / "echo.private" / BEGUN).exists()


def test_update_sends_what_is_new_and_takes_away_what_is_gone(folder: Url, studies: Path, tmp_path: Path):
    local = tmp_path / "echo"
    prepare_to(studies, folder, local, ECHO, key=KEY)
    before = set(held(folder))
    (studies / "DOE 0.dcm").unlink()
    write_dicom(studies / "new.dcm", cine(10, seed=9), PatientID="MRN-9")
    result = prepare_to(studies, folder, local, ECHO, key=KEY, update=True)
    assert (result.videos, result.reused) == (3, 2)
    assert held(folder) == contents(local)
    assert len({name for name in before if name.endswith("mjpeg")} - set(held(folder))) == 1


def test_update_without_the_local_copy_fetches_it_back(folder: Url, studies: Path, tmp_path: Path):
    import shutil

    local = tmp_path / "echo"
    prepare_to(studies, folder, local, ECHO, key=KEY)
    shutil.rmtree(local)
    write_dicom(studies / "new.dcm", cine(10, seed=9), PatientID="MRN-9")
    result = prepare_to(studies, folder, local, ECHO, key=KEY, update=True)
    assert (result.videos, result.reused) == (4, 3)
    assert held(folder) == contents(local)


def test_nothing_is_replaced_unasked(folder: Url, studies: Path, tmp_path: Path):
    local = tmp_path / "echo"
    prepare_to(studies, folder, local, ECHO, key=KEY)
    with pytest.raises(ConfigError, match="not empty"):
        prepare_to(studies, folder, tmp_path / "other", ECHO, key=KEY)
    with pytest.raises(ConfigError, match="exists already"):
        prepare_to(studies, folder / "b", local, ECHO, key=KEY)
    before = held(folder)
    assert prepare_to(studies, folder, local, ECHO, key=KEY, overwrite=True).reused == 0
    assert held(folder) == before


def test_what_is_not_ours_is_not_touched(folder: Url, studies: Path, tmp_path: Path):
    fill(folder, {"thesis.doc": b"x"})
    with pytest.raises(ConfigError, match="1 objects that are not of a prepared folder"):
        prepare_to(studies, folder, tmp_path / "echo", ECHO, key=KEY, overwrite=True)
    with pytest.raises(ConfigError, match="within each other"):
        prepare_to(folder, folder / "out", tmp_path / "echo", ECHO, key=KEY)
    assert held(folder) == {"thesis.doc": b"x"}
    assert not (tmp_path / "echo").exists()
