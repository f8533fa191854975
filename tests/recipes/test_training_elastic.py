"""A run goes on with another number of processes: the same global batch, every sample once an epoch, the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kill_factory import Job, run
from safetensors.torch import load_file
from store_factory import make_prepared

from domains.errors import ConfigError
from recipes.config import Layer, resolve
from recipes.training.processes import shared_anew
from recipes.training.run import RunFolder

SAMPLES = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    make_prepared(folder, videos=SAMPLES, patients=SAMPLES, size=40, frames=20)
    return folder


def seen(out: Path) -> list[int]:
    """Seeds of all samples that reached the objective: one for each (epoch, recording, draw)."""
    files = sorted(out.parent.glob(f"{out.name}.seen.*.jsonl"))
    return [seed for file in files for line in file.read_text().splitlines() for seed in json.loads(line)]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoints" / "step_00000006" / "objective.safetensors")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on two processes that nothing happened to: 6 steps of 8 samples, 4 epochs of 12."""
    out = tmp_path_factory.mktemp("whole") / "run"
    ended = run(Job(out, data, "videomae", 2, patch=f"seen:{out}.seen"))
    assert ended.codes == [0, 0], ended.lines
    return out


@pytest.mark.parametrize("processes", [1, 4])
def test_saved_on_two_goes_on_with_one_or_four(processes: int, data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun = run(Job(out, data, "videomae", 2, patch=f"seen:{out}.seen,stop:4"))
    assert begun.codes == [143, 143], begun.lines
    assert len(seen(out)) == 4 * 8
    again = run(Job(out, data, "videomae", processes, resume=True, patch=f"seen:{out}.seen"))
    assert again.codes == [0] * processes, again.lines
    told = {1: "shared anew: 1 x 4 x 2 ", 4: "shared anew: 4 x 1 x 2 "}
    assert any(told[processes] in note for note in again.notes), again.notes
    # The last epoch ends with the run: 48 samples are four whole epochs, each recording once in each, neither lost nor seen twice.
    assert sorted(seen(out)) == sorted(seen(whole))
    assert len(set(seen(out))) == len(seen(out)) == 4 * SAMPLES
    expected, found = weights(whole), weights(out)
    for name in expected:
        torch.testing.assert_close(
            found[name], expected[name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert any(not torch.equal(expected[name], weights_at(out, 4)[name]) for name in expected)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["epoch"] == 4.0


def weights_at(out: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoints" / f"step_{step:08d}" / "objective.safetensors")


def begun(tmp_path: Path, processes: int, monkeypatch: pytest.MonkeyPatch, batch: int, accumulate: int) -> RunFolder:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    train = {"batch_size": batch, "accumulate": accumulate}
    folder = RunFolder.create(tmp_path / "run", resolve([Layer("test", {"method": "videomae", "train": train})]))
    folder.unlock()
    return folder


@pytest.mark.parametrize(
    ("started", "now", "batch", "shared"),
    [((2, 4, 1), 1, 4, (4, 2)), ((2, 4, 1), 4, 4, (2, 1)), ((2, 4, 3), 8, 4, (3, 1)), ((1, 6, 1), 3, 6, (2, 1)),
     ((2, 4, 1), 2, 4, (4, 1)), ((2, 4, 1), 1, 8, (8, 1)), ((2, 4, 1), 2, 1, (1, 4))],
)  # fmt: skip
def test_the_global_batch_is_shared_anew(
    started: tuple[int, int, int], now: int, batch: int, shared: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    processes, was, accumulate = started
    folder = begun(tmp_path, processes, monkeypatch, was, accumulate)
    config = resolve([Layer("test", {"train": {"batch_size": batch, "accumulate": accumulate}})]).config
    train = shared_anew(config, folder, now).train
    assert (train.batch_size, train.accumulate) == shared
    assert train.batch_size * train.accumulate * now == processes * was * accumulate


def test_processes_that_cannot_share_it_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path, 2, monkeypatch, 4, 1)
    with pytest.raises(ConfigError, match=r"3 processes cannot share the 8 samples .* --processes 2, or another"):
        shared_anew(resolve([]).config, folder, 3)
