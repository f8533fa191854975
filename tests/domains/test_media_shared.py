"""Every real file of ../shared/data reads, or says in a few words why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from domains.errors import MediaError
from domains.media import open_reader

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = [pytest.mark.shared, pytest.mark.skipif(not DATA.is_dir(), reason=f"no sample files at {DATA}")]
# Frames of the cines that matter most, as the index beside the files says.
LENGTHS = {
    "echo/us/examples_ybr_color.dcm": 30, "echo/us/IM00001.fragmented_no_bot_jpeg_baseline.50.dcm": 8, "echo/us/IM00001.implicit_little_endian.dcm": 8,
    "echo/us/jpeg-ls-Palette.dcm": 10, "echo/us/OBXXXX1A_rle_2frame.dcm": 2, "echo/other/emri_small_big_endian.dcm": 10,
    "echo/video/wikimedia_apical_4-chamber.gif": 20, "echo/video/clarius-ocular-short.mp4": 50, "corrupt/video/tiny_av1.mp4": 1,
    "corrupt/video/unordered.mov": 4, "corrupt/video/test_rot_90_deg.mp4": 30, "corrupt/video/paris-ra-wpp.bin": 1000,
    "surgical/cholect50_clips/VID43_147_and_VID42_3625_a.mp4": 800, "general/v_GGSY1Qvo990.mp4": 355,
}  # fmt: skip


@pytest.mark.parametrize("name", LENGTHS)
def test_length(name: str) -> None:
    with open_reader(DATA / name) as reader:
        assert len(reader) == LENGTHS[name]
        assert reader.frames([len(reader) - 1]).shape == (1, reader.height, reader.width, reader.channels)


def test_every_file_reads_or_says_why() -> None:
    for path in sorted((DATA / "echo").rglob("*")) + sorted((DATA / "corrupt").rglob("*")):
        if not path.is_file():
            continue
        try:
            with open_reader(path) as reader:
                reader.frames([0, len(reader) - 1])
        except MediaError as error:
            assert 3 < len(error.reason) < 120, path
            assert error.category, path


def test_colours_are_pydicoms() -> None:
    compared = 0
    for path in sorted((DATA / "echo" / "us").glob("*.dcm")):
        file = pydicom.dcmread(path)
        if file.get("SamplesPerPixel") != 3 or file.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.111":
            continue
        theirs = file.pixel_array
        theirs = theirs if theirs.ndim == 4 else theirs[None]
        ours = open_reader(path).frames([0])[0]
        assert np.abs(ours.astype(int) - theirs[0]).mean() < 2, path.name
        compared += 1
    assert compared > 8
