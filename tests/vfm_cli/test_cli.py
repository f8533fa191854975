"""What a person types, and the line and exit code that comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from source_factory import cine, region_item, write_dicom
from store_factory import make_prepared
from transformers import VideoMAEConfig, VideoMAEModel

from vfm_cli.console import run_guarded
from vfm_cli.main import cli

REPO = Path(__file__).resolve().parents[2]
SMALL = ["clip.frames=4", "clip.size=32", "clip.stride=2", "train.batch_size=4", "train.steps=2", "data.workers=0", "objective.decoder_width=24",
         "objective.decoder_heads=2", "objective.decoder_depth=1"]  # fmt: skip


class Vfm:
    """Runs the command line in this process; `code`, `out` and `err` of the last call."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: object) -> SimpleNamespace:
        self.capsys.readouterr()
        code = run_guarded(cli, [str(word) for word in words])
        out, err = self.capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err, line=err.strip().splitlines()[-1] if err.strip() else "")


@pytest.fixture
def vfm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Vfm:
    monkeypatch.setenv("VFM_KEY", str(tmp_path / "keys" / "test.key"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return Vfm(capsys)


def test_dry_run_shows_every_value_with_its_origin(vfm: Vfm, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("train: {seed: 5, save_every: 7}\n")
    shown = vfm(
        "pretrain",
        "--domain",
        "echo",
        "--recipe",
        "videomae",
        "--config",
        "mine.yaml",
        "--dry-run",
        "--json",
        "train.seed=9",
    )
    assert shown.code == 0
    rows = json.loads(shown.out)
    assert rows["train.seed"] == {"value": 9, "from": "command line"}
    assert rows["train.save_every"] == {"value": 7, "from": "mine.yaml"}
    assert rows["clip.rate"]["from"] == "domain echo"
    assert rows["objective.mask_ratio"]["value"] == 0.9
    assert rows["method"] == {"value": "videomae", "from": "recipe videomae"}
    assert rows["data.max_failures"]["from"] == "default"
    assert "optim.lr" in vfm("pretrain", "--dry-run").out


def test_whatever_way_a_thing_is_said_it_counts(vfm: Vfm, tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text("name: ours\ntitle: Ours\nrecipe: videomae\nclip: {frames: 8}\n")
    (tmp_path / "mine.yaml").write_text("domain: ours.yaml\nencoder: {name: theirs}\n")

    def rows(*words: str) -> dict[str, dict[str, object]]:
        return json.loads(vfm("pretrain", "--dry-run", "--json", *words).out)

    for words in (["--domain", "ours.yaml"], ["domain=ours.yaml"], ["--config", "mine.yaml"]):
        found = rows(*words)
        assert found["clip.frames"] == {"value": 8, "from": "domain ours"}
        assert found["method"]["value"] == "videomae", "the domain's own recipe"
    assert found["domain"]["from"] == "mine.yaml"
    assert rows()["domain"] == {"value": "echo", "from": "domain echo"}
    assert rows("--encoder", "a")["encoder.name"] == {"value": "a", "from": "command line"}
    assert rows("--encoder", "a", "encoder.name=b")["encoder.name"]["value"] == "b"
    assert rows("--config", "mine.yaml", "--encoder", "a")["encoder.name"]["value"] == "a"
    assert rows("method=videomae")["objective.mask_ratio"]["from"] == "recipe videomae"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pretrain", "--dry-run", "train.stpes=4"], "unknown key 'train.stpes'. Did you mean 'train.steps'?"),
        (["pretrain", "--dry-run", "--recipe", "discovr", "objective.prototype=4"], "Did you mean 'prototypes'?"),
        (["pretrain", "--dry-run", "optim.lr=fast"], "'optim.lr'"),
        (["pretrain", "--dry-run", "train.batch_size=0"], "greater than 0"),
        (["pretrain", "--dry-run", "--recipe", "discover"], "Did you mean 'discovr'?"),
        (["pretrain", "--dry-run", "--domain", "ecco"], "Did you mean 'echo'?"),
        (["pretrain", "--dry-run", "steps"], "'steps' is not key=value"),
        (["pretrian"], "no verb 'pretrian'. Did you mean 'pretrain'?"),
        (["recipes", "show", "dicsovr"], "Did you mean 'discovr'?"),
        (["pretrain", "--dry-run", "--config", "missing.yaml"], "missing.yaml: no such file"),
    ],
)
def test_mistyped_is_one_line_with_the_nearest_name_and_code_2(vfm: Vfm, words: list[str], said: str) -> None:
    found = vfm(*words)
    assert found.code == 2
    assert said in found.line
    assert len(found.err.strip().splitlines()) == 1


def test_pretrain_without_data_offers_the_phantom(vfm: Vfm) -> None:
    found = vfm("pretrain", "--domain", "echo")
    assert found.code == 2
    assert "--data phantom" in found.err
    assert "vfm data prepare ./studies --domain echo --out ./prepared" in found.err


def test_raw_folder_as_data_names_the_command(vfm: Vfm, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    found = vfm("pretrain", "--data", "raw", "--out", "run")
    assert found.code == 3
    assert "vfm data prepare" in found.line
    assert not (tmp_path / "run").exists()


def test_pretrain_resume_overwrite_and_init_from(vfm: Vfm, tmp_path: Path) -> None:
    make_prepared(tmp_path / "prepared", videos=6, patients=6, size=40, frames=16)
    words = ["pretrain", "--recipe", "videomae", "--data", "prepared", "--out", "run", *SMALL]
    made = vfm(*words, "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["encoder"] == "run/encoder"
    expected = {
        "config.resolved.yaml",
        "env.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "encoder",
        "curves.png",
        "record.json",
    }
    assert expected <= {path.name for path in (tmp_path / "run").iterdir()}
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert events.name.split(".")[-1] == "vfm"  # and not the name of the machine
    again = vfm(*words)
    assert again.code == 2
    assert "--resume to go on, --overwrite to start again" in again.line
    assert "is finished" in vfm(*words, "--resume").err
    assert vfm(*words, "--overwrite").code == 0
    other = [word if word != "run" else "other" for word in words]
    assert vfm(*other, "--init-from", "run").code == 0
    record = json.loads((tmp_path / "other" / "record.json").read_text())
    assert (record["init_from"], record["random_start"]) == ("run", False)
    assert vfm(*other, "--overwrite", "--init-from", "nowhere/at/all").code == 4


def test_resume_needs_no_more_than_the_folder(vfm: Vfm, tmp_path: Path) -> None:
    make_prepared(tmp_path / "prepared", videos=6, patients=6, size=40, frames=16)
    assert vfm("pretrain", "--recipe", "videomae", "--data", "prepared", "--out", "run", *SMALL).code == 0
    (tmp_path / "run" / "record.json").unlink()  # as if it had died before its last word
    found = vfm("pretrain", "--resume", "--out", "run")
    assert found.code == 0, found.err
    assert (tmp_path / "run" / "record.json").exists()
    other = vfm("pretrain", "--resume", "--out", "run", "optim.lr=0.1")
    assert other.code == 2
    assert "'optim.lr' was" in other.line
    method = vfm("pretrain", "--resume", "--out", "run", "--recipe", "discovr")
    assert method.code == 2
    assert "began with method 'videomae'" in method.line
    assert "not a vfm run" in vfm("pretrain", "--resume", "--out", "prepared", "--data", "prepared").line


def test_encoder_without_weights(vfm: Vfm, tmp_path: Path) -> None:
    make_prepared(tmp_path / "prepared", videos=6, patients=6, size=40, frames=16)
    small = VideoMAEConfig(
        image_size=32,
        patch_size=16,
        num_frames=4,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    VideoMAEModel(small).save_pretrained(tmp_path / "encoder")
    (tmp_path / "encoder" / "model.safetensors").unlink()
    found = vfm(
        "pretrain", "--data", "prepared", "--encoder", "./encoder", "--out", "run", "--recipe", "videomae", *SMALL
    )
    assert found.code == 4
    assert "weights" in found.line


def test_labels_that_match_nothing_and_too_few_patients(vfm: Vfm, tmp_path: Path) -> None:
    _, labels = make_prepared(tmp_path / "prepared", videos=6, patients=3, size=40, frames=16)
    (tmp_path / "other.csv").write_text("file,ef\n" + "".join(f"clip{number}.avi,50\n" for number in range(5)))
    words = ["evaluate", "knn", "--encoder", "vfm-tiny", "--data", "prepared"]
    found = vfm(*words, "--labels", "other.csv", "--task", "ef")
    assert found.code == 3
    assert "5" in found.line
    assert "aaaa9.aaa" in found.line  # how identifiers are written, not what they are
    assert "clip0" not in found.line
    found = vfm(*words, "--labels", labels, "--task", "ef")
    assert found.code == 3
    assert "3 patients" in found.line
    assert "5" in found.line
    assert vfm(*words, "--labels", labels, "--task", "eff").line.endswith("Did you mean 'ef'?")


def test_prepare_of_a_folder_without_videos_and_of_damaged_files(vfm: Vfm, tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "notes.txt").write_text("no video here")
    (tmp_path / "papers" / "fake.dcm").write_text("This is text.")
    found = vfm("data", "prepare", "papers", "--out", "prepared", "--workers", "1")
    assert found.code == 3
    assert "2" in found.line
    assert not (tmp_path / "prepared").exists()
    assert vfm("data", "prepare", "nowhere", "--out", "prepared").code == 3


def test_doctor_reports_decoders(vfm: Vfm) -> None:
    found = vfm("doctor", "--json")
    checks = {name: good for name, good, _ in json.loads(found.out)["checks"]}
    assert checks["JPEG 2000"]
    assert checks["RLE"]
    assert found.code == 0


def test_recipes_and_domains(vfm: Vfm, tmp_path: Path) -> None:
    assert {"discovr", "videomae"} <= {one["name"] for one in json.loads(vfm("recipes", "ls", "--json").out)}
    assert vfm("recipes", "cp", "videomae", "mine.yaml").code == 0
    assert vfm("recipes", "cp", "videomae", "mine.yaml").code == 2
    assert vfm("pretrain", "--recipe", "mine.yaml", "--dry-run").code == 0
    assert "name: echo" in vfm("domains", "show", "echo").out
    assert json.loads(vfm("domains", "show", "echo", "--json").out)["tasks"]["ef"]["unit"] == "%"


def test_audit_prints_a_table_and_fails_where_something_is_found(vfm: Vfm, tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "Quiroga.dcm", cine(16), [region_item()])
    assert vfm("data", "prepare", "in", "--out", "out", "--key", "key").code == 0
    found = vfm("data", "audit", "out", "--against", "in")
    assert found.code == 0, found.err
    assert "clean: manifest" in found.out
    (tmp_path / "out" / "excluded.csv").write_text("quiroga\n")
    found = vfm("data", "audit", "out", "--against", "in", "--json")
    assert found.code == 3
    assert "1 findings. Do not pass it on" in found.line
    assert json.loads(found.out)["checks"][0]["found"] == [{"where": "excluded.csv", "what": "file or folder name"}]


def test_an_unforeseen_error_is_one_line_and_a_file(vfm: Vfm, monkeypatch: pytest.MonkeyPatch) -> None:
    import domains.base

    monkeypatch.setattr(domains.base, "domain_names", lambda: 1 / 0)
    found = vfm("domains", "ls")
    assert found.code == 1
    assert "ZeroDivisionError" in found.line
    place = Path(found.line.split("The details are in ")[1].split(";")[0])
    assert "ZeroDivisionError" in place.read_text()
    place.unlink()


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    make_prepared(tmp_path / "prepared", videos=6, patients=6, size=40, frames=16)
    words = [sys.executable, "-m", "vfm_cli", "pretrain", "--recipe", "videomae", "--data", "prepared", "--out", "run", *SMALL,
             "train.steps=5000", "train.log_every=1"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (tmp_path / "run" / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: loader processes get it too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Continue with --resume" in errors.strip().splitlines()[-1]
    assert "Traceback" not in errors


def test_two_processes(tmp_path: Path) -> None:
    make_prepared(tmp_path / "prepared", videos=6, patients=6, size=40, frames=16)
    words = [
        sys.executable,
        "-m",
        "vfm_cli",
        "pretrain",
        "--recipe",
        "videomae",
        "--data",
        "prepared",
        "--processes",
        "2",
        *SMALL,
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*words, "--out", "run"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert (record["steps"], record["samples"]) == (2, 2 * 4 * 2)
    failed = subprocess.run(
        [*words, "--out", "run"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 2


def test_demo_goes_on_where_it_stopped_and_is_json_alone(
    vfm: Vfm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vfm_cli.commands import demo

    def small(places: demo.Places, *sizes: int) -> None:
        """The real steps stand in tests/test_docs_commands.py; here it is about the order and what is left out."""
        for path in (places.labels, places.prepared / "prepared.json", places.pretrained / "record.json"):
            demo.step(path.name, path.exists(), "recipes", "ls")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            if path.name == stop_at:
                raise KeyboardInterrupt

    monkeypatch.setattr(demo, "take_steps", small)
    monkeypatch.setattr(demo, "measure", lambda places, seed: [])
    stop_at = "prepared.json"
    stopped = vfm("demo", "--out", "demo", "--json")
    assert stopped.code == 130
    assert stopped.line == f"vfm: demo: stopped; what is finished is kept. {demo.GO_ON}"
    stop_at = ""
    done = vfm("demo", "--out", "demo", "--json")
    assert done.code == 0
    assert json.loads(done.out)["report"] == "demo/report.html"
    assert done.err.count("(done before)") == 2
    other = vfm("demo", "--out", "demo", "--patients", "12")
    assert other.code == 2
    assert "other settings (patients 32)" in other.line
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").touch()
    assert vfm("demo", "--out", "full").code == 2
