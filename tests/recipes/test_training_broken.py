"""A step that is not finite stops the run before its update, on all ranks, and can be run again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from kill_factory import Job, poison, run
from safetensors.torch import load_file
from store_factory import make_prepared

from domains.errors import ConfigError, ModelError
from recipes.jobs.replay import build, replay_run
from recipes.pretrain.videomae import VideoMAE
from recipes.training.broken import read_broken
from recipes.training.replay import replay


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    make_prepared(folder, videos=10, patients=10, size=40, frames=20)
    return folder


def stopped(out: Path, data: Path, patch: str, processes: int, *settings: str) -> None:
    """A run that stops at step 4 with the line and the files that it should; the checkpoint before it is that of step 2."""
    ended = run(Job(out, data, "videomae", processes, settings=settings, patch=patch))
    assert ended.codes == [6] * processes, ended.lines
    part = "loss" if "loss" in patch else "gradient"
    for line in ended.lines:
        assert f"the {part} of step 4 is not finite" in line
        assert f"'vfm debug replay {out}' tells where it comes from" in line
        assert "--resume from step 2, the last good checkpoint" in line
        assert "\n" not in line
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]


@pytest.fixture(scope="module")
def without_loss(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped at a loss; nobody may change it."""
    out = tmp_path_factory.mktemp("broken") / "run"
    stopped(out, data, "nan-loss:4:0", 1)
    return out


@pytest.mark.parametrize(
    ("part", "processes", "rank", "shard"),
    [("loss", 1, 0, False), ("gradient", 1, 0, False), ("loss", 2, 1, False), ("gradient", 2, 0, False), ("gradient", 2, 1, True)],
)  # fmt: skip
def test_all_ranks_stop_before_the_update_and_the_step_can_be_run_again(
    part: str, processes: int, rank: int, shard: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    stopped(out, data, f"nan-{part}:4:{rank}", processes, f"train.shard={str(shard).lower()}")
    place = out / "broken" / "step_00000004"
    kept = load_file(place / "objective.safetensors")
    before = load_file(out / "checkpoints" / "step_00000002" / "objective.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())
    assert any(not torch.equal(kept[name], before[name]) for name in kept), (
        "the weights of the step itself, not of the checkpoint"
    )
    assert sorted(path.name for path in place.iterdir()) == sorted(
        [
            "objective.safetensors",
            "step.json",
            *(f"rank_000{r}.{kind}" for r in range(processes) for kind in ("json", "safetensors")),
        ]
    )

    monkeypatch.setattr(VideoMAE, "forward", VideoMAE.forward)  # what `poison` puts there goes with the test
    broken, found = replay_run(out)
    assert found.finite
    assert "Everything is finite here" in found.verdict()
    said = [json.loads((place / f"rank_000{r}.json").read_text())["forwards"] for r in range(processes)]
    for number, losses in enumerate(found.losses):  # the same batch on the same weights: the losses that the ranks had
        if part == "gradient":
            mean = sum(forwards[number]["losses"]["loss"] for forwards in said) / processes
            assert losses["loss"] == pytest.approx(mean, rel=1e-5)
        assert broken.videos[number] == [name for forwards in said for name in forwards[number]["videos"]]

    poison(part)
    broken, found = replay_run(out)
    assert not found.finite
    if part == "loss":
        assert found.terms == ("loss_extra", "loss")
        assert "first term that is not finite is loss_extra" in found.verdict()
    else:
        assert (found.terms, found.module) == ((), "")
        assert found.first == "encoder.model.embeddings.patch_embeddings.projection.weight"
        assert found.first in found.verdict()


def test_the_run_goes_on_once_the_cause_is_gone(data: Path, without_loss: Path, tmp_path: Path) -> None:
    """With other settings of the kind that mends it, and only with those."""
    out, whole, mended = tmp_path / "run", tmp_path / "whole", tmp_path / "mended"
    shutil.copytree(without_loss, out)
    shutil.copytree(without_loss, mended)
    refused = run(Job(out, data, "videomae", resume=True, settings=("objective.mask_ratio=0.5",)))
    assert refused.codes == [2]
    assert "'objective.mask_ratio' was 0.9" in refused.lines[0]
    assert run(Job(whole, data, "videomae")).codes == [0]
    again = run(Job(out, data, "videomae", resume=True))
    assert again.codes == [0], again.lines
    files = [folder / "checkpoints" / "step_00000006" / "objective.safetensors" for folder in (out, whole)]
    one, two = (load_file(file) for file in files)
    assert all(torch.equal(one[name], two[name]) for name in one)

    assert run(Job(mended, data, "videomae", resume=True, settings=("optim.lr=1e-5",))).codes == [0]
    rows = [json.loads(line) for line in (mended / "metrics.jsonl").read_text().splitlines()]
    assert rows[1]["lr"] > 1e-5 > rows[2]["lr"]
    change = json.loads((mended / "changes.jsonl").read_text())
    assert change["optim.lr"] == [5e-4, 1e-5]
    assert "lr: 1.0e-05" in (mended / "config.resolved.yaml").read_text()


def test_a_learning_rate_that_is_far_too_high(data: Path, tmp_path: Path) -> None:
    """Nothing made up: the weights explode, and the replay names a module and a gradient."""
    out = tmp_path / "run"
    ended = run(
        Job(
            out,
            data,
            "videomae",
            settings=("optim.lr=1e30", "optim.warmup=0", "optim.clip_norm=null", "train.save_every=50"),
        )
    )
    assert ended.codes == [6], ended.lines
    assert "is not finite (loss)" in ended.lines[0]
    assert "Start again with --overwrite, with a lower optim.lr" in ended.lines[0], "no checkpoint to go on from"
    _, found = replay_run(out)
    assert found.terms == ("loss",)
    assert found.module.startswith("encoder.model.")
    assert found.weights == ()
    assert found.first

    from vfm_cli.main import cli

    shown = CliRunner().invoke(cli, ["debug", "replay", str(out)])
    assert shown.exit_code == 0, shown.output
    assert f"first module whose output is not finite: {found.module}" in shown.output
    told = json.loads(CliRunner().invoke(cli, ["debug", "replay", str(out), "--json"]).stdout)
    assert (told["terms"], told["gradient"], told["finite"]) == (["loss"], found.first, False)


def test_discovr_and_finetuning_are_built_again_from_what_was_kept(data: Path, tmp_path: Path) -> None:
    for method in ("discovr", "finetune"):
        out = tmp_path / method
        ended = run(
            Job(
                out,
                data,
                method,
                settings=("optim.lr=1e30", "optim.warmup=0", "optim.clip_norm=null", "encoder.mode=full"),
            )
        )
        assert ended.codes == [6], ended.lines
        _, found = replay_run(out)
        assert found.terms
        assert "loss" in found.terms


def test_weights_and_norms_that_are_too_large_are_told_apart(without_loss: Path) -> None:
    broken = read_broken(without_loss)
    objective = build(broken)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    found = replay(objective, broken, "fp32", torch.device("cpu"))
    assert found.finite
    assert list(found.gradients)[-1].startswith("encoder.model.embeddings"), (
        "the backward pass ends where the forward pass began"
    )
    norm = torch.nn.utils.get_total_norm([p.grad for p in objective.parameters() if p.grad is not None])
    assert sum(value**2 for value in found.gradients.values()) ** 0.5 == pytest.approx(float(norm), rel=1e-5)
    assert all(torch.equal(before[name], value) for name, value in objective.state_dict().items()), "nothing is updated"
    with torch.no_grad():
        objective.decoder.leave.bias.fill_(torch.inf)
    found = replay(objective, broken, "fp32", torch.device("cpu"))
    assert found.weights == ("decoder.leave.bias",)
    assert "weights were not finite before step 4, first decoder.leave.bias" in found.verdict()


def test_what_is_missing_or_damaged_is_said_in_one_line(without_loss: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no step of this run was kept"):
        read_broken(tmp_path)
    out = tmp_path / "run"
    shutil.copytree(without_loss, out)
    (out / "broken" / "step_00000004" / "rank_0000.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="cannot be read"):
        read_broken(out)
