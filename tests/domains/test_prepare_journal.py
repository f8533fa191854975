"""Killed at any point, the next call ends with the same bytes; an update looks at new and changed files only."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from source_factory import cine, region_item, write_avi, write_dicom

from domains.base import Domain, RegionSettings, StoreSettings
from domains.errors import DataError, StorageError
from domains.prepare import ingest, journal
from domains.prepare.ingest import check, prepare
from domains.store.prepared import Prepared

REPO = Path(__file__).resolve().parents[2]
KEY = b"k" * 32
ECHO = Domain(
    name="echo", title="Echo", region=RegionSettings(policy="ultrasound"), store=StoreSettings(size=64, grey=True)
)
SCRIPT = """
import sys
from pathlib import Path
from test_prepare_journal import ECHO, KEY
from domains.prepare.ingest import prepare
if __name__ == "__main__":
    prepare(sys.argv[1], sys.argv[2], ECHO, key=KEY, workers=2, overwrite="overwrite" in sys.argv)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six cines, a copy of one of them, a video, a still, a text."""
    root = tmp_path / "in"
    for number in range(6):
        write_dicom(
            root / f"p{number % 3}/IM{number}", cine(12, seed=number), [region_item()], PatientID=f"M{number % 3}"
        )
    shutil.copy(root / "p0/IM0", root / "p2/copy")
    write_avi(root / "clip.avi", cine(12, seed=9))
    write_dicom(root / "still.dcm", cine(1), [region_item()])
    (root / "notes.txt").write_text("nothing")
    return root


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that workers were given."""
    names: list[str] = []
    real = ingest.pool.run

    def run(work, tasks, workers, patience=60.0):
        names.extend(task.relative for task in tasks)
        return real(work, tasks, workers, patience)

    monkeypatch.setattr(ingest.pool, "run", run)
    return names


def test_killed_at_random_points_it_ends_with_the_same_bytes(source: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "tests"), str(Path(__file__).parent)]),
    }
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = [sys.executable, str(tmp_path / "script.py"), str(source)]
    subprocess.run([*command, str(whole)], env=environment, check=True)
    lines = len((tmp_path / "whole.private" / journal.NAME).read_text().splitlines())
    assert lines == 1 + 10
    rng = random.Random(os.getpid())
    kills = 0
    for when in (1, *sorted(rng.sample(range(2, 10), 2))):
        process = subprocess.Popen([*command, str(killed)], env=environment)
        file = tmp_path / "killed.private" / journal.NAME
        while process.poll() is None:
            if file.exists() and file.read_text(errors="replace").count("{") > when:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        process.wait()
    assert kills
    if not killed.exists():
        subprocess.run([*command, str(killed)], env=environment, check=True)
    assert digests(killed) == digests(whole)
    assert not (tmp_path / "killed.partial").exists()
    assert stat.S_IMODE((tmp_path / "killed.private" / journal.NAME).stat().st_mode) == 0o600


def test_what_was_done_is_not_done_again(source: Path, tmp_path: Path, looked: list[str]) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "out", ECHO, key=KEY, progress=stop)
    looked.clear()
    result = prepare(source, tmp_path / "out", ECHO, key=KEY)
    assert (result.reused, len(looked)) == (4, 6)
    prepare(source, tmp_path / "fresh", ECHO, key=KEY)
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")


def test_an_update_takes_in_what_is_new_and_lets_go_of_what_is_gone(
    source: Path, tmp_path: Path, looked: list[str]
) -> None:
    out = tmp_path / "out"
    prepare(source, out, ECHO, key=KEY)
    (source / "p1/IM1").unlink()
    write_dicom(source / "p1/IM4", cine(14, seed=44), [region_item()], PatientID="M1")  # changed
    write_dicom(source / "p7/IM7", cine(12, seed=7), [region_item()], PatientID="M7")  # new
    looked.clear()
    result = prepare(source, out, ECHO, key=KEY, update=True)
    assert sorted(looked) == ["p1/IM4", "p7/IM7"]
    assert (result.videos, result.reused) == (7, 8)
    prepare(source, tmp_path / "fresh", ECHO, key=KEY)
    assert digests(out) == digests(tmp_path / "fresh")
    looked.clear()
    assert prepare(source, out, ECHO, key=KEY, update=True).reused == 10
    assert looked == []


def test_other_settings_another_key_and_damage_are_not_taken_over(
    source: Path, tmp_path: Path, looked: list[str]
) -> None:
    out = tmp_path / "out"
    prepare(source, out, ECHO, key=KEY)
    small = ECHO.model_copy(update={"store": StoreSettings(size=48, grey=True)})
    assert prepare(source, out, small, key=KEY, update=True).reused == 0
    assert Prepared.open(out).size == 48
    assert prepare(source, out, small, key=b"x" * 32, update=True).reused == 0
    frames = sorted(out.rglob("*.mjpeg"))[0]
    blob = bytearray(frames.read_bytes())
    blob[len(blob) // 2] ^= 1
    frames.write_bytes(bytes(blob))
    looked.clear()
    prepare(source, out, small, key=b"x" * 32, update=True)
    assert 1 <= len(looked) <= 2  # two where the damaged recording is the one of which there is a copy
    assert Prepared.open(out).verify() == []


def test_an_output_that_is_a_link_stays_one(source: Path, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "big" / "prepared")
    prepare(source, tmp_path / "out", ECHO, key=KEY)
    assert prepare(source, tmp_path / "out", ECHO, key=KEY, update=True).reused == 10
    assert (tmp_path / "out").is_symlink()
    assert sorted(path.name for path in (tmp_path / "big").iterdir()) == ["prepared", "prepared.private"]


def test_overwrite_looks_at_every_file_anew(source: Path, tmp_path: Path, looked: list[str]) -> None:
    prepare(source, tmp_path / "out", ECHO, key=KEY)
    looked.clear()
    assert prepare(source, tmp_path / "out", ECHO, key=KEY, overwrite=True).reused == 0
    assert len(looked) == 10


def test_a_file_that_could_not_be_read_is_tried_again(source: Path, tmp_path: Path, looked: list[str]) -> None:
    (source / "broken.dcm").write_text("this is no DICOM")
    prepare(source, tmp_path / "out", ECHO, key=KEY)
    looked.clear()
    prepare(source, tmp_path / "out", ECHO, key=KEY, update=True)
    assert looked == ["broken.dcm"]


def test_nothing_usable_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("x")
    with pytest.raises(DataError, match="no usable recording"):
        prepare(tmp_path / "in", tmp_path / "out", ECHO, key=KEY)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_journal_that_cannot_be_written_is_one_line(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.private").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        prepare(source, tmp_path / "out", ECHO, key=KEY)


def test_check_says_what_prepare_would_do_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    looked = check(source, ECHO, workers=2)
    assert sorted(tmp_path.rglob("*")) == before
    result = prepare(source, tmp_path / "out", ECHO, key=KEY)
    aside = [(one.source, one.category, one.reason) for one in looked if one.row is None]
    assert aside == [(one.source, one.category, one.reason) for one in result.excluded]
    usable = {one.source.name: one.row for one in looked if one.row is not None}
    assert len(usable) == result.videos
    assert (usable["clip.avi"].n_frames, usable["clip.avi"].fps) == (12, 25.0)
