"""What needs no cluster: options, what a worker looks for, and what is said where Ray is not installed."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from domains.errors import ConfigError
from domains.prepare import ray_cluster, ray_worker
from domains.prepare.ray_worker import Needs
from vfm_cli.console import run_guarded
from vfm_cli.main import cli

REPO = Path(__file__).resolve().parents[2]


def test_without_ray_one_line_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_AUTH_MODE", "mine")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("x")
    words = ["data", "prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--key", str(tmp_path / "key")]
    assert run_guarded(cli, [*words, "--engine", "ray"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "vfm: Ray is not installed. Install the extra: pip install 'vfm[ray]'"
    assert os.environ["RAY_AUTH_MODE"] == "mine"
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("127.0.0.1:1", "127.0.0.1:1: no Ray cluster .*refused.*ray start --head"),
        ("head", "Expected HOST:PORT"),
        ("h:99999", "no Ray cluster"),
    ],
)
def test_an_address_at_which_nobody_answers_is_said_at_once(address: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line), ray_cluster.cluster(address, 1):
        pass


def test_an_address_without_the_engine_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "data",
        "prepare",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--ray-address",
        "h:1",
        "--layout",
        "none",
    ]
    assert run_guarded(cli, [*words, "--key", str(tmp_path / "key")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "vfm: --ray-address goes with --engine ray"


def test_rays_client_is_refused_since_it_stores_what_it_passes_on() -> None:
    with (
        pytest.raises(ConfigError, match=r"ray://head:10001: .*object store.*--ray-address HOST:6379"),
        ray_cluster.cluster("ray://head:10001", 1),
    ):
        pass  # fmt: skip


def test_the_engine_imports_no_ray_until_it_is_used() -> None:
    code = "import sys, domains.prepare.ray_cluster; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True)


def test_an_actor_imports_no_decoder() -> None:
    code = "import sys, domains.prepare.ray_worker; assert not {'cv2', 'av', 'pydicom', 'pyarrow', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True)


def test_a_machine_that_sees_other_folders_says_which(tmp_path: Path) -> None:
    lock, frames, source = tmp_path / "out.partial" / ".lock", tmp_path / "out.partial" / "frames", tmp_path / "a.dcm"
    needs = Needs(str(lock), "token", (str(frames),), str(source))
    assert needs.missing() == f"does not see {lock.parent}"
    frames.mkdir(parents=True)
    lock.write_text("of another machine")
    assert needs.missing() == f"sees another folder as {lock.parent}"
    lock.write_text("token")
    assert needs.missing() == f"does not see {source}, or may not read it"
    source.write_bytes(b"x")
    assert needs.missing() == ""
    frames.rmdir()
    assert needs.missing() == f"does not see {frames}, or may not write there"
    assert Needs().missing() == ""


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    (tmp_path / "vfm-ray-dead" / "r").mkdir(parents=True)
    (tmp_path / "vfm-ray-dead" / "lock").touch()
    (tmp_path / "vfm-ray-new").mkdir()  # of a process that has not locked it yet
    with contextlib.ExitStack() as stack:
        mine = ray_cluster.own_folder(stack, tmp_path)
        assert stat.S_IMODE(mine.stat().st_mode) == 0o700
        with contextlib.ExitStack() as other:
            theirs = ray_cluster.own_folder(other, tmp_path)
            assert {path.name for path in tmp_path.iterdir()} == {mine.name, theirs.name, "vfm-ray-new"}
    assert [path.name for path in tmp_path.iterdir()] == ["vfm-ray-new"]


def test_versions_that_decide_about_bytes_are_compared() -> None:
    import numpy

    found = ray_worker.versions()
    assert found["numpy"] == numpy.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(ray_worker.DECIDING) <= set(found)
