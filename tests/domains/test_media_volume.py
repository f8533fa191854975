"""NIfTI as nibabel writes it, MetaImage as its description says: axes, types, packing, and damage."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from domains.errors import MediaError
from domains.media import content_files, open_reader, sniff

WIDTH, HEIGHT, COUNT = 30, 20, 6


def cine(kind: str = "uint8") -> np.ndarray:
    """(x, y, t): a bright dot right of the middle, near the top, that moves down; every frame has its own background."""
    frames = np.zeros((WIDTH, HEIGHT, COUNT), kind)
    for time in range(COUNT):
        frames[:, :, time] = time + 1
        frames[25, 3 + time, time] = 200
    return frames


def save(path: Path, array: np.ndarray, version: int = 1, **header: Any) -> Path:
    image = (nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image)(array, np.diag([-1, -1, 1, 1]))
    if "units" in header:
        image.header.set_xyzt_units("mm", header["units"])
        image.header.set_zooms((1.0, 1.0, 1.0, header["step"]))
    if "scale" in header:
        image.header.set_slope_inter(*header["scale"])
    for key in ("cal_min", "cal_max"):
        if key in header:
            image.header[key] = header[key]
    nibabel.save(image, path)
    return path


def as_shown(array: np.ndarray) -> np.ndarray:
    """(x, y, t) -> (t, row, column, 1)."""
    return array.transpose(2, 1, 0)[..., None]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
def test_nifti_comes_out_as_a_person_sees_it(tmp_path: Path, name: str, version: int) -> None:
    path = save(tmp_path / name, cine(), version)
    path = path.rename(tmp_path / "no_name")
    assert sniff(path) == "nifti"
    with open_reader(path) as reader:
        assert (len(reader), reader.height, reader.width, reader.channels) == (COUNT, HEIGHT, WIDTH, 1)
        assert (reader.codec, reader.fps, reader.fps_source, reader.note) == ("NIfTI", None, "unknown", "")
        frames = reader.frames([5, 0, 0, 2])
        assert np.array_equal(frames, as_shown(cine())[[5, 0, 0, 2]])
        assert np.argwhere(frames[1, ..., 0] == 200).tolist() == [[3, 25]]  # row 3, column 25
        assert np.array_equal(reader.frames([1]), as_shown(cine())[[1]])  # a packed file goes back, too
        with pytest.raises(IndexError):
            reader.frames([COUNT])


def test_a_big_endian_file_is_no_mpeg(tmp_path: Path) -> None:
    """Its first bytes are a start code of MPEG."""
    image = nibabel.Nifti1Image(cine("int16"), np.eye(4), nibabel.Nifti1Header(endianness=">"))
    nibabel.save(image, tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == b"\0\0\x01\x5c"
    with open_reader(tmp_path / "a.nii") as reader:
        assert np.argwhere(reader.frames([4])[0, ..., 0] == 255).tolist() == [[7, 25]]


@pytest.mark.parametrize(
    ("units", "step", "fps"), [("sec", 0.02, 50), ("msec", 40, 25), ("unknown", 0.02, None), ("sec", 9, None)]
)
def test_a_fourth_axis_has_a_rate(tmp_path: Path, units: str, step: float, fps: float | None) -> None:
    path = save(tmp_path / "a.nii", cine()[:, :, None, :], units=units, step=step)
    with open_reader(path) as reader:
        assert np.array_equal(reader.frames([3]), as_shown(cine())[[3]])
        assert reader.fps == (None if fps is None else pytest.approx(fps))
        assert reader.fps_source == ("unknown" if fps is None else "pixdim")


@pytest.mark.parametrize("kind", ["int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_other_types_are_spread_over_the_values_of_the_whole_file(tmp_path: Path, kind: str, name: str) -> None:
    array = cine(kind) * np.array(3, kind)
    if kind != "uint16":
        array[0, 0, 4] = -150
    low, high = float(array.min()), 600.0
    if kind.startswith("float"):
        array[1, 1, :2] = np.nan, np.inf
    with open_reader(save(tmp_path / name, array)) as reader:
        frames = reader.frames(range(COUNT))[..., 0]
        expected = (np.nan_to_num(as_shown(array)[..., 0].astype(float), posinf=high) - low) / (high - low) * 255
        expected[0, 1, 1] = 0 if kind.startswith("float") else expected[0, 1, 1]
        assert np.abs(frames - expected).max() <= 0.5
        assert frames[4, 7, 25] == 255


def test_the_headers_window_and_scale(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", cine("int16"), cal_min=2.0, cal_max=4.0)
    assert open_reader(path).frames(range(5))[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]
    inverted = save(tmp_path / "b.nii", cine("float32"))
    content = bytearray(inverted.read_bytes())
    content[112:120] = struct.pack("<2f", -2.0, 10.0)
    inverted.write_bytes(content)
    frame = open_reader(inverted).frames([2])[0, ..., 0]
    assert (frame[5, 25], frame[0, 0]) == (0, round((200 - 3) / (200 - 1) * 255))


def test_colour_and_stills(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (WIDTH, HEIGHT, 2, 3), np.uint8)
    rgb = np.ascontiguousarray(colours).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "a.nii")
    with open_reader(tmp_path / "a.nii") as reader:
        assert np.array_equal(reader.frames([0, 1]), colours.transpose(2, 1, 0, 3))
    with open_reader(save(tmp_path / "b.nii.gz", cine()[:, :, 0])) as reader:
        assert (len(reader), reader.frames([0]).shape) == (1, (1, HEIGHT, WIDTH, 1))


def set_dims(path: Path, *dims: int) -> Path:
    content = bytearray(path.read_bytes())
    content[40:56] = struct.pack("<8h", *dims, *[1] * (8 - len(dims)))
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("dims", "reason"),
    [
        ((3, 30000, 30000, 2), "30000x30000"),
        ((4, 30, 20, 3, 2), "a volume over time"),
        ((9, 30, 20, 6), "no usable size"),
        ((3, 30, -20, 6), "no usable size"),
        ((1, 30), "no usable size"),
        ((3, 600, 200, 6), "no whole frame"),
    ],
)
def test_absurd_sizes_are_refused(tmp_path: Path, dims: tuple[int, ...], reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        open_reader(set_dims(save(tmp_path / "a.nii", cine()), *dims))


def test_claims_that_no_packed_file_can_hold(tmp_path: Path) -> None:
    plain = set_dims(save(tmp_path / "a.nii", cine()), 3, 8000, 7000, 30000)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(MediaError, match="cannot hold 30000 frames of 8000x7000"):
        open_reader(tmp_path / "a.nii.gz")
    wide = set_dims(save(tmp_path / "b.nii", cine("float64")), 3, 8000, 7000, 1)
    with pytest.raises(MediaError, match="claims frames of 427 MiB"):
        open_reader(wide)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_cut_file_gives_its_whole_frames(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (WIDTH, HEIGHT, COUNT), np.uint8)
    whole = save(tmp_path / name, noise).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: int(len(whole) * 0.6)])
    with open_reader(tmp_path / "cut") as reader:
        assert 2 <= len(reader) < COUNT
        assert reader.note == f"the header says {COUNT} frames, the file holds {len(reader)}"
        assert np.array_equal(reader.frames(range(len(reader))), as_shown(noise)[: len(reader)])
    (tmp_path / "stub").write_bytes(whole[:380])
    with pytest.raises(MediaError) as caught:
        open_reader(tmp_path / "stub")
    assert caught.value.category in ("truncated", "not a recording")


def test_what_nifti_is_not_read(tmp_path: Path) -> None:
    pair = bytearray(save(tmp_path / "a.nii", cine()).read_bytes())
    pair[344:348] = b"ni1\0"
    (tmp_path / "a.hdr").write_bytes(pair[:348])
    with pytest.raises(MediaError, match="two files"):
        open_reader(tmp_path / "a.hdr")
    with pytest.raises(MediaError, match="data type 32 ") as caught:
        open_reader(save(tmp_path / "b.nii", cine("complex64")))
    assert caught.value.category == "no decoder"


def meta(path: Path, array: np.ndarray, *, data: str = "LOCAL", packed: bool = False, **fields: str) -> Path:
    """As ITK writes it; `array` is (t, y, x) or (t, y, x, 3)."""
    kinds = {"u1": "MET_UCHAR", "i2": "MET_SHORT", "u2": "MET_USHORT", "f4": "MET_FLOAT"}
    lines = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False", "CompressedData": str(packed),
        "TransformMatrix": "1 0 0 0 1 0 0 0 1", "ElementSpacing": "0.3 0.15 1", "DimSize": " ".join(map(str, array.shape[2::-1])),
        "ElementType": kinds[array.dtype.str[1:]], **fields,
    }  # fmt: skip
    if array.ndim == 4:
        lines["ElementNumberOfChannels"] = "3"
    header = "".join(f"{key} = {value}\n" for key, value in lines.items()) + f"ElementDataFile = {data}\n"
    pixels = zlib.compress(array.tobytes()) if packed else array.tobytes()
    path.write_bytes(header.encode() + (pixels if data == "LOCAL" else b""))
    if data not in ("LOCAL", "missing.raw") and "/" not in data:
        (path.parent / data).write_bytes(pixels)
    return path


@pytest.mark.parametrize("data", ["LOCAL", "a.raw"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["<u1", "<i2", ">i2", "<f4"])
def test_metaimage(tmp_path: Path, data: str, packed: bool, kind: str) -> None:
    array = np.ascontiguousarray(cine().transpose(2, 1, 0)).astype(kind)
    path = meta(tmp_path / "x", array, data=data, packed=packed, BinaryDataByteOrderMSB=str(kind[0] == ">"))
    assert sniff(path) == "metaimage"
    assert content_files(path) == ([path] if data == "LOCAL" else [path, tmp_path / data])
    with open_reader(path) as reader:
        assert (len(reader), reader.height, reader.width, reader.codec) == (COUNT, HEIGHT, WIDTH, "MetaImage")
        frames = reader.frames([5, 1])[..., 0]
        expected = array[[5, 1]].astype(float) if kind == "<u1" else (array[[5, 1]].astype(float) - 1) / 199 * 255
        assert np.abs(frames - expected).max() <= 0.5
        assert np.argwhere(frames[1] == frames.max()).tolist() == [[4, 25]]


def test_metaimage_in_colour_and_behind_a_foreign_header(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    assert np.array_equal(open_reader(meta(tmp_path / "a.mha", colours)).frames([1, 0]), colours[::-1])
    for size in ("100", "-1"):
        path = meta(tmp_path / "b.mhd", colours, data="b.raw", HeaderSize=size)
        (tmp_path / "b.raw").write_bytes(b"h" * 100 + colours.tobytes())
        assert np.array_equal(open_reader(path).frames([1]), colours[1:])
    path = meta(tmp_path / "c.mhd", colours, data="c.zraw", packed=True, HeaderSize="100")
    (tmp_path / "c.zraw").write_bytes(b"h" * 100 + zlib.compress(colours.tobytes()))
    assert np.array_equal(open_reader(path).frames([1]), colours[1:])


@pytest.mark.parametrize(
    ("fields", "data", "reason"),
    [
        ({}, "missing.raw", "not beside it"),
        ({}, "../a.raw", "in another folder"),
        ({}, "/etc/passwd", "in another folder"),
        ({}, "LIST", "a file for each slice"),
        ({"DimSize": "99999 99999 9"}, "LOCAL", "99999x99999"),
        ({"DimSize": "30 20"}, "LOCAL", "no usable DimSize"),
        ({"DimSize": "30 x 6"}, "LOCAL", "a number that is none"),
        ({"DimSize": "30 20 0"}, "LOCAL", "no usable size"),
        ({"DimSize": "300 200 9"}, "LOCAL", "no whole frame"),
        ({"ElementType": "MET_STRING"}, "LOCAL", "not supported"),
        ({"BinaryData": "False"}, "LOCAL", "no binary image"),
        ({"CompressedData": "True"}, "LOCAL", "the pixels are damaged"),
        ({"CompressedData": "True", "HeaderSize": str(1 << 39)}, "a.raw", "no whole frame"),
        ({"HeaderSize": str(1 << 39)}, "a.raw", "no whole frame"),
        ({"HeaderSize": str(1 << 50)}, "a.raw", "a number that is none"),
        ({"CompressedData": "True", "DimSize": "3000 2000 900"}, "LOCAL", "cannot hold 900 frames"),
    ],
)
def test_metaimage_that_cannot_be_used(tmp_path: Path, fields: dict[str, str], data: str, reason: str) -> None:
    array = np.full((COUNT, HEIGHT, WIDTH), 7, np.uint8)
    with pytest.raises(MediaError, match=reason):
        open_reader(meta(tmp_path / "x.mhd", array, data=data, **fields))


def test_a_header_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "a.mhd").write_text("ObjectType = Image\nNDims = 3\nDimSize = 1 1 1\nElementDataFile\n")
    with pytest.raises(MediaError, match="where the pixels are"):
        open_reader(tmp_path / "a.mhd")
    with pytest.raises(MediaError, match="where the pixels are"):
        content_files(tmp_path / "a.mhd")


def test_same_headers_of_different_recordings_are_told_apart(tmp_path: Path) -> None:
    """Their headers alone are the same bytes."""
    for number, patient in enumerate("ab"):
        (tmp_path / patient).mkdir()
        meta(tmp_path / patient / "x.mhd", np.full((COUNT, HEIGHT, WIDTH), number, np.uint8), data="x.raw")
    contents = [[file.read_bytes() for file in content_files(tmp_path / patient / "x.mhd")] for patient in "ab"]
    assert contents[0][0] == contents[1][0]
    assert contents[0] != contents[1]
