"""Recordings of any kind, opened the same way: `sniff` tells what a file is by its content, `open_reader` opens it."""

from __future__ import annotations

from pathlib import Path

from domains.errors import MediaError
from domains.media.archive import Member, expand, opened
from domains.media.decoders import Decoder, decoders
from domains.media.kinds import Kind, packed_as, read_head, sniff_file
from domains.media.reader import Frames, Reader

__all__ = [
    "Decoder",
    "Frames",
    "Kind",
    "Member",
    "Reader",
    "content_files",
    "decoders",
    "expand",
    "open_reader",
    "opened",
    "sniff",
]


def sniff(path: str | Path) -> Kind | None:
    """What a file is by its first bytes, whatever its name; "frames" is a folder of numbered pictures, "chunks" one of numbered videos. None for
    anything else.

    Raises MediaError where it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        from domains.media.frame_folder import is_frame_folder

        if is_frame_folder(path):
            return "frames"
        from domains.media.chunks import chunk_files

        return "chunks" if chunk_files(path) else None
    return sniff_file(path)


def open_reader(path: str | Path) -> Reader:
    """Open a recording. Raises MediaError with a short reason and a category for everything that cannot be used."""
    path = Path(path)
    kind = sniff(path)
    if kind is None:
        raise MediaError(path, _what_else(path), category="not a recording")
    if kind == "frames":
        from domains.media.frame_folder import FrameFolderReader

        return FrameFolderReader(path)
    if kind == "chunks":
        from domains.media.chunks import ChunksReader

        return ChunksReader(path)
    if kind == "dicom":
        from domains.media.dicom import DicomReader

        return DicomReader(path)
    if kind == "nifti":
        from domains.media.nifti import read_nifti
        from domains.media.volume import VolumeReader

        return VolumeReader(path, read_nifti(path))
    if kind == "metaimage":
        from domains.media.metaimage import read_metaimage
        from domains.media.volume import VolumeReader

        return VolumeReader(path, read_metaimage(path))
    from domains.media.video import VideoReader

    return VideoReader(path)


def content_files(path: str | Path) -> list[Path]:
    """The files whose bytes are a recording, in order: the pictures or videos of a folder, header and pixels of a .mhd, else the file itself.

    What is the same in all of them is the same recording; the header of a .mhd alone may be that of many. Raises MediaError.
    """
    path = Path(path)
    kind = sniff(path)
    if kind == "frames":
        from domains.media.frame_folder import frame_files

        return frame_files(path)
    if kind == "chunks":
        from domains.media.chunks import chunk_files

        return chunk_files(path) or []
    if kind == "metaimage":
        from domains.media.metaimage import pixel_file

        return list(dict.fromkeys([path, pixel_file(path)]))
    return [path]


def _what_else(path: Path) -> str:
    """What a file is that is no recording."""
    if path.is_dir():
        return "a folder, but not of numbered pictures alone"
    head = read_head(path)
    if not head:
        return "the file is empty"
    form = packed_as(head)
    return f"an archive ({form}), not a recording" if form else "neither DICOM nor a known video format"
