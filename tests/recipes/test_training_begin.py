"""`optim.encoder_begin`: heads learn alone first, and the encoder's own weights begin later, as those of a run that begins there."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from kill_factory import Job, run
from objective_factory import SMALL, small_encoder
from safetensors.torch import load_file
from store_factory import make_prepared
from torch import Tensor, nn

from recipes.config import Layer, OptimSettings, parse_assignments, resolve
from recipes.jobs.pretrain import pretrain
from recipes.runs.metrics import read_metrics
from recipes.training.optim import encoder_begin, learning_rate, make_optimiser, moving, set_learning_rate
from recipes.training.reporter import SilentReporter

LATE = OptimSettings(
    lr=1.0, final_lr=0.1, warmup=0.5, encoder_lr=0.5, encoder_begin=0.4, weight_decay=0.0, betas=(0.9, 0.99)
)


class Pair(nn.Module):
    """loss = encoder * head * x, of single numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.encoder.random_start = False
        self.encoders = (self.encoder,)
        for layer, value in ((self.encoder, 3.0), (self.head, 5.0)):
            nn.init.constant_(layer.weight, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x)).sum()


def test_the_rate_of_what_begins_late_is_that_of_a_run_that_begins_there() -> None:
    rates = [learning_rate(LATE, step, 10, 0.4) for step in range(10)]
    assert rates[:4] == [0.0] * 4
    assert rates[4:] == [learning_rate(LATE, step, 6) for step in range(6)]
    assert rates[4:7] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert rates[-1] == pytest.approx(0.1)
    assert rates[7:9] == pytest.approx([1.0, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2))])


def test_what_waits_has_no_part_in_the_norm_and_begins_without_averages() -> None:
    pair = Pair()
    optimiser = make_optimiser(pair, LATE)
    x = torch.ones(1, 1)
    for step in range(5):
        set_learning_rate(optimiser, LATE, step, 10)
        pair(x).backward()
        assert pair.encoder.weight.grad is not None
        before = pair.encoder.weight.item()
        slope = pair.encoder.weight.grad.item()
        found = moving(optimiser)
        if step < 4:
            assert [id(one) for one in found] == [id(pair.head.weight)]
            assert pair.encoder.weight.grad is None
            assert nn.utils.clip_grad_norm_(found, 1e9).item() == pytest.approx(
                3.0
            )  # the head's alone: what the encoder says of 1
        else:
            assert len(found) == 2
        optimiser.step()
        optimiser.zero_grad()
        if step < 4:
            assert pair.encoder.weight.item() == 3.0
            assert pair.encoder.weight not in optimiser.state
        else:  # AdamW's first step is the rate in the slope's direction; with averages of five steps it would not be
            assert pair.encoder.weight.item() == pytest.approx(before - math.copysign(0.5 / 3, slope), rel=1e-5)
            assert optimiser.state[pair.encoder.weight]["step"] == 1
            assert optimiser.state[pair.head.weight]["step"] == 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    make_prepared(folder, videos=8, patients=8, size=40, frames=20)
    return folder


def weights(run: Path, step: int) -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / f"step_{step:08d}" / "objective.safetensors")


def changed(one: dict[str, Tensor], other: dict[str, Tensor], prefix: str) -> bool:
    names = [name for name in one if name.startswith(prefix)]
    assert names, prefix
    return not all(torch.equal(one[name], other[name]) for name in names)


def test_a_run_leaves_encoder_and_teacher_as_they_are_until_then_and_resumes_before_and_after(
    data: Path, tmp_path: Path
) -> None:
    small_encoder().save(tmp_path / "encoder")
    words = [
        f"data.path={data}", f"encoder.name={tmp_path / 'encoder'}", "data.workers=0", "clip.frames=4", "clip.size=32", "optim.encoder_begin=0.5",
        "train.steps=6", "train.batch_size=2", "train.log_every=1", "train.save_every=1", "train.keep=20", "train.monitor_every=100",
        "train.precision=fp32", "monitor.clips=4", "objective.teacher_momentum=0.9",
    ]  # fmt: skip
    resolved = resolve(
        [
            Layer("discovr", {"method": "discovr", "objective": SMALL["discovr"]}),
            Layer("test", parse_assignments(words)),
        ]
    )
    done = pretrain(resolved, tmp_path / "run", reporter=SilentReporter()).parent
    start = {f"encoder.{name}": value for name, value in small_encoder().state_dict().items()}
    first, waited, begun, whole = (weights(done, step) for step in (1, 3, 4, 6))
    teacher = "video_teacher.module."
    assert not changed(start, waited, "encoder.")
    assert all(torch.equal(waited[teacher + name], value) for name, value in start.items())
    for learns in ("head.", "frame_encoder.", "decoder.", "prototypes.", teacher + "head."):
        assert changed(first, waited, learns), learns
    assert changed(waited, begun, "encoder.")
    assert changed(waited, begun, teacher + "encoder.")
    rows = [row["lr"] for row in read_metrics(done) if "loss" in row]
    assert all(rate > 0 for rate in rows)  # that of what learns from the first step on
    for step in (2, 3, 4):  # while it waits, as it begins, and after
        pretrain(resolved, done, from_step=step, reporter=SilentReporter())
        again = weights(done, 6)
        assert all(torch.equal(value, again[name]) for name, value in whole.items()), step


def test_two_processes_learn_what_one_does(data: Path, tmp_path: Path) -> None:
    late = "optim.encoder_begin=0.5"
    one = run(Job(tmp_path / "one", data, "videomae", 1, settings=(late, "train.batch_size=4")))
    two = run(Job(tmp_path / "two", data, "videomae", 2, settings=(late,)))
    assert (one.codes, two.codes) == ([0], [0, 0]), (one.lines, two.lines)
    other = weights(tmp_path / "two", 6)
    for name, value in weights(tmp_path / "one", 6).items():
        if "bias" not in name:  # that of attention's keys changes nothing: its slope is rounding alone
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_random_weights_and_adapters_do_not_wait() -> None:
    encoder = small_encoder()
    assert encoder.random_start
    assert encoder_begin(encoder, LATE) == 0.0
    encoder.random_start = False
    assert encoder_begin(encoder, LATE) == 0.4
    assert encoder_begin(encoder, OptimSettings()) == 0.0
    encoder.adapter = (object(),)
    assert encoder_begin(encoder, LATE) == 0.0
    assert encoder_begin(None, LATE) == 0.0
