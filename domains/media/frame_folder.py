"""A folder of numbered pictures, as video tools and data sets write them, read as one recording."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from domains.errors import MediaError
from domains.media.kinds import sniff_file
from domains.media.quiet import quiet
from domains.media.reader import Frames, Reader

FEWEST = 8  # pictures that make a recording; fewer are stills that happen to be numbered
STRAYS = 0.1  # share of the pictures that may be something else (a poster, a thumbnail)
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
NUMBERED = re.compile(r"(.*?)([0-9]{1,18})")
MOST_PIXELS = 64_000_000
GREY = {"1", "L", "LA", "I", "I;16", "I;16B"}
ORIENTATION = 274  # the tag of EXIF by which a camera says how it was held
TURNS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: np.fliplr,
    3: lambda picture: np.rot90(picture, 2),
    4: np.flipud,
    5: lambda picture: picture.swapaxes(0, 1),
    6: lambda picture: np.rot90(picture, -1),
    7: lambda picture: np.rot90(picture, 2).swapaxes(0, 1),
    8: np.rot90,
}


@dataclass(frozen=True)
class Numbered:
    """Pictures by their running numbers (10 after 9, padded or not), and how many pictures of the folder are not among them."""

    numbers: list[int]
    paths: list[Path]
    strays: int


@dataclass(frozen=True)
class Head:
    """What a picture says of itself: height and width as it is shown."""

    height: int
    width: int
    grey: bool
    format: str
    orientation: int


def is_frame_folder(path: str | Path) -> bool:
    """Whether a folder is one recording: eight pictures or more, named alike but for a number at the end, and no recordings beside them.

    By the names of the pictures; the first bytes of other files are looked at. False for what is no folder, or a closed one.
    """
    try:
        return _find(Path(path)) is not None
    except (OSError, MediaError):
        return False


def frame_files(path: str | Path) -> list[Path]:
    """The pictures of a frame folder in the order of their numbers. Raises MediaError where it is none."""
    return _numbered(Path(path)).paths


class FrameFolderReader(Reader):
    """A folder of pictures. `note` says which numbers are missing, and how many pictures do not belong.

    Opening reads the header of every picture: all must have one size, and the error names the file that has not. Grey where all are grey.
    16 bits are brought to 8 by their whole range.
    """

    media = "video"

    def __init__(self, path: Path) -> None:
        found = _numbered(path)
        self.path, self.header, self.fps, self.fps_source = path, {}, None, "none"
        self._numbers, self._paths = found.numbers, found.paths
        self._heads = [_look(*one) for one in zip(found.paths, found.numbers, strict=True)]
        first = self._heads[0]
        for head, number, file in zip(self._heads, found.numbers, found.paths, strict=True):
            if (head.height, head.width) != (first.height, first.width):
                sizes = f"{head.width}x{head.height}, the first is {first.width}x{first.height}"
                raise MediaError(file, f"picture {number} is {sizes}")
        self.height, self.width = first.height, first.width
        self.channels = 1 if all(head.grey for head in self._heads) else 3
        self.codec = f"{Counter(head.format for head in self._heads).most_common(1)[0][0]} frames"
        self.note = "; ".join(filter(None, [_gaps(found.numbers), _left_out(found.strays)]))

    def __len__(self) -> int:
        return len(self._paths)

    def frames(self, indices: Sequence[int]) -> Frames:
        """See Reader."""
        out = np.empty((len(indices), self.height, self.width, self.channels), np.uint8)
        done: dict[int, int] = {}
        for place, index in enumerate(int(index) for index in indices):
            if not 0 <= index < len(self):
                raise IndexError(f"frame {index} of {len(self)}")
            out[place] = out[done[index]] if index in done else self._decode(index)
            done.setdefault(index, place)
        return out

    def _decode(self, index: int) -> Frames:
        """(H, W, C) uint8."""
        flag = cv2.IMREAD_GRAYSCALE if self.channels == 1 else cv2.IMREAD_COLOR_RGB
        try:
            data = np.fromfile(self._paths[index], np.uint8)
            with quiet():
                picture = cv2.imdecode(data, flag | cv2.IMREAD_IGNORE_ORIENTATION)
        except (OSError, cv2.error) as error:
            picture, why = None, f" ({type(error).__name__})"
        else:
            why = ""
        if picture is None:
            raise MediaError(self._paths[index], f"picture {self._numbers[index]} cannot be decoded{why}")
        turn = TURNS.get(self._heads[index].orientation)
        return (picture if turn is None else turn(picture)).reshape(self.height, self.width, self.channels)


def _numbered(path: Path) -> Numbered:
    try:
        found = _find(path)
    except OSError as error:
        raise MediaError(path, f"cannot be read ({error.strerror})") from None
    if found is None:
        raise MediaError(path, "a folder, but not of numbered pictures alone", category="not a recording")
    return found


def _find(path: Path) -> Numbered | None:
    """The pictures of a folder that share a name but for the number; None where that is not what the folder holds."""
    if not path.is_dir():
        return None
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    found = numbered(entries)
    if found is None or any(sniff_file(one) for one in entries if one.suffix.lower() not in ENDINGS and one.is_file()):
        return None
    return found


def numbered(entries: Sequence[PurePath]) -> Numbered | None:
    """What a folder's pictures are by their names alone; `Numbered.paths` are some of `entries`. None where they are not one recording."""
    pictures = [entry for entry in entries if entry.suffix.lower() in ENDINGS]
    if len(pictures) < FEWEST:
        return None
    alike: dict[tuple[str, str], list[tuple[int, str, Any]]] = defaultdict(list)
    for picture in pictures:
        if parts := NUMBERED.fullmatch(picture.stem):
            alike[parts[1], picture.suffix.lower()].append((int(parts[2]), picture.name, picture))
    largest = max(alike.values(), key=len) if alike else []
    chosen = sorted(largest)
    strays = len(pictures) - len(chosen)
    if len(chosen) < FEWEST or strays > STRAYS * len(pictures):
        return None
    return Numbered([number for number, _, _ in chosen], [picture for _, _, picture in chosen], strays)


def _look(path: Path, number: int) -> Head:
    """The header of a picture; nothing is decoded."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            # Without these a PNG would be decoded in search of the tag.
            tagged = "exif" in image.info or image.format == "TIFF"
            orientation = int(image.getexif().get(ORIENTATION) or 1) if tagged else 1
            grey, form = image.mode in GREY, str(image.format)
            # The second picture of a phone's JPEG is a preview.
            several, mode = image.format != "MPO" and getattr(image, "n_frames", 1) > 1, image.mode
    except UnidentifiedImageError:
        raise MediaError(path, f"picture {number} is not what its name says") from None
    except Image.DecompressionBombError:
        raise MediaError(path, f"picture {number} claims an absurd size") from None
    except Exception as error:  # Pillow raises whatever a damaged header provokes
        raise MediaError(path, f"picture {number} cannot be read ({type(error).__name__})") from None
    if width * height > MOST_PIXELS:
        raise MediaError(path, f"picture {number} claims {width}x{height} pixels")
    if several or mode == "F":
        what = "holds several pictures" if several else "is in floating point"
        raise MediaError(path, f"picture {number} {what}", category="no decoder")
    if orientation in (5, 6, 7, 8):
        height, width = width, height
    return Head(height, width, grey, form, orientation)


def _gaps(numbers: list[int]) -> str:
    """What is odd about the numbers. Every fifth frame is a rate, not a gap: the usual step counts."""
    steps = np.diff(numbers)
    if not (steps > 0).all():
        return "several pictures have one number"
    usual = Counter(steps.tolist()).most_common(1)[0][0]
    missing = (np.round(steps / usual) - 1).clip(0).astype(int)
    if not missing.any():
        return ""
    return f"{missing.sum()} numbers are missing, the first after {numbers[int((missing > 0).argmax())]}"


def _left_out(strays: int) -> str:
    return f"beside the frames, left out: {strays} of other names" if strays else ""
