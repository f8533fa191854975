"""Order of samples, schedules, checkpoints, monitors and run folders."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from objective_factory import small_encoder
from store_factory import make_prepared
from torch import nn

from domains.base import AugmentPolicies, ClipSettings
from domains.errors import ConfigError, ModelError, StorageError, UnreachableError
from domains.store.manifest import frame_file
from domains.store.prepared import Prepared
from recipes.config import Layer, OptimSettings, resolve
from recipes.encoders.base import Geometry
from recipes.objective import Clip
from recipes.training import checkpoint
from recipes.training.data import ATTEMPTS, ClipData, StreamSampler, collate, to_batch
from recipes.training.optim import encoder_rate, learning_rate, make_optimiser, set_learning_rate
from recipes.training.retention import Retention
from recipes.training.run import RunFolder, environment

REPO = Path(__file__).resolve().parents[2]
CLIP = ClipSettings(frames=4, size=32, stride=2)


@pytest.fixture
def data(tmp_path: Path) -> ClipData:
    prepared, _ = make_prepared(tmp_path / "prepared", videos=5, patients=5, size=40, frames=16)
    return ClipData(prepared, range(5), {"clip": Clip()}, CLIP, AugmentPolicies(), seed=7, clips_per_video=2)


def test_every_sample_once_an_epoch_and_epochs_differ(data: ClipData) -> None:
    places = [data.place(position) for position in range(20)]
    first, second = places[:10], places[10:]
    assert [epoch for epoch, _, _ in places] == [0] * 10 + [1] * 10
    everything = {(row, draw) for row in range(5) for draw in range(2)}
    assert {(row, draw) for _, row, draw in first} == {(row, draw) for _, row, draw in second} == everything
    assert [place[1:] for place in first] != [place[1:] for place in second]


@pytest.mark.parametrize(("world", "batch", "accumulate"), [(1, 4, 1), (2, 2, 1), (4, 1, 1), (1, 2, 2), (2, 1, 2)])
def test_a_step_takes_the_same_samples_however_they_are_shared(world: int, batch: int, accumulate: int) -> None:
    samplers = [list(StreamSampler(batch, accumulate, rank, world, 3, 5)) for rank in range(world)]
    for step in range(2):
        part = slice(step * accumulate, (step + 1) * accumulate)
        taken = sorted(position for sampler in samplers for batch_ in sampler[part] for position in batch_)
        assert taken == list(range((3 + step) * 4, (4 + step) * 4))


def test_a_sample_is_a_function_of_its_position(data: ClipData) -> None:
    one, again, other = data[13], data[13], data[3]
    assert np.array_equal(one["views"]["clip"].frames, again["views"]["clip"].frames)
    assert one["seed"] == again["seed"] != other["seed"]


def test_a_storage_that_does_not_answer_ends_the_run_and_replaces_nothing(
    data: ClipData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: Prepared, index: int, indices: object) -> None:
        raise UnreachableError("the storage cannot be reached")

    monkeypatch.setattr(Prepared, "frames", gone)
    sample = data[0]
    assert [failure.partition(": ")[2] for failure in sample["failures"]] == ["the storage cannot be reached"]
    assert collate([sample]) == {"failures": sample["failures"]}  # which the loop takes for the end


def test_an_unreadable_sample_is_replaced_deterministically_and_counted(data: ClipData) -> None:
    _, where, _ = data.place(0)
    frame_file(data.prepared.folder, data.prepared.video_id(where)).unlink()
    one, again = data[0], data[0]
    assert one["row"] == again["row"] != where
    assert len(one["failures"]) == 1
    assert data.prepared.video_id(where) in one["failures"][0]
    for row in range(5):
        frame_file(data.prepared.folder, data.prepared.video_id(row)).unlink(missing_ok=True)
    lost = collate([data[0]])
    assert lost == {"failures": data[0]["failures"]}
    assert len(lost["failures"]) == ATTEMPTS


def test_batch_is_augmented_and_normalised(data: ClipData) -> None:
    geometry = Geometry(frames=4, size=32, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.4))
    collated = collate([data[0], data[1]])
    view = collated["views"]["clip"]
    view["flip"] = torch.tensor([True, False])
    view["brightness"], view["contrast"] = torch.tensor([0.0, 0.1]), torch.tensor([1.0, 1.0])
    batch = to_batch(collated, geometry, torch.device("cpu"))
    raw = view["frames"].float() / 255
    assert batch["clip"].shape == (2, 4, 3, 32, 32)
    torch.testing.assert_close(batch["clip"][0, 1, 2], (raw[0, 1, :, :, 0].flip(-1) - 0.3) / 0.4)
    torch.testing.assert_close(batch["clip"][1, 2, 0], ((raw[1, 2, :, :, 0] + 0.1).clamp(0, 1) - 0.5) / 0.1)


def test_an_encoder_that_has_learned_moves_less_than_fresh_heads() -> None:
    module = nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    module["encoder"].weight.lr_scale = 0.5  # type: ignore[assignment]
    holder = nn.Module()
    holder.encoder, holder.head = module["encoder"], module["head"]
    holder.encoders = (holder.encoder,)
    optimiser = make_optimiser(holder, OptimSettings(encoder_lr=0.1))
    set_learning_rate(optimiser, OptimSettings(lr=1.0, warmup=0.0), 0, 2)
    rates = {id(parameter): group["lr"] for group in optimiser.param_groups for parameter in group["params"]}
    found = {name: rates[id(parameter)] for name, parameter in module.named_parameters()}
    assert found == pytest.approx({"encoder.weight": 0.05, "encoder.bias": 0.1, "head.weight": 1.0, "head.bias": 1.0})


def test_without_a_factor_it_depends_on_what_the_encoder_has_learned() -> None:
    encoder = small_encoder()
    assert encoder.random_start
    assert encoder_rate(encoder, OptimSettings()) == 1.0
    encoder.random_start = False
    assert encoder_rate(encoder, OptimSettings()) == 0.2
    assert encoder_rate(encoder, OptimSettings(encoder_lr=0.7)) == 0.7
    encoder.adapter = (object(),)
    assert encoder_rate(encoder, OptimSettings()) == 1.0
    assert encoder_rate(None, OptimSettings()) == 1.0


def test_learning_rate_rises_then_falls() -> None:
    settings = OptimSettings(lr=1.0, final_lr=0.1, warmup=0.2)
    rates = [learning_rate(settings, step, 11) for step in range(11)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[2] == 1.0
    assert rates[6] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 4 / 8)))
    assert rates[-1] == pytest.approx(0.1)


def test_vectors_do_not_decay_and_heads_learn_at_their_own_rate() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    module[0].weight.lr_scale = 10.0  # type: ignore[assignment]
    optimiser = make_optimiser(module, OptimSettings(lr=1e-3, weight_decay=0.3))
    set_learning_rate(optimiser, OptimSettings(lr=0.5, warmup=0.0), 0, 2)
    found = {(group["weight_decay"], group["lr"], len(group["params"])) for group in optimiser.param_groups}
    assert found == {(0.3, 5.0, 1), (0.0, 0.5, 3)}


def trained(tmp_path: Path, steps: int, keep: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = nn.Linear(4, 4)
    optimiser = make_optimiser(module, OptimSettings(lr=0.1))
    for step in range(1, steps + 1):
        module(torch.ones(2, 4)).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        checkpoint.save_checkpoint(tmp_path, module, optimiser, {"step": step}, Retention(keep))
    return module, optimiser


def load(tmp_path: Path) -> tuple[nn.Module, torch.optim.Optimizer, dict | None, list[str]]:
    module = nn.Linear(4, 4)
    optimiser = make_optimiser(module, OptimSettings(lr=0.1))
    warnings: list[str] = []
    return module, optimiser, checkpoint.load_checkpoint(tmp_path, module, optimiser, warnings.append), warnings


def test_checkpoint_holds_weights_and_moments(tmp_path: Path) -> None:
    module, optimiser = trained(tmp_path, 3)
    again, optimiser_again, state, warnings = load(tmp_path)
    assert (state, warnings) == ({"step": 3}, [])
    assert torch.equal(again.weight, module.weight)  # type: ignore[arg-type]
    for mine, theirs in zip(module.parameters(), again.parameters(), strict=True):
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(optimiser.state[mine][key], optimiser_again.state[theirs][key])
    assert sorted(path.name for path in tmp_path.glob("step_*")) == ["step_00000002", "step_00000003"]


def test_damage_falls_back_to_the_newest_whole_one(tmp_path: Path) -> None:
    trained(tmp_path, 3)
    file = tmp_path / "step_00000003" / "objective.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    *_, state, warnings = load(tmp_path)
    assert state == {"step": 2}
    assert "step_00000003 is damaged" in warnings[0]
    (tmp_path / "step_00000002" / "manifest.json").unlink()
    with pytest.raises(ModelError, match="none of its checkpoints is whole"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [1, 2])
def test_after_a_fall_back_the_new_checkpoint_stays_and_the_damaged_one_goes(tmp_path: Path, keep: int) -> None:
    trained(tmp_path, 4)
    (tmp_path / "step_00000004" / "state.json").unlink()
    module, optimiser, state, _ = load(tmp_path)
    assert state == {"step": 3}
    shutil.rmtree(tmp_path / "step_00000003")
    checkpoint.save_checkpoint(tmp_path, module, optimiser, {"step": 3, "again": True}, Retention(keep))
    assert [path.name for path in tmp_path.glob("step_*")] == ["step_00000003"]
    *_, state, warnings = load(tmp_path)
    assert (state, warnings) == ({"step": 3, "again": True}, [])


def test_a_draft_is_never_taken_for_a_checkpoint(tmp_path: Path) -> None:
    trained(tmp_path, 1)
    (tmp_path / "step_00000001").rename(tmp_path / "step_00000001.tmp")
    *_, state, _ = load(tmp_path)
    assert state is None


def test_full_disk_leaves_the_old_checkpoint_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "synchronise", full)
    with pytest.raises(StorageError, match="No space left"):
        trained(tmp_path, 1)
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.tmp"))
    *_, state, _ = load(tmp_path)
    assert state == {"step": 1}


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch /tmp/vfm-was-attacked",)


def test_a_pickle_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, 1)
    folder = tmp_path / "step_00000001"
    (folder / "objective.safetensors").write_bytes(pickle.dumps(Bomb()))
    said = json.loads((folder / "manifest.json").read_text())
    said["objective.safetensors"] = {
        "bytes": (folder / "objective.safetensors").stat().st_size,
        "sha256": checkpoint.digest(folder / "objective.safetensors"),
    }
    (folder / "manifest.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match="none of its checkpoints is whole"):
        load(tmp_path)
    assert not Path("/tmp/vfm-was-attacked").exists()


def test_another_model_does_not_fit(tmp_path: Path) -> None:
    trained(tmp_path, 1)
    other = nn.Linear(5, 5)
    with pytest.raises(ModelError, match="does not fit"):
        checkpoint.load_checkpoint(tmp_path, other, make_optimiser(other, OptimSettings()), print)


def test_run_folder_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    resolved = resolve([Layer("test", {"method": "videomae"})])
    run = RunFolder.create(tmp_path / "run", resolved)
    take = f"from pathlib import Path; from recipes.training.run import RunFolder; RunFolder(Path({str(tmp_path / 'run')!r})).lock.take()"
    second = subprocess.run([sys.executable, "-c", take], capture_output=True, text=True, cwd=REPO, check=False)
    assert f"another run is going on in this folder (process {os.getpid()})" in second.stderr
    run.unlock()
    assert subprocess.run([sys.executable, "-c", take], capture_output=True, cwd=REPO, check=False).returncode == 0
    with pytest.raises(ConfigError, match="not empty"):
        RunFolder.create(tmp_path / "run", resolved)
    other = resolve([Layer("test", {"method": "videomae", "optim": {"lr": 0.5}})])
    with pytest.raises(ConfigError, match=r"'optim\.lr' was"):
        RunFolder.create(tmp_path / "run", other, resume=True)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("...")
    with pytest.raises(ConfigError, match="other things than a vfm run"):
        RunFolder.create(tmp_path / "letters", resolved, overwrite=True)
    assert (tmp_path / "letters" / "dear.txt").exists()


def test_environment_names_no_person_and_no_host() -> None:
    import getpass
    import socket

    text = json.dumps(environment())
    assert socket.gethostname() not in text
    assert getpass.getuser() not in text.replace("/root", "") or getpass.getuser() == "root"


def test_one_process_may_train_twice_at_different_precision() -> None:
    from recipes.config import RunConfig
    from recipes.training.processes import make_accelerator

    for precision, expected in (("fp32", "no"), ("bf16", "bf16"), ("fp32", "no")):
        config = RunConfig.model_validate({"train": {"precision": precision}})
        assert make_accelerator(config).mixed_precision == expected
