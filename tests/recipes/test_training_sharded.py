"""Weights, gradients and moments spread over two processes (`train.shard`): they learn what whole ones learn, and leave the same files."""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_factory import write_encoder
from kill_factory import Job, run, server_context, tiny_encoder
from safetensors.torch import load_file
from store_factory import make_prepared
from torch import nn
from transformers import AutoModel

from domains.errors import ConfigError
from recipes.training.sharding import check_shardable, empty

SHORT = ("train.steps=4", "train.save_every=4", "train.monitor_every=2")
ONE_PASS = ("train.accumulate=1",)
EXACT = 1e-6
# Adam makes whole steps of the rounding of gradients that are 0 but for it (of the keys' biases): another order of sums is enough.
NOISE = 5e-5
# DISCOVR's standardisation takes these out again: gradients of 6e-8 where the next smallest is 9e-3. They alone are held to NOISE.
NO_GRADIENT = {"discovr": ("frame_encoder.model.layernorm.bias", "decoder.leave.bias", "decoder.norm.bias")}
KINDS = {
    "videomae": ("videomae", ONE_PASS, EXACT),
    "videomae, accumulating": ("videomae", ("encoder.checkpointing=true",), NOISE),
    "simclr, V-JEPA 2": ("simclr", (*ONE_PASS, "objective.head_motion=true", "encoder.name={vjepa2}"), EXACT),
    "simclr, in pieces": ("simclr", (*ONE_PASS, "train.piece=1"), NOISE),
    "discovr": ("discovr", (*ONE_PASS, "objective.standardise=true", "objective.head_motion=true"), EXACT),
    "discovr with LoRA": ("discovr", (*ONE_PASS, "encoder.mode=lora", "encoder.lora.dropout=0.1"), EXACT),
    "fine-tuning": ("finetune", (*ONE_PASS, "encoder.mode=full"), NOISE),
    "fine-tuning with LoRA": ("finetune", (*ONE_PASS, "task.dropout=0.1"), EXACT),
    "last block, bf16": ("videomae", (*ONE_PASS, "encoder.mode=last_k", "encoder.last_k=1", "train.precision=bf16"), EXACT),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    make_prepared(folder, videos=12, patients=12, size=40, frames=20)
    tiny_encoder(folder)  # here, once
    return folder


def jobs_of_rank(jobs: list[Job], rank: int, port: int, answers: Any) -> None:
    """One of two processes that do many jobs, one after another."""
    from kill_factory import start, without_pictures

    from recipes.training import loop
    from recipes.training.reporter import SilentReporter

    faulthandler.enable()  # one process once died of a damaged heap here, and said nothing of where
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    without_pictures()
    held: dict[str, list[float]] = {}
    real = loop.save_checkpoint

    def noting(folder: Path, learner: nn.Module, optimiser: Any, *others: Any, **names: Any) -> Any:
        """What this process holds of weights, gradients and moments as a checkpoint is written: (of it, of all)."""
        moments = [value for state in optimiser.state.values() for value in state.values() if value.ndim]
        every = [*learner.parameters(), *moments]
        parts = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in every]
        held[folder.parent.name] = [sum(tensor.numel() for tensor in some) for some in (parts, every)]
        return real(folder, learner, optimiser, *others, **names)

    loop.save_checkpoint = noting
    for job in jobs:
        start(job, SilentReporter())
    answers.put((rank, held))


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, list[float]]]]:
    """Every kind of run, whole and sharded, by one group of two processes; what each of them held."""
    folder = tmp_path_factory.mktemp("runs")
    vjepa2 = write_encoder(folder / "encoder", "vjepa2")
    jobs = [
        Job(
            folder / f"{kind}{suffix}",
            data,
            method,
            2,
            settings=(*(word.format(vjepa2=vjepa2) for word in settings), *SHORT, *extra),
        )
        for kind, (method, settings, _) in KINDS.items()
        for suffix, extra in (("", ()), (", sharded", ("train.shard=true",)))
    ]
    server = server_context()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers = server.SimpleQueue()
    group = [server.Process(target=jobs_of_rank, args=(jobs, rank, port, answers)) for rank in range(2)]
    for process in group:
        process.start()
    for process in group:
        process.join(300)
        if process.exitcode is None:
            process.kill()
    assert [process.exitcode for process in group] == [0, 0]
    return folder, [held for _, held in sorted((answers.get() for _ in group), key=lambda answer: answer[0])]


def left(out: Path) -> dict[str, torch.Tensor]:
    """Every tensor that a finished run leaves: its last checkpoint, the encoder, the head."""
    last = out / "checkpoints" / (out / "checkpoints" / "latest").read_text().strip()
    files = [*last.glob("*.safetensors"), *out.glob("*.safetensors"), *out.glob("encoder/*.safetensors")]
    assert len(files) >= 3
    return {f"{file.name}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def apart(one: Path, two: Path, noisy: tuple[str, ...] = ()) -> float:
    """Largest difference of anything that two runs left, but for what is `noisy`: that differs by less than NOISE."""
    first, second = left(one), left(two)
    assert first.keys() == second.keys()
    assert all(first[name].shape == second[name].shape for name in first)
    found = {name: float((first[name].double() - second[name].double()).abs().max()) for name in first}
    assert all(found[name] < NOISE for name in found if name.endswith(noisy))
    return max(found[name] for name in found if not name.endswith(noisy))


@pytest.mark.parametrize("kind", KINDS)
def test_sharded_learns_what_whole_learns(kind: str, runs: tuple[Path, list[dict[str, list[float]]]]) -> None:
    folder, held = runs
    whole, sharded = folder / kind, folder / f"{kind}, sharded"
    assert apart(whole, sharded, NO_GRADIENT.get(kind, ())) < KINDS[kind][2]
    logs = [[json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()] for out in (whole, sharded)]
    clocks = {"seconds", "device_seconds", "monitor_seconds", "clips_per_second", "data_wait", "tflops"}
    for before, now in zip(*logs, strict=True):  # what monitors and validation saw, too
        assert before.keys() == now.keys()
        for name in before.keys() - clocks:
            if not name.startswith("share_"):
                assert now[name] == pytest.approx(before[name], rel=1e-4), name
    for ours in held:
        part, every = ours[whole.name]
        assert part == every
        part, every = ours[sharded.name]
        assert part / every == pytest.approx(0.5, abs=0.02)  # an odd row more or less
    assert sum(ours[sharded.name][0] for ours in held) == held[0][sharded.name][1]


def test_the_encoder_is_transformers_own(runs: tuple[Path, list[dict[str, list[float]]]]) -> None:
    """One plain folder, with the teacher's weights."""
    out = runs[0] / "discovr, sharded"
    model = AutoModel.from_pretrained(out / "encoder")
    saved = load_file(out / "checkpoints" / "step_00000004" / "objective.safetensors")
    for name, weight in model.named_parameters():
        assert torch.equal(weight, saved[f"video_teacher.module.encoder.model.{name}"]), name


def go_on(begun: Path, out: Path, data: Path, processes: int, *settings: str) -> Path:
    """A copy of a run that was interrupted, brought to its end."""
    shutil.copytree(begun, out)
    ended = run(Job(out, data, "videomae", processes, resume=True, settings=settings))
    assert ended.codes == [0] * processes, ended.lines
    return out


def test_a_run_changes_between_whole_and_sharded(data: Path, tmp_path: Path) -> None:
    """From sharded over two to the same, to whole on one, to sharded over four; and from whole to sharded."""
    sharded = ("train.shard=true", "train.batch_size=1")
    expected, begun, plain = tmp_path / "expected", tmp_path / "begun", tmp_path / "plain"
    assert run(Job(expected, data, "videomae", 2, settings=sharded)).codes == [0, 0]
    stopped = run(Job(begun, data, "videomae", 2, settings=sharded, patch="stop:2"))
    assert stopped.codes == [143, 143], stopped.lines
    assert apart(go_on(begun, tmp_path / "same", data, 2, *sharded), expected) == 0
    assert apart_only_weights(go_on(begun, tmp_path / "one", data, 1), expected) < NOISE
    assert apart_only_weights(go_on(begun, tmp_path / "four", data, 4, "train.shard=true"), expected) < NOISE
    assert run(Job(plain, data, "videomae", patch="stop:3")).codes == [143]
    assert apart_only_weights(go_on(plain, tmp_path / "spread", data, 2, "train.shard=true"), expected) < NOISE


def apart_only_weights(one: Path, two: Path) -> float:
    """Largest difference of the weights of two runs."""
    first, second = (load_file(out / "checkpoints" / "step_00000006" / "objective.safetensors") for out in (one, two))
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_one_process_has_nobody_to_share_with(data: Path, tmp_path: Path) -> None:
    alone, same = tmp_path / "alone", tmp_path / "same"
    ended = run(Job(alone, data, "videomae", settings=("train.shard=true",)))
    assert ended.codes == [0]
    assert any("there is nobody to share them with" in note for note in ended.notes)
    assert run(Job(same, data, "videomae")).codes == [0]
    assert apart(alone, same) == 0


def test_weights_that_cannot_be_parted_are_refused() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.temperature = nn.Parameter(torch.tensor(0.1))

    with pytest.raises(ConfigError, match=r"cannot part the weight temperature, which is a single number"):
        check_shardable(Single())
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(ConfigError, match=r"cannot part the weight 1\.weight, which belongs to two modules"):
        check_shardable(tied)


def test_an_empty_weight_keeps_its_shape_and_cannot_be_taken_for_one() -> None:
    module = nn.Linear(300, 200)
    before = module.weight
    empty(module)
    assert module.weight is before
    assert module.weight.shape == (200, 300)
    assert module.weight.requires_grad
    assert module.weight.untyped_storage().nbytes() == 4
    assert module(torch.ones(1, 300)).isnan().all()
