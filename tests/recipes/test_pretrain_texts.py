"""A run that aligns clips and words, from tables to what it leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from objective_factory import SMALL, small_encoder
from safetensors.torch import load_file
from store_factory import make_prepared
from text_factory import write_narrations, write_text

from domains.errors import ConfigError, DataError
from domains.prepare.written import files, texts
from recipes.config import Layer, parse_assignments, resolve
from recipes.encoders.aligned import open_aligned
from recipes.jobs.pretrain import pretrain
from recipes.jobs.replay import build
from recipes.jobs.start import start_of
from recipes.runs.status import RECORD
from recipes.training.reporter import SilentReporter

WORDS = "a two chamber view"


class Notes(SilentReporter):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rings")
    made = make_prepared(root / "prepared", videos=12, patients=12, size=32, frames=40)
    write_narrations(made.labels, root / "narrations.csv")
    write_text(root / "text", num_hidden_layers=1)
    small_encoder().save(root / "encoder")
    return root


def run(rings: Path, out: Path, *words: str, method: str = "clip", **how: object) -> tuple[Path, list[str]]:
    """A short run; where it went, and what it said."""
    common = [
        f"data.path={rings / 'prepared'}", f"encoder.name={rings / 'encoder'}", f"text.name={rings / 'text'}",
        f"text.files=[{rings / 'narrations.csv'}]", "data.workers=0", "clip.frames=4", "clip.size=32", "clip.stride=2", "train.steps=4",
        "train.batch_size=4", "train.log_every=1", "train.save_every=2", "train.keep=9", "train.precision=fp32", "monitor.clips=8",
    ]  # fmt: skip
    layers = [
        Layer("m", {"method": method, "objective": SMALL[method]}),
        Layer("t", parse_assignments([*common, *words])),
    ]
    reporter = Notes()
    pretrain(resolve(layers), out, reporter=reporter, **how)  # type: ignore[arg-type]
    return out, reporter.said


@pytest.fixture(scope="module")
def done(rings: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    return run(rings, tmp_path_factory.mktemp("done") / "run", "text.mode=lora")


def test_what_it_leaves_behind(done: tuple[Path, list[str]], rings: Path) -> None:
    out, said = done
    aligned = open_aligned(out)
    assert aligned.width == 8
    clip = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    last = load_file(out / "checkpoints" / "step_00000004" / "objective.safetensors")
    assert aligned.alignment.log_scale.equal(last["alignment.log_scale"])
    by_hand = aligned.encoder.embed(clip) @ last["alignment.video.weight"].T
    torch.testing.assert_close(aligned.embed_clips(clip), by_hand / by_hand.norm(dim=-1, keepdim=True))
    assert not any("lora" in name for name, _ in aligned.text.named_parameters())  # merged
    assert any("lora" in name for name in last)
    record = json.loads((out / RECORD).read_text())
    assert record["texts"]["texts"] == 72
    assert record["texts"]["levels"] == {"clip": 48, "keystep": 12, "abstract": 12}
    assert any("72 samples from 72 texts of 12 recordings, by 2 sources" in line for line in said)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all({"loss", "accuracy", "scale"} <= row.keys() for row in rows)


def test_no_word_is_in_anything_that_it_writes(done: tuple[Path, list[str]], rings: Path) -> None:
    out, said = done
    told = (rings / "narrations.csv").read_text()
    assert WORDS in told
    for path in files(out):
        for text in texts(path):
            assert "ring that" not in text, path
            assert WORDS not in text, path
    assert not any("ring" in line.replace(str(rings), "") for line in said)


def test_resumed_is_as_if_nothing_had_happened(done: tuple[Path, list[str]], rings: Path, tmp_path: Path) -> None:
    out, _ = done
    again = tmp_path / "run"
    shutil.copytree(out, again)
    run(rings, again, "text.mode=lora", from_step=2)
    name = Path("checkpoints") / "step_00000004" / "objective.safetensors"
    before, after = load_file(out / name), load_file(again / name)
    assert before.keys() == after.keys()
    assert all(before[key].equal(after[key]) for key in before)
    with pytest.raises(ConfigError, match=r"'text.mode' was 'lora' when the run began and is 'frozen' now"):
        run(rings, again, "text.mode=frozen", resume=True)


def test_other_texts_are_another_run(done: tuple[Path, list[str]], rings: Path, tmp_path: Path) -> None:
    again, table = tmp_path / "run", rings / "narrations.csv"
    shutil.copytree(done[0], again)
    (again / RECORD).unlink()
    whole = table.read_text()
    try:
        table.write_text(whole.replace("much", "hardly"))
        with pytest.raises(ConfigError, match="other recordings or texts than when the run began"):
            run(rings, again, "text.mode=lora", resume=True)
    finally:
        table.write_text(whole)


def test_in_pieces(rings: Path, tmp_path: Path) -> None:
    """Gradient caching through the whole loop: the learned scale as well."""
    name = Path("checkpoints") / "step_00000004" / "objective.safetensors"
    whole, pieces = (
        load_file(run(rings, tmp_path / title, "objective.loss=sigmoid", *more)[0] / name)
        for title, more in (("whole", ()), ("pieces", ("train.piece=2",)))
    )
    for key in whole:
        torch.testing.assert_close(pieces[key], whole[key], rtol=1e-4, atol=1e-5, msg=key)
    assert whole["alignment.bias"].item() != -10.0


def test_a_frozen_tower_stays_as_it_was(rings: Path, tmp_path: Path) -> None:
    out, _ = run(rings, tmp_path / "run", "text.mode=frozen", "train.steps=2")
    before, after = load_file(rings / "text" / "model.safetensors"), load_file(out / "text" / "model.safetensors")
    assert all(before[key].equal(after[key]) for key in after)
    assert set(after) <= set(before)


def test_what_a_replay_builds(rings: Path) -> None:
    """`vfm debug replay` of a broken step: both towers, and the projections that its weights fit into."""
    words = [f"encoder.name={rings / 'encoder'}", f"text.name={rings / 'text'}", "clip.frames=4", "clip.size=32"]
    config = resolve([Layer("t", parse_assignments(["method=clip", *words]))]).config
    broken = SimpleNamespace(config=config, objective="clip", settings=SMALL["clip"])
    objective = build(broken)  # type: ignore[arg-type]
    assert objective.text is not None
    assert objective.text.width == 16
    assert objective.final_alignment() is not None


def test_whose_text_tower_it_began_with(done: tuple[Path, list[str]], rings: Path) -> None:
    start = start_of(done[0])
    assert start is not None
    assert (start.name, start.text) == (str(rings / "encoder"), str(rings / "text"))


def test_what_is_refused(rings: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'videomae' does not learn from texts.*--recipe clip"):
        run(rings, tmp_path / "run", method="videomae")
    with pytest.raises(ConfigError, match=r"'videomae' does not learn from texts"):
        run(rings, tmp_path / "run", "text.files=[]", method="videomae")
    with pytest.raises(ConfigError, match=r"'text.keep' names columns of text files"):
        run(rings, tmp_path / "run", "text.files=[]", "text.keep=[is_descriptive]")
    with pytest.raises(DataError, match=r"no texts, and none came with the recordings"):
        run(rings, tmp_path / "run", "text.files=[]")
    with pytest.raises(ConfigError, match=r"no text is of the source 'three'"):
        run(rings, tmp_path / "run", "objective.sources=[three]")
