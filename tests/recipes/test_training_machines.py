"""Four processes on two machines (network namespaces joined by a cable) learn what one process learns, and the same every time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from kill_factory import REPO, Job, run, tiny_encoder
from netns_factory import CARD, Machine, NotPermitted, two_machines
from safetensors.torch import load_file
from store_factory import make_prepared

FOUR = ("train.batch_size=2", "train.accumulate=1")
ONE = ("train.batch_size=8", "train.accumulate=1")  # the same samples in each step


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    make_prepared(folder, videos=12, patients=12, size=40, frames=20)
    tiny_encoder(folder)  # here, once
    return folder


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[Machine, Machine]]:
    try:
        with two_machines() as found:
            yield found
    except NotPermitted as why:
        pytest.skip(str(why))


def learned(job: Job) -> dict[str, torch.Tensor]:
    """Weights after a run."""
    ended = run(job)
    assert ended.codes == [0] * job.processes, ended.lines
    return load_file(job.out / "checkpoints" / "step_00000006" / "objective.safetensors")


def test_four_processes_on_two_machines_learn_what_one_does(
    data: Path, machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    """DISCOVR, as its recipe has it: it has teachers, centres and clusters. Every other method on two ranks: test_pretrain_every.py."""
    also = ("objective.standardise=true", "objective.head_motion=true")
    sent = [one.sent() for one in machines]
    spread = learned(Job(tmp_path / "spread", data, "discovr", 4, settings=(*FOUR, *also), machines=machines))
    assert all(one.sent() - before > 100_000 for one, before in zip(machines, sent, strict=True))
    alone = learned(Job(tmp_path / "alone", data, "discovr", 1, settings=(*ONE, *also)))
    assert spread.keys() == alone.keys()
    assert max(float((spread[name] - alone[name]).abs().max()) for name in spread) < 1e-5
    again = learned(Job(tmp_path / "again", data, "discovr", 4, settings=(*FOUR, *also), machines=machines))
    assert all(spread[name].equal(again[name]) for name in spread)


def torchrun(number: int, machines: tuple[Machine, Machine]) -> list[str]:
    return [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={number}",
        f"--master-addr={machines[0].address}", "--master-port=29517", "-m", "vfm_cli",
    ]  # fmt: skip


def accelerate(number: int, machines: tuple[Machine, Machine]) -> list[str]:
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines=2", "--num_processes=2", f"--machine_rank={number}",
        f"--main_process_ip={machines[0].address}", "--main_process_port=29518", "--mixed_precision=no", "--dynamo_backend=no", "-m", "vfm_cli",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A run on one machine, and what it learned."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, learned(Job(out, data, "videomae", 2))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [torchrun, accelerate])
def test_launchers_start_a_run_on_two_machines(
    launcher: Callable[[int, tuple[Machine, Machine]], list[str]],
    whole: tuple[Path, dict[str, torch.Tensor]],
    machines: tuple[Machine, Machine],
    tmp_path: Path,
) -> None:
    (told, expected), out = whole, tmp_path / "run"
    words = ["pretrain", "--config", str(told / "config.resolved.yaml"), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": CARD}
    started = [
        subprocess.Popen(
            one.within(*launcher(number, machines), *words), env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number, one in enumerate(machines)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=400) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], [errors[-2000:] for _, errors in said]
    found = load_file(out / "checkpoints" / "step_00000006" / "objective.safetensors")
    assert all(expected[name].equal(found[name]) for name in expected)
    assert said[0][0].startswith("the adapted encoder is in")  # one of them speaks
    assert said[1][0] == ""
