"""The loop with what it measures of itself: phases and operations in its log, a profile, pieces, and memory that ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from objective_factory import CLASSES
from objective_factory import SMALL as TINY
from safetensors.torch import load_file
from store_factory import make_prepared
from text_factory import small_text

from domains.errors import ConfigError, TrainingError
from recipes.config import Layer, Resolved, resolve
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.jobs import pretrain as job
from recipes.jobs.pretrain import complete, pretrain
from recipes.objective import Batch, Progress
from recipes.pretrain import METHODS
from recipes.training import memory
from recipes.training.flops import flops_of, flops_on_paper
from recipes.training.reporter import SilentReporter

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 16,
    "tubelet_size": 2,
}
DECODER = {"decoder_width": 24, "decoder_depth": 1, "decoder_heads": 2}
OBJECTIVES: dict[str, dict[str, Any]] = {
    **TINY,
    "videomae": DECODER,
    "simclr": {"head_hidden": 16, "head_outputs": 8, "head_motion": True},
    "discovr": {
        **DECODER,
        "views": 2,
        "frame_depth": 1,
        "head_hidden": 16,
        "head_bottleneck": 8,
        "head_outputs": 16,
        "prototypes": 8,
    },
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    make_prepared(folder / "prepared", videos=12, patients=6, size=40, frames=20)
    fresh_videomae(Geometry(frames=4, size=32, rate=12.5), seed=0, **SMALL).save(folder / "encoder")
    return folder


def settings(root: Path, method: str, **train: object) -> Resolved:
    values = {
        "method": method,
        "objective": OBJECTIVES[method],
        "encoder": {"name": str(root / "encoder")},
        "data": {"path": str(root / "prepared"), "workers": 0},
        "clip": {"frames": 4, "size": 32, "stride": 2},
        "train": {"steps": 4, "batch_size": 6, "precision": "fp32", "log_every": 2, **train},
    }
    return resolve([Layer("test", values)])


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", [method.name for method in METHODS])
def test_operations_are_counted_without_computing_anything(name: str) -> None:
    kind = next(method for method in METHODS if method.name == name)
    torch.manual_seed(0)
    encoder = fresh_videomae(Geometry(frames=4, size=32, rate=12.5), seed=0, **SMALL)
    learned = {"classes": CLASSES} if kind.labelled else {}
    words = (small_text(),) if kind.texts else ()
    objective = kind(encoder, kind.Settings(**OBJECTIVES[name], **learned), *words).train()
    objective.before_step(Progress(0, 1, 0.0))
    batch = memory.made_up(objective, 4, torch.device("cpu"))
    before, generator = {k: v.clone() for k, v in objective.state_dict().items()}, torch.get_rng_state()
    counted = flops_on_paper(objective, batch)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[key]) for key, value in objective.state_dict().items())
    assert all(parameter.grad is None for parameter in objective.parameters())
    assert counted == flops_of(lambda: objective(batch)["loss"].backward())


def test_an_objective_that_decides_by_values_is_not_counted() -> None:
    encoder = fresh_videomae(Geometry(frames=4, size=32), seed=0, **SMALL)
    objective = METHODS[1](encoder, METHODS[1].Settings(**DECODER))
    objective.forward = lambda batch: {"loss": batch["clip"].sum() * float(batch["clip"].max())}  # type: ignore[method-assign]
    assert flops_on_paper(objective, Batch({"clip": torch.ones(1, 4, 3, 32, 32)}, torch.tensor([1]))) is None


def test_the_log_says_where_the_time_went(root: Path, tmp_path: Path) -> None:
    pretrain(settings(root, "videomae"), tmp_path / "run", reporter=SilentReporter())
    for line in lines(tmp_path / "run"):
        shares = [
            line[name] for name in ("data_wait", "share_transfer", "share_forward", "share_backward", "share_optimiser")
        ]
        assert all(0 <= share <= 1 for share in shares)
        assert 0 < sum(shares) <= 1.001
        assert line["tflops"] > 0
        assert line["clips_per_second"] > 0
        assert line["grad_norm"] > 0
        assert "mfu" not in line  # nobody publishes what a CPU can do


def test_a_profile_is_left_and_said(root: Path, tmp_path: Path) -> None:
    reporter = SilentReporter()
    pretrain(settings(root, "videomae", profile=1, steps=5), tmp_path / "run", reporter=reporter)
    assert json.loads((tmp_path / "run/profile/summary.json").read_text())["steps"] == 1
    assert any(note.startswith("profile: ") for note in reporter.notes)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_in_pieces_is_the_run_with_the_whole_batch(accumulate: int, root: Path, tmp_path: Path) -> None:
    for name, piece in (("whole", None), ("pieces", 4)):
        resolved = settings(root, "simclr", piece=piece, accumulate=accumulate, steps=3)
        pretrain(resolved, tmp_path / name, reporter=SilentReporter())
    whole, pieces = (lines(tmp_path / name) for name in ("whole", "pieces"))
    assert [line["loss"] for line in pieces] == pytest.approx([line["loss"] for line in whole], rel=1e-4)
    assert [line["agreement"] for line in pieces] == pytest.approx([line["agreement"] for line in whole], abs=1e-3)
    weights = [load_file(tmp_path / name / "encoder/model.safetensors") for name in ("whole", "pieces")]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-3, atol=2e-5)


def test_pieces_of_what_is_no_contrast_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"'train.piece' is for contrastive methods, and 'videomae' is none.*train.batch_size=3"
    ):
        pretrain(settings(root, "videomae", piece=2), tmp_path / "run", reporter=SilentReporter())


@pytest.mark.parametrize("begun", [False, True])
def test_the_batch_is_also_found_where_a_run_is_resumed_that_has_not_begun(
    begun: bool, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a job on a cluster starts it, which says --resume from its first time on."""
    monkeypatch.setattr(memory, "needed", lambda objective, bf16, size: float(size))
    monkeypatch.setattr(memory, "free_memory", lambda: 9)
    if begun:  # and was killed before it had written down what it would do
        (tmp_path / "run").mkdir()
        (tmp_path / "run/env.json").write_text("{}")
    pretrain(
        settings(root, "videomae", steps=1), tmp_path / "run", auto_batch=True, resume=True, reporter=SilentReporter()
    )
    assert yaml.safe_load((tmp_path / "run/config.resolved.yaml").read_text())["train"]["batch_size"] == 8


def test_memory_that_ends_is_one_line_with_advice(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = next(method for method in METHODS if method.name == "videomae")

    def forward(self: object, batch: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(kind, "forward", forward)
    with pytest.raises(
        TrainingError, match=r"out of memory at 6 samples.*train.batch_size=3 train.accumulate=2.*--batch-size auto"
    ):
        pretrain(settings(root, "videomae"), tmp_path / "run", reporter=SilentReporter())


def test_the_batch_that_fits_is_found_and_recorded(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "needed", lambda objective, bf16, size: float(size))
    monkeypatch.setattr(memory, "free_memory", lambda: 9)
    reporter = SilentReporter()
    pretrain(settings(root, "videomae", steps=1), tmp_path / "run", auto_batch=True, reporter=reporter)
    assert yaml.safe_load((tmp_path / "run/config.resolved.yaml").read_text())["train"]["batch_size"] == 8
    assert any(note.startswith("batch size 8: the largest that fits (recipe: 6)") for note in reporter.notes)
    monkeypatch.setattr(memory, "free_memory", lambda: 100)  # more than an epoch has samples: 12
    assert (
        job.with_largest_batch(
            complete(settings(root, "videomae")), 12, online=False, reporter=reporter
        ).config.train.batch_size
        == 12
    )


def test_of_a_contrast_the_piece_is_found_and_the_batch_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "needed", lambda objective, bf16, size: float(size))
    monkeypatch.setattr(memory, "free_memory", lambda: 5)
    found = job.with_largest_batch(complete(settings(root, "simclr")), 12, online=False, reporter=SilentReporter())
    assert (found.config.train.batch_size, found.config.train.piece) == (6, 4)
    assert found.origins["train.piece"] == "--batch-size auto"
    monkeypatch.setattr(memory, "free_memory", lambda: 50)
    assert (
        job.with_largest_batch(
            complete(settings(root, "simclr")), 12, online=False, reporter=SilentReporter()
        ).config.train.piece
        is None
    )
