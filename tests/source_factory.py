"""Small ultrasound recordings for tests: a beating sector beside text, scale and ECG, as DICOM and as AVI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

HEIGHT, WIDTH = 240, 320
SECTOR = (60, 15, 260, 195)  # bounds of the fan
NAME = "DOE^JANE 1234567"
US_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"


def sector_mask() -> np.ndarray:
    """(HEIGHT, WIDTH) bool: the fan, apex at the top."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    radius, angle = np.hypot(x - 160, y - 15), np.arctan2(x - 160, y - 15)
    return (radius < 180) & (np.abs(angle) < 0.6) & (radius > 8)


def overlay_mask() -> np.ndarray:
    """(HEIGHT, WIDTH) bool: where text, scale and ECG are drawn; none of it may survive."""
    canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for phase in range(0, WIDTH, 4):
        _draw_overlay(canvas, phase)
    return canvas.any(axis=-1)


def _draw_overlay(canvas: np.ndarray, phase: int) -> None:
    cv2.putText(canvas, NAME, (2, 10), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255), 1)
    cv2.putText(canvas, "MI 1.1", (2, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 0), 1)
    for y in range(20, 200, 20):
        canvas[y, 300:306] = 255
    beat = [214 - (14 if (x - phase) % 64 == 0 else 6 if (x - phase) % 64 < 3 else 0) for x in range(10, 310)]
    points = np.stack([np.arange(10, 310), beat], axis=1).astype(np.int32)
    cv2.polylines(canvas, [points], False, (0, 255, 0), 1)


def cine(n_frames: int = 20, seed: int = 0, colour: bool = False, overlay: bool = True) -> np.ndarray:
    """uint8 (n_frames, HEIGHT, WIDTH, 3): speckle in a fan and a ring that beats."""
    rng = np.random.default_rng(seed)
    fan = sector_mask()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = np.zeros((n_frames, HEIGHT, WIDTH, 3), np.uint8)
    for t in range(n_frames):
        radius = 40 + 10 * np.sin(2 * np.pi * t / 12 + seed)
        ring = np.exp(-(((np.hypot(x - 160, y - 110) - radius) / 8) ** 2))
        speckle = cv2.GaussianBlur(rng.gamma(1.0, 40, (HEIGHT, WIDTH)), (5, 5), 0)
        tissue = np.where(fan, np.clip(speckle * (0.8 + 2 * ring), 0, 255), 0).astype(np.uint8)
        frames[t] = tissue[..., None]
        if colour:
            box = fan & (np.abs(x - 160) < 25) & (np.abs(y - 120) < 25)
            frames[t][box & (x < 160)] = (220, 40, 20)
            frames[t][box & (x >= 160)] = (20, 60, 220)
        if overlay:
            _draw_overlay(frames[t], 4 * t)
    return frames


def region_item(
    box: Sequence[int] = SECTOR, spatial_format: int = 1, data_type: int = 1, delta: float = 0.05
) -> Dataset:
    """One item of the sequence of ultrasound regions; box is (x0, y0, x1, y1), inclusive as in DICOM."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = spatial_format, data_type, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = box[0], box[1]
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = box[2], box[3]
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaX, item.PhysicalDeltaY = delta, delta
    return item


def write_dicom(path: Path, frames: np.ndarray, regions: Sequence[Dataset] = (), **tags: Any) -> Path:
    """An uncompressed ultrasound DICOM with a full and telling header; `tags` override it, None removes a tag."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = US_MULTIFRAME
    meta.MediaStorageSOPInstanceUID = tags.get("SOPInstanceUID") or generate_uid(entropy_srcs=[str(path)])
    image = Dataset()
    image.file_meta = meta
    image.SOPClassUID, image.SOPInstanceUID = US_MULTIFRAME, meta.MediaStorageSOPInstanceUID
    image.Modality, image.Manufacturer = "US", "GE Vingmed Ultrasound"
    image.PatientName, image.PatientID, image.PatientBirthDate = NAME, "MRN-778899", "19310203"
    image.PatientAge, image.PatientSex, image.HeartRate = "093Y", "F", 71
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3.4.5", "1.2.3.4.5.6"
    image.InstitutionName, image.StudyDescription = "St Elsewhere", "Echo for DOE"
    image.FrameTime = 40.0
    image.NumberOfFrames, image.Rows, image.Columns = len(frames), *frames.shape[1:3]
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation = 7, 0
    image.PixelData = frames.tobytes()
    if regions:
        image.SequenceOfUltrasoundRegions = Items(list(regions))
    for keyword, value in tags.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    image.save_as(path, enforce_file_format=True)
    return path


def write_avi(path: Path, frames: np.ndarray, fps: int = 25) -> Path:
    """Motion JPEG in AVI, as public echo data sets have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mjpeg", rate=fps)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuvj444p"
        stream.options = {"qmin": "1", "qmax": "2"}
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path
