"""Whatever a header can hold is planted; nothing of it may be found again, and whatever is left behind must be found."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from source_factory import cine, region_item, sector_mask, write_avi, write_dicom

from domains.base import Domain, RegionSettings, StoreSettings
from domains.errors import DataError
from domains.prepare.audit import SUSPECTS, audit, collect
from domains.prepare.identifiers import of_value, words
from domains.prepare.ingest import prepare
from domains.prepare.written import only_picture
from domains.store.manifest import MANIFEST
from domains.store.prepared import Prepared

KEY = b"k" * 32
ECHO = Domain(
    name="echo", title="Echo", region=RegionSettings(policy="ultrasound"), store=StoreSettings(size=96, grey=True)
)
# One value of every text VR that names somebody, each with a word that occurs nowhere else.
PLANTED = {
    "AE": "AETPLANT", "AS": "093Y", "CS": "CSPLANTED", "DA": "19310203", "DT": "19450506101112", "LO": "Loplanted Ward", "LT": "ltplanted said so",
    "PN": "Pnplanted^Jane^Q", "SH": "SHPLANT7", "ST": "stplanted street 5", "UC": "ucplanted", "UI": "1.2.826.0.1.999.777.5", "UR": "http://urplanted.org/x",
    "UT": "utplanted, a long story", "IS": "778899001", "DS": "661122.5", "TM": "104512.123",
}  # fmt: skip


def planted_source(root: Path) -> Path:
    """Every VR at the top, in a private block, and nested; a telling file name; a name burned in beside the sector."""
    path = write_dicom(root / "ORTEGA_MARIA/Ortega Maria 1955.dcm", cine(16), [region_item()], PatientID="MRN-778899")
    image = pydicom.dcmread(path)
    nested = Dataset()
    for number, (vr, value) in enumerate(PLANTED.items()):
        image.add_new((0x0011, 0x1000 + number), vr, value)
        nested.add_new((0x0013, 0x1000 + number), vr, value.replace("plant", "deepl").replace("PLANT", "DEEPL"))
    image.add_new((0x0011, 0x0010), "LO", "PRIVATE MAKER")
    nested.add_new((0x0013, 0x0010), "LO", "PRIVATE MAKER")
    image.add_new((0x0011, 0x10F0), "UN", b"\x00\x01Unplanted Person\xff\xfe")
    outer = Dataset()
    outer.ReferencedSOPSequence = Items([nested])
    image.RequestAttributesSequence = Items([outer])
    image.OtherPatientNames = "Alias^Planted"
    image.save_as(path, enforce_file_format=True)
    write_avi(root / "ORTEGA_MARIA/quiroga.avi", cine(16, seed=3))
    write_dicom(
        root / "b/plain.dcm", cine(16, seed=2), [region_item()], PatientID="MRN-112233", PatientName="Zuniga^Luis"
    )
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("audit")
    source = planted_source(root / "in")
    prepare(source, root / "out", ECHO, key=KEY)
    return source, root / "out"


@pytest.fixture
def tampered(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the output that a test may spoil."""
    shutil.copytree(made[1], tmp_path / "out")
    return made[0], tmp_path / "out"


def found(result: object, name: str) -> list[tuple[str, str]]:
    (check,) = [check for check in result.checks if check.name == name]
    return [(finding.where, finding.what) for finding in check.found]


def test_everything_planted_is_looked_for(made: tuple[Path, Path]) -> None:
    needles, unread, _ = collect(made[0], made[1])
    said = {word for needle in needles for word in needle}
    wanted = ("aetplant", "csplanted", "19310203", "19450506", "loplanted", "ltplanted", "pnplanted", "shplant7", "stplanted", "ucplanted",
              "1.2.826.0.1.999.777.5", "urplanted", "utplanted", "778899001", "unplanted", "alias", "ortega", "quiroga", "zuniga", "112233",
              "lodeepled", "pndeepled", "utdeepled")  # fmt: skip
    assert [word for word in wanted if word not in said] == []
    assert unread == 0


def test_nothing_planted_remains(made: tuple[Path, Path]) -> None:
    result = audit(made[1], made[0])
    assert result.clean, [check for check in result.checks if check.found]
    assert [check.name for check in result.checks] == [
        "identifiers",
        "names of files",
        "manifest",
        "frame files",
        "drawn text",
    ]
    kept = json.loads((made[1].with_name("out.private") / "audit.json").read_text())
    assert kept["clean"] is True
    assert kept["manifest_sha256"] == result.manifest_sha256
    assert "Ortega" not in json.dumps(kept)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("reading ORTEGA_MARIA/x.dcm", "file or folder name"),
        ("patient pnplanted", "(0011,"),
        ("see Alias Planted", "OtherPatientNames"),
        ("born 03.02.1931", "PatientBirthDate"),
        ("born 1931-02-03", "PatientBirthDate"),
        ("uid 1.2.826.0.1.999.777.5!", "(0011,"),
        ("mrn112233", "PatientID"),
        ("lodeepled ward", "(0013,"),
        ("unplanted person", "(0011,"),
    ],
)
def test_what_a_log_lets_out_is_found_and_named_by_its_tag(
    text: str, what: str, made: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps({"step": 1, "note": text}) + "\n")
    result = audit(made[1], made[0], [tmp_path / "run"])
    assert not result.clean
    (where, named), *_ = found(result, "identifiers")
    assert where == "metrics.jsonl"
    assert what in " ".join(named for _, named in found(result, "identifiers"))
    assert text not in named


def test_names_are_found_in_parquet_safetensors_binaries_and_file_names(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    pq.write_table(pa.table({"who": ["zuniga"]}), run / "table.parquet")
    header = json.dumps({"__metadata__": {"from": "Zuniga"}}).encode()
    (run / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (run / "events.out.tfevents").write_bytes(b"\x00\x01\x02 /data/Zuniga/x \xff\x00")
    (run / "Zuniga.txt").write_text("nothing")
    _, png = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    picture = png.tobytes()
    (run / "plain.png").write_bytes(picture)
    for name, chunk in (
        ("text.png", b"tEXtAuthor\0Zuniga"),
        ("packed.png", b"zTXtAuthor\0\0" + zlib.compress(b"Zuniga")),
    ):
        added = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        (run / name).write_bytes(picture[:33] + added + picture[33:])
    (run / "after.png").write_bytes(picture + b" Zuniga")
    (run / "innocent.txt").write_text("0.112233 and 5e-05 of zunigas")
    result = audit(made[1], made[0], [run])
    assert {where for where, _ in found(result, "identifiers")} == {
        "table.parquet", "model.safetensors", "events.out.tfevents", "Zuniga.txt", "text.png", "packed.png", "after.png",
    }  # fmt: skip


def test_a_stray_file_a_foreign_cell_and_a_comment_in_a_frame_are_found(tampered: tuple[Path, Path]) -> None:
    source, out = tampered
    (out / "notes.txt").write_text("x")
    table = pq.read_table(out / MANIFEST)
    column = table.column_names.index("sex")
    pq.write_table(table.set_column(column, "sex", pa.array(["F, tall"] * len(table))), out / MANIFEST)
    frames = sorted(out.rglob("*.mjpeg"))[0]
    blob = frames.read_bytes()
    frames.write_bytes(blob[:2] + b"\xff\xfe\x00\x06name" + blob[2:])
    result = audit(out, source)
    assert found(result, "names of files") == [("notes.txt", "not a file of a prepared folder")]
    assert found(result, "manifest") == [(MANIFEST, "column sex: 3 cells outside what it may hold")]
    name = frames.relative_to(out).as_posix()
    assert {where for where, _ in found(result, "frame files")} == {name}
    assert "holds something beside pictures" in {what for _, what in found(result, "frame files")}


def test_text_in_kept_pixels_is_a_suspect_that_a_person_may_clear(tmp_path: Path) -> None:
    frames = cine(16, overlay=False)
    ys, xs = np.nonzero(sector_mask())
    for frame in frames:
        place = (int(xs.mean()) - 60, int(ys.mean()))
        cv2.putText(frame, "DOE JANE", place, cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2)
    write_dicom(tmp_path / "in/a.dcm", frames, [region_item()])
    keep = ECHO.model_copy(update={"region": RegionSettings(policy="ultrasound", text="keep")})
    prepare(tmp_path / "in", tmp_path / "out", keep, key=KEY)
    result = audit(tmp_path / "out")
    video = Prepared.open(tmp_path / "out").video_id(0)
    assert found(result, "drawn text") == [(video, "may hold text")]
    assert result.only_suspects
    assert not result.clean
    assert any("identifiers were not searched" in note for note in result.notes)
    assert cv2.imread(str(tmp_path / "out.private" / SUSPECTS)) is not None
    assert audit(tmp_path / "out", looked=True).clean


def test_a_wrong_folder_is_one_line(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a prepared folder"):
        audit(made[0])
    with pytest.raises(DataError, match="no such file"):
        audit(made[1], made[0], [tmp_path / "nowhere"])


def test_values_that_identify_nobody_are_not_looked_for() -> None:
    assert list(of_value("x", "UI", "1.2.840.10008.1.2.1")) == []
    assert list(of_value("x", "IS", "640")) == []
    assert list(of_value("x", "PN", "^^")) == []
    assert dict(of_value("x", "PN", "Ng^Bo")) == {"x": ("ngbo",)}  # two letters name nobody alone


def test_words_are_the_same_however_they_are_written() -> None:
    assert words("Müller^Jörg") == words("MULLER jorg") == ["muller", "jorg"]
    assert words("0.778899 uid 1.2.3") == ["0.778899", "uid", "1.2.3"]


def test_only_picture_refuses_everything_beside_it() -> None:
    _, jpeg = cv2.imencode(".jpg", np.arange(64, dtype=np.uint8).reshape(8, 8))
    blob = jpeg.tobytes()
    assert only_picture(blob)
    assert not only_picture(blob + b"name")
    assert not only_picture(blob[:2] + b"\xff\xe1\x00\x08Exif\0\0" + blob[2:])
    assert not only_picture(blob[:-2])
    assert not only_picture(b"")
