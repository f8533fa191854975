"""A run that is killed at any point and resumed ends bit for bit like one that was not: 20 points, over methods, modes and processes.

VFM_KILLS=N takes N points for each kind of run, drawn anew each time (the seed is in the message of a failure).
"""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import pytest
import torch
from kill_factory import Ended, Job, Kill, run
from safetensors.torch import load_file
from store_factory import make_prepared

KILLS = int(os.environ.get("VFM_KILLS", "0"))
SEED = random.SystemRandom().randrange(10**6) if KILLS else 7
KINDS = {
    "discovr, accumulating": ("discovr", 1, ("data.workers=1",), 5),
    "discovr with LoRA": ("discovr", 1, ("encoder.mode=lora",), 4),
    "discovr, two processes": ("discovr", 2, (), 3),
    "discovr, its encoder later, two processes": ("discovr", 2, ("optim.encoder_begin=0.5",), 2),
    "videomae with LoRA, two processes": ("videomae", 2, ("encoder.mode=lora",), 2),
    "discovr, sharded over two processes": ("discovr", 2, ("train.shard=true",), 2),
    "fine-tuning with LoRA": ("finetune", 1, ("train.accumulate=1", "train.batch_size=3", "encoder.lora.dropout=0.1"), 4),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    make_prepared(folder, videos=10, patients=10, size=40, frames=20)
    return folder


def left(out: Path) -> dict[str, torch.Tensor]:
    """Every tensor that a finished run leaves: its last checkpoint, the encoder, and what else is at hand."""
    last = (out / "checkpoints" / "latest").read_text().strip()
    files = [
        *(out / "checkpoints" / last).glob("*.safetensors"),
        *out.glob("*.safetensors"),
        *out.glob("encoder/*.safetensors"),
    ]
    return {f"{file.name}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def logged(out: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_killed_anywhere_and_resumed_equals_uninterrupted(kind: str, data: Path, tmp_path: Path) -> None:
    method, processes, settings, count = KINDS[kind]
    whole = run(Job(tmp_path / "whole", data, method, processes, settings=settings), count=True)
    assert whole.codes == [0] * processes, whole.lines
    expected, log = left(tmp_path / "whole"), logged(tmp_path / "whole")
    assert [step for step, _ in log] == [1, 2, 3, 4, 5, 6]
    draw = random.Random(f"{SEED} {kind}")
    for number in range(KILLS or count):
        saving = number % 2 == 0
        kill = Kill(
            at=draw.randint(1, whole.points["saving" if saving else "all"]),
            number=draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]),
            rank=0 if saving else draw.randrange(processes),
            saving=saving,
        )
        out, told = tmp_path / f"killed{number}", f"{kind}: {kill} of {whole.points} (seed {SEED})"
        ended = run(Job(out, data, method, processes, settings=settings), kill)
        check_end(ended, kill, told)
        again = run(Job(out, data, method, processes, resume=True, settings=settings))
        assert again.codes == [0] * processes, f"{told}: {again.lines}"
        found = left(out)
        assert found.keys() == expected.keys(), told
        different = [name for name in expected if not torch.equal(expected[name], found[name])]
        assert not different, f"{told}: {different[:3]}"
        assert logged(out) == log, told
        assert not list(out.rglob("*.tmp")), told


def check_end(ended: Ended, kill: Kill, told: str) -> None:
    """A killed rank is gone, and the others end because of it; a signal that was noted ends all alike, with its own code."""
    own = ended.codes[kill.rank]
    assert own in (-kill.number, 128 + kill.number, 0), f"{told}: {ended}"
    others = [code for rank, code in enumerate(ended.codes) if rank != kill.rank]
    if own == 128 + kill.number and any("everything up to it is saved" in line for line in ended.lines):
        assert all(code == own for code in others), f"{told}: {ended}"
    # One that waits for a rank that died before they met waits on: whoever started them ends it (torchrun; here the factory).
    waits = (-signal.SIGKILL,) if own < 0 else ()
    assert all(code in (0, 1, 6, own, *waits) for code in others), f"{told}: {ended}"
