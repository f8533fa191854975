"""Zero-shot, retrieval, embed and search, as they are typed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from aligned_factory import fitted, write_aligned
from store_factory import make_prepared

from domains.store.texts import LEVELS
from vfm_cli.commands.evaluate import retrieval
from vfm_cli.console import run_guarded
from vfm_cli.main import cli

WORDS = {"A2C": "two chamber view", "A4C": "four chamber view", "PLAX": "long axis view of the heart"}


@pytest.fixture
def vfm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, lab: Path
) -> Callable[..., SimpleNamespace]:
    """Runs the command line in the lab's folder; `code`, `out`, `err`, and the last line of it."""
    monkeypatch.setenv("VFM_KEY", str(lab / "none.key"))
    monkeypatch.chdir(lab)

    def typed(*words: str) -> SimpleNamespace:
        capsys.readouterr()
        code = run_guarded(cli, list(words))
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err, line=err.strip().splitlines()[-1] if err.strip() else "")

    return typed


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with prepared recordings, labels, texts, prompts, and a run that aligned them."""
    prepared, labels = make_prepared(tmp_path / "prepared", videos=9, patients=3, frames=30)
    lines = list(csv.DictReader(labels.open()))
    said = {row: WORDS[line["view"]] for row, line in enumerate(lines)}
    write_aligned(tmp_path / "run", fitted(prepared, said))
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(WORDS))
    texts = [f"{line['video_id']},{said[row]}" for row, line in enumerate(lines)]
    (tmp_path / "texts.csv").write_text("\n".join(["video_id,text", *texts]) + "\n")
    labels.rename(tmp_path / "labels.csv")
    return tmp_path


def test_evaluations_without_a_probe(vfm: Callable[..., SimpleNamespace], lab: Path) -> None:
    words = ["--encoder", "run", "--data", "prepared"]
    asked = ["evaluate", "zero-shot", *words, "--labels", "labels.csv", "--task", "view", "--prompts", "prompts.yaml"]
    found = vfm(*asked, "--out", "out")
    assert found.code == 0, found.err
    assert "zero-shot beats unaligned" in found.out
    assert "how: 3 classes of one prompt each (prompts.yaml)" in found.out
    assert (lab / "out" / "predictions.csv").is_file()
    said = json.loads(vfm(*asked, "--baselines", "chance", "--clips", "1", "--json").out)
    assert [row["name"] for row in said["rows"]] == ["chance", "zero-shot"]
    assert said["clips_per_video"] == 1
    refused = vfm(*asked, "--every", "2")
    assert refused.code == 2
    assert "every means nothing" in refused.line
    found = vfm("evaluate", "retrieval", *words, "--text", "texts.csv")
    assert found.code == 0, found.err
    assert "clip to text: aligned beats clip to text: unaligned" in found.out
    assert "R@10 (%)" in found.out
    whole = json.loads(vfm("evaluate", "retrieval", *words, "--text", "texts.csv", "--studies", "--json").out)
    assert [row["name"] for row in whole["rows"]][-1] == "text_to_study"
    assert (
        vfm(
            "evaluate",
            "zero-shot",
            "--encoder",
            "prepared",
            "--data",
            "prepared",
            "--labels",
            "labels.csv",
            "--task",
            "view",
        ).code
        == 4
    )
    (level,) = [option for option in retrieval.params if option.name == "levels"]
    assert tuple(level.type.choices) == LEVELS


def test_embed_and_search(vfm: Callable[..., SimpleNamespace], lab: Path) -> None:
    made = vfm("embed", "--encoder", "run", "--data", "prepared", "--out", "index", "--every", "0.4")
    assert made.code == 0, made.err
    assert made.out.startswith("27 clips of 9 recordings, 8 numbers each: index")
    found = vfm("search", "four chamber view", "--index", "index", "--count", "2", "--picture", "found.png")
    assert found.code == 0, found.err
    assert "similarity" in found.out
    assert (lab / "found.png").is_file()
    hits = json.loads(vfm("search", "four chamber view", "--index", "index", "--json").out)
    views = {line["video_id"]: line["view"] for line in csv.DictReader((lab / "labels.csv").open())}
    assert views[hits[0]["video_id"]] == "A4C"
    again = json.loads(vfm("search", "--clip", hits[0]["video_id"], "--start", "0.4", "--index", "index", "--json").out)
    assert again[0]["video_id"] == hits[0]["video_id"]
    assert "--start is the time of an example" in vfm("search", "a view", "--start", "3", "--index", "index").line
    assert vfm("search", "--index", "index").code == 2
    assert vfm("embed", "--encoder", "run", "--data", "prepared", "--out", "index").code == 2
    assert vfm("embed", "--encoder", "run", "--data", "prepared", "--out", "index", "--overwrite").code == 0
