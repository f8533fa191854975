"""DICOM in every syntax that can be written here, frame by frame, and damage that costs one clear reason."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate

from domains.errors import MediaError
from domains.media import decoders, open_reader, sniff
from domains.media.jpeg import read_head
from domains.media.timing import frame_rate

ROWS, COLUMNS, FRAMES = 48, 64, 5


def pictures(channels: int = 3) -> np.ndarray:
    """(5, 48, 64, C): smooth, every frame unlike the others, no channel like another."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    planes = [
        60 + 20 * number + 60 * np.sin(x / 9 + channel) + 40 * np.cos(y / 7 - channel)
        for number in range(FRAMES)
        for channel in range(3)
    ]
    frames = np.clip(np.stack(planes).reshape(FRAMES, 3, ROWS, COLUMNS).transpose(0, 2, 3, 1), 0, 255).astype(np.uint8)
    return frames[..., :channels]


def write(path: Path, syntax: str, pixels: bytes, channels: int, photometric: str, **tags: Any) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        uid.UID("1.2.840.10008.5.1.4.1.1.3.1"),
        uid.UID("1.2.3"),
    )
    meta.TransferSyntaxUID = uid.UID(syntax)
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID, file.Modality = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
        "US",
    )
    file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = ROWS, COLUMNS, channels, photometric
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation, file.NumberOfFrames = 7, 0, FRAMES
    if channels == 3:
        file.PlanarConfiguration = 0
    for keyword, value in tags.items():
        if value is None:
            delattr(file, keyword)
        else:
            setattr(file, keyword, value)
    file.PixelData = pixels
    file["PixelData"].VR = "OB"
    if meta.TransferSyntaxUID.is_encapsulated:
        file["PixelData"].is_undefined_length = True
    file.save_as(path, enforce_file_format=True)
    return path


def jpegs(frames: np.ndarray, quality: int = 95) -> list[bytes]:
    pictures_ = [cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) if frame.shape[-1] == 3 else frame for frame in frames]
    return [cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes() for picture in pictures_]


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_uncompressed(tmp_path: Path, syntax: str, channels: int) -> None:
    frames = pictures(channels)
    path = write(tmp_path / "a", syntax, frames.tobytes(), channels, "RGB" if channels == 3 else "MONOCHROME2")
    with open_reader(path) as reader:
        assert (len(reader), reader.height, reader.width, reader.channels) == (FRAMES, ROWS, COLUMNS, channels)
        assert np.array_equal(reader.frames([3, 0, 3]), frames[[3, 0, 3]])
        with pytest.raises(IndexError):
            reader.frames([FRAMES])


def test_big_endian_and_planar(tmp_path: Path) -> None:
    frames = pictures()
    path = write(
        tmp_path / "a",
        uid.ExplicitVRLittleEndian,
        frames.transpose(0, 3, 1, 2).tobytes(),
        3,
        "RGB",
        PlanarConfiguration=1,
    )
    assert np.array_equal(open_reader(path).frames(range(FRAMES)), frames)
    file = pydicom.dcmread(write(tmp_path / "b", uid.ExplicitVRLittleEndian, frames.tobytes(), 3, "RGB"))
    file.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    pydicom.dcmwrite(tmp_path / "big", file, implicit_vr=False, little_endian=False, force_encoding=True)
    assert np.array_equal(open_reader(tmp_path / "big").frames([4]), frames[[4]])


def test_rle_and_jpeg_2000_are_exact(tmp_path: Path) -> None:
    frames = pictures()
    for syntax in (uid.RLELossless, uid.JPEG2000Lossless):
        file = pydicom.dcmread(write(tmp_path / "raw", uid.ExplicitVRLittleEndian, frames.tobytes(), 3, "RGB"))
        file.compress(syntax)
        file.save_as(tmp_path / "packed")
        reader = open_reader(tmp_path / "packed")
        assert len(reader) == FRAMES
        assert np.array_equal(reader.frames([2, 4]), frames[[2, 4]]), syntax


@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.parametrize("fragments", [1, 3])
def test_jpeg_with_and_without_offsets_and_fragments(tmp_path: Path, offsets: bool, fragments: int) -> None:
    frames = pictures()
    pixels = encapsulate(jpegs(frames), fragments_per_frame=fragments, has_bot=offsets)
    path = write(tmp_path / "a", uid.JPEGBaseline8Bit, pixels, 3, "YBR_FULL_422")
    with open_reader(path) as reader:
        assert len(reader) == FRAMES
        for index in (4, 1):
            assert np.abs(reader.frames([index])[0].astype(int) - frames[index]).mean() < 4
            assert reader.frames([index])[0].astype(int)[..., 0].mean() == pytest.approx(
                frames[index, ..., 0].mean(), abs=1
            )


def test_jpeg_colours_agree_with_pydicom(tmp_path: Path) -> None:
    path = write(tmp_path / "a", uid.JPEGBaseline8Bit, encapsulate(jpegs(pictures())), 3, "YBR_FULL_422")
    theirs = pydicom.dcmread(path).pixel_array
    assert np.abs(open_reader(path).frames(range(FRAMES)).astype(int) - theirs).max() <= 3


@pytest.mark.parametrize(("declared", "expected"), [(None, FRAMES), (0, FRAMES), (2, FRAMES), (FRAMES, FRAMES)])
def test_number_of_frames_is_counted_not_believed(tmp_path: Path, declared: int | None, expected: int) -> None:
    path = write(
        tmp_path / "a",
        uid.JPEGBaseline8Bit,
        encapsulate(jpegs(pictures()), has_bot=False),
        3,
        "YBR_FULL_422",
        NumberOfFrames=declared,
    )
    reader = open_reader(path)
    assert len(reader) == expected
    assert bool(reader.note) == (declared not in (None, 0, FRAMES))


def test_a_file_cut_short_keeps_its_whole_frames(tmp_path: Path) -> None:
    frames = pictures()
    whole = write(tmp_path / "a", uid.ExplicitVRLittleEndian, frames.tobytes(), 3, "RGB").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: -int(1.5 * frames[0].nbytes)])
    with open_reader(tmp_path / "cut") as reader:
        assert len(reader) == FRAMES - 2
        assert "the file holds 3" in reader.note
    (tmp_path / "stump").write_bytes(whole[: -int(4.5 * frames[0].nbytes)])
    with pytest.raises(MediaError, match="cut short") as caught:
        open_reader(tmp_path / "stump")
    assert caught.value.category == "truncated"
    packed = write(tmp_path / "b", uid.JPEGBaseline8Bit, encapsulate(jpegs(frames)), 3, "YBR_FULL_422").read_bytes()
    (tmp_path / "cut2").write_bytes(packed[:-400])
    reader = open_reader(tmp_path / "cut2")
    assert len(reader) == FRAMES - 1
    assert np.abs(reader.frames([3])[0].astype(int) - frames[3]).mean() < 4


def test_palette_monochrome1_and_more_bits(tmp_path: Path) -> None:
    index = pictures(1)
    table = {
        f"{colour}PaletteColorLookupTable{what}": value
        for number, colour in enumerate(("Red", "Green", "Blue"))
        for what, value in (
            ("Descriptor", [256, 0, 16]),
            ("Data", (np.arange(256, dtype="<u2") * (number + 1) % 256 << 8).tobytes()),
        )
    }
    reader = open_reader(
        write(tmp_path / "p", uid.ExplicitVRLittleEndian, index.tobytes(), 1, "PALETTE COLOR", **table)
    )
    expected = np.concatenate([index.astype(int) * factor % 256 for factor in (1, 2, 3)], axis=-1)
    assert np.array_equal(reader.frames([1])[0], expected[1])
    inverted = open_reader(write(tmp_path / "m", uid.ExplicitVRLittleEndian, index.tobytes(), 1, "MONOCHROME1"))
    assert np.array_equal(inverted.frames([0]), 255 - index[:1])
    deep = (index.astype("<u2") * 16).tobytes()
    bits = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
    plain = open_reader(write(tmp_path / "d", uid.ExplicitVRLittleEndian, deep, 1, "MONOCHROME2", **bits))
    assert np.abs(plain.frames([2])[0].astype(int) - index[2]).max() <= 1
    window = {"WindowCenter": 1024.5, "WindowWidth": 2049}
    windowed = open_reader(write(tmp_path / "w", uid.ExplicitVRLittleEndian, deep, 1, "MONOCHROME2", **bits, **window))
    assert np.abs(windowed.frames([2])[0].astype(int) - np.clip(index[2].astype(int) * 2, 0, 255)).max() <= 1


def test_absurd_and_foreign_files_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("not a picture\n" * 50)
    assert sniff(tmp_path / "text.dcm") is None
    with pytest.raises(MediaError, match="neither DICOM nor") as caught:
        open_reader(tmp_path / "text.dcm")
    assert caught.value.category == "not a recording"
    path = write(tmp_path / "huge", uid.ExplicitVRLittleEndian, b"\0" * 64, 1, "MONOCHROME2", Rows=65535, Columns=65535)
    with pytest.raises(MediaError, match="65535x65535"):
        open_reader(path)
    lying = write(tmp_path / "lying", uid.JPEGBaseline8Bit, encapsulate(jpegs(pictures())), 3, "YBR_FULL_422", Rows=480)
    with pytest.raises(MediaError, match="the header says 64x480"):
        open_reader(lying).frames([0])
    unknown = write(tmp_path / "jxl", uid.JPEGBaseline8Bit, encapsulate([b"\xff\x0a" + b"\0" * 30]), 3, "RGB")
    unknown.write_bytes(unknown.read_bytes().replace(b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.99"))
    with pytest.raises(MediaError, match="no decoder") as caught:
        open_reader(unknown)
    assert caught.value.category == "no decoder"


def test_a_damaged_frame_is_a_media_error(tmp_path: Path) -> None:
    broken = jpegs(pictures())
    broken[2] = broken[2][:60] + b"\xff\xd9"
    reader = open_reader(write(tmp_path / "a", uid.JPEGBaseline8Bit, encapsulate(broken), 3, "YBR_FULL_422"))
    assert reader.frames([1]).shape[0] == 1
    with pytest.raises(MediaError):
        reader.frames([2])


def test_frame_rate_and_its_source() -> None:
    header = pydicom.Dataset()
    assert frame_rate(header) == (None, "unknown", "")
    header.RecommendedDisplayFrameRate = 15
    assert frame_rate(header)[:2] == (15.0, "RecommendedDisplayFrameRate")
    header.CineRate = 30
    header.FrameTime = "33.33"
    fps, source, note = frame_rate(header)
    assert (round(fps or 0, 2), source) == (30.0, "FrameTime")
    assert "RecommendedDisplayFrameRate 15" in note
    header.FrameTimeVector = [0, 50, 50, 400]
    assert frame_rate(header)[1] == "FrameTime"
    header.FrameIncrementPointer = 0x00181065
    assert frame_rate(header)[:2] == (20.0, "FrameTimeVector")
    header.FrameTime = header.FrameTimeVector = header.CineRate = header.RecommendedDisplayFrameRate = None
    assert frame_rate(header)[0] is None


def test_colour_of_a_jpeg_is_read_from_its_markers() -> None:
    plain = jpegs(pictures())[0]
    head = read_head(plain)
    assert head is not None
    assert (head.height, head.width, head.components, head.colour, head.baseline) == (ROWS, COLUMNS, 3, "YCbCr", True)
    adobe = b"\xff\xee" + struct.pack(">H", 14) + b"Adobe" + b"\0\x64\0\0\0\0" + b"\0"
    rgb = read_head(plain[:2] + adobe + plain[2:])
    assert rgb is not None
    assert rgb.colour == "RGB"
    length = int.from_bytes(plain[4:6], "big")
    bare = read_head(plain[:2] + plain[4 + length :])
    assert bare is not None
    assert bare.colour == "unsaid"
    assert read_head(b"\xff\xd8\x00\x00nothing") is None


def test_every_family_has_a_decoder_here() -> None:
    assert all(decoder.available for decoder in decoders())
