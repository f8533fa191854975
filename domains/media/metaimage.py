"""MetaImage (.mha, or .mhd with .raw or .zraw beside it): a header of `Key = Value` lines, the pixels after it or in a file of their own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from domains.errors import MediaError
from domains.media.kinds import read_head
from domains.media.volume import Block, arrange

KINDS = {
    "MET_UCHAR": "u1", "MET_CHAR": "i1", "MET_USHORT": "u2", "MET_SHORT": "i2", "MET_UINT": "u4", "MET_INT": "i4", "MET_ULONG": "u4",
    "MET_LONG": "i4", "MET_ULONG_LONG": "u8", "MET_LONG_LONG": "i8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip


def read_metaimage(path: Path) -> Block:
    """What the header says, checked. Raises MediaError. Pictures over time are (x, y, t), shown with y downwards."""
    fields, end = _fields(path)
    if fields.get("ObjectType", "Image") != "Image" or not _true(fields, "BinaryData", default=True):
        raise MediaError(path, "a MetaImage that holds no binary image", category="no decoder")
    sizes = [_number(path, size) for size in fields.get("DimSize", "").split()]
    if len(sizes) != _number(path, fields.get("NDims", "")):
        raise MediaError(path, "the header has no usable DimSize")
    width, height, frames = arrange(path, sizes)
    kind, channels = fields.get("ElementType", ""), _number(path, fields.get("ElementNumberOfChannels", "1"))
    if kind not in KINDS or channels not in (1, 3):
        raise MediaError(path, "samples of a kind that is not supported", category="no decoder")
    most_significant = _true(fields, "BinaryDataByteOrderMSB") or _true(fields, "ElementByteOrderMSB")
    data, skipped = _pixels(path, fields["ElementDataFile"]), _number(path, fields.get("HeaderSize", "0"), least=-1)
    packed = _true(fields, "CompressedData")
    block = Block(
        format="MetaImage",
        data=data,
        offset=end if data == path else max(0, skipped),
        packing="zlib" if packed else "",
        kind=np.dtype(f"{'>' if most_significant else '<'}{KINDS[kind]}"),
        width=width,
        height=height,
        frames=frames,
        channels=channels,
    )
    if skipped != -1 or packed or data == path:
        return block
    # -1: the pixels are the last bytes of their file, behind a header of some other program.
    return dataclasses.replace(block, offset=max(0, data.stat().st_size - frames * block.frame_bytes))


def pixel_file(path: Path) -> Path:
    """The file that holds the pixels; `path` itself where they follow the header."""
    return _pixels(path, _fields(path)[0]["ElementDataFile"])


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """All lines up to ElementDataFile, which is the last, and the number of bytes they take."""
    head, fields, at = read_head(path), {}, 0
    while (end := head.find(b"\n", at)) >= 0 or at < len(head):
        line = head[at : end if end >= 0 else len(head)].decode("latin-1")
        at = end + 1 if end >= 0 else len(head)
        key, sign, value = line.partition("=")
        if sign:
            fields[key.strip()] = value.strip()
        if "ElementDataFile" in fields:
            return fields, at
    raise MediaError(path, "the header does not say where the pixels are", category="no pixel data")


def _pixels(path: Path, name: str) -> Path:
    if name.upper() == "LOCAL":
        return path
    if name.upper().startswith("LIST") or "%" in name:
        raise MediaError(path, "a MetaImage with a file for each slice is not supported", category="no decoder")
    if not name or "/" in name or "\\" in name or name in (".", ".."):
        raise MediaError(path, "its pixels are said to lie in another folder", category="no pixel data")
    data = path.parent / name
    if not data.is_file():
        raise MediaError(path, "the file with its pixels is not beside it", category="no pixel data")
    return data


def _true(fields: dict[str, str], key: str, *, default: bool = False) -> bool:
    return fields.get(key, str(default)).lower() in ("true", "t", "1", "yes")


def _number(path: Path, text: str, least: int = 0) -> int:
    """A whole number of a header. Raises MediaError where it is none, or absurd."""
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number < 1 << 40:
        raise MediaError(path, "the header has a number that is none")
    return number
