"""The phantom, prepared: what a hospital's folder looks like, with known answers."""

import csv
from pathlib import Path

import pydicom
import pytest

from domains.base import load_domain
from domains.echo.phantom import synthesise
from domains.prepare.ingest import PrepareResult, prepare
from domains.store.labels import read_labels
from domains.store.prepared import Prepared

KEY = b"k" * 32


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, PrepareResult]:
    root = tmp_path_factory.mktemp("phantom")
    synthesise(root / "studies", 1)
    return (
        root / "studies",
        root / "out",
        prepare(root / "studies", root / "out", load_domain("echo"), key=KEY, workers=2),
    )


def test_every_labelled_cine_is_prepared_and_finds_its_label(done: tuple[Path, Path, PrepareResult]):
    studies, out, result = done
    with (studies / "labels.csv").open(newline="") as handle:
        table = list(csv.DictReader(handle))
    assert result.videos == len(table)
    assert result.patients == 1
    prepared = Prepared.open(out)
    labels = read_labels(studies / "labels.csv", load_domain("echo").task("view"), prepared, KEY)
    assert (len(labels), labels.unmatched) == (len(table), 0)
    assert sorted(labels.classes[value] for value in labels.values) == sorted(row["view"] for row in table)


def test_corners_where_names_are_burned_in_are_black(done: tuple[Path, Path, PrepareResult]):
    prepared = Prepared.open(done[1])
    for index in range(len(prepared)):
        clip = prepared.frames(index, range(prepared.length(index)))
        assert clip[:, :40, :25].max() < 20
        assert clip[:, :40, -25:].max() < 20
        assert clip[:, 40:100, 50:94].mean() > 10  # and the heart is there


def test_no_identifier_of_any_header_is_in_the_output(done: tuple[Path, Path, PrepareResult]):
    studies, out, _ = done
    words = set()
    for path in studies.rglob("*.dcm"):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            continue
        words |= {str(header.get(tag, "")) for tag in ("PatientID", "StudyInstanceUID", "SOPInstanceUID")}
        words |= set(str(header.get("PatientName", "")).split("^"))
        words.add(str(header.get("InstitutionName", "")))
    words = {word for word in words if len(word) > 4}  # shorter ones occur in random bytes
    assert len(words) > 5
    for path in out.rglob("*"):
        if path.is_file() and path.suffix != ".mjpeg":
            blob = path.read_bytes().lower()
            assert not [word for word in words if word.lower().encode() in blob], path
