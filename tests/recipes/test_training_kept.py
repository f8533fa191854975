"""Which checkpoints stay, what is done about damaged ones, and that nothing is ever unpickled."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from kill_factory import Job, run, tiny_encoder
from safetensors.torch import load_file
from store_factory import make_prepared

from domains.errors import VfmError
from recipes.config import TrainSettings
from recipes.encoders import open_encoder
from recipes.encoders.adapt import load_adapter
from recipes.finetune.head import load_head
from recipes.jobs.replay import replay_run
from recipes.training.checkpoint import digest
from recipes.training.retention import Retention

LOSSES = {1: 5.0, 2: 1.0, 3: 4.0, 4: 2.0, 5: 3.0, 6: 6.0}


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"keep": 2}, {5, 6}),
        ({"keep": 1, "keep_every": 2}, {2, 4, 6}),
        ({"keep": 1, "keep_best": 2}, {2, 4, 6}),
        ({"keep": 1, "keep_best": 2, "best_by": "+loss"}, {1, 6}),
        ({"keep": 1, "keep_every": 3, "keep_best": 1}, {2, 3, 6}),
        ({"keep": 3, "keep_best": 1, "best_by": "never_logged"}, {4, 5, 6}),
    ],
)
def test_newest_every_nth_and_best(settings: dict, kept: set[int]) -> None:
    found = {step: {"loss": loss} for step, loss in LOSSES.items()}
    assert Retention.of(TrainSettings(**settings)).kept(found, 6) == kept


def test_a_step_that_is_run_again_replaces_later_ones_and_no_number_is_no_best() -> None:
    found = {step: {"loss": loss} for step, loss in LOSSES.items()}
    assert Retention(last=1, every=2).kept(found, 3) == {2, 3}
    assert Retention(last=1, best=1).kept({1: {"loss": math.nan}, 2: {"loss": 9.0}, 3: {}}, 3) == {2, 3}
    assert Retention(last=1, best=1).kept({1: {"loss": 1.0}, 2: {"loss": 1.0}, 3: {"loss": 2.0}}, 3) == {2, 3}, (
        "the later of equals"
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    make_prepared(folder, videos=10, patients=10, size=40, frames=20)
    return folder


def steps(out: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (out / "checkpoints").glob("step_*"))


def test_a_run_keeps_them(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = (
        "train.save_every=1",
        "train.keep=1",
        "train.keep_every=4",
        "train.keep_best=1",
        "train.best_by=+rankme",
        "train.monitor_every=1",
    )
    assert run(Job(out, data, "videomae", settings=words)).codes == [0]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: (row["rankme"], row["step"]))["step"]
    assert steps(out) == sorted({best, 4, 6})


@pytest.fixture(scope="module")
def stopped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 2 and 4."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    assert run(Job(out, data, "videomae", patch="stop:4")).codes == [143]
    assert steps(out) == [2, 4]
    return out


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty"])
def test_damage_is_said_and_the_one_before_it_taken(damage: str, stopped: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(stopped, out)
    file = out / "checkpoints" / "step_00000004" / "optimiser.safetensors"
    whole = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"cut": whole[:-7], "flipped": whole[:-1] + bytes([whole[-1] ^ 1]), "empty": b""}[damage])
    ended = run(Job(out, data, "videomae", resume=True))
    assert ended.codes == [0], ended.lines
    assert any(
        "checkpoint step_00000004 is damaged" in note and "trying the one before it" in note for note in ended.notes
    )
    log = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert log == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("method", ["videomae", "finetune"])
def test_a_run_goes_back_to_a_checkpoint_that_was_kept(
    method: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = tmp_path / "run", ("train.keep=1", "train.keep_every=2", "train.accumulate=1", "train.batch_size=3")
    assert run(Job(out, data, method, settings=words)).codes == [0]
    last = out / "checkpoints" / "step_00000006" / "objective.safetensors"
    expected, log = load_file(last), (out / "metrics.jsonl").read_text().splitlines()
    assert steps(out) == [2, 4, 6]
    from vfm_cli.console import run_guarded
    from vfm_cli.main import cli

    verb = "finetune" if method == "finetune" else "pretrain"
    assert run_guarded(cli, [verb, "--out", str(out), "--from-step", "3"]) == 2
    assert "no checkpoint of step 3 was kept. There are: 2, 4, 6" in capsys.readouterr().err
    assert (out / "record.json").exists(), "a mistyped step changes nothing"

    stopped = run(Job(out, data, method, from_step=2, settings=words, patch="stop:3"))
    assert stopped.codes == [143], stopped.lines
    assert steps(out) == [2, 3], "what came later is gone: a kill does not bring it back"
    assert run(Job(out, data, method, resume=True, settings=words)).codes == [0]
    assert [name for name, tensor in load_file(last).items() if not torch.equal(tensor, expected[name])] == []
    again = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in again] == [(row["step"], row["loss"]) for row in map(json.loads, log)]

    refused = run(Job(out, data, method, from_step=2, settings=(*words, "train.seed=5")))
    assert refused.codes == [2]
    slower = run(Job(out, data, method, from_step=4, settings=(*words, "optim.lr=1e-6")))
    assert slower.codes == [0], slower.lines
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[3]["lr"] > 1e-6 >= rows[4]["lr"]


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.mark,)


def plant(file: Path, mark: Path, zipped: bool) -> None:
    """A pickle, or torch's archive with one in it, under the name of `file`."""
    if zipped:
        torch.save(Bomb(mark), file)
    else:
        file.write_bytes(pickle.dumps(Bomb(mark)))


def test_the_bomb_goes_off_when_it_is_unpickled(tmp_path: Path) -> None:
    plant(tmp_path / "file", tmp_path / "mark", zipped=True)
    torch.load(tmp_path / "file", weights_only=False)
    assert (tmp_path / "mark").exists()


OTHERS = [
    "pytorch_model.bin",
    "optimizer.bin",
    "random_states_0.pkl",
    "objective.pt",
    "model.ckpt",
]  # what others would look for


def test_no_file_of_a_checkpoint_is_unpickled(stopped: Path, data: Path, tmp_path: Path) -> None:
    """Also where the manifest says that the file is right."""
    names = sorted(path.name for path in (stopped / "checkpoints" / "step_00000004").iterdir())
    assert names == ["manifest.json", "objective.safetensors", "optimiser.safetensors", "state.json"]
    for number, name in enumerate([*names, "../latest", *OTHERS]):
        out, mark = tmp_path / name.strip("./") / "run", tmp_path / f"{name.strip('./')}.mark"
        shutil.copytree(stopped, out)
        place = out / "checkpoints" / "step_00000004"
        plant(place / name, mark, zipped=number % 2 == 0)
        if name in names and name != "manifest.json":
            said = json.loads((place / "manifest.json").read_text())
            said[name] = {"bytes": (place / name).stat().st_size, "sha256": digest(place / name)}
            (place / "manifest.json").write_text(json.dumps(said))
        ended = run(Job(out, data, "videomae", resume=True))
        assert ended.codes == [0], (name, ended.lines)
        assert any("step_00000004 is damaged" in note for note in ended.notes) == (name in names), name
        assert not mark.exists(), name


READ = {
    "config.json", "model.safetensors", "vfm_encoder.json", "adapter_config.json", "adapter_model.safetensors", "head.json", "head.safetensors",
    "step.json", "objective.safetensors", "rank_0000.json", "rank_0000.safetensors",
}  # fmt: skip


def opened(run: Path, folder: Path) -> None:
    """Whatever vfm loads from `folder`, one of those in a run folder."""
    if folder.name.startswith("step_"):
        replay_run(run)
    elif folder.name == "adapter":
        load_adapter(open_encoder(run / "start"), folder)
    else:
        load_head(open_encoder(run / "encoder"), run)


def test_no_file_of_an_encoder_adapter_head_or_broken_step_is_unpickled(data: Path, tmp_path: Path) -> None:
    words = ("train.accumulate=1", "train.batch_size=3")
    made = tmp_path / "made"
    assert run(Job(made, data, "finetune", settings=words)).codes == [0]
    blown = run(
        Job(
            tmp_path / "blown",
            data,
            "finetune",
            settings=(*words, "optim.lr=1e30", "optim.warmup=0", "optim.clip_norm=null"),
        )
    )
    assert blown.codes == [6]
    shutil.copytree(tmp_path / "blown" / "broken", made / "broken")
    shutil.copytree(tiny_encoder(data), made / "start")
    for folder in ("encoder", "adapter", "broken/step_00000002"):
        opened(made, made / folder)
    folders = ["encoder", "adapter", "broken/step_00000002", "."]
    files = [
        path
        for folder in folders
        for path in sorted((made / folder).iterdir())
        if path.suffix in (".json", ".safetensors")
    ]
    assert {path.name for path in files} >= READ
    extra = [
        made / folder / name
        for folder in ("encoder", "adapter")
        for name in [*OTHERS, "adapter_model.bin", "modeling_x.py"]
    ]
    for number, file in enumerate([*files, *extra]):
        folder, mark = tmp_path / f"run{number}", tmp_path / f"mark{number}"
        shutil.copytree(made, folder)
        target = folder / file.relative_to(made)
        target.unlink(missing_ok=True)
        plant(target, mark, zipped=number % 2 == 0)
        if file.name in READ:
            with pytest.raises(VfmError, match=r"^[^\n]+$"):
                opened(folder, target.parent)
        else:
            opened(folder, target.parent)
        assert not mark.exists(), file
        if file.suffix == ".safetensors":  # and where the right file is missing beside the pickle
            shutil.move(target, target.with_suffix(".bin"))
            with pytest.raises(VfmError):
                opened(folder, target.parent)
            assert not mark.exists(), file
        shutil.rmtree(folder)
