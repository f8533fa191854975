"""The phantom: reproducible to the byte, with volumes that its pictures bear out, and motion where motion is."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from once_factory import once

from domains.echo.heart import END_SYSTOLE, VIEWS, Scene, draw_patient, emptied
from domains.echo.imaging import Probe, Screen
from domains.echo.phantom import COLUMNS, render_cine, synthesise
from domains.media import open_reader


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "four patients", lambda folder: synthesise(folder, 4, seed=5))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_seed_same_bytes_whatever_the_workers(studies: Path, tmp_path: Path) -> None:
    """And whatever the number of patients: the first two of four are those of two."""
    synthesise(tmp_path / "two", 2, seed=5, workers=2)
    synthesise(tmp_path / "other", 1, seed=4)
    one, two = digest(studies), digest(tmp_path / "two")
    tables = {name for name in two if name.endswith(".csv")}
    assert len(tables) == 3
    assert len(two) > 20
    assert all(two[name] == one[name] for name in two.keys() - tables)
    for name in tables:
        assert (studies / name).read_bytes().startswith((tmp_path / "two" / name).read_bytes())
    assert not set(one.values()) & set(digest(tmp_path / "other").values())


def test_labels_files_masks_and_reports(studies: Path) -> None:
    table = rows(studies)
    assert tuple(table[0]) == COLUMNS
    assert {row["view"] for row in table} == set(VIEWS)
    for row in table:
        ef, esv, edv = float(row["ef"]), float(row["esv"]), float(row["edv"])
        assert ef == pytest.approx(100 * (edv - esv) / edv, abs=0.05)
        file = pydicom.dcmread(studies / row["file"], stop_before_pixels=True)
        assert (file.PatientID, file.StudyInstanceUID) == (row["patient_id"], row["study_id"])
        number = Path(row["file"]).stem[-4:]
        assert (studies / "masks" / f"{file.StudyID}_{number}_ED.png").is_file()
        report = (studies / "reports" / f"{file.StudyID}.txt").read_text()
        assert f"ejection fraction {ef:.0f} %" in report
        assert row["patient_id"] not in report
        assert str(file.PatientName).split("^")[0] not in report


def test_words_to_learn_from(studies: Path) -> None:
    labels = rows(studies)
    with (studies / "reports.csv").open(newline="") as file:
        reports = {row["study_id"]: row["text"] for row in csv.DictReader(file)}
    with (studies / "captions.csv").open(newline="") as file:
        captions = {row["file"]: row["text"] for row in csv.DictReader(file)}
    assert set(reports) == {row["study_id"] for row in labels}
    assert set(captions) == {row["file"] for row in labels}
    axis = {"A4C": "four chamber", "A2C": "two chamber", "PLAX": "long axis", "PSAX": "short axis"}
    for row in labels:
        assert f"ejection fraction {float(row['ef']):.0f} %" in reports[row["study_id"]]
        said = captions[row["file"]].lower()
        assert any(words in said for words in (axis[row["view"]], "all four", "left atrium and"))
        assert not any(words in said for view, words in axis.items() if view != row["view"])
        header = pydicom.dcmread(studies / row["file"], stop_before_pixels=True)
        for text in (reports[row["study_id"]], captions[row["file"]]):  # nobody is named
            assert not any(
                name in text for name in (header.StudyID, header.PatientID, str(header.PatientName).split("^")[0])
            )
    assert len(set(captions.values())) > 6


def test_recordings_open_with_regions_and_times(studies: Path) -> None:
    tagged = 0
    for row in rows(studies):
        with open_reader(studies / row["file"]) as reader:
            assert len(reader) >= 24
            assert reader.fps_source == "FrameTime"
            frame = reader.frames([0])[0]
            assert frame.std() > 10
            for region in reader.header.get("SequenceOfUltrasoundRegions", []):
                tagged += 1
                assert (region.RegionSpatialFormat, region.RegionDataType) == (1, 1)
                outside = frame.copy()
                outside[
                    region.RegionLocationMinY0 : region.RegionLocationMaxY1 + 1,
                    region.RegionLocationMinX0 : region.RegionLocationMaxX1 + 1,
                ] = 0
                assert outside.max() > 100, "text and ECG are drawn outside the sector"
    assert tagged


def test_damaged_files_are_there(studies: Path) -> None:
    folder = next(studies.glob("P0003*"))
    texts = [path for path in folder.rglob("*.dcm") if path.read_bytes()[:4] == b"This"]
    assert len(texts) == 1


def test_volume_curve_ejects_once_and_fills_again() -> None:
    phase = np.linspace(0, 1, 500)
    left = emptied(phase)
    assert left.min() == 0
    assert left.max() == pytest.approx(1, abs=1e-3)
    assert 0.3 < END_SYSTOLE < 0.42
    assert np.all(np.diff(left[phase < END_SYSTOLE - 0.01]) >= -1e-9)
    assert np.all(np.diff(left[phase > END_SYSTOLE + 0.01]) <= 1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_ejection_fraction_from_the_masks(seed: int) -> None:
    """Single-plane area-length, V = 8 A^2 / (3 pi L), on the four-chamber masks, gives the label back."""
    rng = np.random.default_rng(seed)
    patient = draw_patient(rng)
    cine = render_cine("A4C", patient, rng, beats=0.2)
    wide = Screen(600, 900, 10, 560 / 18, 18.0, 1.2)  # wide enough to hold the whole ventricle
    scene = Scene(patient, "A4C", np.random.default_rng(seed))
    x, y = wide.grid()
    volumes = []
    for phase in (0.0, END_SYSTOLE):
        mask = scene.inside(x, y, phase)
        area = mask.sum() / wide.scale**2
        u, v = (axis[mask] for axis in scene.local(x, y, phase))
        assert abs(u).max() < 1.05 * scene.shape(phase).a
        volumes.append(8 * area**2 / (3 * np.pi * (v.max() - v.min())) * patient.oval)
    assert volumes[0] == pytest.approx(patient.edv, rel=0.03)
    assert 100 * (1 - volumes[1] / volumes[0]) == pytest.approx(patient.ef, abs=2)
    assert cine.diastole.sum() > cine.systole.sum() > 0


def test_speckle_rides_with_the_wall() -> None:
    """In the wall, a later frame resembles the first one looked up where the tissue was, and not the first one as it stands."""
    rng = np.random.default_rng(1)
    patient = draw_patient(rng)
    scene = Scene(patient, "PSAX", rng)
    screen = Screen(300, 400, 10, 260 / patient.depth, patient.depth, patient.half_angle)
    probe = Probe(scene, screen, rng)
    later = 0.12
    first, second = probe.render(0.0).astype(np.float32), probe.render(later).astype(np.float32)
    x, y = screen.grid()
    u, v = scene.local(x, y, later)
    shape = scene.shape(later)
    rho = scene.radius(u, v, shape)
    wall = (rho > 1.08) & (rho < 1 + 0.85 * shape.wall / shape.a) & screen.sector()
    u0, v0 = scene.material(x, y, later)
    c, s = np.cos(scene.angle), np.sin(scene.angle)
    there_x, there_y = c * u0 - s * v0 + scene.origin[0], s * u0 + c * v0 + scene.origin[1]
    warped = cv2.remap(
        first,
        (there_x * screen.scale + screen.apex[0]).astype(np.float32),
        (there_y * screen.scale + screen.apex[1]).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    with_tissue = np.corrcoef(warped[wall], second[wall])[0, 1]
    standing = np.corrcoef(first[wall], second[wall])[0, 1]
    assert with_tissue > 0.35
    assert with_tissue > standing + 0.15


def test_blood_is_darker_than_muscle_and_outside_is_black() -> None:
    rng = np.random.default_rng(2)
    cine = render_cine("A4C", draw_patient(rng), rng, beats=0.1)
    frame = cine.frames[0].astype(float)
    outer = cv2.dilate(cine.diastole.astype(np.uint8), np.ones((9, 9))) > 0
    wall = outer & ~(cv2.dilate(cine.diastole.astype(np.uint8), np.ones((3, 3))) > 0) & cine.screen.sector()
    assert frame[cv2.erode(cine.systole.astype(np.uint8), np.ones((5, 5))) > 0].mean() < 0.5 * frame[wall].mean()
    assert not frame[~cine.screen.sector()].any()
