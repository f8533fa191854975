"""Figures of known features and counts, alarms and when they are raised, and the same on two ranks as on one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_factory import SMALL, small_encoder
from store_factory import make_prepared
from torch import nn

from domains.base import AugmentPolicies, ClipSettings
from domains.errors import ConfigError
from domains.store.manifest import frame_file
from recipes.config import Layer, RunConfig, resolve
from recipes.encoders.base import Geometry
from recipes.monitor import MonitorSettings
from recipes.objective import Clip
from recipes.parts.usage import Usage, Usages
from recipes.runs.run import Run
from recipes.training.alarms import Alarms
from recipes.training.data import ClipData
from recipes.training.monitors import FixedClips, Monitors, deviation, feature_entropy, is_due, rankme

REPO = Path(__file__).resolve().parents[2]
CLIP = ClipSettings(frames=4, size=32, stride=2)
CPU = torch.device("cpu")


# --- figures


def test_rankme_of_known_spectra() -> None:
    assert rankme(torch.eye(8)) == pytest.approx(8, rel=1e-4)
    assert rankme(torch.ones(8, 5)) == pytest.approx(1, abs=1e-3)
    two = torch.zeros(8, 4)
    two[0, 0] = two[1, 1] = 3
    assert rankme(two) == pytest.approx(2, abs=1e-3)


def test_rankme_is_not_centred_as_in_the_paper() -> None:
    features = torch.eye(8) + 100
    assert rankme(features) < 1.2
    assert rankme(features - features.mean(dim=0)) == pytest.approx(7, rel=1e-3)


def test_feature_entropy_of_one_two_and_all_directions() -> None:
    assert feature_entropy(torch.ones(8, 5)) == pytest.approx(0, abs=1e-6)
    assert feature_entropy(torch.eye(8)) == pytest.approx(1)
    assert feature_entropy(7 * torch.eye(2).repeat(4, 1)) == pytest.approx(1), "two directions, and no room for more"
    half = torch.eye(8)[:2].repeat(4, 1)
    assert feature_entropy(half) == pytest.approx(math.log(2) / math.log(8))
    assert feature_entropy(half * torch.arange(1, 9).unsqueeze(1)) == pytest.approx(math.log(2) / math.log(8)), (
        "lengths do not count"
    )


def test_deviation_of_collapsed_and_spread_features() -> None:
    assert deviation(torch.ones(16, 8)) == pytest.approx(0, abs=1e-6)
    spread = torch.randn(4096, 8, generator=torch.Generator().manual_seed(0))
    assert deviation(spread) == pytest.approx(1, abs=0.03)


def test_usage_counts_who_wins_since_it_was_asked() -> None:
    usage = Usage(4)
    assert usage.entropy() is None
    for winner in (0, 0, 1, 1):
        usage.observe(nn.functional.one_hot(torch.tensor([[winner]] * 5), 4).float())
    assert usage.entropy() == pytest.approx(math.log(2) / math.log(4))
    assert usage.entropy() is None, "starts anew"
    usage.observe(torch.eye(4))
    assert usage.entropy() == pytest.approx(1)
    usage.observe(torch.eye(4)[:2])
    assert usage.entropy() == pytest.approx(1), "two rows cannot use more than two"
    usage.observe(torch.eye(4)[[0, 0, 0]])
    assert usage.entropy() == pytest.approx(0)
    usage.eval().observe(torch.eye(4))
    assert usage.entropy() is None, "only training is counted"
    assert not usage.state_dict()


# --- fixed clips


class Fake(nn.Module):
    """An encoder whose features are `scale` times what it sees, plus a constant."""

    geometry = Geometry(frames=4, size=32)

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def embed(self, clips: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(clips), 6) + self.scale * clips.flatten(1)[:, ::997][:, :6]


class FakeObjective(nn.Module):
    """An objective with prototypes around it."""

    asks_encoder = True

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.encoder = Fake(scale)
        self.usage = Usages({"prototype_entropy_video": 4})

    def final_encoder(self) -> Fake:
        return self.encoder


def data_of(folder: Path, videos: int = 8) -> ClipData:
    prepared, _ = make_prepared(folder / "prepared", videos=videos, patients=videos, size=40, frames=16)
    return ClipData(prepared, range(videos), {"clip": Clip()}, CLIP, AugmentPolicies(), seed=7)


def monitors_of(folder: Path, objective: nn.Module, warnings: list[str], state: dict[str, Any] | None = None, probe: Any = None,
                **settings: Any) -> Monitors:  # fmt: skip
    config = RunConfig.model_validate({"monitor": settings, "train": {"monitor_every": 10, "log_every": 5}})
    data = data_of(folder) if not (folder / "prepared").exists() else data_again(folder)
    state = {"step": 0, "monitor_start": {}} if state is None else state
    return Monitors(objective, data, config, folder, state, CPU, warnings.append, probe=probe)  # type: ignore[arg-type]


def data_again(folder: Path) -> ClipData:
    from domains.store.prepared import Prepared

    return ClipData(Prepared.open(folder / "prepared"), range(8), {"clip": Clip()}, CLIP, AugmentPolicies(), seed=7)


def test_fixed_clips_keep_their_order_and_leave_out_the_unreadable(tmp_path: Path) -> None:
    data = data_of(tmp_path, videos=20)
    whole, rows = FixedClips(data.prepared, range(20), CLIP).features(Fake().embed, Fake.geometry, CPU)  # type: ignore[arg-type]
    assert (whole.shape, rows) == ((20, 6), list(range(20)))
    frame_file(data.prepared.folder, data.prepared.video_id(3)).unlink()
    some, rows = FixedClips(data.prepared, range(20), CLIP).features(Fake().embed, Fake.geometry, CPU)  # type: ignore[arg-type]
    assert rows == [row for row in range(20) if row != 3]
    torch.testing.assert_close(some, whole[[row for row in range(20) if row != 3]])
    none, rows = FixedClips(data.prepared, [3], CLIP).features(Fake().embed, Fake.geometry, CPU)  # type: ignore[arg-type]
    assert (len(none), rows) == (0, [])


def test_clips_of_every_rank_come_back_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ranks of which each has its share of eight clips; what the collectives do is played by hand."""
    import recipes.training.monitors as module

    data = data_of(tmp_path)
    alone, _ = FixedClips(data.prepared, range(8), CLIP).features(Fake().embed, Fake.geometry, CPU)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "world_size", lambda: 3)
    tables = []
    for number in range(3):
        monkeypatch.setattr(module, "rank", lambda number=number: number)
        monkeypatch.setattr(module, "gather", lambda table: tables.append(table) or table.repeat(3, 1))
        FixedClips(data.prepared, range(8), CLIP).features(Fake().embed, Fake.geometry, CPU)  # type: ignore[arg-type]
    assert [len(table) for table in tables] == [3, 3, 3]
    monkeypatch.setattr(module, "gather", lambda table: torch.cat(tables))
    together, rows = FixedClips(data.prepared, range(8), CLIP).features(Fake().embed, Fake.geometry, CPU)  # type: ignore[arg-type]
    torch.testing.assert_close(together, alone)
    assert rows == list(range(8))


def test_looks_come_when_they_are_due_and_tell_everything(tmp_path: Path) -> None:
    objective = FakeObjective()
    asked: list[int] = []

    def probe(encoder: object, device: torch.device) -> dict[str, float]:
        asked.append(1)
        return {"knn_mae": 5.0}

    monitors = monitors_of(tmp_path, objective, [], probe=probe, knn={"task": "ef", "every": 20})
    objective.usage.observe("prototype_entropy_video", torch.eye(4))
    looked = monitors.look(10, 1000)
    assert set(looked) == {
        "rankme",
        "rankme_centred",
        "feature_entropy",
        "deviation",
        "prototype_entropy_video",
        "monitor_seconds",
    }
    assert looked["prototype_entropy_video"] == 1
    assert not asked
    assert monitors.look(15, 1000) == {}
    looked = monitors.look(20, 1000)
    assert looked["knn_mae"] == 5.0
    assert "prototype_entropy_video" not in looked, "nothing was counted since"
    assert looked["monitor_seconds"] == monitors.state["monitor_seconds"] > 0
    assert [step for step in range(0, 61, 5) if is_due(step, 60, 25, 5)] == [0, 25, 50, 60]
    monitors.gradient(torch.tensor(3.0))
    monitors.gradient(torch.tensor(1.0))
    assert monitors.largest_gradient() == {"grad_norm_max": 3.0}
    assert monitors.largest_gradient() == {}


# --- alarms


def test_collapse_is_announced_once_and_again_after_it_was_cured(tmp_path: Path) -> None:
    warnings: list[str] = []
    objective = FakeObjective()
    monitors = monitors_of(tmp_path, objective, warnings)
    for step, scale in enumerate([1.0, 1e-4, 1e-4, 1.0, 1e-4]):
        objective.encoder.scale = scale
        monitors.judge(10 * step, monitors.look(10 * step, 1000))
    fell = [text for text in warnings if text.startswith("deviation is ")]
    assert len(fell) == 2
    assert "below 0.3 of its first value" in fell[0]
    assert "lower optim.lr" in fell[0]
    assert [one["step"] for one in Run(tmp_path).alarms if one["monitor"] == "deviation"] == [10, 40]
    assert not monitors.stop


def alarms_of(folder: Path, warnings: list[str], state: dict[str, Any] | None = None, **settings: Any) -> Alarms:
    return Alarms(MonitorSettings.model_validate(settings), folder, warnings.append, {} if state is None else state)


def test_patience_limits_and_names(tmp_path: Path) -> None:
    warnings: list[str] = []
    alarms = alarms_of(
        tmp_path, warnings,
        prototype_entropy={"minimum": 0.5, "patience": 2}, agreement={"minimum": 0.2}, grad_norm={"maximum": 10.0, "action": "stop"},
    )  # fmt: skip
    good = {
        "prototype_entropy_image": 0.4,
        "agreement_video": 0.2,
        "grad_norm": 99.0,
        "grad_norm_max": 10.0,
        "loss": 1e9,
        "rankme_centred": 0.0,
    }
    assert alarms.check(1, good) is None
    assert not warnings
    assert alarms.check(2, {**good, "agreement_image": 0.1}) is None
    assert [text.split(".")[0] for text in warnings] == ["prototype_entropy_image is 0", "agreement_image is 0"]
    stop = alarms.check(3, {"grad_norm_max": 10.5, "agreement_video": math.nan})
    assert stop is not None
    assert (stop.monitor, stop.value, stop.limit, stop.action) == ("grad_norm_max", 10.5, 10.0, "stop")
    assert "agreement_video is nan, below 0.2" in warnings[-1]
    assert [one["monitor"] for one in Run(tmp_path).alarms] == [
        "prototype_entropy_image",
        "agreement_image",
        "grad_norm_max",
        "agreement_video",
    ]


def test_an_alarm_that_stopped_a_run_does_not_stop_it_again_before_it_is_cured(tmp_path: Path) -> None:
    state: dict[str, Any] = {}
    settings = {"rankme": {"action": "stop"}}
    alarms = alarms_of(tmp_path, [], state, **settings)
    assert alarms.check(0, {"rankme": 10.0}) is None
    assert alarms.check(10, {"rankme": 2.0}) is not None
    kept = json.loads(json.dumps(state))  # as a checkpoint keeps it
    again = alarms_of(tmp_path, [], kept, **settings)
    assert again.check(20, {"rankme": 2.0}) is None
    assert again.check(30, {"rankme": 9.0}) is None
    assert again.check(40, {"rankme": 2.9}) is not None, "measured against the value at the very start"


def test_alarms_of_steps_that_are_run_again_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "alarms.jsonl").write_text('{"step": 5}\n{"step": 15}\n{"st')
    alarms_of(tmp_path, []).rewind(10)
    assert (tmp_path / "alarms.jsonl").read_text() == '{"step": 5}\n'


def test_features_that_are_not_finite_raise_every_alarm(tmp_path: Path) -> None:
    warnings: list[str] = []
    objective = FakeObjective()
    monitors = monitors_of(tmp_path, objective, warnings)
    monitors.judge(0, monitors.look(0, 100))
    objective.encoder.scale = math.nan
    monitors.judge(10, monitors.look(10, 100))
    assert {text.split()[0] for text in warnings} == {"rankme", "deviation"}


def test_labels_without_a_task_and_mistyped_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"monitor\.knn.*--knn-task"):
        resolve([Layer("test", {"monitor": {"knn": {"labels": "labels.csv"}}})])
    with pytest.raises(ConfigError, match=r"unknown key 'monitor\.rankm'.*Did you mean 'monitor\.rankme'"):
        resolve([Layer("test", {"monitor": {"rankm": {"drop": 0.1}}})])
    partly = resolve([Layer("test", {"monitor": {"prototype_entropy": {"action": "stop"}}})]).config.monitor
    assert (partly.prototype_entropy.minimum, partly.prototype_entropy.patience) == (0.1, 3), "what is not said stays"


# --- every objective

OF_ALL = {"rankme", "rankme_centred", "feature_entropy", "deviation", "grad_norm", "grad_norm_max"}
OF_ONE = {
    "discovr": {
        f"{what}_{which}"
        for what in ("agreement", "prototype_entropy", "output_entropy")
        for which in ("video", "image")
    },
    "simclr": {"agreement"},
}


@pytest.mark.parametrize("method", OF_ONE)
def test_a_method_has_figures_of_its_own_beside_those_of_all(method: str, tmp_path: Path) -> None:
    """That every method has those of all: test_pretrain_every.py."""
    from recipes.jobs.pretrain import pretrain
    from recipes.training.reporter import SilentReporter

    make_prepared(tmp_path / "prepared", videos=8, patients=8, size=40, frames=16)
    small_encoder().save(tmp_path / "encoder")
    settings = {
        "method": method, "objective": SMALL[method], "clip": {"frames": 4, "size": 32, "stride": 2},
        "encoder": {"name": str(tmp_path / "encoder")}, "data": {"path": str(tmp_path / "prepared"), "workers": 0},
        "train": {"steps": 2, "batch_size": 4, "log_every": 1, "monitor_every": 1, "precision": "fp32"},
    }  # fmt: skip
    pretrain(resolve([Layer("test", settings)]), tmp_path / "run", reporter=SilentReporter())
    rows = rows_of(tmp_path / "run")
    for row in rows:
        expected = OF_ALL | OF_ONE[method]
        assert expected <= row.keys()
        assert all(math.isfinite(row[name]) for name in expected)
        assert all(0 <= row[name] <= 1.0001 for name in expected if "entropy" in name)
    assert rows[0]["rankme"] != rows[1]["rankme"]


# --- two ranks

WORDS = ["clip.frames=4", "clip.size=32", "clip.stride=2", "train.steps=2", "data.workers=0", "train.log_every=1", "train.monitor_every=1",
         "train.precision=fp32", "optim.clip_norm=null", "objective.views=2", "objective.frame_depth=1", "objective.head_hidden=16",
         "objective.head_bottleneck=8", "objective.head_outputs=16", "objective.prototypes=8", "objective.decoder_depth=1",
         "objective.decoder_width=24", "objective.decoder_heads=2"]  # fmt: skip


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def pretrain(*words: str) -> int:
    """In this process, in the current folder."""
    from vfm_cli.console import run_guarded
    from vfm_cli.main import cli

    return run_guarded(cli, ["pretrain", "--recipe", "discovr", "--data", "prepared", *WORDS, *words])


def test_two_ranks_log_what_one_rank_with_twice_the_batch_logs_and_an_alarm_stops_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_prepared(tmp_path / "prepared", videos=9, patients=9, size=40, frames=16)
    assert pretrain("--out", "one", "train.batch_size=4") == 0
    words = [sys.executable, "-m", "vfm_cli", "pretrain", "--recipe", "discovr", "--data", "prepared", "--out", "two", *WORDS,
             "--processes", "2", "train.batch_size=2", "monitor.grad_norm.maximum=1e-6", "monitor.grad_norm.action=stop"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("vfm:")]
    assert len(said) == 1
    assert "stopped at step 1 by an alarm" in said[0]
    (both,), alone = rows_of(tmp_path / "two"), rows_of(tmp_path / "one")[0]
    counted = [name for name in alone if name.startswith(("prototype_entropy", "output_entropy", "agreement", "loss"))]
    assert len(counted) == 10
    for name in counted:
        assert both[name] == pytest.approx(alone[name], rel=1e-5), name
    for name in ("rankme", "rankme_centred", "feature_entropy", "deviation", "grad_norm", "grad_norm_max"):
        assert both[name] == pytest.approx(alone[name], rel=2e-3), (
            f"{name}: after a step of Adam, which makes much of little"
        )
    assert Run(tmp_path / "two").state[0] == "stopped by an alarm"


def test_a_run_that_an_alarm_stopped_goes_on_with_other_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_prepared(tmp_path / "prepared", videos=9, patients=9, size=40, frames=16)
    words = [
        "--out",
        "run",
        "train.batch_size=2",
        "monitor.grad_norm.action=stop",
        "monitor.grad_norm.patience=2",
        "train.steps=4",
    ]
    assert pretrain(*words, "monitor.grad_norm.maximum=1e-6") == 7
    assert "--resume goes on" in capsys.readouterr().err
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [1, 2]
    assert (tmp_path / "run" / "checkpoints" / "latest").read_text().strip() == "step_00000002"
    assert pretrain(*words, "--resume", "monitor.grad_norm.maximum=1e9") == 0
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [1, 2, 3, 4]
    assert Run(tmp_path / "run").state == ("finished", "")
    assert [one["step"] for one in Run(tmp_path / "run").alarms] == [2]
    assert "alarms" in json.loads((tmp_path / "run" / "record.json").read_text())
