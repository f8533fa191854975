"""`--slurm`: what the job's script says, and a job that is warned, saves, is requeued, and ends like one that was left alone."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path

import pytest
from kill_factory import Job, run
from safetensors.torch import load_file
from slurm_factory import Cluster, stop, wait_until_it_trains
from store_factory import make_prepared

from vfm_cli.console import run_guarded
from vfm_cli.main import cli
from vfm_cli.slurm import job_words

STEPS = 80
LONG = (f"train.steps={STEPS}", "train.save_every=1000", "train.monitor_every=1000", "data.workers=1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    make_prepared(folder, videos=8, patients=8, size=40, frames=16)
    return folder


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    pytest.importorskip("submitit", reason='needs the extra "slurm"')
    cluster = Cluster.at(tmp_path / "cluster")
    monkeypatch.setenv("PATH", cluster.path)
    monkeypatch.chdir(tmp_path)
    return cluster


def options(*words: str) -> list[str]:
    return [word for one in words for word in ("--slurm-option", one)]


def test_the_script_says_what_was_asked(
    cluster: Cluster, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = options("partition=gpu", "account=lab", "nodes=2", "gpus=4", "time=1-00:00:00", "mem=64G", "warning=300")
    words = [
        "pretrain",
        "--slurm",
        "--no-submit",
        *asked,
        "--data",
        str(data),
        "--out",
        "runs/of heart",
        "train.steps=3",
        "--json",
    ]
    assert run_guarded(cli, words) == 0
    found = json.loads(capsys.readouterr().out)
    script = (tmp_path / "runs" / "of heart.slurm" / "job.sh").read_text()
    assert found["job"] is None
    assert found["script"] == str(tmp_path / "runs" / "of heart.slurm" / "job.sh")
    told = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in script.splitlines()
        if line.startswith("#SBATCH")
    )
    assert told.pop("output").strip("'").startswith(str(tmp_path / "runs" / "of heart.slurm"))
    assert told == {
        "partition": "gpu", "account": "lab", "nodes": "2", "gpus-per-node": "4", "ntasks-per-node": "4", "time": "1-00:00:00", "mem": "64G",
        "signal": "USR1@300", "requeue": "", "job-name": "vfm", "chdir": str(tmp_path), "cpus-per-task": "2", "open-mode": "append",
    }  # fmt: skip
    assert "WORLD_SIZE=8 LOCAL_WORLD_SIZE=4" in script
    assert f"-m vfm_cli pretrain --data {data} --out 'runs/of heart' train.steps=3 --json --resume" in script
    assert not (tmp_path / "runs" / "of heart").exists()
    assert list((tmp_path / "runs" / "of heart.slurm").iterdir()) == [tmp_path / "runs" / "of heart.slurm" / "job.sh"]


def test_finetuning_is_a_job_too(cluster: Cluster, data: Path, tmp_path: Path) -> None:
    words = ["finetune", "--slurm", *options("gpus=1"), "--data", str(data), "--task", "ef", "--labels", "l.csv"]
    assert run_guarded(cli, [*words, "--encoder", "vfm-tiny", "--out", "ef"]) == 0
    script = (tmp_path / "ef.slurm" / "7_submission.sh").read_text()
    assert f"-m vfm_cli finetune --data {data} --task ef --labels l.csv --encoder vfm-tiny --out ef --resume" in script


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (options("partion=gpu"), "unknown key 'partion'. Did you mean 'partition'?"),
        (options("gpus=none"), "'gpus': input should be a valid integer"),
        (options("signal=TERM@5"), "'signal' is set by vfm"),
        (options("partition=a\n#SBATCH --x"), "is not key=value"),
        (options("partition=nowhere"), "Slurm refused the job (sbatch: error: invalid partition specified: nowhere)"),
        (["--overwrite"], "a job that is requeued would start again with --overwrite"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], line: str, cluster: Cluster, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_guarded(cli, ["pretrain", "--slurm", *words, "--data", str(data), "--out", "run"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert line in said[0]


def test_options_without_slurm_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(cli, ["pretrain", *options("nodes=2")]) == 2
    assert "--slurm-option belongs to --slurm" in capsys.readouterr().err


def test_without_submitit_the_extra_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setitem(sys.modules, "submitit.core.utils", None)
    assert run_guarded(cli, ["pretrain", "--slurm", "--data", str(data), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said == [
        'vfm: --slurm needs a package that is not installed: submitit. Install it: pip install "vfm[slurm]"'
    ]
    assert not (tmp_path / "run.slurm").exists()


def test_without_slurm_it_says_where_to_submit(
    cluster: Cluster, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert run_guarded(cli, ["pretrain", "--slurm", "--data", str(data), "--out", "run"]) == 2
    assert "no sbatch on this machine" in capsys.readouterr().err


def test_a_process_of_the_job_is_not_a_job() -> None:
    words = [
        "pretrain",
        "--slurm",
        "--slurm-option",
        "a=b",
        "--slurm-option=c=d",
        "--processes",
        "2",
        "--out",
        "x",
        "k=v",
    ]
    assert job_words(words) == ["pretrain", "--out", "x", "k=v"]


@pytest.mark.slow
def test_a_job_that_was_warned_is_requeued_and_ends_as_if_it_had_not_been(
    cluster: Cluster, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert run(Job(whole, data, "videomae", 2, settings=LONG)).codes == [0, 0]
    words = [
        "pretrain",
        "--slurm",
        "--processes",
        "2",
        "--config",
        str(whole / "config.resolved.yaml"),
        "--out",
        str(out),
    ]
    assert run_guarded(cli, words) == 0
    assert "submitted as job 7" in capsys.readouterr().out
    script = tmp_path / "run.slurm" / "7_submission.sh"
    codes = []
    for warned in (True, False):
        job = cluster.start(script)
        try:
            if warned:
                wait_until_it_trains(out, job)
                cluster.signal(signal.SIGUSR1)
            said = job.communicate(timeout=200)[1]
        finally:
            stop(job)
        codes.append(job.returncode)
        assert cluster.requeued == 1, said
    assert codes == [138, 0]
    log = (tmp_path / "run.slurm" / "7_0_log.out").read_text() + (tmp_path / "run.slurm" / "7_1_log.out").read_text()
    assert log.count("everything up to it is saved") == 1
    assert "Traceback" not in log
    name = f"checkpoints/step_{STEPS:08d}/objective.safetensors"
    expected, found = load_file(whole / name), load_file(out / name)
    assert all(expected[key].equal(found[key]) for key in expected)
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == list(
        range(1, STEPS + 1)
    )


@pytest.mark.parametrize(
    ("ending", "saves", "code", "requeued"),
    [
        ("kill -USR1 $$", True, 138, True),
        ("kill -USR1 $$", False, 138, False),  # else it would come back for ever
        ("exit 143", True, 143, False),  # SIGTERM: a job is cancelled with it, and Slurm requeues preempted ones itself
        ("exit 6", True, 6, False),
        ("exit 0", True, 0, False),
        ('echo 138 > "$VFM_EXIT_FILE"; exit 1', True, 138, True),
    ],
)
def test_only_a_warned_job_that_saved_something_is_requeued(
    ending: str, saves: bool, code: int, requeued: bool, cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    assert run_guarded(cli, ["pretrain", "--slurm", *options("time=5"), "--data", str(data), "--out", "run"]) == 0
    script = tmp_path / "run.slurm" / "7_submission.sh"
    save = "mkdir -p run/checkpoints; echo step_00000001 > run/checkpoints/latest; " if saves else ""
    text, begins = script.read_text(), f"{sys.executable} -u -m vfm_cli pretrain"
    assert begins in text
    script.write_text(text.replace(begins, f"bash -c {shlex.quote(save + ending)} vfm"))
    job = cluster.start(script)
    said = job.communicate(timeout=60)[1]
    assert job.returncode == code, said
    assert cluster.requeued == int(requeued)
    assert ("time was up before a step was saved" in said) == (code == 138 and not requeued)
    assert not list(script.parent.glob("exit.*"))
