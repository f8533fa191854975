"""What decoder a file needs, told from its header alone; and what this installation says of a decoder that it lacks."""

from __future__ import annotations

import importlib
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from test_media_dicom import jpegs, pictures, write
from test_media_video import write as write_video

from domains.media import archive, decoders, needs, open_reader

installation = importlib.import_module("domains.media.decoders")  # the package has a function of that name
NOT_PIXELS = encapsulate([b"\xff\xd8not a picture\xff\xd9"] * 5)


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if gdcm could not be imported: no plug-in of pydicom's that needs it, no module of that name."""
    monkeypatch.setitem(sys.modules, "gdcm", None)
    for syntax in (*uid.JPEGLSTransferSyntaxes, uid.JPEGLossless, uid.JPEGLosslessSV1):
        monkeypatch.setattr(get_decoder(syntax), "_available", {})
    installation.can_decode.cache_clear()
    yield
    installation.can_decode.cache_clear()


@pytest.mark.parametrize(
    "syntax",
    [uid.ExplicitVRLittleEndian, uid.JPEGBaseline8Bit, uid.JPEGLSLossless, uid.JPEG2000, "1.2.840.10008.1.2.4.102"],
)
def test_the_transfer_syntax_of_a_file(tmp_path: Path, syntax: str) -> None:
    pixels = pictures().tobytes() if syntax == uid.ExplicitVRLittleEndian else NOT_PIXELS
    assert needs.needed(write(tmp_path / "a", syntax, pixels, 3, "RGB")) == syntax


@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [
        ("a.mp4", "libx264", "h264"),
        ("a.mov", "libx265", "hevc"),
        ("a.mkv", "libx264", "h264"),
        ("a.mkv", "libx265", "hevc"),
        ("a.webm", "libvpx", "vp8"),
        ("a.webm", "libvpx-vp9", "vp9"),
        ("a.avi", "mpeg4", "mpeg4"),
        ("a.mp4", "mpeg4", "mpeg4"),
        ("a.avi", "mjpeg", "mjpeg"),
        ("a.mkv", "mpeg2video", "mpeg2video"),
        ("a.mkv", "ffv1", ""),
        ("a.ts", "libx264", ""),
    ],
)
def test_the_codec_of_a_video(tmp_path: Path, name: str, codec: str, expected: str) -> None:
    base = {"base": Fraction(1, 25)} if codec in ("mpeg4", "mjpeg", "mpeg2video") else {}
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = write_video(tmp_path / name, codec, list(range(6)), pix_fmt=pix_fmt, **base, **quiet)
    assert needs.needed(path) == expected
    with open_reader(path) as reader:  # says the same after opening
        assert not expected or reader.codec == expected


def test_an_index_at_the_end_is_found(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "libx264", list(range(6)))
    data = path.read_bytes()
    assert data.index(b"mdat") < data.index(b"moov")
    wide = data[: data.index(b"mdat") - 4] + b"\0\0\0\x08wide" + data[data.index(b"mdat") - 4 :]
    path.write_bytes(wide)
    assert needs.needed(path) == "h264"


def test_members_of_archives(tmp_path: Path) -> None:
    file = write(tmp_path / "a", uid.JPEGLSLossless, NOT_PIXELS, 3, "RGB")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.write(file, "IM1")
        packed.writestr("notes.txt", "none")
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz")):
        with tarfile.open(tmp_path / name, mode) as packed:
            packed.add(file, "IM1")
    found = {
        name: [needs.needed(member) for member in archive.expand(tmp_path / name) or []]
        for name in ("a.zip", "a.tar", "a.tar.gz")
    }
    assert found == {"a.zip": [uid.JPEGLSLossless, ""], "a.tar": [uid.JPEGLSLossless], "a.tar.gz": [""]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.tar", "a.tar.gz", "a.zip"]


def test_what_says_nothing(tmp_path: Path) -> None:
    whole = write(tmp_path / "a", uid.JPEGLSLossless, NOT_PIXELS, 3, "RGB").read_bytes()
    contents = {
        "empty": b"",
        "text": b"hello",
        "cut": whole[:150],
        "mp4": b"\0\0\0\x18ftypmp42" + b"\xff" * 99,
        "riff": b"RIFF\0\0\0\0AVI LISTstrh",
        "loop": b"\0\0\0\x08free" * 5000,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert needs.needed(tmp_path / name) == "", name
    assert needs.needed(tmp_path) == ""
    assert needs.needed(tmp_path / "nothing") == ""


def test_a_decoder_that_is_not_installed_is_named(tmp_path: Path, lacking: None) -> None:
    absent = {decoder.name: decoder.install for decoder in decoders() if not decoder.available}
    assert absent == dict.fromkeys(["JPEG Lossless", "JPEG-LS", "JPEG extended of 12 bits"], "python-gdcm")
    assert "install python-gdcm" in installation.missing(uid.JPEGLSLossless)


def test_twelve_bits_need_what_eight_do_not(tmp_path: Path, lacking: None) -> None:
    eight = write(tmp_path / "8", uid.JPEGExtended12Bit, encapsulate(jpegs(pictures())), 3, "YBR_FULL_422")
    bits = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
    twelve = write(tmp_path / "12", uid.JPEGExtended12Bit, NOT_PIXELS, 1, "MONOCHROME2", **bits)
    assert needs.needed(eight) == uid.JPEGExtended12Bit
    assert installation.can_decode(uid.JPEGExtended12Bit)
    assert needs.needed(twelve) == installation.TWELVE_BITS
    assert not installation.can_decode(installation.TWELVE_BITS)


def test_lists_are_complete() -> None:
    for decoder in decoders():
        assert decoder.install
        assert all(installation.package(syntax) == decoder.install for syntax in decoder.syntaxes)
    assert installation.package("1.2.840.10008.1.2.4.112") == ""  # JPEG XL: nothing decodes it yet
    assert not installation.can_decode("1.2.840.10008.1.2.4.112")
