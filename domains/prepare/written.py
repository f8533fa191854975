"""Files that vfm writes, as an auditor reads them: every text that is in them, wherever it stands."""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

PLAIN = {".json", ".jsonl", ".csv", ".yaml", ".yml", ".html", ".txt", ".log", ".md", ".tsv"}
EMBEDDED = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]+")  # pictures in a page: random letters, no words
PRINTABLE = re.compile(rb"[\x20-\x7e]{4,}")
BLOCK = 1 << 24

# JPEG markers of a picture and nothing else: tables, frame, scan, restart intervals, and the JFIF header.
PICTURE_MARKERS = {0xDB, 0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDD, 0xE0}


def files(folder: Path) -> Iterator[Path]:
    """Every file below `folder` (or the file itself) in order, hidden ones included; links are not followed."""
    if folder.is_file():
        yield folder
        return
    for here, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield Path(here) / name


def texts(path: Path) -> Iterator[str]:
    """Every piece of text in a file: cells and metadata of Parquet, the header of safetensors, text, printable runs of anything else.

    Frame files hold none: `only_picture` sees to that.
    """
    suffix = path.suffix.lower()
    if suffix == ".mjpeg":
        return
    if suffix == ".parquet":
        yield from _parquet(path)
    elif suffix == ".safetensors":
        with path.open("rb") as file:
            length = min(int.from_bytes(file.read(8), "little"), BLOCK)
            yield file.read(length).decode("utf-8", "replace")
    elif suffix == ".png":
        yield from _png(path.read_bytes())
    elif suffix in PLAIN:
        yield EMBEDDED.sub(" ", path.read_text(encoding="utf-8", errors="replace"))
    else:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                for run in PRINTABLE.findall(block):
                    yield run.decode("ascii")


def _png(data: bytes) -> Iterator[str]:
    """Every chunk but the pixels and their tables: comments, also compressed ones, EXIF, times, and what follows the end."""
    at = 8
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        if kind in (b"zTXt", b"iTXt") and b"\0" in body:
            for start in range(body.index(b"\0") + 1, min(len(body), body.index(b"\0") + 64)):
                with contextlib.suppress(zlib.error):
                    yield zlib.decompressobj().decompress(body[start:], BLOCK).decode("utf-8", "replace")
                    break
        if kind not in (b"IDAT", b"PLTE", b"IHDR", b"gAMA", b"pHYs"):
            yield body.decode("latin-1")
        at += 12 + length
        if kind == b"IEND":
            yield data[at:].decode("latin-1")
            return


def _parquet(path: Path) -> Iterator[str]:
    table = pq.read_table(path)
    for key, value in (table.schema.metadata or {}).items():
        yield f"{key.decode('utf-8', 'replace')} {value.decode('utf-8', 'replace')}"
    for name in table.column_names:
        yield name
        for cell in table.column(name).to_pylist():
            yield from _strings(cell)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "replace")
    elif isinstance(value, dict):
        yield json.dumps(value)
    elif isinstance(value, list) and value and not isinstance(value[0], int | float):
        for one in value:
            yield from _strings(one)


def only_picture(jpeg: bytes) -> bool:
    """Whether a JPEG holds its picture and nothing else: no comment, no EXIF, no thumbnail, nothing after its end."""
    at = 2
    if jpeg[:2] != b"\xff\xd8" or jpeg[-2:] != b"\xff\xd9":
        return False
    while at + 4 <= len(jpeg):
        if jpeg[at] != 0xFF or jpeg[at + 1] not in PICTURE_MARKERS:
            return False
        length = int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] == 0xE0 and (
            jpeg[at + 4 : at + 9] != b"JFIF\0" or length != 16
        ):  # longer ones hold a thumbnail
            return False
        scan = jpeg[at + 1] == 0xDA
        at += 2 + length
        if scan:
            while at + 1 < len(jpeg) and not (jpeg[at] == 0xFF and jpeg[at + 1] not in (0, *range(0xD0, 0xD8))):
                at = jpeg.find(b"\xff", at + 1)
                if at < 0:
                    return False
            if jpeg[at : at + 2] == b"\xff\xd9":
                return at + 2 == len(jpeg)
    return False
