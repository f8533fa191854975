"""Which decoders this installation has: asked before work starts, and by `vfm doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module

import av
from pydicom import uid
from pydicom.pixels import get_decoder

EXTRAS = {
    "JPEG 2000": "pylibjpeg-openjpeg",
    "High-Throughput JPEG 2000": "pylibjpeg-openjpeg",
    "JPEG-LS": "python-gdcm",
    "JPEG Lossless": "python-gdcm",
    "JPEG baseline and extended": "opencv-python-headless",
    "JPEG extended of 12 bits": "python-gdcm",
    "RLE": "pydicom",
    "video (MPEG-2, H.264, HEVC)": "av",
}
# Not a transfer syntax: JPEG extended has its own for 8 and 12 bits together, and 8 bits are read by every installation.
TWELVE_BITS = "12-bit JPEG"
# Codecs of video files: FFmpeg's name, and what a person calls them.
CODECS = {
    "h264": "H.264", "hevc": "HEVC", "vp8": "VP8", "vp9": "VP9", "av1": "AV1", "mpeg4": "MPEG-4", "mpeg2video": "MPEG-2",
    "mjpeg": "Motion JPEG",
}  # fmt: skip
DECODED_BY = {"av1": ("libdav1d", "libaom-av1", "libgav1")}  # FFmpeg's own needs a graphics card
# Video within DICOM (PS3.5 8.2.5 to 8.2.12): FFmpeg's name of the codec. A syntax ending in .1 may be in several fragments by the standard;
# the others are found so as well.
VIDEO: dict[str, str] = {
    f"1.2.840.10008.1.2.4.{number}{fragmentable}": codec
    for codec, numbers, endings in (
        ("mpeg2video", range(100, 102), ("", ".1")),
        ("h264", range(102, 107), ("", ".1")),
        ("hevc", range(107, 109), ("",)),
    )
    for number in numbers
    for fragmentable in endings
}
FAMILIES: dict[str, tuple[str, ...]] = {
    "uncompressed": (
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    ),
    "RLE": (uid.RLELossless,),
    "JPEG baseline and extended": (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit),
    "JPEG extended of 12 bits": (TWELVE_BITS,),
    "JPEG Lossless": (uid.JPEGLossless, uid.JPEGLosslessSV1),
    "JPEG-LS": (uid.JPEGLSLossless, uid.JPEGLSNearLossless),
    "JPEG 2000": (uid.JPEG2000Lossless, uid.JPEG2000),
    "High-Throughput JPEG 2000": (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K),
    "video (MPEG-2, H.264, HEVC)": tuple(VIDEO),
    **{f"{name} (video files)": (codec,) for codec, name in CODECS.items()},
}

# Names that pydicom does not know yet.
NAMES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}


@dataclass(frozen=True)
class Decoder:
    """A family of transfer syntaxes (or a codec of video files), whether it can be decoded here, and the package to install if not."""

    name: str
    syntaxes: tuple[str, ...]
    available: bool
    install: str


@cache
def can_decode(syntax: str) -> bool:
    """Whether pydicom has a plug-in for a transfer syntax, or FFmpeg the codec, by its name or within DICOM."""
    if syntax == TWELVE_BITS:
        try:
            import_module("gdcm")
        except ImportError:  # also where it is there and its libraries are not
            return False
        return True
    if syntax in VIDEO or syntax in CODECS:
        codec = VIDEO.get(syntax, syntax)
        return any(_has_codec(name) for name in DECODED_BY.get(codec, (codec,)))
    try:
        return bool(get_decoder(uid.UID(syntax)).is_available)
    except NotImplementedError:
        return False


def _has_codec(name: str) -> bool:
    try:
        av.Codec(name, "r")
    except ValueError:  # PyAV's UnknownCodecError is one
        return False
    return True


def decoders() -> list[Decoder]:
    """All DICOM families, in the order in which a person meets them, and the usual codecs of video files."""
    return [
        Decoder(name, syntaxes, all(can_decode(str(one)) for one in syntaxes), package(syntaxes[0]))
        for name, syntaxes in FAMILIES.items()
    ]


def family_of(syntax: str) -> str:
    """What a transfer syntax or codec belongs to; "" for one that nothing is known of."""
    return next((name for name, syntaxes in FAMILIES.items() if syntax in syntaxes), "")


def package(syntax: str) -> str:
    """What to install to decode a transfer syntax or codec; "" where nothing does."""
    family = family_of(syntax)
    return EXTRAS.get(family, "av" if syntax in CODECS else "pydicom") if family else ""


def name_of(syntax: str) -> str:
    """What a person calls a transfer syntax; its number where it has no name."""
    name = NAMES.get(syntax, uid.UID(syntax).name)
    return f"transfer syntax {syntax}" if name == syntax else name


def missing(syntax: str) -> str:
    """Why a transfer syntax cannot be decoded here, for a person."""
    name = name_of(syntax) if name_of(syntax).endswith(syntax) else f"{name_of(syntax)} ({syntax})"
    install = package(syntax)
    return f"no decoder for {name}: install {install}" if install else f"no decoder for {name}"
