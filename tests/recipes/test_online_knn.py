"""Labels that are looked at while an encoder trains: whose, how they are split, and that it is said wherever it matters."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from store_factory import Made, as_data_set, make_prepared
from torch import Tensor, nn

from domains.errors import ConfigError, DataError
from domains.store.annotated import read_split
from domains.store.manifest import frame_file
from domains.store.prepared import Prepared
from recipes.config import Layer, Resolved, RunConfig, parse_assignments, resolve
from recipes.encoders.base import Geometry
from recipes.finetune import defaults
from recipes.jobs.finetune import finetune
from recipes.jobs.online import OnlineKnn
from recipes.jobs.pretrain import pretrain
from recipes.jobs.seen import Looked, looked_at, meetings, write_seen
from recipes.runs.run import SEEN, Run
from recipes.training.reporter import SilentReporter

CPU = torch.device("cpu")
BASE = {
    "method": "videomae", "objective": {"decoder_width": 24, "decoder_depth": 1, "decoder_heads": 2},
    "clip": {"frames": 4, "size": 32, "stride": 2}, "data": {"workers": 0},
    "train": {"batch_size": 4, "precision": "fp32", "log_every": 1, "steps": 4},
}  # fmt: skip


def config_of(prepared: Prepared, **knn: object) -> RunConfig:
    return RunConfig.model_validate(
        {**BASE, "objective": {}, "data": {"path": str(prepared.folder)}, "monitor": {"knn": knn}}
    )


def resolved_of(folder: Path, *words: str) -> Resolved:
    return resolve([Layer("test", BASE), Layer("command line", parse_assignments([f"data.path={folder}", *words]))])


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_prepared(tmp_path / "prepared", videos=30, patients=10, size=40, frames=16)


class Knowing(nn.Module):
    """An encoder whose features are the label of the recording, found by its first pixels."""

    geometry = Geometry(frames=4, size=32)

    def __init__(self, probe: OnlineKnn) -> None:
        super().__init__()
        self.known = {
            probe.clips.frames(int(row)).numpy().tobytes(): value
            for row, value in zip(probe.rows, probe.labelled.truth, strict=True)
        }  # type: ignore[union-attr]
        self.mean, self.std = torch.tensor(self.geometry.mean), torch.tensor(self.geometry.std)

    def describe(self, clips: Tensor) -> Tensor:
        raw = ((clips.movedim(2, -1) * self.std + self.mean) * 255).round().to(torch.uint8)[..., :1]
        values = [
            next(value for known, value in self.known.items() if known[:64] == one.numpy().tobytes()[:64])
            for one in raw
        ]
        angles = torch.tensor(values) / 100 * 3
        return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_features_that_hold_the_label_predict_it_and_none_predict_what_a_constant_does(made: Made) -> None:
    probe = OnlineKnn.of(config_of(made.prepared, task="ef", labels=str(made.labels)), made.prepared, None)
    assert probe is not None
    assert len(probe.rows) == 30
    found, trivial = probe(Knowing(probe), CPU), probe.trivial()  # type: ignore[arg-type]
    assert set(found) == {"knn_mae", "knn_r2"} == set(trivial)
    assert found["knn_mae"] < 0.5 * trivial["knn_mae"]
    assert found["knn_r2"] > 0.7
    assert "30 recordings of 10 patients" in probe.said()


def test_every_patient_is_predicted_from_others(made: Made) -> None:
    probe = OnlineKnn.of(config_of(made.prepared, task="ef", labels=str(made.labels)), made.prepared, None)
    assert probe is not None
    fold_of = {}
    for patient, fold in zip(probe.labelled.patients, probe.labelled.fold.tolist(), strict=True):
        assert fold_of.setdefault(patient, fold) == fold
    assert sorted(set(fold_of.values())) == [0, 1, 2, 3, 4]


def test_classes_and_unreadable_recordings(made: Made) -> None:
    frame_file(made.prepared.folder, made.prepared.video_id(4)).unlink()
    probe = OnlineKnn.of(config_of(made.prepared, task="view", labels=str(made.labels)), made.prepared, None)
    assert probe is not None

    class Blind(nn.Module):
        geometry = Geometry(frames=4, size=32)

        def describe(self, clips: Tensor) -> Tensor:
            return torch.ones(len(clips), 3)

    found = probe(Blind(), CPU)  # type: ignore[arg-type]
    assert set(found) == {"knn_accuracy", "knn_balanced_accuracy"}
    assert 0 <= found["knn_accuracy"] < 0.7


def test_fewer_recordings_are_those_of_whole_patients(made: Made) -> None:
    few = OnlineKnn.of(config_of(made.prepared, task="ef", labels=str(made.labels), videos=12), made.prepared, None)
    again = OnlineKnn.of(config_of(made.prepared, task="ef", labels=str(made.labels), videos=12), made.prepared, None)
    assert few is not None
    assert again is not None
    assert few.rows.tolist() == again.rows.tolist()
    assert len(few.looked.patients) == 4
    of_them = [row for row, patient in enumerate(made.prepared.patients) if patient in few.looked.patients]
    assert few.rows.tolist() == of_them


def test_the_official_test_part_is_not_looked_at(made: Made) -> None:
    prepared = as_data_set(made, test=4, val=2)
    probe = OnlineKnn.of(config_of(prepared, task="ef"), prepared, None)
    assert probe is not None
    parts = np.array(read_split(prepared, "official"))
    assert probe.rows.tolist() == [row for row, part in enumerate(parts) if part != "test"]
    with (prepared.folder / "labels.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if parts[prepared.index_of(line["video_id"])] == "test"]
    (prepared.folder.parent / "tested.csv").write_text(
        "video_id,ef\n" + "".join(f"{line['video_id']},{line['ef']}\n" for line in lines)
    )
    with pytest.raises(ConfigError, match="test part of the split 'official', which a run does not look at"):
        OnlineKnn.of(config_of(prepared, task="ef", labels=str(prepared.folder.parent / "tested.csv")), prepared, None)


def test_what_cannot_be_asked_is_said_before_the_run_begins(made: Made, tmp_path: Path) -> None:
    assert OnlineKnn.of(config_of(made.prepared), made.prepared, None) is None
    with pytest.raises(ConfigError, match="no labels, and none came with"):
        OnlineKnn.of(config_of(made.prepared, task="ef"), made.prepared, None)
    with pytest.raises(ConfigError, match="Did you mean 'ef'"):
        OnlineKnn.of(config_of(made.prepared, task="eff", labels=str(made.labels)), made.prepared, None)
    lines = made.labels.read_text().splitlines()
    patient = lines[1].split(",")[1]
    (tmp_path / "one.csv").write_text(
        "\n".join([lines[0], *(line for line in lines[1:] if line.split(",")[1] == patient)]) + "\n"
    )
    with pytest.raises(DataError):
        OnlineKnn.of(config_of(made.prepared, task="ef", labels=str(tmp_path / "one.csv")), made.prepared, None)
    with pytest.raises(DataError):
        pretrain(resolved_of(made.prepared.folder, "monitor.knn.task=ef", f"monitor.knn.labels={tmp_path / 'one.csv'}"), tmp_path / "run",
                 reporter=SilentReporter())  # fmt: skip
    assert not (tmp_path / "run").exists()
    told = resolve([defaults(), Layer("command line", parse_assignments(["monitor.knn.task=ef", "task.name=ef"]))])
    with pytest.raises(ConfigError, match="for pretraining"):
        finetune(told, tmp_path / "run", reporter=SilentReporter())


def test_a_run_logs_it_and_says_whose_labels_it_has_looked_at(made: Made, tmp_path: Path) -> None:
    words = ["monitor.knn.task=ef", f"monitor.knn.labels={made.labels}", "monitor.knn.every=2", "train.monitor_every=2"]
    reporter = SilentReporter()
    pretrain(resolved_of(made.prepared.folder, *words), tmp_path / "run", reporter=reporter)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all("knn_mae" in row for row in rows)
    assert len({row["knn_mae"] for row in rows}) == 3, "before the first step, after the second, and after the last"
    assert any("online kNN looks at labels of ef (30 recordings of 10 patients)" in note for note in reporter.notes)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["labels_looked_at"] == [{"task": "ef", "patients": 10}]
    assert Run(tmp_path / "run").looked_at == [("ef", 10)]
    (sentence,) = meetings(tmp_path / "run", made.prepared, made.prepared.patients[:3])
    people = len(set(made.prepared.patients[:3]))
    assert (
        f"the labels of ef of {people} of the {people} tested patients were looked at while run trained (online kNN)"
        in sentence
    )


def test_what_was_looked_at_is_not_forgotten_when_a_run_goes_on_without_it(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    write_seen(folder, made.prepared, range(6), looked=Looked("ef", frozenset({"a", "b"})))
    write_seen(folder, made.prepared, range(6))
    assert looked_at(folder) == [Looked("ef", frozenset({"a", "b"}))]
    write_seen(folder, made.prepared, range(6), looked=Looked("ef", frozenset({"c"})))
    write_seen(folder, made.prepared, range(6), looked=Looked("view", frozenset({"c"})))
    assert looked_at(folder) == [Looked("ef", frozenset({"a", "b", "c"})), Looked("view", frozenset({"c"}))]
    (folder / SEEN).write_text('{"looked": 3}')
    assert looked_at(folder) == []
