"""`jobs.evaluate` from a prepared folder and a label file to a table, files and clear errors."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
import yaml
from store_factory import make_prepared

from domains.errors import ConfigError, DataError, ModelError
from domains.store.manifest import frame_file
from recipes.encoders import open_encoder
from recipes.encoders.base import Geometry
from recipes.encoders.loading import shipped_weights
from recipes.encoders.tiny import random_encoder
from recipes.encoders.videomae import fresh_videomae
from recipes.jobs.evaluate import evaluate, gather
from recipes.jobs.start import start_of
from recipes.training.run import environment

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 16}
GEOMETRY = Geometry(frames=4, size=32, rate=12.5)


def save_encoder(folder, seed=0):
    fresh_videomae(GEOMETRY, seed=seed, tubelet_size=2, **SMALL).save(folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    prepared, labels = make_prepared(root / "prepared", videos=30, patients=10)
    generic = save_encoder(root / "generic")
    run = root / "run"
    save_encoder(run / "encoder", seed=1)
    (run / "config.resolved.yaml").write_text(yaml.safe_dump({"encoder": {"name": str(generic)}, "train": {"seed": 3}}))
    return prepared, labels, run, root


def test_the_table_has_every_row_with_intervals_and_the_paired_difference(made, tmp_path):
    prepared, labels, run, _ = made
    seen = []
    found = evaluate(
        "linear",
        run,
        prepared,
        labels,
        "ef",
        clips=2,
        out=tmp_path / "out",
        draws=200,
        progress=lambda *p: seen.append(p),
    )
    assert [row.name for row in found.rows] == ["pixels", "random", "generic", "adapted"]
    assert found.reference == "generic"
    assert (found.patients, len(found.video_ids), found.counted) == (10, 30, "study")
    assert [row.dimension for row in found.rows] == [512, 2 * 16, 2 * 16, 2 * 16]
    assert seen[-1] == (30, 30)
    for row in found.rows:
        mae = row.figures["mae"]
        assert mae.low <= mae.value <= mae.high
        assert (row.difference is None) == (row.name == "generic")
        assert row.difference is None or row.difference["mae"].value == pytest.approx(
            mae.value - found.row("generic").figures["mae"].value
        )
    head, lines = found.table()
    assert head[:2] == ["features", "MAE (%)"]
    assert len(lines) == 4
    assert lines[2][-1] == "reference"
    assert "generic (generic)" in found.verdict()

    with (tmp_path / "out/predictions.csv").open() as handle:
        written = list(csv.DictReader(handle))
    assert len(written) == 4 * 30
    mine = [line for line in written if line["encoder"] == "adapted"]
    assert {line["video_id"] for line in mine} == set(prepared.column("video_id"))
    by_patient: dict[str, set[str]] = {}
    for line in mine:
        by_patient.setdefault(line["patient"], set()).add(line["fold"])
    assert all(len(folds) == 1 for folds in by_patient.values())
    studies: dict[str, list[float]] = {}
    for line in mine:
        studies.setdefault(line["study"], []).append(float(line["prediction"]) - float(line["truth"]))
    by_hand = np.mean([abs(np.mean(errors)) for errors in studies.values()])
    assert found.row("adapted").figures["mae"].value == pytest.approx(by_hand, abs=1e-4)

    figures = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert figures["rows"][3]["figures"]["mae"]["value"] == pytest.approx(by_hand, abs=1e-4)
    assert figures["bootstrap"] == {"draws": 200, "over": "patients", "level": 0.95}
    assert (tmp_path / "out/scatter.png").read_bytes()[:4] == b"\x89PNG"


def test_classification_with_shared_features(made, tmp_path):
    prepared, labels, run, _ = made
    gathered = gather(run, prepared, clips=1, baselines=("pixels", "generic"))
    found = evaluate("knn", run, prepared, labels, "view", out=tmp_path, draws=200, gathered=gathered)
    assert [row.name for row in found.rows] == ["pixels", "generic", "adapted"]
    assert (found.headline.name, found.counted) == ("accuracy", "video")
    assert found.row("adapted").prediction.shape == (30, 3)
    with (tmp_path / "predictions.csv").open() as handle:
        line = next(csv.DictReader(handle))
    assert math.isclose(sum(float(line[f"p_{name}"]) for name in ("A2C", "A4C", "PLAX")), 1, abs_tol=1e-3)
    assert line["prediction"] in ("A2C", "A4C", "PLAX")
    assert (tmp_path / "confusion.png").is_file()
    again = evaluate("knn", run, prepared, labels, "view", draws=200, gathered=gathered)
    assert again.to_dict() == found.to_dict()


def test_an_encoder_that_starts_at_random_is_shown_once_and_said_so(made, tmp_path):
    prepared, labels, run, _ = made
    tiny = tmp_path / "run"
    tiny.mkdir()
    (tiny / "encoder").symlink_to(run / "encoder")
    said = {"encoder": {"name": "vfm-tiny-random"}, "train": {"seed": 5}}
    (tiny / "config.resolved.yaml").write_text(yaml.safe_dump(said))
    start = start_of(tiny)
    assert start is not None
    assert start.random
    found = evaluate("linear", tiny, prepared, labels, "ef", clips=1, draws=50)
    assert [row.name for row in found.rows] == ["pixels", "generic", "adapted"]
    assert "one and the same" in found.notes[0]
    same = start.open(GEOMETRY)
    other = random_encoder("vfm-tiny-random", 4, 32, seed=5)
    assert all((a == b).all() for a, b in zip(same.parameters(), other.parameters(), strict=True))
    # A run of the time when vfm-tiny had no weights.
    said["encoder"]["name"] = "vfm-tiny"
    (tiny / "config.resolved.yaml").write_text(yaml.safe_dump(said))
    assert not start_of(tiny).random
    (tiny / "record.json").write_text('{"random_start": true}')
    assert start_of(tiny) == start


@pytest.mark.parametrize("name", ["vfm-tiny", "vfm-small"])
def test_other_weights_of_the_same_name_are_not_what_a_run_started_from(tmp_path, name):
    """A built-in encoder of another version is no baseline: the gain would be another's."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.resolved.yaml").write_text(yaml.safe_dump({"encoder": {"name": name}}))
    for recorded in ({}, {"built_in_weights": {name: "0123456789ab"}}):
        (run / "env.json").write_text(json.dumps(recorded))
        with pytest.raises(ModelError, match=r"weights of another version of vfm.*leave generic out of --baselines"):
            start_of(run).open(GEOMETRY)
    (run / "env.json").write_text(json.dumps(environment()))
    same, own = start_of(run).open(GEOMETRY), open_encoder(name)
    assert environment()["built_in_weights"] == shipped_weights()
    assert len(set(shipped_weights().values())) == 2
    assert torch.equal(same.blocks[0].output.dense.weight, own.blocks[0].output.dense.weight)


def test_probing_a_fine_tuned_encoder_says_what_it_has_seen(made, tmp_path):
    prepared, labels, run, root = made
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    (tuned / "encoder").symlink_to(run / "encoder")
    said = {"encoder": {"name": str(root / "generic")}, "task": {"name": "ef"}}
    (tuned / "config.resolved.yaml").write_text(yaml.safe_dump(said))
    found = evaluate("knn", tuned, prepared, labels, "ef", clips=1, draws=50)
    assert "tuned was fine-tuned on labels of ef" in found.notes[0]
    assert evaluate("knn", run, prepared, labels, "ef", clips=1, draws=50).notes == ()


def test_an_encoder_that_is_no_run_is_measured_against_random(made):
    prepared, labels, _, root = made
    found = evaluate("knn", root / "generic", prepared, labels, "ef", clips=1, draws=50)
    assert [row.name for row in found.rows] == ["pixels", "random", "generic"]
    assert found.reference == "random"


def test_a_damaged_video_is_excluded_counted_and_named(tmp_path, made):
    run = made[2]
    prepared, labels = make_prepared(tmp_path / "prepared", videos=12, patients=6)
    frame_file(prepared.folder, prepared.video_id(4)).write_bytes(b"not a picture")
    found = evaluate("linear", run, prepared, labels, "ef", folds=3, clips=1, draws=50, baselines=())
    assert prepared.video_id(4) not in found.video_ids
    assert len(found.video_ids) == 11
    assert [failure.video_id for failure in found.excluded] == [prepared.video_id(4)]
    assert found.reference is None
    assert found.to_dict()["excluded"][0]["video_id"] == prepared.video_id(4)


def test_what_cannot_be_evaluated_is_said_in_one_line(made, tmp_path):
    prepared, labels, run, _ = made
    with pytest.raises(DataError, match=r"10 patients cannot be split into 11 folds\. Use at most 10 folds"):
        evaluate("linear", run, prepared, labels, "ef", folds=11)
    with pytest.raises(ConfigError, match="no protocol 'kn'"):
        evaluate("kn", run, prepared, labels, "ef")
    with pytest.raises(ConfigError, match=r"no baseline 'pixel'\. Did you mean 'pixels'"):
        evaluate("knn", run, prepared, labels, "ef", baselines=("pixel",))
    with pytest.raises(ConfigError, match="1 folds leave nothing"):
        evaluate("knn", run, prepared, labels, "ef", folds=1)
    with pytest.raises(ConfigError, match="no task 'eff'"):
        evaluate("knn", run, prepared, labels, "eff")
    one = tmp_path / "one.csv"
    one.write_text("video_id,view\n" + "".join(f"{v},A4C\n" for v in prepared.column("video_id")))
    with pytest.raises(DataError, match="of one class"):
        evaluate("knn", run, prepared, one, "view")
    gone = tmp_path / "run"
    gone.mkdir()
    (gone / "encoder").symlink_to(run / "encoder")
    (gone / "config.resolved.yaml").write_text(yaml.safe_dump({"encoder": {"name": "/no/such/encoder"}}))
    with pytest.raises(
        ModelError, match=r"the encoder it started from cannot be opened.*leave generic out of --baselines"
    ):
        evaluate("knn", gone, prepared, labels, "ef", clips=1)
