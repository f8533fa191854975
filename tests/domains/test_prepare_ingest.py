import contextlib
import csv
import hashlib
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from source_factory import cine, region_item, sector_mask, write_avi, write_dicom

from domains.base import Domain, RegionSettings, StoreSettings, TaskSettings
from domains.errors import ConfigError, DataError, StorageError
from domains.prepare import ingest, output, pool
from domains.prepare.find import Source, find_files
from domains.prepare.ingest import PrepareResult, prepare
from domains.prepare.privacy import Pseudonyms
from domains.prepare.source import Refused, Task, examine
from domains.store.labels import read_labels
from domains.store.manifest import MANIFEST
from domains.store.prepared import Prepared
from domains.store.square import stored_boxes

KEY = b"k" * 32
ECHO = Domain(
    name="echo",
    title="Echo",
    colour_doppler="exclude",
    region=RegionSettings(policy="ultrasound"),
    store=StoreSettings(size=64, grey=True),
)
WHOLE_BOX = region_item((0, 0, 319, 239))


def write_sources(root: Path) -> Path:
    """Four cines of three patients and one file of every kind that is set aside."""
    for number in range(2):
        tags = {"PatientID": "MRN-1", "StudyInstanceUID": "1.2.1", "SOPInstanceUID": f"1.2.1.{number}"}
        write_dicom(root / f"a/IM{number}.dcm", cine(12, seed=number), [WHOLE_BOX], **tags)
    tags = {"PatientID": "MRN-2", "StudyInstanceUID": "1.2.2", "SOPInstanceUID": "1.2.2.0", "PatientAge": "044Y"}
    write_dicom(root / "b/no_extension", cine(12, seed=2), **tags)
    write_avi(root / "DOE_JANE/clip.avi", cine(12, seed=3))
    write_dicom(root / "c/still.dcm", cine(1), [WHOLE_BOX])
    write_dicom(root / "c/flow.dcm", cine(12, colour=True))
    write_dicom(root / "c/frozen.dcm", np.repeat(cine(1), 12, axis=0), [WHOLE_BOX])
    write_dicom(root / "c/mr.dcm", cine(12), Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    shutil.copy(root / "a/IM0.dcm", root / "c/copy of IM0.dcm")
    (root / "c/text.dcm").write_text("this is no DICOM")
    (root / "c/empty.avi").write_bytes(b"")
    (root / "labels.csv").write_text("file,ef\nIM0,55\n")
    (root / ".hidden").write_text("x")
    return root


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("in") / "studies")


@pytest.fixture(scope="module")
def done(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PrepareResult, Path]:
    out = tmp_path_factory.mktemp("out") / "prepared"
    return prepare(sources, out, ECHO, key=KEY, workers=2), out


def digest(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_file_is_used_or_named_with_a_reason(done: tuple[PrepareResult, Path], sources: Path):
    result, _ = done
    assert (result.videos, result.patients) == (4, 3)
    found = {entry.source.relative_to(sources).as_posix(): entry.category for entry in result.excluded}
    assert found == {
        "c/still.dcm": "still",
        "c/flow.dcm": "colour Doppler",
        "c/frozen.dcm": "no region",
        "c/mr.dcm": "not ultrasound",
        "c/copy of IM0.dcm": "duplicate",
        "c/text.dcm": "unreadable",
        "c/empty.avi": "unreadable",
        "labels.csv": "not a recording",
    }
    assert all(entry.reason for entry in result.excluded)
    assert result.by_category()["unreadable"] == 2
    assert result.patients_from == {"file": 1, "header": 3}


def test_rows_hold_what_was_recorded(done: tuple[PrepareResult, Path]):
    prepared = Prepared.open(done[1])
    names = Pseudonyms(KEY)
    row = prepared.row(prepared.column("instance").index(names.token("instance", "1.2.1.0")))
    assert row.patient == names.token("patient", "MRN-1")
    assert row.study == names.token("study", "1.2.1")
    assert row.source_path == names.token("path", "a/IM0.dcm")
    assert row.source_name == names.token("name", "IM0")
    assert (row.media, row.n_frames, row.channels, row.fps) == ("dicom", 12, 1, 25.0)
    assert (row.manufacturer, row.age, row.sex, row.heart_rate) == ("GE", "090Y", "F", 71.0)
    assert row.region_source == "regions+motion"
    x0, y0, x1, y1 = row.region
    assert (row.width, row.height) == (x1 - x0, y1 - y0)
    assert row.cm_per_pixel == pytest.approx(0.05 * max(x1 - x0, y1 - y0) / 64)
    stored = prepared.frames(prepared.index_of(row.video_id), range(12)).astype(float)
    assert row.mean == pytest.approx(stored.mean(), rel=0.02)
    assert row.std == pytest.approx(stored.std(), rel=0.02)
    assert row.motion == pytest.approx(np.abs(np.diff(stored, axis=0)).mean(), rel=0.1)
    avi = prepared.row(prepared.column("media").index("video"))
    assert (avi.fps, avi.region_source, avi.cm_per_pixel, avi.age) == (25.0, "motion", None, "")
    assert prepared.verify() == []
    assert prepared.info["key"] == names.fingerprint
    assert prepared.summary()["excluded"]["unreadable"] == 2


def test_what_was_odd_about_a_file_is_kept_and_shown(tmp_path: Path):
    source = tmp_path / "in"
    write_dicom(source / "SECRET.dcm", cine(12), [region_item()], PatientID="A", NumberOfFrames=30)
    write_dicom(source / "plain.dcm", cine(12, seed=1), [region_item()], PatientID="A")
    result = prepare(source, tmp_path / "out", ECHO, key=KEY)
    assert result.noted == [(source / "SECRET.dcm", "NumberOfFrames says 30, the file holds 12")]
    prepared = Prepared.open(tmp_path / "out")
    assert sorted(prepared.column("note")) == ["", "NumberOfFrames says 30, the file holds 12"]


def test_a_folder_of_an_earlier_version_without_the_note_opens(tmp_path: Path):
    source = tmp_path / "in"
    write_dicom(source / "one.dcm", cine(12), [region_item()], PatientID="A")
    prepare(source, tmp_path / "out", ECHO, key=KEY)
    table = pq.read_table(tmp_path / "out" / MANIFEST).drop_columns(["note"])
    pq.write_table(table, tmp_path / "out" / MANIFEST)
    assert Prepared.open(tmp_path / "out").row(0).note == ""


def test_the_stored_picture_is_the_sector_and_nothing_else(done: tuple[PrepareResult, Path]):
    prepared = Prepared.open(done[1])
    for index in range(len(prepared)):
        row = prepared.row(index)
        x0, y0, x1, y1 = row.region
        side = max(x1 - x0, y1 - y0)
        fan = np.zeros((side, side), bool)
        top, left = (side - (y1 - y0)) // 2, (side - (x1 - x0)) // 2
        fan[top : top + y1 - y0, left : left + x1 - x0] = sector_mask()[y0:y1, x0:x1]
        steps = (np.arange(64) * side // 64)[:, None], (np.arange(64) * side // 64)[None]
        small = fan[steps]
        clip = prepared.frames(index, range(12))[..., 0]
        assert clip[:, small].mean() > 20
        assert clip[:, ~small].mean() < 6  # the blurred edge of the sector


def test_nothing_of_the_header_or_the_path_is_in_the_output(done: tuple[PrepareResult, Path], sources: Path):
    words = [
        "DOE",
        "JANE",
        "MRN",
        "778899",
        "1931",
        "Elsewhere",
        "1.2.1",
        "IM0",
        "no_extension",
        "clip.avi",
        str(sources),
    ]
    for path in done[1].rglob("*"):
        assert not any(word in path.name for word in words)
        if path.is_file() and path.suffix != ".mjpeg":
            blob = path.read_bytes()
            assert not [word for word in words if word.encode() in blob], path


def test_the_table_that_leads_back_lies_outside_and_is_closed(done: tuple[PrepareResult, Path], sources: Path):
    out = done[1]
    private = out.with_name("prepared.private")
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE((private / "sources.csv").stat().st_mode) == 0o600
    with (private / "sources.csv").open(newline="") as handle:
        table = {row["source"]: row for row in csv.DictReader(handle)}
    assert len(table) == 12
    row = table[str(sources / "a/IM0.dcm")]
    assert row["outcome"] == "prepared"
    assert row["video_id"] in Prepared.open(out).column("video_id")
    with (out / "excluded.csv").open(newline="") as handle:
        excluded = {row["source"]: row for row in csv.DictReader(handle)}
    still = table[str(sources / "c/still.dcm")]
    assert excluded[still["pseudonym"]]["category"] == "still"
    assert len(excluded) == 8


def test_the_result_does_not_depend_on_the_number_of_workers(done, sources: Path, tmp_path: Path):
    prepare(sources, tmp_path / "again", ECHO, key=KEY, workers=1)
    assert digest(tmp_path / "again") == digest(done[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "again.private"]


def test_another_key_gives_other_names_for_everything(done, sources: Path, tmp_path: Path):
    prepare(sources / "a", tmp_path / "again", ECHO, key=b"x" * 32)
    ours, theirs = Prepared.open(done[1]), Prepared.open(tmp_path / "again")
    for column in ("video_id", "patient", "study", "instance", "source_name"):
        assert not set(ours.column(column)) & set(theirs.column(column))


def test_labels_by_original_names_find_their_videos(done: tuple[PrepareResult, Path], tmp_path: Path):
    labels = tmp_path / "labels.csv"
    labels.write_text("file,ef\nIM0,55\nIM1.dcm,45\nclip.avi,30\nno_extension,20\nmissing,10\n")
    task = TaskSettings(kind="regression", column="ef")
    found = read_labels(labels, task, Prepared.open(done[1]), KEY)
    assert sorted(found.values.tolist()) == [20, 30, 45, 55]
    assert found.unmatched == 1


def test_progress_counts_every_file(sources: Path, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    prepare(sources / "a", tmp_path / "out", ECHO, key=KEY, progress=lambda number, total: seen.append((number, total)))
    assert seen == [(1, 2), (2, 2)]


def test_a_domain_without_ultrasound_keeps_whole_frames_in_colour(tmp_path: Path):
    write_avi(tmp_path / "in/scene.avi", cine(12, colour=True))
    signs = RegionSettings(policy="whole", text="keep")
    domain = Domain(name="scenes", title="Scenes", region=signs, store=StoreSettings(size=48, fit="crop"))
    prepare(tmp_path / "in", tmp_path / "out", domain, key=KEY)
    row = Prepared.open(tmp_path / "out").row(0)
    assert (row.channels, row.region, row.region_source) == (3, (0, 0, 320, 240), "whole")
    frame = Prepared.open(tmp_path / "out").frames(0, [0])[0].astype(int)
    assert (frame[..., 0] - frame[..., 2]).max() > 100  # red flow on the left of the box ...
    assert (frame[..., 2] - frame[..., 0]).max() > 100  # ... and blue on the right


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("policy", ["whole", "endoscope"])
def test_what_stands_in_a_frame_is_found_in_the_stored_square(tmp_path: Path, fit: str, policy: str):
    """A lit field off the middle of a frame, and a white spot in it: where `stored_boxes` says that it went."""
    frames = np.zeros((12, 240, 320, 3), np.uint8)
    frames[:, 20:200, 60:300] = 90
    frames[:, 92:108, 172:188] = 255  # about (180, 100)
    write_avi(tmp_path / "in/spot.avi", frames)
    region = RegionSettings(policy=policy, text="keep", min_fraction=0.03)
    domain = Domain(name="spots", title="Spots", region=region, store=StoreSettings(size=64, fit=fit))
    prepare(tmp_path / "in", tmp_path / "out", domain, key=KEY)
    prepared = Prepared.open(tmp_path / "out")
    assert prepared.row(0).frame == (320, 240)
    assert (prepared.row(0).region == (0, 0, 320, 240)) == (policy == "whole")
    x0, y0, x1, y1 = stored_boxes(prepared, [0])[0]
    ys, xs = np.nonzero(prepared.frames(0, [0])[0].min(axis=-1) > 180)
    expected = 64 * (180 / 320 - x0) / (x1 - x0), 64 * (100 / 240 - y0) / (y1 - y0)
    assert (xs.mean() + 0.5, ys.mean() + 0.5) == pytest.approx(expected, abs=0.6)
    if policy == "whole":
        assert (x0, y0, x1, y1) == pytest.approx((0.125, 0, 0.875, 1) if fit == "crop" else (0, -1 / 6, 1, 7 / 6))


def test_a_frame_of_unknown_size_is_one_line(tmp_path: Path):
    write_avi(tmp_path / "in/scene.avi", cine(12))
    prepare(
        tmp_path / "in",
        tmp_path / "out",
        Domain(name="scenes", title="Scenes", region=RegionSettings(text="keep")),
        key=KEY,
    )
    table = pq.read_table(tmp_path / "out" / MANIFEST).drop_columns(["frame"])
    pq.write_table(table, tmp_path / "out" / MANIFEST)
    assert stored_boxes(Prepared.open(tmp_path / "out"), [0])[0] == pytest.approx((0, -1 / 6, 1, 7 / 6))  # all picture
    found = table.set_column(table.column_names.index("region_source"), "region_source", [["motion"]])
    pq.write_table(found, tmp_path / "out" / MANIFEST)
    with pytest.raises(DataError, match=r"the size of the frames of '\w+' was not kept"):
        stored_boxes(Prepared.open(tmp_path / "out"), [0])


def test_a_folder_without_videos_says_what_was_found(tmp_path: Path):
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="holds no files"):
        prepare(tmp_path / "in", tmp_path / "out", ECHO, key=KEY)
    (tmp_path / "in/notes.txt").write_text("hello")
    (tmp_path / "in/fake.dcm").write_text("hello")
    with pytest.raises(DataError, match=r"no usable recording among 2 files \(1 unreadable, 1 not a recording\)"):
        prepare(tmp_path / "in", tmp_path / "out", ECHO, key=KEY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    with pytest.raises(DataError, match="no such file or folder"):
        prepare(tmp_path / "nowhere", tmp_path / "out", ECHO, key=KEY)


def test_an_output_that_is_in_use_is_refused_unless_it_is_a_prepared_one(sources: Path, tmp_path: Path):
    out = tmp_path / "out"
    prepare(sources / "a", out, ECHO, key=KEY)
    before = digest(out)
    with pytest.raises(ConfigError, match=r"not empty.*--overwrite"):
        prepare(sources / "b", out, ECHO, key=KEY)
    assert digest(out) == before
    prepare(sources / "b", out, ECHO, key=KEY, overwrite=True)
    assert len(Prepared.open(out)) == 1
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="only prepared folders"):
        prepare(sources / "b", other, ECHO, key=KEY, overwrite=True)
    assert (other / "chapter1.txt").exists()
    with pytest.raises(ConfigError, match="the output holds the source"):
        prepare(sources / "b", sources, ECHO, key=KEY, overwrite=True)


def test_the_draft_of_another_run_or_of_someone_else_is_left_alone(sources: Path, tmp_path: Path):
    draft = tmp_path / "out.partial"
    draft.mkdir()
    (draft / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds files that are not vfm's"):
        prepare(sources / "a", tmp_path / "out", ECHO, key=KEY)
    assert (draft / "thesis.txt").exists()
    (draft / "thesis.txt").unlink()
    with (
        output.writing(tmp_path / "out"),
        pytest.raises(ConfigError, match="another 'vfm data prepare' is writing here"),
    ):
        prepare(sources / "a", tmp_path / "out", ECHO, key=KEY)
    shutil.rmtree(tmp_path / "out")
    draft.mkdir()
    (draft / "frames").mkdir()  # what a killed run leaves
    (draft / "frames/half.mjpeg").write_bytes(b"half")
    prepare(sources / "a", tmp_path / "out", ECHO, key=KEY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.private"]
    assert not (tmp_path / "out/frames/half.mjpeg").exists()


def test_an_output_inside_the_source_is_not_taken_for_input(tmp_path: Path):
    source = tmp_path / "studies"
    write_dicom(source / "x.dcm", cine(12), [WHOLE_BOX])
    prepare(source, source / "prepared", ECHO, key=KEY)
    result = prepare(source, source / "prepared", ECHO, key=KEY, overwrite=True)
    assert (result.videos, result.excluded) == (1, [])


def test_a_decoder_that_crashes_costs_one_file(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fake(work, tasks, workers, patience):
        for number, task in enumerate(tasks):
            yield number, ("crashed", "hung", ingest.examine(task, lambda: None))[number % 3]

    monkeypatch.setattr(pool, "run", fake)
    result = prepare(sources, tmp_path / "out", ECHO, key=KEY)
    assert result.videos > 0
    reasons = {entry.reason for entry in result.excluded if entry.category == "unreadable"}
    assert {"its decoder crashed", "its decoder gave no sign of life for 60 s"} <= reasons


def test_an_interrupted_run_can_go_on_and_an_old_result_stands(sources: Path, tmp_path: Path):
    def interrupt(number: int, total: int) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepare(sources / "a", out, ECHO, key=KEY, progress=interrupt)
    assert not out.exists()
    prepare(sources / "a", out, ECHO, key=KEY)
    before = digest(out)
    with pytest.raises(KeyboardInterrupt):
        prepare(sources, out, ECHO, key=KEY, overwrite=True, progress=interrupt)
    assert digest(out) == before
    prepare(sources, out, ECHO, key=KEY, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.private"]


def test_a_disk_that_refuses_is_a_storage_error_and_leaves_no_output(sources: Path, tmp_path: Path, monkeypatch):
    real = output.writing

    @contextlib.contextmanager
    def writing(out: Path, resume: bool = False) -> Iterator[Path]:
        with real(out, resume) as draft:
            (draft / "frames").write_text("in the way of the folder")  # so that the workers' own writes fail
            yield draft

    monkeypatch.setattr(output, "writing", writing)
    with pytest.raises(StorageError, match=r"cannot be written .Not a directory.. Free some space"):
        prepare(sources / "a", tmp_path / "out", ECHO, key=KEY)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_while_the_tables_are_written(sources: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(ingest, "EXCLUDED", "/dev/full")
    with pytest.raises(StorageError, match=r"No space left on device.*the same command goes on"):
        prepare(sources / "c", tmp_path / "out", ECHO, key=KEY)
    assert not (tmp_path / "out").exists()


def test_folders_are_patients_where_they_look_like_it(tmp_path: Path):
    frames = [cine(8, seed=number) for number in range(6)]
    for number, clip in enumerate(frames):
        write_avi(tmp_path / f"cohort/p{number % 5}/{number}.avi", clip)
        write_avi(tmp_path / f"flat/Videos/{number}.avi", clip)
    cohort = prepare(tmp_path / "cohort", tmp_path / "out1", ECHO, key=KEY, workers=2)
    assert (cohort.patients, cohort.patients_from) == (5, {"folder": 6})
    assert Pseudonyms(KEY).token("patient", "p3") in Prepared.open(tmp_path / "out1").patients
    flat = prepare(tmp_path / "flat", tmp_path / "out2", ECHO, key=KEY, workers=2)
    assert (flat.patients, flat.patients_from) == (6, {"file": 6})


def test_a_closed_folder_is_set_aside_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "in/closed").mkdir(parents=True)
    (tmp_path / "in/a.txt").write_text("a")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert find_files(tmp_path / "in") == [tmp_path / "in/a.txt", tmp_path / "in/closed"]
    task = Task(Source(tmp_path / "in/closed", "closed"), tmp_path / "out", tmp_path, ECHO, KEY)
    assert examine(task, lambda: None) == Refused(
        "unreadable", "cannot be read (Is a directory)", "cannot be read (Is a directory)"
    )


def test_links_are_followed_and_loops_are_not(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.txt").write_text("a")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path / "real")
    (tmp_path / "in/broken").symlink_to(tmp_path / "gone")
    (tmp_path / "real/loop").symlink_to(tmp_path / "in")
    assert find_files(tmp_path / "in") == [tmp_path / "in/link/a.txt"]
    assert find_files(tmp_path / "real/a.txt") == [tmp_path / "real/a.txt"]


@pytest.mark.shared
def test_the_real_samples(tmp_path: Path):
    data = Path(__file__).resolve().parents[2] / "../shared/data"
    if not data.exists():
        pytest.skip("needs ../shared/data")
    source = tmp_path / "in"
    source.mkdir()
    for part in ("echo/us", "echo/video", "echo/other/emri_small_RLE.dcm", "corrupt/dicom"):
        (source / Path(part).name).symlink_to(data / part)
    for name in ("test_rot_90_deg.mp4", "chapters_truncated_chapter_string.mkv"):
        (source / name).symlink_to(data / "corrupt/video" / name)
    result = prepare(source, tmp_path / "out", ECHO, key=KEY, workers=os.cpu_count() or 1)
    excluded = {entry.source.name: entry for entry in result.excluded}
    assert excluded["IM00001.implicit_little_endian.dcm"].category == "colour Doppler"
    assert excluded["jpeg-ls-Palette.dcm"].category == "colour Doppler"  # no tag says so
    assert excluded["examples_palette.dcm"].category == "still"
    assert excluded["emri_small_RLE.dcm"].category == "not ultrasound"
    assert excluded["will-jxl.dcm"].category == "no decoder"
    for name in ("examples_ybr_color.dcm", "clarius-ocular-short.mp4", "wikimedia_apical_4-chamber.gif"):
        assert name not in excluded
    assert excluded["test_rot_90_deg.mp4"].reason == "a camera's picture, by its colours"
    assert Prepared.open(tmp_path / "out").verify() == []


def test_archives_and_folders_of_frames_are_sources_like_any_other(tmp_path: Path):
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    for number in range(3):
        tags = {"PatientID": f"M{number}", "SOPInstanceUID": f"1.2.{number}"}
        write_dicom(plain / f"studies.zip/p{number}/IM{number}", cine(12, seed=number), [WHOLE_BOX], **tags)
    write_dicom(plain / "more.tar.gz/IM9", cine(12, seed=9), [WHOLE_BOX], PatientID="M9")
    packed.mkdir()
    with zipfile.ZipFile(packed / "studies.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((plain / "studies.zip").rglob("IM*")):
            archive.write(path, path.relative_to(plain / "studies.zip"))
    with tarfile.open(packed / "more.tar.gz", "w:gz") as archive:
        archive.add(plain / "more.tar.gz/IM9", "IM9")
    one = prepare(plain, tmp_path / "out1", ECHO, key=KEY)
    two = prepare(packed, tmp_path / "out2", ECHO, key=KEY, workers=2)
    assert (one.videos, two.videos) == (4, 4)
    assert digest(tmp_path / "out1") == digest(tmp_path / "out2")  # same names, same bytes: an archive is a folder
    assert sorted(path.name for path in (tmp_path / "out2.private").iterdir()) == ["journal.jsonl", "sources.csv"]
    assert prepare(packed, tmp_path / "out2", ECHO, key=KEY, update=True).reused == 4

    frames = cine(12, seed=4)
    (tmp_path / "mixed/DOE_JANE").mkdir(parents=True)
    for number, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"mixed/DOE_JANE/f_{number:04d}.png"), frame[..., ::-1])
    (tmp_path / "mixed/broken.zip").write_bytes((packed / "studies.zip").read_bytes()[:4000])
    mixed = prepare(tmp_path / "mixed", tmp_path / "out3", ECHO, key=KEY)
    row = Prepared.open(tmp_path / "out3").row(0)
    assert (mixed.videos, row.n_frames, row.fps, row.source_name) == (
        1,
        12,
        None,
        Pseudonyms(KEY).token("name", "DOE_JANE"),
    )
    assert [(entry.source.name, entry.category) for entry in mixed.excluded] == [("broken.zip", "unreadable")]


def test_headers_that_are_the_same_do_not_make_recordings_the_same(tmp_path: Path):
    header = (
        "ObjectType = Image\nNDims = 3\nDimSize = 320 240 12\nElementType = MET_UCHAR\nElementDataFile = pixels.raw\n"
    )
    for number in range(2):
        folder = tmp_path / f"in/p{number}"
        folder.mkdir(parents=True)
        (folder / "cine.mhd").write_text(header)
        (folder / "pixels.raw").write_bytes(np.ascontiguousarray(cine(12, seed=number)[..., 0]).tobytes())
    result = prepare(tmp_path / "in", tmp_path / "out", ECHO, key=KEY)
    assert result.videos == 2
