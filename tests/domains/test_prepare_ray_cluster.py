"""A cluster of three worker processes on this machine: the same bytes as the local engine, whatever is killed on the way."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_factory import below, running, work
from source_factory import cine, region_item, write_avi, write_dicom
from test_prepare_journal import ECHO, KEY, digests

from domains.errors import ConfigError, VfmError
from domains.prepare import journal, ray_engine
from domains.prepare.ingest import prepare
from domains.prepare.ray_cluster import cluster
from domains.prepare.ray_engine import Cluster
from domains.remote.place import Url

ray = pytest.importorskip("ray", reason="needs the extra: pip install 'vfm[ray]'")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

HERE = Path(__file__).resolve().parent
PATHS = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent), str(HERE)])
SECRETS = ["MRN-778899", "DOE_JANE", "doe_jane", "MRN-1234"]


@pytest.fixture(scope="module")
def crew() -> Iterator[Cluster]:
    """Three workers, shared by the tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATHS)  # what workers run is defined here
        with cluster(None, 3) as found:
            assert found.cores == 3
            yield found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen cines, a copy of one, a video, a still, a text; names in headers and in paths."""
    root = tmp_path_factory.mktemp("ray") / "in"
    for number in range(14):
        tags = {"PatientID": f"MRN-1234{number % 4}", "SOPInstanceUID": f"1.2.{number}"}
        write_dicom(root / f"DOE_JANE{number % 4}/IM{number:02d}", cine(12, seed=number), [region_item()], **tags)
    (root / "copy").write_bytes((root / "DOE_JANE0/IM00").read_bytes())
    write_avi(root / "clip.avi", cine(12, seed=90))
    write_dicom(root / "still.dcm", cine(1), [region_item()])
    (root / "notes.txt").write_text("nothing")
    return root


@pytest.fixture(scope="module")
def local(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the local engine makes of it."""
    out = tmp_path_factory.mktemp("local") / "prepared"
    prepare(source, out, ECHO, key=KEY, workers=1)
    return out


def same_table(one: Path, two: Path) -> bool:
    """Whether the private tables say the same, and one line for each file."""
    tables = []
    for out in (one, two):
        with (out.with_name(out.name + ".private") / "sources.csv").open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    return tables[0] == tables[1] and len(tables[0]) == 18


def journal_of(out: Path) -> list[str]:
    """Pseudonyms of the files in the journal, as often as they stand there."""
    lines = (out.with_name(out.name + ".private") / journal.NAME).read_text().splitlines()
    return [json.loads(line)["path"] for line in lines[1:] if line]


def test_what_crashes_or_hangs_costs_itself_and_what_is_killed_is_done_again(crew: Cluster, tmp_path: Path) -> None:
    once, always = tmp_path / "once", tmp_path / "always"
    tasks = ["a", "die", f"once {once}", "hang", "large", f"always {always}", "b"]
    results = dict(crew(work, tasks, workers=3, patience=2.0))
    assert results.pop(4) == "LARGE" + "!" * 300_000
    assert results == {0: "A", 1: "crashed", 2: "ONCE", 3: "hung", 5: "killed", 6: "B"}
    assert once.read_text() == "oo"
    assert always.read_text() == "aaa"


def test_a_worker_killed_on_the_way_loses_nothing_and_does_nothing_twice(
    crew: Cluster, source: Path, local: Path, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if done >= 3 and not killed:
            busy = [pid for pid, line in below(os.getpid()).items() if line.startswith("ray::Worker.do")]
            for pid in busy[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    result = prepare(source, tmp_path / "out", ECHO, key=KEY, workers=3, engine=crew, progress=kill)
    assert len(killed) == 1
    assert (result.videos, len(result.excluded)) == (15, 3)
    assert digests(tmp_path / "out") == digests(local)
    assert same_table(tmp_path / "out", local)
    assert sorted(journal_of(tmp_path / "out")) == sorted(set(journal_of(local)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.private"]
    assert prepare(source, tmp_path / "out", ECHO, key=KEY, update=True).reused == 18


def test_ctrl_c_and_a_killed_driver_are_taken_up_by_the_next_call(
    crew: Cluster, source: Path, local: Path, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(KEY.hex())
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "echo.yaml").write_text(json.dumps(ECHO.model_dump(mode="json", exclude_none=True)))
    out, lines = tmp_path / "out", tmp_path / "out.private" / journal.NAME
    words = ["data", "prepare", str(source), "--domain", str(tmp_path / "echo.yaml"), "--out", str(out), "--layout", "none",
             "--workers", "2", "--engine", "ray", "--ray-address", ray.get_runtime_context().gcs_address, "--key", str(tmp_path / "key")]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": PATHS}  # the cluster's token with it
    for when, number, code in ((2, signal.SIGINT, 130), (6, signal.SIGKILL, -9)):
        driver = subprocess.Popen([sys.executable, "-m", "vfm_cli", *words], env=environment, stderr=subprocess.PIPE,
                                  text=True, start_new_session=True)  # fmt: skip
        while driver.poll() is None and not (lines.exists() and lines.read_text(errors="replace").count("\n") > when):
            time.sleep(0.01)
        workers = {pid for pid, line in below(os.getpid()).items() if line.startswith("ray::Worker")}
        workers |= {pid for worker in workers for pid in below(worker)}
        assert len(workers) >= 4  # two actors, each with a process that looks at files
        os.killpg(driver.pid, number) if number == signal.SIGINT else driver.send_signal(number)
        _, errors = driver.communicate(timeout=90)
        assert driver.returncode == code
        assert "Traceback" not in errors
        if number == signal.SIGINT:
            assert errors.splitlines()[-1].startswith("vfm: stopped. ")
        end = time.monotonic() + 60
        while (alive := {pid for pid in workers if running(pid)}) and time.monotonic() < end:
            time.sleep(0.05)
        assert not alive  # they went with it
    assert not out.exists()
    done = len(set(journal_of(out)))
    result = prepare(source, out, ECHO, key=KEY, workers=3, engine=crew)
    assert result.reused == done >= 4
    assert digests(out) == digests(local)
    assert same_table(out, local)


def test_key_and_names_are_nowhere_in_ray(crew: Cluster, source: Path, tmp_path: Path) -> None:
    key = hashlib.sha256(b"of this test").digest()
    prepare(source / "DOE_JANE0", tmp_path / "out", ECHO, key=key, workers=2, engine=crew)
    needles = [key, key.hex().encode(), *(secret.encode() for secret in SECRETS), bytes(source)]
    session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
    assert session.parent.parent.stat().st_mode & 0o077 == 0
    files = [path for path in session.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [(path, needle) for path in files for needle in needles if needle in path.read_bytes()]
    family = below(os.getpid())
    servers = [pid for pid, line in family.items() if "/gcs_server " in line or "/raylet " in line]
    assert len(servers) == 2
    for pid in servers:  # tables of the cluster; the object store is the raylet's
        found = memory(pid, [*needles, session.name.encode()])
        assert found == {session.name.encode()}  # what does stand there is found


def memory(pid: int, needles: list[bytes]) -> set[bytes]:
    """Which needles stand in what a process can write to, shared memory included."""
    found: set[bytes] = set()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as file:
        for line in maps:
            span, rights = line.split()[:2]
            start, end = (int(number, 16) for number in span.split("-"))
            if rights[:2] != "rw":
                continue
            for at in range(start, end, 1 << 24):
                try:
                    file.seek(at)
                    block = file.read(min((1 << 24) + 512, end - at))
                except OSError:
                    continue
                found |= {needle for needle in needles if needle in block}
    return found


def test_the_cluster_of_our_own_is_closed_and_tells_nobody(crew: Cluster) -> None:
    family = below(os.getpid())
    servers = ("/gcs_server ", "/raylet ", "/dashboard/dashboard.py ")
    ours = [pid for pid, line in family.items() if any(name in line for name in servers)]
    assert len(ours) == 3
    for pid in ours:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert {b"RAY_USAGE_STATS_ENABLED=0", b"RAY_AUTH_MODE=token"} <= set(words)
    (head,) = [line for line in family.values() if "/dashboard/dashboard.py" in line]
    assert "--disable-frontend" in head
    assert {job["Entrypoint"] for job in ray._private.state.jobs()} == {"vfm data prepare"}
    with pytest.raises(SystemExit) as leave:
        signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)  # type: ignore[operator, misc]
    assert leave.value.code == 143


@pytest.mark.parametrize("hidden", ["source", "output"])
def test_a_worker_that_does_not_see_the_folders_ends_it_in_one_line(
    hidden: str, crew: Cluster, source: Path, tmp_path: Path
) -> None:
    folder = source if hidden == "source" else tmp_path
    handle = os.open(folder, os.O_RDONLY)
    os.dup2(handle, 987)
    os.close(handle)
    here = Path("/proc/self/fd/987")  # leads to the folder in this process alone
    try:
        given, out = (here, tmp_path / "out") if hidden == "source" else (source, here / "out")
        with pytest.raises(ConfigError, match=r"the worker on .* does not see /proc/self/fd/987/.*Every machine needs"):
            prepare(given, out, ECHO, key=KEY, workers=1, engine=crew)
    finally:
        os.close(987)


def test_recordings_at_a_url_are_fetched_by_the_workers(crew: Cluster, source: Path, tmp_path: Path) -> None:
    url = Url(f"file://{source / 'DOE_JANE1'}")
    prepare(url, tmp_path / "ray", ECHO, key=KEY, workers=2, engine=crew)
    prepare(source / "DOE_JANE1", tmp_path / "local", ECHO, key=KEY)
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
    assert len(digests(tmp_path / "ray")) == 4 + 5


def test_a_file_that_went_away_for_everyone_is_set_aside_as_ever(crew: Cluster, tmp_path: Path) -> None:
    for number in range(5):
        write_dicom(tmp_path / f"in/IM{number}", cine(12, seed=number), [region_item()])
    result = prepare(
        tmp_path / "in", tmp_path / "out", ECHO, key=KEY, engine=crew,
        progress=lambda done, total: (tmp_path / "in/IM4").unlink(missing_ok=True),
    )  # fmt: skip
    assert [(one.source.name, one.category) for one in result.excluded] == [("IM4", "unreadable")]
    assert "No such file" in result.excluded[0].reason


def test_a_machine_with_other_versions_is_not_worked_with(crew: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "versions", lambda: {"av": "0.1"})
    with pytest.raises(ConfigError, match=r" has .*Install the same on every machine"):
        list(crew(work, ["a"], workers=1))


def test_a_cluster_without_room_is_said(crew: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "START", 0.5)
    other = ray.remote(Idle).options(num_cpus=3).remote()
    ray.get(other.here.remote())
    try:
        with pytest.raises(VfmError, match=r"no worker of the Ray cluster has started in 0.5 s"):
            list(crew(work, ["a"], workers=1))
    finally:
        ray.kill(other)


class Idle:
    """Takes the room that there is."""

    def here(self) -> bool:
        return True


def test_what_ray_reports_is_not_printed_among_results(crew: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    client = ray._private.worker.global_worker.gcs_client
    ray._private.utils.publish_error_to_driver("raylet_died", "Raylet is terminated", gcs_client=client)
    time.sleep(1)
    assert capfd.readouterr() == ("", "")


def test_a_cluster_that_this_process_has_is_used_and_left_alone(crew: Cluster) -> None:
    with cluster(None, 1) as same:
        assert same.cores == 3
    assert ray.is_initialized()


def test_leaving_early_ends_the_workers(crew: Cluster) -> None:
    results = crew(work, ["a", "hang", "hang"], workers=3)
    assert next(results) == (0, "A")
    results.close()
    end = time.monotonic() + 60
    while (
        busy := [line for line in below(os.getpid()).values() if line.startswith("ray::Worker")]
    ) and time.monotonic() < end:
        time.sleep(0.05)
    assert not busy
