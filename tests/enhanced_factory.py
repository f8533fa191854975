"""Enhanced multi-frame DICOM for tests: volumes over time, as 3D probes export them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

ENHANCED_US = "1.2.840.10008.5.1.4.1.1.6.2"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
TIME, PLACE, KIND = (0x0020930D, 0x00209310), (0x00209301, 0x0020930E), (0x00189808, 0x00189807)


def item(**values: Any) -> Items:
    """A sequence of one item."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return Items([dataset])


def groups(
    *,
    at: Sequence[float] | None = None,
    patient: Sequence[float] | None = None,
    seconds: float | None = None,
    kind: str | None = None,
    indices: Sequence[int] | None = None,
    **content: Any,
) -> Dataset:
    """The functional groups of a frame; `content` goes into its Frame Content."""
    own = Dataset()
    if indices is not None:
        content["DimensionIndexValues"] = list(indices)
    if content:
        own.FrameContentSequence = item(**content)
    if at is not None:
        own.PlanePositionVolumeSequence = item(ImagePositionVolume=list(at))
    if patient is not None:
        own.PlanePositionSequence = item(ImagePositionPatient=list(patient))
    if seconds is not None:
        own.TemporalPositionSequence = item(TemporalPositionTimeOffset=seconds)
    if kind is not None:
        own.ImageDataTypeSequence = item(DataType=kind)
    return own


def write_enhanced(
    path: Path,
    frames: np.ndarray,
    own: Iterable[Dataset] | None,
    *,
    sop_class: str = ENHANCED_US,
    organised: str | None = "3D_TEMPORAL",
    dimensions: Sequence[tuple[int, int]] = (TIME, PLACE, KIND),
    spacing: Sequence[float] | None = (0.5, 0.5),
    **tags: Any,
) -> Path:
    """frames (N, H, W) uint8, own: the functional groups of each; None: the header has none. `tags` override."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Dataset()
    image.file_meta = meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    image.SOPClassUID, image.SOPInstanceUID, image.Modality = sop_class, meta.MediaStorageSOPInstanceUID, "US"
    image.PatientID, image.StudyInstanceUID, image.SeriesInstanceUID = "MRN-3D", "1.2.3", "1.2.3.4"
    image.Rows, image.Columns, image.NumberOfFrames = *frames.shape[1:], len(frames)
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation = 7, 0
    if organised is not None:
        image.DimensionOrganizationType = organised
    if own is not None:
        shared = Dataset()
        shared.PlaneOrientationVolumeSequence = item(ImageOrientationVolume=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        if spacing is not None:
            shared.PixelMeasuresSequence = item(PixelSpacing=list(spacing))
        image.SharedFunctionalGroupsSequence = Items([shared])
        image.PerFrameFunctionalGroupsSequence = Items(list(own))
        image.DimensionIndexSequence = Items(
            [item(DimensionIndexPointer=Tag(a), FunctionalGroupPointer=Tag(g))[0] for a, g in dimensions]
        )
    image.PixelData = frames.tobytes()
    for keyword, value in tags.items():
        setattr(image, keyword, value)
    image.save_as(path, enforce_file_format=True)
    return path
