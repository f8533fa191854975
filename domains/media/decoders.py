"""Which decoders this installation has: asked before work starts, and by `vfm doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import av
from pydicom import uid
from pydicom.pixels import get_decoder

EXTRAS = {
    "JPEG 2000": "pylibjpeg-openjpeg",
    "High-Throughput JPEG 2000": "pylibjpeg-openjpeg",
    "JPEG-LS": "python-gdcm",
    "JPEG Lossless": "python-gdcm",
    "JPEG baseline and extended": "opencv-python-headless",
    "RLE": "pydicom",
    "video (MPEG-2, H.264, HEVC)": "av",
}
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
FAMILIES: dict[str, tuple[uid.UID, ...]] = {
    "uncompressed": (
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    ),
    "RLE": (uid.RLELossless,),
    "JPEG baseline and extended": (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit),
    "JPEG Lossless": (uid.JPEGLossless, uid.JPEGLosslessSV1),
    "JPEG-LS": (uid.JPEGLSLossless, uid.JPEGLSNearLossless),
    "JPEG 2000": (uid.JPEG2000Lossless, uid.JPEG2000),
    "High-Throughput JPEG 2000": (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K),
    "video (MPEG-2, H.264, HEVC)": tuple(uid.UID(syntax) for syntax in VIDEO),
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
    """A family of transfer syntaxes, whether it can be decoded here, and the package to install if not."""

    name: str
    syntaxes: tuple[str, ...]
    available: bool
    install: str


@cache
def can_decode(syntax: str) -> bool:
    """Whether pydicom has a plug-in for a transfer syntax, or FFmpeg the codec."""
    if syntax in VIDEO:
        return VIDEO[syntax] in av.codecs_available
    try:
        return bool(get_decoder(uid.UID(syntax)).is_available)
    except NotImplementedError:
        return False


def decoders() -> list[Decoder]:
    """All DICOM families, in the order in which a person meets them."""
    return [
        Decoder(
            name,
            tuple(str(one) for one in syntaxes),
            all(can_decode(str(one)) for one in syntaxes),
            EXTRAS.get(name, "pydicom"),
        )
        for name, syntaxes in FAMILIES.items()
    ]


def name_of(syntax: str) -> str:
    """What a person calls a transfer syntax; its number where it has no name."""
    name = NAMES.get(syntax, uid.UID(syntax).name)
    return f"transfer syntax {syntax}" if name == syntax else name


def missing(syntax: str) -> str:
    """Why a transfer syntax cannot be decoded here, for a person."""
    family = next((name for name, syntaxes in FAMILIES.items() if syntax in syntaxes), None)
    name = name_of(syntax) if name_of(syntax).endswith(syntax) else f"{name_of(syntax)} ({syntax})"
    return (
        f"no decoder for {name}"
        if family is None
        else f"no decoder for {name}: install {EXTRAS.get(family, 'pydicom')}"
    )
