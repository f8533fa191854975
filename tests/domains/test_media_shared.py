"""Every real file of ../shared/data reads, or says in a few words why not."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from domains.errors import MediaError
from domains.media import open_reader
from domains.media.decoders import can_decode

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = [pytest.mark.shared, pytest.mark.skipif(not DATA.is_dir(), reason=f"no sample files at {DATA}")]
# Frames of the cines that matter most, as the index beside the files says.
LENGTHS = {
    "echo/us/examples_ybr_color.dcm": 30, "echo/us/IM00001.fragmented_no_bot_jpeg_baseline.50.dcm": 8,
    "echo/us/IM00001.implicit_little_endian.dcm": 8,
    "echo/us/jpeg-ls-Palette.dcm": 10, "echo/us/OBXXXX1A_rle_2frame.dcm": 2, "echo/other/emri_small_big_endian.dcm": 10,
    "echo/video/wikimedia_apical_4-chamber.gif": 20, "echo/video/clarius-ocular-short.mp4": 50, "corrupt/video/tiny_av1.mp4": 1,
    "corrupt/video/unordered.mov": 4, "corrupt/video/test_rot_90_deg.mp4": 30, "corrupt/video/paris-ra-wpp.bin": 1000,
    "surgical/cholect50_clips/VID43_147_and_VID42_3625_a.mp4": 800, "general/v_GGSY1Qvo990.mp4": 355,
}  # fmt: skip


CATEGORIES = {"not a recording", "unreadable", "truncated", "no decoder", "no pixel data", "volume"}


@pytest.mark.parametrize("name", LENGTHS)
def test_length(name: str) -> None:
    with open_reader(DATA / name) as reader:
        assert len(reader) == LENGTHS[name]
        assert reader.frames([len(reader) - 1]).shape == (1, reader.height, reader.width, reader.channels)


def index_rows() -> list[tuple[Path, str, bool]]:
    """(path, frames, whether plain libraries read it) of every recording in the index beside the files."""
    rows = []
    for line in (DATA / "INDEX.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        path = DATA / cells[0]
        if len(cells) > 7 and path.is_file() and path.suffix not in {".csv", ".txt", ".json", ".jpg"}:
            rows.append((path, cells[4], any(cell.split()[:1] == ["ok"] for cell in cells[6:])))
    return rows


def look(path: Path) -> int | MediaError:
    """Number of frames, the first and the last of them decoded; or why not."""
    try:
        with open_reader(path) as reader:
            frames = reader.frames(sorted({0, len(reader) - 1}))
            assert frames.shape[1:] == (reader.height, reader.width, reader.channels), path
            return len(reader)
    except MediaError as error:
        return error


@pytest.mark.slow
def test_every_file_reads_or_says_why() -> None:
    """What plain libraries read has as many frames as they find; the rest reads or has a short reason. Quickly, and in little memory."""
    rows, memory = index_rows(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = 0
    for path, frames, readable in rows:
        began = time.monotonic()
        found = look(path)
        assert time.monotonic() - began < 10, path
        if isinstance(found, int):
            read += 1
            assert found == int(frames) or not readable, path
        else:
            assert not readable or found.category == "volume", f"{path}: {found}"
            assert 3 < len(found.reason) < 150, path
            assert found.category in CATEGORIES, path
    assert read >= 179  # seven are volumes at one time
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 1 << 20  # KiB


@pytest.mark.parametrize(
    ("one", "other", "most"),
    [
        ("us/OBXXXX1A_2frame.dcm", "us/OBXXXX1A_rle_2frame.dcm", 0),
        ("us/OBXXXX1A_2frame.dcm", "us/OBXXXX1A_expb_2frame.dcm", 0),
        ("other/emri_small.dcm", "other/emri_small_big_endian.dcm", 0),
        ("other/emri_small.dcm", "other/emri_small_jpeg_2k_lossless.dcm", 0),
        ("other/emri_small.dcm", "other/emri_small_jpeg_ls_lossless.dcm", 0),
        ("other/SC_rgb_small_odd.dcm", "other/SC_rgb_small_odd_big_endian.dcm", 0),
        ("us/IM00001.implicit_little_endian.dcm", "us/IM00001.fragmented_no_bot_jpeg_baseline.50.dcm", 4),
    ],
)
def test_the_same_recording_in_two_syntaxes(one: str, other: str, most: float) -> None:
    with open_reader(DATA / "echo" / one) as a, open_reader(DATA / "echo" / other) as b:
        assert len(a) == len(b)
        everything = range(len(a))
        assert np.abs(a.frames(everything).astype(int) - b.frames(everything)).mean() <= most


def test_twelve_bit_jpeg_is_the_lossless_picture(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """pydicom has no plug-in for it here; the same CT lies beside it without loss. It is two planes, which are no recording."""
    monkeypatch.setattr("domains.media.dicom.read_course", lambda *_: None)
    folder = DATA / "echo" / "other"
    with (
        open_reader(folder / "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm") as lossy,
        open_reader(folder / "CT0012.fragmented_no_bot_jpeg_lossless.57.dcm") as lossless,
    ):
        ours, theirs = (reader._decoder.decode(reader._read(reader._layout.frames[1])) for reader in (lossy, lossless))  # type: ignore[attr-defined]
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9999
    assert capfd.readouterr().err == ""  # gdcm: "Unsupported JPEG data precision 12"


def test_a_real_dicomdir_is_an_index() -> None:
    with pytest.raises(MediaError, match="a DICOMDIR: an index, not a recording"):
        open_reader(DATA / "corrupt" / "dicom" / "DICOMDIR-empty.dcm")


@pytest.mark.parametrize("name", ["video_90.mov", "video_270.mov", "test_rot_90_deg.mp4"])
def test_rotation_is_applied_as_opencv_does(name: str) -> None:
    _, theirs = cv2.VideoCapture(str(DATA / "corrupt" / "video" / name)).read()
    with open_reader(DATA / "corrupt" / "video" / name) as reader:
        assert np.abs(reader.frames([0])[0].astype(int) - theirs[..., ::-1]).mean() < 2


def test_colours_are_pydicoms() -> None:
    """Every colour file of 8 bits, in every syntax: as pydicom's own decoders, but for the rounding of JPEG."""
    compared = 0
    for path in sorted((DATA / "echo").rglob("*.dcm")):
        file = pydicom.dcmread(path, force=True)
        if (
            file.get("SamplesPerPixel") != 3
            or file.BitsAllocated != 8
            or not can_decode(str(file.file_meta.TransferSyntaxUID))
        ):
            continue
        theirs = file.pixel_array
        theirs = theirs if theirs.ndim == 4 else theirs[None]
        with open_reader(path) as reader:
            last = len(reader) - 1
            assert np.abs(reader.frames([last])[0].astype(int) - theirs[last]).max() <= 2, path.name
        compared += 1
    assert compared > 25
