"""A public data set's own labels and split, through pretraining, fine-tuning and evaluation; and whom an encoder has met."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from store_factory import as_data_set, make_prepared

from domains.errors import ConfigError, DataError
from domains.store.annotated import read_split
from domains.store.prepared import Prepared
from recipes.config import Layer, RunConfig, resolve
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.evaluate.evaluation import Evaluation
from recipes.finetune import defaults
from recipes.finetune.material import read_material
from recipes.finetune.split import official_split
from recipes.jobs.evaluate import evaluate
from recipes.jobs.finetune import finetune
from recipes.jobs.pretrain import pretrain, rows_of
from recipes.jobs.seen import meetings, write_seen
from recipes.runs.run import SEEN
from recipes.training.reporter import SilentReporter
from recipes.training.run import RunFolder

SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 16, "tubelet_size": 2}
MASKED = Layer(
    "recipe", {"method": "videomae", "objective": {"decoder_width": 24, "decoder_depth": 1, "decoder_heads": 2}}
)
CLIP = {"frames": 4, "size": 32, "rate": 12.5}
BRIEF = {"epochs": 1, "batch_size": 6, "precision": "fp32"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Prepared]:
    root = tmp_path_factory.mktemp("official")
    prepared = as_data_set(make_prepared(root / "prepared", videos=36, patients=12), test=4, val=2)
    fresh_videomae(Geometry(frames=4, size=32, rate=12.5), seed=0, hidden_size=16, **SMALL).save(root / "encoder")
    return root, prepared


def people(prepared: Prepared, part: str) -> set[str]:
    return {who for who, its in zip(prepared.patients, read_split(prepared, "official"), strict=True) if its == part}


def a_run(folder: Path, root: Path, task: str = "", init_from: str | None = None, teacher: str | None = None) -> Path:
    """A run folder with no more in it than a comparison asks for."""
    folder.mkdir(exist_ok=True)
    shutil.copytree(root / "encoder", folder / "encoder")
    said = {"encoder": {"name": str(root / "encoder"), "init_from": init_from}, "task": {"name": task}}
    said["objective"] = {"teacher": teacher}
    (folder / "config.resolved.yaml").write_text(yaml.safe_dump(said))
    return folder


def ask(encoder: Path, prepared: Prepared, split: str = "official", labels: Path | None = None) -> Evaluation:
    return evaluate("linear", encoder, prepared, labels, "ef", split=split, clips=1, draws=50)


def test_evaluation_asks_the_official_test_part_and_nobody_else(made: tuple[Path, Prepared], tmp_path: Path):
    root, prepared = made
    found = evaluate("knn", root / "encoder", prepared, None, "view", split="official", clips=1, draws=50, out=tmp_path)
    assert found.patients == 4
    assert {prepared.patients[prepared.index_of(video)] for video in found.video_ids} == people(prepared, "test")
    assert "Official split 'official': 24 recordings teach (train and val), 12 are tested" in found.notes
    with (tmp_path / "predictions.csv").open() as file:
        assert {line["patient"] for line in csv.DictReader(file)} == people(prepared, "test")
    figures = json.loads((tmp_path / "evaluation.json").read_text())
    assert (figures["split"], figures["folds"]) == ("official", 1)


def test_what_is_predicted_does_not_depend_on_the_tested_labels(made: tuple[Path, Prepared], tmp_path: Path):
    """Labels of the test part are turned round: predictions stay, figures change."""
    root, prepared = made
    with (prepared.folder / "labels.csv").open() as file:
        lines = list(csv.DictReader(file))
    tested = people(prepared, "test")
    for line in lines:
        if prepared.patients[prepared.index_of(line["video_id"])] in tested:
            line["ef"] = f"{100 - float(line['ef']):.2f}"
    other = tmp_path / "labels.csv"
    with other.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    one, two = ask(root / "encoder", prepared), ask(root / "encoder", prepared, labels=other)
    assert np.array_equal(one.rows[-1].prediction, two.rows[-1].prediction)
    assert one.rows[-1].figures["mae"].value != two.rows[-1].figures["mae"].value


def test_finetuning_follows_the_official_parts(made: tuple[Path, Prepared], tmp_path: Path):
    root, prepared = made
    values = {
        "encoder": {"name": str(root / "encoder")},
        "data": {"path": str(prepared.folder), "workers": 0},
        "clip": CLIP,
        "task": {"name": "view", "split": "official", "clips_per_video": 1},
        "train": {**BRIEF, "save_every": 100},
    }
    resolved = resolve([defaults(), Layer("test", values)])
    material = read_material(resolved.config, None)
    for part, mask in (
        ("test", material.split.test),
        ("val", material.split.validation),
        ("train", material.split.train),
    ):
        assert set(material.patients(mask)) == people(prepared, part)
    run = finetune(resolved, tmp_path / "run", reporter=SilentReporter())
    met = json.loads((run / SEEN).read_text())
    assert set(met["patients"]) == people(prepared, "train") | people(prepared, "val")
    assert met["task"] == "view"
    with (run / "predictions.csv").open() as file:
        assert {line["patient"] for line in csv.DictReader(file)} == people(prepared, "test")
    assert not any("was trained on" in note for note in ask(run, prepared).notes)
    flattered = ask(run, prepared, split="").notes
    assert (
        "run was trained on recordings of 8 of the 12 tested procedures, with their labels of view, which flatters it"
        in flattered
    )


def test_finetuning_says_where_its_split_belongs(made: tuple[Path, Prepared], tmp_path: Path):
    root, prepared = made
    values = {
        "encoder": {"name": str(root / "encoder")},
        "data": {"path": str(prepared.folder), "split": "official"},
        "task": {"name": "view"},
    }
    with pytest.raises(ConfigError, match=r"data.split.*task\.split=official"):
        finetune(resolve([defaults(), Layer("test", values)]), tmp_path / "run", reporter=SilentReporter())
    assert not (tmp_path / "run").exists()


def test_pretraining_on_the_training_part_meets_nobody_else(made: tuple[Path, Prepared], tmp_path: Path):
    root, prepared = made
    values = {
        "encoder": {"name": str(root / "encoder")},
        "data": {"path": str(prepared.folder), "workers": 0, "split": "official"},
        "clip": CLIP,
        "train": BRIEF,
    }
    pretrain(resolve([MASKED, Layer("test", values)]), tmp_path / "run", reporter=SilentReporter())
    met = json.loads((tmp_path / "run" / SEEN).read_text())
    assert set(met["patients"]) == people(prepared, "train")
    assert met["task"] == ""
    assert len(rows_of(prepared, "official")) == 18
    assert rows_of(prepared, "") == range(36)
    with pytest.raises(ConfigError, match=r"no official split 'offical'.*official"):
        rows_of(prepared, "offical")


def test_a_split_without_validation_takes_it_from_the_training_patients():
    patients = [f"p{number // 2}" for number in range(24)]
    parts = ["test"] * 4 + [""] * 2 + ["train"] * 18
    split = official_split(patients, parts, folds=3, fraction=0.5, seed=0)
    assert np.flatnonzero(split.test).tolist() == [0, 1, 2, 3]
    who = [{patient for patient, kept in zip(patients, mask, strict=True) if kept}
           for mask in (split.train, split.validation, split.test)]  # fmt: skip
    assert len(who[1]) == 3
    assert len(who[0]) == 3  # half of the 6 patients that are left
    assert sum(map(len, who)) == len(set.union(*who))
    assert split.unused[4:6].all()
    again = official_split(patients, parts, folds=3, fraction=1.0, seed=0)
    assert np.array_equal(again.validation, split.validation)
    assert (again.train | ~split.train).all()
    with pytest.raises(DataError, match="part 'train'"):
        official_split(patients, ["test"] * 24, 3, 1.0, 0)


def test_meetings_follow_the_weights_back(made: tuple[Path, Prepared], tmp_path: Path):
    root, prepared = made
    tested = people(prepared, "test")
    first = a_run(tmp_path / "first", root)
    write_seen(first, prepared, range(36))
    second = a_run(tmp_path / "second", root, init_from=str(first))
    write_seen(second, prepared, rows_of(prepared, "official"))
    assert meetings(first, prepared, tested) == (
        "first was trained on recordings of 4 of the 4 tested procedures, without their labels",
    )
    assert meetings(second, prepared, tested) == meetings(first, prepared, tested)
    assert meetings(root / "encoder", prepared, tested) == ()
    assert meetings(second, prepared, people(prepared, "train"))[0].startswith(
        "second was trained on recordings of 6 of"
    )
    taught = a_run(tmp_path / "taught", root, teacher=str(second))
    assert meetings(taught, prepared, tested) == meetings(first, prepared, tested)


def test_what_cannot_be_told_is_said(made: tuple[Path, Prepared], tmp_path: Path):
    root, prepared = made
    tested = people(prepared, "test")
    tuned = a_run(tmp_path / "tuned", root, task="ef")
    unknown = "tuned was fine-tuned on labels of ef; whether of the tested procedures is not recorded"
    assert meetings(tuned, prepared, tested) == (unknown,)
    (tuned / SEEN).write_text('{"key": 1}')
    assert meetings(tuned, prepared, tested) == (unknown,)
    (tuned / SEEN).write_text(json.dumps({"key": "another", "task": "ef", "patients": []}))
    assert (
        "prepared with another key: whether it has met the tested procedures cannot be told"
        in meetings(tuned, prepared, tested)[0]
    )


def test_a_folder_of_ones_own_has_no_split(tmp_path: Path):
    prepared, labels = make_prepared(tmp_path / "prepared")
    with pytest.raises(ConfigError, match="no official split: the folder holds no known data set"):
        read_split(prepared, "official")
    with pytest.raises(ConfigError, match="no labels, and none came with the recordings"):
        evaluate("knn", tmp_path, prepared, None, "ef")
    assert labels.is_file()


def test_a_run_of_an_earlier_vfm_can_go_on(made: tuple[Path, Prepared], tmp_path: Path):
    """Its record lacks settings that came later; they are at their defaults."""
    root, prepared = made
    values = {"encoder": {"name": str(root / "encoder")}, "data": {"path": str(prepared.folder)}}
    resolved = resolve([MASKED, Layer("test", values)])
    before = resolved.config.model_dump(mode="json")
    del before["data"]["split"], before["task"]["split"]
    (tmp_path / "config.resolved.yaml").write_text(yaml.safe_dump(before))
    RunFolder(tmp_path).check_same(resolved)
    changed = resolve([MASKED, Layer("test", {**values, "data": {**values["data"], "split": "official"}})])
    with pytest.raises(ConfigError, match=r"data\.split"):
        RunFolder(tmp_path).check_same(changed)
    assert isinstance(changed.config, RunConfig)
