"""`vfm` on an S3-compatible storage, as a person would: each command a process of its own, against a server on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_factory import Troubled, fill, in_memory, s3_server
from source_factory import cine, write_dicom
from store_factory import make_prepared

from vfm_cli.console import run_guarded
from vfm_cli.main import cli

REPO = Path(__file__).resolve().parents[2]


class Storage:
    """A bucket, and `vfm` with the environment by which it is reached."""

    def __init__(self, environment: dict[str, str], home: Path) -> None:
        self.environment, self.home = environment, home
        import s3fs

        self.system = s3fs.S3FileSystem(
            endpoint_url=environment["AWS_ENDPOINT_URL"], key=environment["AWS_ACCESS_KEY_ID"],
            secret=environment["AWS_SECRET_ACCESS_KEY"], use_listings_cache=False, skip_instance_cache=True,
        )  # fmt: skip
        self.system.mkdir("clinic")

    def vfm(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        running = self.start(*words, **environment)
        out, err = running.communicate()
        return subprocess.CompletedProcess(words, running.returncode, out, err)

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        settings = {
            "VFM_CACHE": str(self.home / "cache"),
            "VFM_KEY": str(self.home / "secret.key"),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "vfm_cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.home,
            env={**kept, **self.environment, **settings, "PYTHONPATH": str(REPO), **environment},
        )  # fmt: skip


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    with s3_server() as environment:
        one = Storage(environment, tmp_path_factory.mktemp("home"))
        for number in range(4):
            write_dicom(
                one.home / f"studies/DOE_JANE/{number}.dcm", cine(12, seed=number), PatientID=f"MRN-{number}-77"
            )
        (one.home / "studies/notes.txt").write_text("nothing")
        one.system.put(f"{one.home}/studies/", "clinic/studies/", recursive=True)
        yield one


def test_the_whole_way_on_s3(storage: Storage):
    checked = storage.vfm("data", "check", "s3://clinic/studies", "--json")
    assert checked.returncode == 0, checked.stderr
    assert len(json.loads(checked.stdout)["usable"]) == 4
    assert json.loads(checked.stdout)["set_aside"][0]["source"] == "s3://clinic/studies/notes.txt"

    made = storage.vfm("data", "prepare", "s3://clinic/studies", "--out", "s3://clinic/echo/prepared", "--workers", "2")
    assert made.returncode == 0, made.stderr
    there = set(storage.system.find("clinic/echo/prepared"))
    here = {
        f"clinic/echo/prepared/{path.relative_to(storage.home / 'prepared').as_posix()}"
        for path in (storage.home / "prepared").rglob("*")
        if path.is_file()
    }
    assert there == here
    assert "clinic/echo/prepared/prepared.json" in there
    assert not storage.system.find("clinic/echo/prepared.private")
    assert (storage.home / "prepared.private/sources.csv").is_file()
    text = b"".join(storage.system.cat_file(name) + name.encode() for name in there)
    assert not any(word in text for word in (b"JANE", b"MRN-", b"s3://", b"AKIATESTKEY", b"TESTSECRETKEY"))
    said = (
        made.stdout + made.stderr + "".join(path.read_text() for path in (storage.home / "prepared.private").iterdir())
    )
    assert "TESTSECRETKEY" not in said
    assert "AKIATESTKEY" not in said

    again = storage.vfm(
        "data", "prepare", "s3://clinic/studies", "--out", "s3://clinic/echo/prepared", "--update", "--json"
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["reused"] == 5

    shown = storage.vfm("data", "show", "s3://clinic/echo/prepared", "--verify", "--json")
    assert shown.returncode == 0, shown.stderr
    assert (json.loads(shown.stdout)["videos"], json.loads(shown.stdout)["damaged"]) == (4, [])

    audited = storage.vfm("data", "audit", "s3://clinic/echo/prepared", "--against", "s3://clinic/studies", "--looked")
    assert audited.returncode == 0, audited.stdout + audited.stderr


def test_killed_while_it_looks_and_while_it_sends_it_ends_with_the_same_objects(storage: Storage):
    words = (
        "data",
        "prepare",
        "s3://clinic/studies",
        "--out",
        "s3://clinic/killed",
        "--local",
        "killed",
        "--workers",
        "1",
    )
    made, journal = storage.home / "killed", storage.home / "killed.private/journal.jsonl"

    def sent() -> set[str]:
        return {name.partition("/killed/")[2] for name in storage.system.find("clinic/killed")}

    for due in (lambda: journal.is_file() and journal.read_bytes().count(b"\n") > 2, lambda: len(sent()) > 1):
        running = storage.start(*words)
        while running.poll() is None and not due():
            time.sleep(0.002)
        running.kill()
        running.wait()
        if "prepared.json" in sent():  # then all is there
            assert sent() == {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    done = storage.vfm(*words, *(["--update"] if "prepared.json" in sent() else []), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reused"] >= 1
    local = {path.relative_to(made).as_posix(): path for path in made.rglob("*") if path.is_file()}
    assert sent() == set(local)
    assert all(storage.system.cat_file(f"clinic/killed/{name}") == path.read_bytes() for name, path in local.items())
    assert {path.name for path in journal.parent.iterdir()} == {"journal.jsonl", "sources.csv", "uploaded.jsonl"}


FAST = ["train.steps=2", "train.batch_size=2", "clip.frames=4", "clip.size=32", "clip.stride=2"]


def test_loader_processes_read_from_s3(storage: Storage):
    make_prepared(storage.home / "blobs", videos=8, patients=4)
    storage.system.put(f"{storage.home}/blobs/", "clinic/blobs/", recursive=True)
    run = storage.vfm(
        "pretrain", "--data", "s3://clinic/blobs", "--encoder", "vfm-tiny", "--recipe", "videomae", "--out", "run", "data.workers=2", *FAST
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert json.loads((storage.home / "run/record.json").read_text())["replaced"] == 0
    assert "s3://clinic/blobs" in (storage.home / "run/config.resolved.yaml").read_text()
    cached = [path for path in (storage.home / "cache/objects").rglob("*") if path.is_file()]
    assert cached
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in cached} == {path.name for path in cached}


def test_every_verb_that_trains_or_evaluates_takes_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VFM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VFM_KEY", str(tmp_path / "none.key"))
    monkeypatch.chdir(tmp_path)
    made = make_prepared(tmp_path / "blobs", videos=8, patients=4, frames=20)
    with in_memory(monkeypatch) as url:
        local = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
        fill(url, {path.relative_to(tmp_path / "blobs").as_posix(): path.read_bytes() for path in local})
        task = ["--encoder", "vfm-tiny", "--data", str(url), "--labels", str(made.labels), "--task", "ef"]
        assert run_guarded(cli, ["finetune", *task, "--out", "tuned", "data.workers=0", "task.folds=4", *FAST]) == 0
        evaluate = ["evaluate", "linear", *task, "--baselines", "pixels", "--folds", "2", "--clips", "1"]
        assert run_guarded(cli, [*evaluate, "--report", "page.html"]) == 0
        assert (tmp_path / "page.html").stat().st_size > 10_000
        monkeypatch.setenv("VFM_CACHE", str(tmp_path / "other"))
        Troubled.only, Troubled.errors = "mjpeg", [ConnectionError("x")] * 400
        assert run_guarded(cli, evaluate) == 5  # a figure of some of the recordings is no figure


def one_line(code: int, said: str, expected: int, *words: str) -> None:
    assert code == expected, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("vfm: "), said
    assert all(word in last for word in words), said
    assert "Traceback" not in said
    assert "SECRET" not in said


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["data", "check", "s3://nobody-has-this/x"], 3, ["s3://nobody-has-this/x", "no such bucket"]),
        (["data", "check", "s3://clinic/nowhere"], 3, ["nothing is there"]),
        (["data", "show", "s3://clinic/studies"], 3, ["s3://clinic/studies", "not a prepared folder"]),
        (["data", "prepare", "studies", "--out", "s3://nobody-has-this/x"], 2, ["no such bucket"]),
        (["data", "prepare", "s3://clinic/studies", "--out", "s3://clinic/studies/out"], 2, ["within each other"]),
        (["data", "check", "s3://AKIA:SECRETWORD@clinic/x"], 2, ["must not hold a user name"]),
        (["data", "check", "s3://clinic/studies", "--layout", "heichole"], 2, ["read from a local folder"]),
        (["data", "check", "s3://clinic/studies", "--layout", "camsu"], 2, ["no layout 'camsu'", "camus"]),
        (["data", "prepare", "studies", "--out", "p", "--key", "s3://clinic/key"], 2, ["--key takes a local path"]),
        (["data", "prepare", "studies", "--out", "s3://clinic/q", "--local", "s3://clinic/r"], 2, ["--local takes"]),
        (["data", "prepare", "studies", "--out", "p", "--local", "q"], 2, ["--local is for"]),
        (["pretrain", "--data", "s3://clinic/x", "--out", "s3://clinic/run"], 2, ["--out takes a local path"]),
        (["data", "check", "nosuch://clinic/studies"], 2, ["no storage is known by 'nosuch://'"]),
    ],
)  # fmt: skip
def test_errors_are_one_line_with_a_documented_code(
    storage: Storage,
    words: list[str],
    code: int,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for name, value in {**storage.environment, "VFM_KEY": str(storage.home / "secret.key")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(storage.home)
    one_line(run_guarded(cli, words), capsys.readouterr().err, code, *told)


def test_credentials_and_an_endpoint_that_does_not_answer(storage: Storage):
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "nobody", "HOME": str(storage.home)}
    done = storage.vfm("data", "check", "s3://clinic/studies", **nobody)
    one_line(done.returncode, done.stderr, 5, "credentials")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    done = storage.vfm("data", "check", "s3://clinic/studies", AWS_ENDPOINT_URL=endpoint)
    one_line(done.returncode, done.stderr, 5, "s3://clinic/studies", "cannot be reached", "AWS_ENDPOINT_URL")
