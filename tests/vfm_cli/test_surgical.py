"""`vfm data synth surgical`, and what becomes of it and of surgical data sets without a domain of one's own."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from layout_factory import cholec80, jigsaws

from domains.base import load_domain
from domains.errors import ConfigError
from domains.layouts import LAYOUTS, open_layout
from domains.store import annotated
from domains.store.prepared import Prepared
from vfm_cli.commands.data import declared_for
from vfm_cli.console import run_guarded
from vfm_cli.main import cli


def test_from_phantom_to_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the phantom says is in the prepared folder, second by second; the room is not."""
    monkeypatch.setenv("VFM_KEY", str(tmp_path / "test.key"))
    monkeypatch.chdir(tmp_path)
    made = [
        "data",
        "synth",
        "surgical",
        "--procedures",
        "2",
        "--seed",
        "5",
        "--pace",
        "400",
        "--workers",
        "1",
        "--out",
        "ops",
    ]
    assert run_guarded(cli, [*made, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["procedures"] == 2
    assert run_guarded(cli, made) == 2  # not over other files
    assert run_guarded(cli, ["data", "prepare", "ops", "--out", "out", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "2 recordings of 2 patients" in said
    assert "next:         vfm pretrain --domain surgical --data out" in said
    store = Prepared.open(tmp_path / "out")
    assert (store.domain, store.size, [store.fps(row) for row in range(2)]) == ("surgical", 256, [1.0, 1.0])
    with (tmp_path / "ops/spans.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(list(annotated.spans(store, "phase"))) == sum(row["label"] == "phase" for row in rows)
    last = {row: max(end for at, _, end, _, _ in annotated.spans(store, "phase") if at == row) for row in range(2)}
    assert all(abs(store.length(row) - last[row]) <= 1 for row in range(2))
    levels = {(source, level) for *_, source, level in annotated.texts(store)}
    assert levels == {("asr_a", "clip"), ("asr_b", "clip"), ("surgeon", "keystep"), ("surgeon", "abstract")}
    for row, start, end, value, _ in annotated.spans(store, "out_of_body"):
        if value == "room":
            seconds = [second for second in range(store.length(row)) if start <= second < end]
            assert not store.frames(row, seconds).any()


def test_surgical_data_sets_come_to_the_surgical_domain(tmp_path: Path) -> None:
    eighty = open_layout(cholec80(tmp_path / "cholec80"))
    assert declared_for(eighty, tmp_path, None) == load_domain("surgical")
    assert declared_for(eighty, tmp_path, "echo").name == "echo"
    assert declared_for(None, tmp_path, None).name == "echo"
    bench = declared_for(open_layout(jigsaws(tmp_path / "jigsaws")), tmp_path, None)
    assert (bench.name, bench.out_of_body, bench.store.rate, bench.store.size) == ("surgical", "keep", 5.0, 256)
    clips = next(one for one in LAYOUTS if one.name == "egoclip")(tmp_path)
    assert declared_for(clips, tmp_path, None) == load_domain("egocentric")
    clips.domain = "underwater"  # as a dataset.yaml may say
    with pytest.raises(ConfigError, match="a domain that does not ship with vfm yet"):
        declared_for(clips, tmp_path, None)
