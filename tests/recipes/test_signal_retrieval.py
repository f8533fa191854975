"""What a run with signals leaves behind, opened again; and retrieval between clips and what was measured meanwhile."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from objective_factory import SMALL, build, make_batch, small_encoder
from safetensors.torch import load_file
from store_factory import make_prepared, write_events, write_measured
from torch import Tensor, nn
from torch.nn import functional as F
from views_factory import GREY, STEP, Camera, make_views

from domains.base import load_domain
from domains.errors import ConfigError, DataError, ModelError
from domains.store.prepared import Prepared
from recipes.config import Layer, parse_assignments, resolve
from recipes.encoders.base import Geometry, VideoEncoder
from recipes.jobs import signals as job
from recipes.jobs.pretrain import pretrain
from recipes.jobs.retrieval import retrieval
from recipes.parts.sensed import (
    SHAPE,
    WEIGHTS,
    ImuShape,
    Sensed,
    SensedImu,
    Sensing,
    is_sensed,
    open_sensed,
    save_sensed,
)
from recipes.pretrain.imu import IMUVideo
from recipes.pretrain.previps import PreViPS
from recipes.training.reporter import SilentReporter

KINDS = ("imu", "previps")


@pytest.mark.parametrize("name", KINDS)
def test_a_tower_that_is_opened_again_says_the_same(name: str, tmp_path: Path) -> None:
    objective = build(name, head_motion=True)
    assert isinstance(objective, (IMUVideo, PreViPS))
    with torch.no_grad():
        for parameter in objective.parameters():  # none of them as new ones are drawn
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(parameter)))
    objective.encoder.save(tmp_path / "encoder")
    save_sensed(tmp_path, objective.final_sensed(), 40)
    assert is_sensed(tmp_path)
    assert not is_sensed(tmp_path / "encoder")
    opened = open_sensed(tmp_path)
    assert not opened.training
    assert opened.sensed.shape == objective.sensed.shape.model_copy(update={"lines": 40})
    batch = make_batch(objective)
    signal = batch.targets[objective.signals[0]]
    with torch.inference_mode():
        found = objective.eval().embed(batch)
        torch.testing.assert_close(opened.embed_clips(batch["clip"]), F.normalize(found["v"], dim=-1), rtol=0, atol=0)
        other = F.normalize(found["u" if name == "imu" else "p"], dim=-1)
        torch.testing.assert_close(opened.embed_signals(signal), other, rtol=0, atol=0)
        assert opened.sensed.present(signal).equal(found["present"])


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    objective = build("imu")
    assert isinstance(objective, IMUVideo)
    objective.encoder.save(tmp_path / "encoder")
    with pytest.raises(ModelError, match=r"not a run that brought clips and signals together \(no signal.json\)"):
        open_sensed(tmp_path)
    save_sensed(tmp_path, objective.sensed)
    open_sensed(tmp_path)
    told = json.loads((tmp_path / SHAPE).read_text())
    weights = (tmp_path / WEIGHTS).read_bytes()

    def refused(match: str, kind: type[Exception] = ModelError, **changes: object) -> None:
        (tmp_path / SHAPE).write_text(json.dumps({**told, **changes}))
        with pytest.raises(kind, match=match) as found:
            open_sensed(tmp_path)
        assert "\n" not in str(found.value)

    refused(r"the tower cannot be used \(RuntimeError\)", channels=4)
    refused(r"a tower of 'gaze', which this vfm does not know", signal="gaze")
    refused("'channels'", ConfigError, channels=0)
    (tmp_path / WEIGHTS).write_bytes(weights[:-100])
    refused(r"the tower cannot be used \(SafetensorError\)")
    (tmp_path / WEIGHTS).unlink()
    refused(r"the tower cannot be used \(FileNotFoundError\)")
    (tmp_path / WEIGHTS).write_bytes(weights)
    shutil.rmtree(tmp_path / "encoder")
    small_encoder(width=48).save(tmp_path / "encoder")
    refused("its encoder gives 48 channels of a clip, its head reads 24")
    (tmp_path / SHAPE).write_text("{")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        open_sensed(tmp_path)


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rings")
    made = make_prepared(root / "prepared", videos=12, patients=6, size=40, frames=40)
    write_events(made, root / "prepared" / "views.csv")
    write_measured(made, SMALL["imu"]["channels"], SMALL["previps"]["joints"])
    small_encoder().save(root / "encoder")
    return root


@pytest.mark.parametrize("name", KINDS)
def test_a_finished_run_leaves_its_tower_and_is_asked(name: str, rings: Path, tmp_path: Path) -> None:
    words = [
        f"data.path={rings / 'prepared'}", f"encoder.name={rings / 'encoder'}", "data.workers=0", "clip.frames=4", "clip.size=32", "clip.rate=12.5",
        "train.steps=2", "train.batch_size=4", "monitor.clips=8", "train.precision=fp32",
    ]  # fmt: skip
    layers = [
        Layer("method", {"method": name, "objective": SMALL[name]}),
        Layer("echo", load_domain("echo").run_layer()),
    ]
    run = pretrain(
        resolve([*layers, Layer("test", parse_assignments(words))]), tmp_path / "run", reporter=SilentReporter()
    ).parent
    opened = open_sensed(run)
    assert opened.sensed.shape.lines == (16 if name == "imu" else 4)  # 4 / 12.5 s of 50 a second; a line a frame
    (kept,) = (run / "checkpoints").glob("*/objective.safetensors")
    for key, value in load_file(kept).items():
        if key.startswith("sensed."):
            assert opened.sensed.state_dict()[key.removeprefix("sensed.")].equal(value)
    found = retrieval(run, rings / "prepared", clips=2, draws=20, out=tmp_path / "out")
    signal = "imu" if name == "imu" else "pose"
    assert [line.name for line in found.lines] == [
        "clip_to_signal_unaligned", "clip_to_signal_chance", "clip_to_signal",
        "signal_to_clip_unaligned", "signal_to_clip_chance", "signal_to_clip",
    ]  # fmt: skip
    assert found.line("clip_to_signal").title == f"clip to {signal}: aligned"
    measured = 2 * sum(number % 5 > 0 for number in range(12))
    assert found.settings["stretches"] == measured
    assert found.settings["unmeasured"] == 24 - measured
    assert found.line("clip_to_signal_chance").figures["recall_1"].value == pytest.approx(1 / measured)
    lines = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert len(lines) == 2 * measured
    assert {line["question"] for line in lines} == {f"clip to {signal}", f"{signal} to clip"}
    assert any("was trained on recordings of" in note for note in found.notes)
    with pytest.raises(ConfigError, match=r"knows no texts.*--text"):
        retrieval(run, rings / "prepared", acts=True)


class Watch(Sensed):
    """Knows the second by a frame's grey, and by what was measured: angles on a half circle."""

    def __init__(self) -> None:
        super().__init__(ImuShape(video=1, hidden=4, outputs=2, width=4, channels=2))
        self.head = Angle()

    @property
    def channels(self) -> int:
        return 2

    def read(self, encoder: VideoEncoder, pixel_values: Tensor) -> Tensor:
        grey = 255 * pixel_values.mean(dim=(1, 2, 3, 4)).unsqueeze(1)
        return (grey - GREY) / STEP

    def signals(self, values: Tensor) -> Tensor:
        return self.head(values[..., 1].nanmean(dim=1, keepdim=True))  # type: ignore[no-any-return]

    def present(self, values: Tensor) -> Tensor:
        return SensedImu.present(self, values)  # type: ignore[arg-type]


class Angle(nn.Sequential):
    def forward(self, seconds: Tensor) -> Tensor:
        angle = seconds * math.pi / 40
        return torch.cat([angle.cos(), angle.sin()], dim=1)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """Two recordings of an event, from second 0 to 18 and from 20 to 38, and a third of which nothing was measured."""
    cameras = (Camera("a", end=18.0), Camera("b", offset=-20.0, fps=8.0, end=38.0), Camera("e", exo=True))
    geometry = Geometry(frames=8, size=16, rate=4, mean=(0.0,) * 3, std=(1.0,) * 3)
    encoder = small_encoder(frames=8, size=16)
    encoder.geometry = geometry
    monkeypatch.setattr(job, "open_sensed", lambda run, online: Sensing(encoder, Watch()))  # type: ignore[arg-type]
    return make_views(tmp_path / "prepared", events=1, cameras=cameras, signals=True)


def test_signals_are_found_by_the_clip_of_their_time(watched: Prepared) -> None:
    found = job.signal_retrieval("run", watched, draws=20)
    assert (found.settings["stretches"], found.settings["unmeasured"]) == (18, 20)  # of 2 s each, one after the other
    for name in ("clip_to_signal", "signal_to_clip"):
        figures = found.line(name).figures
        assert figures["recall_1"].value == 1.0
        assert figures["median_rank"].value == 1.0
        assert found.line(f"{name}_chance").figures["recall_5"].value == pytest.approx(5 / 18)
        assert found.line(f"{name}_unaligned").figures["recall_1"].value < 0.5
    starts = sorted({float(line[2]) for line in found.predictions[1]})
    assert np.allclose(starts, np.arange(0, 18, 2), atol=0.01)


def test_stretches_that_overlap_are_right_for_each_other(watched: Prepared) -> None:
    """Of 33 in 16 s of starts, half a second apart: three to each side share half or more of the time that two have in common."""
    found = job.signal_retrieval("run", watched, clips=33, baselines=("chance",), draws=5)
    assert found.settings["stretches"] == 66
    assert found.line("clip_to_signal").figures["median_rank"].value == 1.0
    assert found.line("clip_to_signal_chance").figures["recall_1"].value > 2.5 / 66


def test_questions_that_cannot_be_asked_are_one_line(watched: Prepared, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no baseline 'chanc'"):
        job.signal_retrieval("run", watched, baselines=("chanc",))
    bare = make_views(tmp_path / "bare", events=1)
    with pytest.raises(ConfigError, match="no signal 'imu' was recorded"):
        job.signal_retrieval("run", bare)
    only = (Camera("a", end=1.0), Camera("e", exo=True))  # shorter than a clip; of the other nothing was measured
    short = make_views(tmp_path / "short", events=1, cameras=only, signals=True)
    table = short.folder / "1.csv"
    table.write_text("s,x,y\n0,,\n1,,\n")
    from domains.store.signals import write_signals

    write_signals(short.folder, short.folder, {short.video_id(0): {"imu": "1.csv"}})
    with pytest.raises(DataError, match="nothing of 'imu' was measured"):
        job.signal_retrieval("run", Prepared.open(short.folder))
    table.write_text("s,x,y,z\n0,1,1,1\n1,1,1,1\n")
    write_signals(short.folder, short.folder, {short.video_id(0): {"imu": "1.csv"}})
    with pytest.raises(ConfigError, match="'imu' has 3 columns here, and the run's tower reads 2"):
        job.signal_retrieval("run", Prepared.open(short.folder))
