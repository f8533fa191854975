"""What a run leaves does not depend on interruptions, on who shares the batch, or on when somebody looks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from store_factory import make_prepared

REPO = Path(__file__).resolve().parents[2]
STEPS = 12

SCRIPT = """
import sys
from pathlib import Path
from recipes.config import Layer, parse_assignments, resolve
from recipes.jobs.pretrain import pretrain
from recipes.training.reporter import SilentReporter
import torch

torch.set_num_threads(1)
out, method, *rest = sys.argv[1:]
resume = "resume" in rest
words = [word for word in rest if "=" in word]
small = {
    "discovr": dict(views=2, frame_depth=1, head_hidden=16, head_bottleneck=8, head_outputs=16, prototypes=8,
                    decoder_depth=1, decoder_width=24, decoder_heads=2),
    "videomae": dict(decoder_width=24, decoder_depth=1, decoder_heads=2),
}
base = {"method": method, "objective": small[method], "clip": {"frames": 4, "size": 32, "stride": 2},
        "augment": {"weak": {"crop_scales": [1.0, 0.75]}}}
resolved = resolve([Layer("test", base), Layer("command line", parse_assignments(words))])
pretrain(resolved, Path(out), resume=resume, reporter=SilentReporter())
"""


def command(out: Path, data: Path, method: str, *words: str, steps: int = STEPS, batch: int = 4) -> list[str]:
    settings = [f"data.path={data}", f"train.steps={steps}", f"train.batch_size={batch}", "train.save_every=3", "train.log_every=1",
                "train.precision=fp32", "train.monitor_every=4", "data.workers=1"]  # fmt: skip
    return [sys.executable, "-c", SCRIPT, str(out), method, *settings, *words]


def environment() -> dict[str, str]:
    paths = os.pathsep.join([str(REPO), str(REPO / "tests")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(*arguments: str) -> None:
    done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoints" / f"step_{STEPS:08d}" / "objective.safetensors")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    make_prepared(folder, videos=10, patients=5, size=40, frames=20)
    return folder


@pytest.mark.parametrize("method", ["discovr", "videomae"])
@pytest.mark.parametrize("before_first_checkpoint", [False, True])
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(
    method: str, before_first_checkpoint: bool, data: Path, tmp_path: Path
) -> None:
    """SIGKILL at a random step, in the middle of an epoch (10 samples, batches of 4), then resume. Checkpoints come every 3 steps: where
    the run dies before the first it starts again, and so does its log."""
    run(*command(tmp_path / "whole", data, method))
    killed = tmp_path / "killed"
    when = 1 if before_first_checkpoint else random.Random(os.getpid()).randint(3, STEPS - 2)
    process = subprocess.Popen(command(killed, data, method), env=environment(), stderr=subprocess.DEVNULL)
    while process.poll() is None:
        lines = (killed / "metrics.jsonl").read_text().count("\n") if (killed / "metrics.jsonl").exists() else 0
        if lines >= when:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    process.wait()
    run(*command(killed, data, method, "resume"))
    expected, found = weights(tmp_path / "whole"), weights(killed)
    assert expected.keys() == found.keys()
    different = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert not different, f"killed after step {when}: {different[:3]}"
    steps = [json.loads(line)["step"] for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 1)), "no step is logged twice or missing"


def test_sigterm_saves_and_says_so(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(out, data, "videomae", steps=2000), env=environment(), stderr=subprocess.PIPE, text=True
    )
    while not (out / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert "everything up to it is saved" in errors
    latest = (out / "checkpoints" / "latest").read_text().strip()
    state = json.loads((out / "checkpoints" / latest / "state.json").read_text())
    logged = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert state["step"] == logged[-1]


def test_two_processes_equal_one_with_twice_the_batch(data: Path, tmp_path: Path) -> None:
    """DISCOVR on two gloo ranks with batch 2 is DISCOVR on one with batch 4: gradients, Sinkhorn codes, centres and teachers.

    After one step AdamW's first moment is a tenth of the gradient: comparing it compares gradients, not what Adam makes of their noise.
    """
    (tmp_path / "script.py").write_text(SCRIPT)
    for name, batch, launcher in (
        ("one", 4, []),
        ("two", 2, ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]),
    ):
        words = command(
            tmp_path / name, data, "discovr", "data.workers=0", "optim.clip_norm=null", steps=1, batch=batch
        )[3:]
        run(sys.executable, *launcher, str(tmp_path / "script.py"), *words)
    folders = [tmp_path / name / "checkpoints" / "step_00000001" for name in ("one", "two")]
    one, two = (load_file(folder / "optimiser.safetensors") for folder in folders)
    moments = [name for name in one if name.endswith("/exp_avg")]
    assert any(one[name].abs().max() > 1e-3 for name in moments)
    for name in moments:
        torch.testing.assert_close(
            two[name], one[name], rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
    one, two = (load_file(folder / "objective.safetensors") for folder in folders)
    centres = [name for name in one if "centre" in name]
    assert centres
    for name in centres:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6)
