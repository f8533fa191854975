import csv
import hashlib
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from layout_factory import filmed_echonet
from remote_factory import Troubled, fill, held, in_memory
from source_factory import cine, write_avi, write_dicom
from test_prepare_ingest import ECHO, KEY, write_sources

from domains.errors import DataError, MissingError, UnreachableError
from domains.layouts import open_layout
from domains.prepare import ingest, output
from domains.prepare.afar import at_hand, find_remote, located, shadow
from domains.prepare.audit import audit, collect
from domains.prepare.find import find_sources
from domains.prepare.ingest import check, prepare
from domains.prepare.journal import Stamp
from domains.prepare.privacy import Pseudonyms
from domains.prepare.source import Refused, Task, Unreached, Usable, examine
from domains.remote import storage
from domains.remote.place import Url
from domains.store.prepared import Prepared


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Url]:
    with in_memory(monkeypatch) as url:
        yield url


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of source: files, an archive, a folder of pictures, a header with its pixels beside it."""
    root = write_sources(tmp_path_factory.mktemp("in") / "studies")
    shutil.make_archive(str(root / "more"), "zip", root / "b")
    (root / "b/no_extension").unlink()
    frames = cine(10, seed=8)
    import cv2

    (root / "frames").mkdir()
    for number, frame in enumerate(frames):
        cv2.imwrite(str(root / f"frames/frame_{number:04d}.png"), frame)
    return root


def digest(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def url_of(path: Path) -> Url:
    return Url(f"file://{path}")


def send(local: Path, url: Url) -> None:
    fill(url, {path.relative_to(local).as_posix(): path.read_bytes() for path in local.rglob("*") if path.is_file()})


def test_a_storage_gives_the_same_folder_as_a_disk(studies: Path, tmp_path: Path):
    here = prepare(studies, tmp_path / "here", ECHO, key=KEY)
    there = prepare(url_of(studies), tmp_path / "there", ECHO, key=KEY, workers=2)
    assert digest(tmp_path / "here") == digest(tmp_path / "there")
    assert (there.videos, there.patients, there.by_category()) == (here.videos, here.patients, here.by_category())
    assert there.by_category()["not a recording"] == 1
    assert not (tmp_path / "there.private/unpacked").exists()
    table = output.private_folder(tmp_path / "there") / "sources.csv"
    with table.open(newline="") as file:
        sources = [row["source"] for row in csv.DictReader(file)]
    assert f"file://{studies}/more.zip/no_extension" in sources
    assert f"file://{studies}/frames" in sources
    assert stat.S_IMODE(table.stat().st_mode) == 0o600


def test_what_is_written_does_not_say_where_it_came_from(studies: Path, tmp_path: Path):
    prepare(url_of(studies), tmp_path / "out", ECHO, key=KEY)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert b"file://" not in path.read_bytes()
            assert str(studies).encode() not in path.read_bytes()


def test_check_writes_nothing_and_says_what_prepare_would(studies: Path):
    here = {str(one.source.relative_to(studies)): (one.row is not None, one.category) for one in check(studies, ECHO)}  # type: ignore[union-attr]
    root = url_of(studies)
    there = {str(one.source)[len(str(root)) + 1 :]: (one.row is not None, one.category) for one in check(root, ECHO)}
    assert there == here


def test_unchanged_objects_are_known_by_their_listing_alone(folder: Url, tmp_path: Path):
    write_dicom(tmp_path / "in/a.dcm", cine(10, seed=1))
    write_dicom(tmp_path / "in/b.dcm", cine(10, seed=2))
    send(tmp_path / "in", folder)
    names = Pseudonyms(KEY)
    before = {one.relative: Stamp.of_source(one, names) for one in find_remote(folder)}
    again = {one.relative: Stamp.of_source(one, names) for one in find_remote(folder)}
    assert before == again
    fill(folder, {"b.dcm": (tmp_path / "in/a.dcm").read_bytes()})
    after = {one.relative: Stamp.of_source(one, names) for one in find_remote(folder)}
    assert after["a.dcm"] == before["a.dcm"]
    assert after["b.dcm"] != before["b.dcm"]
    assert not [call for call in Troubled.calls if call.startswith("read")]


def test_update_looks_at_new_and_changed_objects_only(tmp_path: Path):
    root, out = tmp_path / "in", tmp_path / "out"
    for number in range(3):
        write_dicom(root / f"{number}.dcm", cine(10, seed=number))
    prepare(url_of(root), out, ECHO, key=KEY)
    write_dicom(root / "1.dcm", cine(12, seed=11))
    (root / "2.dcm").unlink()
    write_dicom(root / "3.dcm", cine(10, seed=13))
    result = prepare(url_of(root), out, ECHO, key=KEY, update=True)
    assert (result.videos, result.reused) == (3, 1)
    assert sorted(Prepared.open(out).column("n_frames")) == [10, 10, 12]


def test_a_killed_call_goes_on_without_fetching_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root, out = tmp_path / "in", tmp_path / "out"
    for number in range(3):
        write_dicom(root / f"{number}.dcm", cine(10, seed=number))
    seen: list[int] = []

    def killed(done: int, total: int) -> None:
        seen.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(url_of(root), out, ECHO, key=KEY, progress=killed)
    assert not out.exists()
    result = prepare(url_of(root), out, ECHO, key=KEY)
    assert (result.videos, result.reused) == (3, 2)


def source_task(url: Url, name: str, tmp_path: Path) -> Task:
    source = next(one for one in find_sources(url) if one.relative == name)
    (tmp_path / "scratch").mkdir(exist_ok=True)
    return Task(source, tmp_path / "draft", tmp_path / "scratch", ECHO, KEY)


def test_a_file_is_fetched_looked_at_and_gone(folder: Url, tmp_path: Path):
    write_dicom(tmp_path / "in/DOE/a.dcm", cine(10, seed=1))
    send(tmp_path / "in", folder)
    outcome = examine(source_task(folder, "DOE/a.dcm", tmp_path), lambda: None)
    assert isinstance(outcome, Usable)
    assert outcome.row.n_frames == 10
    assert not list((tmp_path / "scratch").iterdir())


def test_a_blip_is_waited_out_and_a_refusal_costs_one_file(folder: Url, tmp_path: Path):
    write_dicom(tmp_path / "in/DOE.dcm", cine(10, seed=1))
    send(tmp_path / "in", folder)
    task = source_task(folder, "DOE.dcm", tmp_path)
    Troubled.errors = [ConnectionResetError("reset")] * 3
    assert isinstance(examine(task, lambda: None), Usable)
    Troubled.errors = [PermissionError("DOE is not for you")]
    assert examine(task, lambda: None) == Refused(
        "unreadable", "cannot be fetched: access denied", "cannot be fetched: access denied"
    )


def test_a_storage_that_goes_away_ends_the_call_and_keeps_what_was_done(
    folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root, out = tmp_path / "in", tmp_path / "out"
    for number in range(3):
        write_dicom(root / f"{number}.dcm", cine(10, seed=number))
    send(root, folder)
    task = source_task(folder, "1.dcm", tmp_path)
    monkeypatch.setattr(storage, "answers", lambda url: False)
    Troubled.errors = [ConnectionError("x")] * 4
    gone = examine(task, lambda: None)
    assert gone == Unreached("the storage cannot be reached")

    real = ingest.pool.run

    def dies(work, tasks, **settings):  # type: ignore[no-untyped-def]
        for number, outcome in real(work, tasks, **settings):
            yield (number, outcome) if number != 1 else (number, gone)

    monkeypatch.setattr(ingest.pool, "run", dies)
    with pytest.raises(UnreachableError, match="goes on where this one stopped"):
        prepare(url_of(root), out, ECHO, key=KEY)
    monkeypatch.setattr(ingest.pool, "run", real)
    result = prepare(url_of(root), out, ECHO, key=KEY)
    assert result.videos == 3
    assert result.reused >= 1


def test_pictures_of_a_folder_are_one_recording_unless_a_recording_lies_beside_them(folder: Url, tmp_path: Path):
    pictures = {f"a/f_{number}.png": b"x" for number in range(9)} | {f"b/f_{number}.png": b"x" for number in range(9)}
    write_avi(tmp_path / "clip.avi", cine(10))
    fill(folder, {**pictures, "a/notes.txt": b"hello", "b/clip": (tmp_path / "clip.avi").read_bytes()})
    found = [one.relative for one in find_sources(folder)]
    assert found == ["a", "b/clip", *(f"b/f_{number}.png" for number in range(9))]


def test_hidden_objects_and_marks_of_folders_are_passed_over(folder: Url):
    fill(folder, {".DS_Store": b"x", "a/._x.dcm": b"x", "a/x.dcm": b"x", ".git/config": b"x"})
    assert [one.relative for one in find_sources(folder)] == ["a/x.dcm"]


def test_an_archive_without_its_ending_is_set_aside_with_the_reason(folder: Url, tmp_path: Path):
    write_dicom(tmp_path / "in/a.dcm", cine(10, seed=1))
    shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "in")
    fill(folder, {"IM1": (tmp_path / "x.zip").read_bytes()})
    outcome = examine(source_task(folder, "IM1", tmp_path), lambda: None)
    assert isinstance(outcome, Refused)
    assert outcome.category == "not a recording"
    assert "*.zip" in outcome.reason


def test_members_of_an_archive_come_with_one_download(folder: Url, tmp_path: Path):
    for number in range(3):
        write_dicom(tmp_path / f"in/{number}.dcm", cine(8, seed=number))
    shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "in")
    fill(folder, {"x.zip": (tmp_path / "x.zip").read_bytes()})
    sources = find_sources(folder)
    assert {str(one.shown) for one in sources} == {f"{folder}/x.zip/{number}.dcm" for number in range(3)}
    Troubled.calls.clear()
    for source in sources:
        with at_hand(source, tmp_path) as path:
            assert path.read_bytes() == (tmp_path / "in" / source.relative.rpartition("/")[2]).read_bytes()
    assert len(Troubled.calls) == 1


def test_an_unchanged_archive_is_not_fetched_for_its_list(folder: Url, tmp_path: Path):
    for number in range(3):
        write_dicom(tmp_path / f"in/{number}.dcm", cine(8, seed=number))
    shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "in")
    lists = tmp_path / "private/archives.json"
    fill(
        folder,
        {"x.zip": (tmp_path / "x.zip").read_bytes(), "no.zip": b"none", "y.zip": (tmp_path / "x.zip").read_bytes()},
    )
    first = find_sources(folder, lists=lists)
    assert len(first) == 7
    assert stat.S_IMODE(lists.stat().st_mode) == 0o600
    assert len(Troubled.calls) == 3
    assert find_sources(folder, lists=lists) == first
    assert len(Troubled.calls) == 3
    (tmp_path / "in/0.dcm").unlink()
    shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "in")
    fill(folder, {"x.zip": (tmp_path / "x.zip").read_bytes()})
    assert len(find_sources(folder, lists=lists)) == 6
    assert len(Troubled.calls) == 4
    lists.write_text("{ damaged")
    assert len(find_sources(folder, lists=lists)) == 6


def test_one_file_by_its_url(tmp_path: Path):
    write_dicom(tmp_path / "in/a.dcm", cine(10, seed=1))
    (source,) = find_sources(url_of(tmp_path / "in/a.dcm"))
    assert (source.relative, str(source.shown)) == ("a.dcm", f"file://{tmp_path}/in/a.dcm")
    assert prepare(url_of(tmp_path / "in/a.dcm"), tmp_path / "out", ECHO, key=KEY).videos == 1


def test_nothing_there_and_nothing_usable(folder: Url, tmp_path: Path):
    with pytest.raises(MissingError):
        prepare(folder, tmp_path / "out", ECHO, key=KEY)
    fill(folder, {".hidden": b"x"})
    with pytest.raises(DataError, match="no files"):
        prepare(folder, tmp_path / "out", ECHO, key=KEY)
    assert not list(tmp_path.iterdir())


def test_the_audit_reads_sources_and_prepared_folders_at_urls(
    studies: Path, folder: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("VFM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    here, _, _ = collect(studies, tmp_path / "none")
    there, _, _ = collect(url_of(studies), tmp_path / "none")
    assert set(here) == set(there)
    out = tmp_path / "out"
    prepare(studies, out, ECHO, key=KEY)
    send(out, folder / "prep")
    clean = audit(folder / "prep", url_of(studies), looked=True)
    assert clean.clean
    assert (tmp_path / "prep.private/audit.json").is_file()
    fill(
        folder / "prep",
        {"prepared.json": (out / "prepared.json").read_bytes().replace(b"{", b'{"by": "MRN-778899",', 1)},
    )
    fill(folder / "prep", {"DOE JANE.txt": b"x"})
    found = audit(folder / "prep", url_of(studies), looked=True, local=tmp_path / "out")
    assert {finding.where for one in found.checks for finding in one.found} == {"prepared.json", "DOE JANE.txt"}
    assert held(folder / "prep").keys() >= {"prepared.json"}


def test_a_public_data_set_is_read_from_a_storage_as_from_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = filmed_echonet(tmp_path / "EchoNet-Dynamic", videos=6)
    url = url_of(root)
    here = prepare(root, tmp_path / "here", ECHO, key=KEY, layout=open_layout(root))
    with shadow(url) as tables:
        assert {path.stat().st_size for path in tables.rglob("*.avi")} == {0}
        assert (tables / "FileList.csv").read_bytes() == (root / "FileList.csv").read_bytes()
        there = prepare(url, tmp_path / "there", ECHO, key=KEY, layout=open_layout(tables, "echonet-dynamic"))
        assert len(check(url, ECHO, layout=open_layout(tables, "echonet-dynamic"))) == 6
    assert not tables.exists()
    assert digest(tmp_path / "there") == digest(tmp_path / "here")
    assert there.listed is not None
    assert here.listed is not None
    assert there.listed.labels == here.listed.labels
    assert there.listed.splits == here.listed.splits


def test_named_sources_are_files_or_folders_of_pictures(folder: Url):
    fill(folder, {"frames/VID01/000000.png": b"x", "frames/VID01/000001.png": b"y", "v.mhd": b"h", "v.raw": b"p"})
    pictures, header = located(folder, ["frames/VID01", "v.mhd"])
    assert pictures.remote is not None
    assert header.remote is not None
    assert pictures.remote.folder
    assert [entry.relative for entry in pictures.remote.entries] == [
        "frames/VID01/000000.png",
        "frames/VID01/000001.png",
    ]
    assert [entry.relative for entry in header.remote.entries] == ["v.mhd", "v.raw"]
    with pytest.raises(DataError, match="gone since"):
        located(folder, ["other.avi"])
