"""A decoder that is not installed is named before work starts, not after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import uid
from pydicom.encaps import encapsulate
from remote_factory import Troubled, fill, in_memory
from source_factory import cine, region_item, write_dicom

from domains.errors import UnreachableError
from domains.media.decoders import can_decode
from domains.prepare import decodable
from domains.prepare.find import find_sources
from domains.remote import storage

REPO = Path(__file__).resolve().parents[2]
FRAME = encapsulate([b"\xff\xd8 not decoded here \xff\xd9"] * 16)
COMMANDS = """
import contextlib, io, json, os, sys
from vfm_cli.console import run_guarded
from vfm_cli.main import cli

told = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_guarded(cli, words)
    told.append([code, out.getvalue(), err.getvalue(), os.listdir()])
print(json.dumps(told))
"""


def study(folder: Path) -> Path:
    """Three cines, one of them in a syntax that gdcm alone reads, and a file that nothing reads."""
    for number in range(2):
        write_dicom(folder / f"IM{number}", cine(16, seed=number), [region_item()])
    plain = cine(16, seed=2)
    for name, syntax in (("IM2", uid.JPEGLSLossless), ("IM3", uid.MPEG2MPML)):
        write_dicom(folder / name, plain, [region_item()])
        encode(folder / name, syntax)
    unknown = (folder / "IM3").read_bytes().replace(b"1.2.840.10008.1.2.4.100", b"1.2.840.10008.1.2.4.112")
    (folder / "IM3").write_bytes(unknown)  # JPEG XL, which pydicom does not know
    return folder


def encode(path: Path, syntax: uid.UID) -> None:
    """The same header with other pixels."""
    import pydicom

    image = pydicom.dcmread(path)
    image.file_meta.TransferSyntaxUID = syntax
    image.PixelData = FRAME
    image["PixelData"].VR, image["PixelData"].is_undefined_length = "OB", True
    image.save_as(path, enforce_file_format=True)


def run_without_gdcm(tmp_path: Path, *commands: list[str]) -> list[tuple[int, str, str, list[str]]]:
    """(exit code, stdout, stderr, what lies in the folder then) of each command where `import gdcm` fails, in workers too."""
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "gdcm.py").write_text("raise ImportError('as if it were not installed')\n")
    paths = os.pathsep.join([str(tmp_path / "absent"), str(REPO)])
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": paths, "VFM_KEY": str(tmp_path / "key"), "COLUMNS": "200"},
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [tuple(one) for one in json.loads(done.stdout)]


def test_prepare_stops_before_it_writes_or_goes_on_when_told(tmp_path: Path) -> None:
    study(tmp_path / "study")
    prepare = ["data", "prepare", "study", "--domain", "echo", "--out", "prepared", "--workers", "1"]
    stopped, looked, went_on = run_without_gdcm(
        tmp_path,
        prepare,
        ["data", "check", "study", "--domain", "echo", "--workers", "1", "--json"],
        [*prepare, "--without-decoders", "--json"],
    )
    code, _, line, written = stopped
    assert code == 3
    assert not [name for name in written if name.startswith("prepared")]
    (line,) = [line for line in line.splitlines() if "error" in line.lower() or "need a decoder" in line]
    assert "1 of 4 files need a decoder that is not installed: JPEG-LS (1)" in line
    assert "pip install python-gdcm" in line
    assert "--without-decoders" in line

    assert looked[0] == 0
    found = json.loads(looked[1])
    assert found["missing_decoders"] == [{"decoder": "JPEG-LS", "files": 1, "install": "python-gdcm"}]
    assert {Path(one["source"]).name: one["category"] for one in found["set_aside"]} == dict.fromkeys(
        ["IM2", "IM3"], "no decoder"
    )
    assert "1 need JPEG-LS (pip install python-gdcm)" in looked[2]

    assert went_on[0] == 0
    done = json.loads(went_on[1])
    assert done["videos"] == 2
    assert [one["category"] for one in done["excluded"]] == ["no decoder", "no decoder"]


def test_no_file_is_opened_where_every_decoder_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = find_sources(study(tmp_path / "study"))
    monkeypatch.setattr(decodable, "needed", lambda source: pytest.fail("looked"))
    assert decodable.missing_decoders(sources) == []
    decodable.insist(tmp_path, sources)


def test_the_most_needed_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, syntax in enumerate([uid.JPEG2000, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless]):
        write_dicom(tmp_path / "study" / f"IM{number}", cine(2))
        encode(tmp_path / "study" / f"IM{number}", syntax)
    there = can_decode
    absent = {*uid.JPEG2000TransferSyntaxes, uid.JPEGLSLossless}
    monkeypatch.setattr(decodable, "can_decode", lambda syntax: syntax not in absent and there(syntax))
    monkeypatch.setattr(decodable, "everything_is_there", lambda: False)
    first, second = decodable.missing_decoders(find_sources(tmp_path / "study"))
    assert (first.decoder, first.files, first.install) == ("JPEG 2000", 2, "pylibjpeg-openjpeg")
    assert (second.decoder, second.files, second.first.name) == ("JPEG-LS", 1, "IM1")


def test_of_a_file_of_a_storage_the_first_bytes_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(tmp_path / "study")
    monkeypatch.setattr(decodable, "can_decode", lambda syntax: syntax != uid.JPEGLSLossless and can_decode(syntax))
    monkeypatch.setattr(decodable, "everything_is_there", lambda: False)
    with in_memory(monkeypatch) as url:
        files = {path.name: path.read_bytes() for path in (tmp_path / "study").iterdir()}
        fill(url, {**files, "frames/notes.txt": b"x"})
        sources = find_sources(url)
        (missing,) = decodable.missing_decoders(sources)
        assert (missing.decoder, missing.files, str(missing.first)) == ("JPEG-LS", 1, f"{url}/IM2")
        Troubled.only, Troubled.errors = "IM2", [PermissionError("x")]
        assert decodable.missing_decoders(sources) == []  # it is set aside by name when its turn comes
        Troubled.errors = [ConnectionError("x")] * 4
        monkeypatch.setattr(storage, "answers", lambda url: False)
        with pytest.raises(UnreachableError):
            decodable.missing_decoders(sources)
