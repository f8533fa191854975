"""Folders of numbered pictures: order, gaps, what is and what is not a recording."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from test_media_video import SIZE, numbered, read_number
from test_media_video import write as write_video

from domains.errors import MediaError
from domains.media import open_reader, sniff
from domains.media.frame_folder import frame_files, is_frame_folder


def fill(folder: Path, names: list[str], pictures: list[np.ndarray] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        picture = numbered(number) if pictures is None else pictures[number]
        Image.fromarray(picture).save(folder / name, **({"quality": 95} if name.endswith("jpg") else {}))
    return folder


@pytest.mark.parametrize("pattern", ["frame_{:06d}.png", "frame{}.jpg", "00001-21711-frame-{}.JPG", "{:02d}.bmp"])
def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path, pattern: str) -> None:
    names = [pattern.format(number) for number in range(7, 27)]
    folder = fill(tmp_path / "clip", names)
    assert is_frame_folder(folder)
    assert sniff(folder) == "frames"
    assert [path.name for path in frame_files(folder)] == names
    with open_reader(folder) as reader:
        assert (len(reader), reader.height, reader.width, reader.channels) == (20, SIZE, SIZE, 3)
        assert (reader.fps, reader.fps_source, reader.note, reader.media) == (None, "none", "", "video")
        wanted = [19, 0, 3, 3, 12]
        frames = reader.frames(wanted)
        assert [read_number(frame) for frame in frames] == wanted
        assert np.abs(frames[0].astype(int) - numbered(19)).mean() < (0.01 if "jpg" not in pattern.lower() else 4)
        with pytest.raises(IndexError):
            reader.frames([20])


def test_gaps_are_noted_and_every_fifth_frame_is_none(tmp_path: Path) -> None:
    gappy = fill(tmp_path / "a", [f"f{number}.png" for number in (1, 2, 3, 4, 8, 9, 10, 11, 13)])
    assert open_reader(gappy).note == "4 numbers are missing, the first after 4"
    fifth = fill(tmp_path / "b", [f"f{number}.png" for number in range(0, 60, 5)])
    assert open_reader(fifth).note == ""
    twice = fill(tmp_path / "c", [*(f"f{number}.png" for number in range(9)), "f08.png"])
    assert open_reader(twice).note == "several pictures have one number"


def test_one_picture_of_another_size_is_named(tmp_path: Path) -> None:
    pictures = [np.zeros((32, 48 if number != 5 else 40, 3), np.uint8) for number in range(9)]
    folder = fill(tmp_path / "a", [f"smith_{number}.png" for number in range(9)], pictures)
    with pytest.raises(MediaError, match="picture 5 is 40x32, the first is 48x32") as caught:
        open_reader(folder)
    assert caught.value.path == folder / "smith_5.png"
    assert "smith" not in caught.value.reason  # file names may be names


def test_what_is_no_frame_folder(tmp_path: Path) -> None:
    assert not is_frame_folder(fill(tmp_path / "few", [f"f{number}.png" for number in range(7)]))
    words = ["apical", "aorta", "valve", "short", "long", "left", "right", "late", "early"]
    assert not is_frame_folder(fill(tmp_path / "stills", [f"{word}.png" for word in words]))
    patients = fill(tmp_path / "patients", [f"{patient}s{still}.png" for patient in range(5) for still in range(3)])
    assert not is_frame_folder(patients)
    beside = fill(tmp_path / "beside", [f"f{number}.png" for number in range(12)])
    (beside / "labels.csv").write_text("frame,phase\n")
    assert is_frame_folder(beside)
    write_video(beside / "clip.mp4", "libx264", [0, 40, 80])
    assert not is_frame_folder(beside)
    with pytest.raises(MediaError, match="not of numbered pictures alone") as caught:
        open_reader(beside)
    assert caught.value.category == "not a recording"
    assert not is_frame_folder(beside / "clip.mp4")
    assert not is_frame_folder(tmp_path / "nothing")


def test_a_poster_is_left_out(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", [*(f"f{number}.png" for number in range(12)), "poster.png"])
    with open_reader(folder) as reader:
        assert len(reader) == 12
        assert reader.note == "beside the frames, left out: 1 of other names"


def test_grey_and_sixteen_bits(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint16)
    folder = tmp_path / "a"
    folder.mkdir()
    for number in range(8):
        cv2.imwrite(str(folder / f"{number}.png"), ramp if number % 2 else (ramp >> 8).astype(np.uint8))
    with open_reader(folder) as reader:
        frames = reader.frames([0, 1])
        assert frames.shape == (2, SIZE, SIZE, 1)
        assert np.abs(frames[..., 0].astype(int) - (ramp >> 8)).max() <= 1
    Image.fromarray(numbered(1)).save(folder / "3.png")  # one in colour makes the recording colour
    assert open_reader(folder).frames([3])[0].tolist() == numbered(1).tolist()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_held_otherwise(tmp_path: Path, orientation: int) -> None:
    """As Pillow shows it."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    exif = Image.Exif()
    exif[274] = orientation
    for number in range(8):
        picture.save(tmp_path / f"{number}.png", exif=exif)
    with Image.open(tmp_path / "3.png") as image:
        from PIL import ImageOps

        expected = np.asarray(ImageOps.exif_transpose(image))
    with open_reader(tmp_path) as reader:
        assert (reader.height, reader.width) == expected.shape[:2]
        assert np.array_equal(reader.frames([3])[0], expected)


def test_damaged_pictures(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", [f"f{number}.png" for number in range(9)])
    whole = (folder / "f4.png").read_bytes()
    (folder / "f4.png").write_bytes(whole[:60])
    with open_reader(folder) as reader:
        assert read_number(reader.frames([3])[0]) == 3
        with pytest.raises(MediaError, match="picture 4 cannot be decoded"):
            reader.frames([3, 4])
    (folder / "f4.png").write_bytes(b"text")
    with pytest.raises(MediaError, match="picture 4 is not what its name says") as caught:
        open_reader(folder)
    assert caught.value.path.name == "f4.png"
    (folder / "f4.png").write_bytes(whole[:16] + b"\0\0\xff\xff\0\0\xff\xff" + whole[24:])
    with pytest.raises(MediaError, match="picture 4"):
        open_reader(folder)


DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "surgical" / "intermountain_frames"


@pytest.mark.shared
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no sample files at {DATA}")
def test_real_frames_of_operations() -> None:
    for folder in sorted(DATA.iterdir()):
        with open_reader(folder) as reader:
            numbers = [int(path.stem.rpartition("-")[2]) for path in frame_files(folder)]
            assert numbers == sorted(numbers)
            assert len(reader) == len(numbers) == 20
            middle = cv2.imread(str(frame_files(folder)[10]))[..., ::-1]
            assert np.abs(reader.frames([10])[0].astype(int) - middle).max() <= 1
            assert reader.note == ""
