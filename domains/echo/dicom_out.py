"""Phantom recordings as the files that a machine would send: DICOM ultrasound, JPEG baseline, with every identifier a hospital has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, JPEGBaseline8Bit

from domains.echo.imaging import Picture, Screen

MULTIFRAME, STILL = UID("1.2.840.10008.5.1.4.1.1.3.1"), UID("1.2.840.10008.5.1.4.1.1.6.1")
MAKERS = (("GE Vingmed Ultrasound", "Vivid E95"), ("Philips Medical Systems", "EPIQ CVx"), ("SIEMENS", "ACUSON SC2000"))


@dataclass(frozen=True)
class Study:
    """Header values that all files of a study share."""

    patient_id: str
    name: str
    birth: str
    sex: str
    age: str
    date: str
    study_uid: str
    study_id: str
    institution: str
    physician: str
    vendor: int
    heart_rate: int


def uid(*parts: object) -> str:
    """A UID that follows from its parts (ITU-T X.667 arc 2.25)."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def region(screen: Screen, spatial: int, data: int) -> Dataset:
    """One item of SequenceOfUltrasoundRegions: spatial format 1 = 2D, 2 = M-mode; data type 1 = tissue, 2 = colour flow."""
    item = Dataset()
    x0, y0, x1, y1 = screen.box()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = spatial, data, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = x0, y0
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = x1 - 1, y1 - 1
    item.ReferencePixelX0, item.ReferencePixelY0 = round(screen.apex[0]) - x0, round(screen.apex[1]) - y0
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaX = item.PhysicalDeltaY = 1.0 / screen.scale
    return item


def write(
    path: Path,
    frames: Sequence[Picture],
    study: Study,
    instance: int,
    *,
    fps: float,
    regions: Sequence[Dataset] = (),
    colour_flow: bool = False,
    grey: bool = False,
) -> None:
    """Write RGB frames (H, W, 3) as one file; JPEG baseline, YBR_FULL_422, or MONOCHROME2 where `grey`."""
    meta = FileMetaDataset()
    cine = len(frames) > 1
    meta.MediaStorageSOPClassUID = MULTIFRAME if cine else STILL
    meta.MediaStorageSOPInstanceUID = UID(uid(study.study_uid, "instance", instance))
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    meta.ImplementationClassUID = UID(uid("vfm phantom"))
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.ImageType = ["ORIGINAL", "PRIMARY", "", "0001"]
    file.StudyDate = file.SeriesDate = file.ContentDate = file.AcquisitionDateTime = study.date
    file.StudyTime = file.ContentTime = f"{8 + instance % 9:02d}{(instance * 7) % 60:02d}00"
    file.AccessionNumber, file.Modality = f"A{study.study_id[1:]}", "US"
    file.Manufacturer, file.ManufacturerModelName = MAKERS[study.vendor]
    file.InstitutionName, file.ReferringPhysicianName = study.institution, study.physician
    file.PatientName, file.PatientID = study.name, study.patient_id
    file.PatientBirthDate, file.PatientSex, file.PatientAge = study.birth, study.sex, study.age
    file.StudyInstanceUID, file.SeriesInstanceUID = study.study_uid, uid(study.study_uid, "series")
    file.StudyID, file.SeriesNumber, file.InstanceNumber = study.study_id, 1, instance
    file.HeartRate = study.heart_rate
    height, width = frames[0].shape[:2]
    file.Rows, file.Columns = height, width
    file.SamplesPerPixel = 1 if grey else 3
    file.PhotometricInterpretation = "MONOCHROME2" if grey else "YBR_FULL_422"
    if not grey:
        file.PlanarConfiguration = 0
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    file.LossyImageCompression = "01"
    file.BurnedInAnnotation = "YES"
    file.UltrasoundColorDataPresent = int(colour_flow)
    if cine:
        file.NumberOfFrames = len(frames)
        file.FrameTime = f"{1000 / fps:.6g}"
        file.FrameIncrementPointer = 0x00181063
        file.CineRate = round(fps)
    if regions:
        file.SequenceOfUltrasoundRegions = DicomSequence(list(regions))
    file.PixelData = encapsulate([jpeg(frame, grey) for frame in frames], has_bot=True)
    file["PixelData"].is_undefined_length = True
    file.save_as(path, enforce_file_format=True)


def jpeg(frame: Picture, grey: bool) -> bytes:
    """One frame as JPEG baseline, chroma at half the horizontal resolution."""
    picture = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY if grey else cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, 88]
    if not grey:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422]
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(picture), options)
    if not done:
        raise ValueError("a frame cannot be encoded as JPEG")
    return data.tobytes()
