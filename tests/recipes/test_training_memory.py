"""`--batch-size auto`: what is asked, what is counted, and the advice where memory ends."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from domains.errors import TrainingError
from domains.machine import free_memory
from recipes.config import Layer, RunConfig, resolve
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.finetune.study import StudyObjective
from recipes.finetune.temporal import TemporalObjective
from recipes.objective import Batch, Losses, Objective, ObjectiveSettings
from recipes.pretrain.simclr import SimCLR
from recipes.training import memory

CPU = torch.device("cpu")
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 16,
    "tubelet_size": 2,
}


class Square(Objective):
    """Keeps one product a sample: 4 x 3 x 32 x 32 numbers, and what it is the product of, the clip."""

    name = "square"

    def forward(self, batch: Batch) -> Losses:
        return {"loss": (self.weight * batch["clip"]).square().sum()}


@pytest.fixture
def objective() -> Square:
    made = Square(
        fresh_videomae(Geometry(frames=4, size=32), seed=0, **SMALL).requires_grad_(False), ObjectiveSettings()
    )
    made.weight = nn.Parameter(torch.ones(()))
    return made


def config(**over: object) -> RunConfig:
    return resolve([Layer("test", over)]).config


@pytest.mark.parametrize("room", [*range(1, 34), 100, 1000])
def test_the_largest_that_fits_is_found_and_nothing_far_above_it_is_tried(room: int) -> None:
    asked: list[int] = []

    def fits(size: int) -> bool:
        asked.append(size)
        return size <= room

    found = memory.largest(fits, limit=600)
    assert found == max(size for size in memory.sizes(600) if size <= room)
    assert max(asked) <= max(3, 3 * room)
    assert len(asked) <= 2 + math.log2(600)


def test_sizes_and_limits() -> None:
    assert memory.sizes(24) == [1, 2, 3, 4, 6, 8, 12, 16, 24]
    assert memory.sizes(1) == [1]
    assert memory.largest(lambda size: True, 20) == 16
    assert memory.largest(lambda size: False, 20) == 0


def test_what_a_pass_keeps_is_counted_once(objective: Square) -> None:
    clip = 4 * 3 * 32 * 32 * 4  # bytes of a sample
    # The clip, kept for the product's weight, and the product, kept for its square; the weight itself is no activation.
    assert memory.kept(objective, memory.made_up(objective, 3, CPU), bf16=False) == 3 * 2 * clip
    each = memory.TEMPORARY * 2 * clip
    assert memory.needed(objective, False, 10) == pytest.approx(memory.STATE * 1 + 10 * each)


def test_a_batch_is_as_large_as_memory_allows(objective: Square, monkeypatch: pytest.MonkeyPatch) -> None:
    each = memory.TEMPORARY * 2 * 4 * 3 * 32 * 32 * 4
    monkeypatch.setattr(memory, "free_memory", lambda: 13 * each / memory.MARGIN)
    assert memory.largest_batch(objective, config(), CPU, False, limit=100) == 12
    assert memory.largest_batch(objective, config(), CPU, False, limit=6) == 6
    monkeypatch.setattr(memory, "free_memory", lambda: 0)
    with pytest.raises(TrainingError, match=r"not even one sample fits.*checkpointing"):
        memory.largest_batch(objective, config(), CPU, False, limit=100)


def test_advice_keeps_the_steps_first(objective: Square) -> None:
    said = memory.advice(config(train={"batch_size": 16, "precision": "fp32"}), objective)
    assert said.startswith(
        "Try train.batch_size=8 train.accumulate=2 (steps of the same size), or encoder.checkpointing=true"
    )
    assert "train.precision=bf16" in said
    assert "batch_size" not in memory.advice(config(train={"batch_size": 1}), objective)
    contrast = SimCLR(objective.encoder, SimCLR.Settings(head_hidden=4, head_outputs=4))
    assert memory.advice(config(train={"batch_size": 64}), contrast).startswith(
        "Try train.piece=32 (the same gradients)"
    )
    assert memory.advice(config(train={"batch_size": 64, "piece": 8}), contrast).startswith("Try train.piece=4 ")


@pytest.mark.parametrize(
    ("kind", "what"), [(StudyObjective, "fewer clips of a study"), (TemporalObjective, "shorter windows")]
)
def test_what_no_encoder_reads_is_made_smaller_in_its_own_way(
    kind: type[Objective], what: str, objective: Square, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("asks_encoder", "lighter"):
        monkeypatch.setattr(Square, name, getattr(kind, name))
    said = memory.advice(config(train={"batch_size": 1}), objective)
    assert said.startswith(f"Try {what} (task.")
    assert "checkpointing" not in said


def test_processes_that_share_weights_have_more_room(objective: Square, monkeypatch: pytest.MonkeyPatch) -> None:
    objective.weight = nn.Parameter(torch.ones(1000, 1, 1, 1, 1))  # 12 bytes each: of gradient and averages
    monkeypatch.setattr(memory, "needed", lambda objective, bf16, size: 12_000 + 100 * size)
    monkeypatch.setattr(memory, "free_memory", lambda: (12_000 + 350) / memory.MARGIN)
    assert memory.largest_batch(objective, config(), CPU, False, limit=100) == 3
    monkeypatch.setattr(memory, "world_size", lambda: 4)
    assert memory.largest_batch(objective, config(), CPU, False, limit=100) == 3
    shared = config(train={"shard": True})
    assert memory.largest_batch(objective, shared, CPU, False, limit=100) == 64  # 9350 bytes for samples; 96 are 9600
    assert "train.shard=true" in memory.advice(config(), objective)
    assert "train.shard" not in memory.advice(shared, objective)


def test_only_lack_of_memory_is_taken_for_it() -> None:
    assert memory.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60)
    assert memory.is_out_of_memory(raised.value)
    assert not memory.is_out_of_memory(RuntimeError("shapes do not match"))


def test_free_memory_is_the_containers_where_it_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable: 60 kB\n")
    assert free_memory(tmp_path, tmp_path / "meminfo") == 60 * 1024
    for name, text in {
        "memory.max": "50000",
        "memory.current": "30000",
        "memory.stat": "anon 1\ninactive_file 5000\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert free_memory(tmp_path, tmp_path / "meminfo") == 25000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(tmp_path, tmp_path / "meminfo") == 60 * 1024
    assert free_memory() > 1 << 20
