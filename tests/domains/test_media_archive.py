"""Archives of studies: what is listed, what is refused and why, and what a member leaves behind."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from test_media_dicom import FRAMES, pictures, write

from domains.errors import MediaError, StorageError
from domains.media import archive as archive_module
from domains.media import expand, open_reader, opened, sniff

FORMATS = ["zip", "tar", "tar.gz"]


def pack(path: Path, form: str, files: list[tuple[str, bytes]]) -> Path:
    if form == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in files:
                packed.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz" if form == "tar.gz" else "w") as bundle:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def study(tmp_path: Path) -> list[tuple[str, bytes]]:
    """Three recordings that differ, a folder deep, and what a Mac adds."""
    files = []
    for number in range(3):
        frames = np.roll(pictures(), number, axis=0)
        path = write(tmp_path / "made", uid.ExplicitVRLittleEndian, frames.tobytes(), 3, "RGB")
        files.append((f"anna/study {number}/IM{number}", path.read_bytes()))
    (tmp_path / "made").unlink()
    return [*files, ("__MACOSX/anna/._IM0", b"x"), (".DS_Store", b"x"), ("notes.txt", b"a note\n")]


def refusal(path: Path) -> str:
    """Why an archive cannot be used at all."""
    (only,) = expand(path) or []
    assert (only.name, only.within("some/a.zip")) == ("", "some/a.zip")
    return only.reason


def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir(exist_ok=True)
    return tmp_path / "scratch"


@pytest.mark.parametrize("form", FORMATS)
def test_members_open_as_files_do(tmp_path: Path, study: list[tuple[str, bytes]], form: str) -> None:
    path = pack(tmp_path / "whatever", form, study)
    assert sniff(path) is None
    members = expand(path)
    assert members is not None
    assert [member.name for member in members] == [name for name, _ in study if name[0] not in "_."]
    assert [member.size for member in members[:3]] == [len(content) for _, content in study[:3]]
    assert members[0].within("lab/whatever") == "lab/whatever/anna/study 0/IM0"
    work = scratch(tmp_path)
    for number in (1, 2, 0):  # forwards and back
        member = pickle.loads(pickle.dumps(members[number]))
        with opened(member, work) as file:
            assert file.name == f"IM{number}"  # labels are joined by the name of the file
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
            assert file.read_bytes() == study[number][1]
            with open_reader(file) as reader:
                assert np.array_equal(reader.frames([0]), np.roll(pictures(), number, axis=0)[:1])
                assert len(reader) == FRAMES
        assert not list(work.iterdir())
    with opened(members[3], work) as file, pytest.raises(MediaError, match="neither DICOM nor"):
        open_reader(file)


def test_nothing_is_left_behind_by_an_error(tmp_path: Path, study: list[tuple[str, bytes]]) -> None:
    members = expand(pack(tmp_path / "a.zip", "zip", study))
    assert members is not None
    work = scratch(tmp_path)
    with pytest.raises(ZeroDivisionError), opened(members[0], work):
        _ = 1 / 0
    assert not list(work.iterdir())
    with pytest.raises(StorageError, match="cannot be written"), opened(members[0], tmp_path / "nowhere"):
        pass


@pytest.mark.parametrize("name", ["a.txt", "a.nii.gz", "a.docx", "noise"])
def test_what_is_no_archive(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.docx":
        pack(path, "zip", [("[Content_Types].xml", b"<x/>"), ("word/document.xml", b"<x/>")])
    elif name == "a.nii.gz":
        path.write_bytes(gzip.compress(struct.pack("<I", 348) + bytes(340) + b"n+1\0" + bytes(1000)))
    else:
        path.write_bytes(np.random.default_rng(0).bytes(2000) if name == "noise" else b"some text" * 100)
    assert expand(path) is None


def test_sources_that_are_no_files(tmp_path: Path) -> None:
    assert expand(tmp_path) is None
    assert expand(tmp_path / "nothing") is None
    assert refusal(pack(tmp_path / "a.zip", "zip", [])) == "an archive without files"
    with pytest.raises(MediaError, match="without files"), opened((expand(tmp_path / "a.zip") or [])[0], tmp_path):
        pass


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "C:/b"])
def test_names_that_lead_out(tmp_path: Path, form: str, name: str) -> None:
    members = expand(pack(tmp_path / "a", form, [("good", b"x"), (name, b"evil")]))
    assert members is not None
    good, evil = members
    assert not good.reason
    assert evil.reason == "its name leads out of the archive"
    with pytest.raises(MediaError, match="leads out"), opened(evil, scratch(tmp_path)):
        pass
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("form", FORMATS)
def test_archives_within_archives_are_named(tmp_path: Path, study: list[tuple[str, bytes]], form: str) -> None:
    inner = pack(tmp_path / "inner", "zip", study).read_bytes()
    members = expand(pack(tmp_path / "a", form, [("more.zip", inner), ("no_suffix", inner), ("scan.nii.gz", b"x")]))
    assert members is not None
    assert [member.reason for member in members] == ["an archive within an archive: unpack it first", "", ""]
    with opened(members[1], scratch(tmp_path)) as file, pytest.raises(MediaError, match=r"an archive \(zip\)"):
        open_reader(file)


def test_an_encrypted_zip_says_so(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", "zip", [("IM1", b"secret" * 50)])
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    (member,) = expand(path) or []
    assert (member.reason, member.category) == ("encrypted", "unreadable")
    with pytest.raises(MediaError, match="encrypted"), opened(member, scratch(tmp_path)):
        pass


def test_links_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as bundle:
        for kind, name in ((tarfile.SYMTYPE, "soft"), (tarfile.LNKTYPE, "hard"), (tarfile.FIFOTYPE, "pipe")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            bundle.addfile(info)
    members = expand(tmp_path / "a.tar")
    assert members is not None
    assert [member.reason.split(" within")[0] for member in members] == ["a link", "a link", "not a plain file"]


def test_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    members = expand(pack(tmp_path / "a", "tar", [("./x/IM1", b"old"), ("x/IM1", b"newer")]))
    assert members is not None
    assert [(member.name, member.size) for member in members] == [("x/IM1", 3), ("x/IM1 (2)", 5)]


def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "FREE", 100_000)


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_a_bomb_is_refused_by_what_it_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    path = pack(tmp_path / "bomb", form, [("a", b"fine"), ("b", bytes(40_000_000)), ("c", b"fine")])
    assert path.stat().st_size < 100_000
    small_limits(monkeypatch)
    assert "claims to unpack to" in refusal(path)


def test_one_bomb_among_honest_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).bytes(500_000)
    path = pack(tmp_path / "a.zip", "zip", [("honest", noise), ("bomb", bytes(2_000_000))])
    small_limits(monkeypatch)
    honest, bomb = expand(path) or []
    assert not honest.reason
    assert "claims to unpack to 1 MiB" in bomb.reason


def test_a_member_that_lies_about_its_size(tmp_path: Path) -> None:
    """zipfile stops at the claim; what it then finds is not what was packed."""
    path = pack(tmp_path / "a.zip", "zip", [("IM1", b"0123456789" * 1000)])
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 100)
    path.write_bytes(content)
    (member,) = expand(path) or []
    with pytest.raises(MediaError, match="damaged member"), opened(member, scratch(tmp_path)):
        pass
    assert not list((tmp_path / "scratch").iterdir())


def test_too_many_files_and_too_large_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [(str(number), b"x") for number in range(12)]
    monkeypatch.setattr(archive_module, "MOST_MEMBERS", 11)
    for form in FORMATS:
        assert refusal(pack(tmp_path / form, form, files)) == "an archive of more than 11 files"
    monkeypatch.setattr(archive_module, "MOST_BYTES", 2)
    for form in FORMATS:
        small, large = expand(pack(tmp_path / form, form, [("a", b"xx"), ("b", b"xxx")])) or []
        assert (small.reason, large.reason[:6]) == ("", "claims")


def test_a_header_of_an_absurd_size_is_not_read(tmp_path: Path) -> None:
    """A tar may have a name of gigabytes, which tarfile would read into memory."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    assert refusal(tmp_path / "a.tar") == "an archive with a header of an absurd size"


@pytest.mark.parametrize("form", FORMATS)
def test_a_cut_archive(tmp_path: Path, form: str) -> None:
    noise = np.random.default_rng(0)
    files = [(f"IM{number}", noise.bytes(20_000)) for number in range(4)]
    whole = pack(tmp_path / "whole", form, files).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: int(len(whole) * 0.6)])
    if form == "zip":  # the directory lies at the end
        assert refusal(tmp_path / "cut") == "a damaged archive"
        return
    members = expand(tmp_path / "cut")
    assert members is not None
    assert [member.reason for member in members[:2]] == ["", ""]
    assert (members[2].reason, members[2].category) == ("the archive is cut short here", "truncated")
    assert members[-1].reason == "the archive is damaged: what follows is lost"
    for member, (_, content) in zip(members[:2], files, strict=False):
        with opened(member, scratch(tmp_path)) as file:
            assert file.read_bytes() == content


def test_a_damaged_header_within_a_tar_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "a", "tar", [("one", b"1"), ("two", b"2"), ("three", b"3")])
    content = bytearray(path.read_bytes())
    content[1024:1030] = b"!!!!!!"  # each file is a block of header and one of content
    path.write_bytes(content)
    members = expand(path)
    assert members is not None
    assert [member.name for member in members] == ["one", "(the rest)"]
    assert "lost" in members[1].reason


def test_damage_within_a_member(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", "zip", [("IM1", np.random.default_rng(0).bytes(5000))])
    content = bytearray(path.read_bytes())
    content[2000] ^= 0xFF
    path.write_bytes(content)
    (member,) = expand(path) or []
    with pytest.raises(MediaError, match="damaged member"), opened(member, scratch(tmp_path)):
        pass


def test_a_tar_gz_is_unpacked_once_for_members_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens: list[Path] = []
    there = archive_module._stream
    monkeypatch.setattr(archive_module, "_stream", lambda path, form: (opens.append(path), there(path, form))[1])
    path = pack(tmp_path / "a.tgz", "tar.gz", [(f"IM{number}", os.urandom(3000)) for number in range(5)])
    members = expand(path) or []
    assert len(opens) == 1
    for member in members:
        with opened(member, scratch(tmp_path)):
            pass
    assert len(opens) == 2
    pack(path, "tar.gz", [("IM0", b"other")])  # what is remembered goes with the content
    (member,) = expand(path) or []
    with opened(member, scratch(tmp_path)) as file:
        assert file.read_bytes() == b"other"


def test_a_worker_shows_that_it_lives_while_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "CHUNK", 1000)
    path = pack(tmp_path / "a.tgz", "tar.gz", [("before", os.urandom(50_000)), ("IM1", os.urandom(3000))])
    beats: list[None] = []
    with opened((expand(path) or [])[1], scratch(tmp_path), lambda: beats.append(None)):
        assert 50 <= len(beats) <= 60


def test_the_pixels_of_a_detached_header_come_with_it(tmp_path: Path) -> None:
    files = [("p/a.mhd", b"header"), ("p/a.raw", b"pixels"), ("p/b.raw", b"others"), ("a.raw", b"elsewhere")]
    header, *_ = expand(pack(tmp_path / "a", "zip", files)) or []
    with opened(header, scratch(tmp_path)) as file:
        assert sorted(entry.name for entry in file.parent.iterdir()) == ["a.mhd", "a.raw"]
        assert (file.parent / "a.raw").read_bytes() == b"pixels"


@pytest.mark.parametrize(
    ("head", "name"), [(b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07\0", "rar"), (b"BZh9", "bz2")]
)
def test_other_archives_are_named(tmp_path: Path, head: bytes, name: str) -> None:
    (tmp_path / "a").write_bytes(head + bytes(600))
    assert expand(tmp_path / "a") is None
    with pytest.raises(MediaError, match=rf"an archive \({name}\)"):
        open_reader(tmp_path / "a")
