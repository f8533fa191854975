"""What a step costs and where its time goes: operations counted by hand, phases, and the page that `--profile` leaves."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from objective_factory import build, make_batch
from torch import nn
from torch.nn import functional as F

from recipes.training.compiled import compile_blocks
from recipes.training.flops import flops_of, peak
from recipes.training.phases import PHASES, Phases
from recipes.training.profile import Profiler, Summary, _covered, summarise

CPU = torch.device("cpu")


def test_operations_of_a_linear_layer_and_its_gradients_by_hand() -> None:
    layer, x = nn.Linear(8, 16), torch.randn(5, 8)
    assert flops_of(lambda: layer(x)) == 2 * 5 * 8 * 16
    assert flops_of(lambda: layer(x).sum().backward()) == 2 * (2 * 5 * 8 * 16)  # x needs no gradient


@pytest.mark.parametrize("bf16", [False, True])
def test_operations_of_attention_by_hand(bf16: bool) -> None:
    q = torch.randn(2, 3, 10, 8, requires_grad=True)
    forward = 2 * (2 * 3) * (10 * 10 * 8) * 2  # scores and values, batch times heads, multiply and add
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        assert flops_of(lambda: F.scaled_dot_product_attention(q, q, q)) == forward
        assert flops_of(lambda: F.scaled_dot_product_attention(q, q, q).sum().backward()) == 3 * forward


def test_a_cpu_has_no_peak_that_we_know() -> None:
    assert peak(CPU, bf16=True) is None


def test_phases_are_shares_of_the_time_and_start_anew() -> None:
    phases = Phases(CPU)
    with phases("data"):
        time.sleep(0.03)
    with phases("forward"):
        time.sleep(0.01)
    time.sleep(0.01)
    shares = phases.shares()
    assert set(shares) == set(PHASES)
    assert shares["data"] > shares["forward"] > 0 == shares["backward"]
    assert sum(shares.values()) < 1
    assert phases.shares()["data"] == 0


def steps_of(
    run: Path, profiled: int, steps: int, wait: float, size: int, workers: int = 0
) -> tuple[Summary | None, list[str]]:
    """What a profiler has found at the end of a run of `steps` steps, and what it has said."""
    said: list[str] = []
    profiler, phases = Profiler(run, profiled, workers, said.append), Phases(CPU)
    layer, x = nn.Linear(size, size), torch.randn(size, size)
    with profiler.running():
        for _ in range(steps):
            with phases("data"):
                if wait:  # sleeping for no time at all still lets others run first, on a busy machine for long
                    time.sleep(wait)
            with phases("forward"):
                loss = layer(x).square().mean()
            with phases("backward"):
                loss.backward()
            profiler.tick()
    return profiler.summary, said


def test_a_profile_leaves_a_trace_and_names_the_bottleneck(tmp_path: Path) -> None:
    summary, said = steps_of(tmp_path, 2, steps=9, wait=0.02, size=16, workers=3)
    assert summary is not None
    assert said == [f"profile: {summary.bottleneck} ({tmp_path}/profile/)"]
    assert summary.steps == 2
    assert summary.seconds > 0.02
    assert summary.phases["data"] > 0.5
    assert summary.idle is None
    assert "waits for data: raise data.workers (now 3)" in summary.bottleneck
    written = json.loads((tmp_path / "profile/summary.json").read_text())
    assert written["bottleneck"] == summary.bottleneck
    assert "bottleneck: " in (tmp_path / "profile/summary.txt").read_text()
    with gzip.open(tmp_path / "profile/trace.json.gz") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {"vfm.data", "vfm.forward", "vfm.backward", "aten::addmm"} <= names


def test_a_run_that_computes_is_told_what_is_dearest(tmp_path: Path) -> None:
    summary, _ = steps_of(tmp_path, 3, steps=6, wait=0, size=512)
    assert summary is not None
    assert summary.phases["data"] < summary.phases["forward"] + summary.phases["backward"]
    assert next(iter(summary.operations)) in summary.bottleneck
    assert all(name.startswith("aten::") for name in summary.operations)


def test_no_profile_where_none_is_asked(tmp_path: Path) -> None:
    assert steps_of(tmp_path, 0, steps=5, wait=0, size=4) == (None, [])
    assert not list(tmp_path.iterdir())


def test_a_run_that_ends_early_is_profiled_as_far_as_it_came(tmp_path: Path) -> None:
    """The figures are of the steps that there were, not of those that were asked for."""
    summary, said = steps_of(tmp_path, 5, steps=5, wait=0.05, size=4)
    assert summary is not None
    assert summary.steps == 2
    assert summary.seconds > 0.05
    assert len(said) == 1
    assert steps_of(tmp_path / "short", 5, steps=3, wait=0, size=4) == (
        None,
        ["no profile: the run ended within its first 3 steps, which are not looked at"],
    )


def test_an_idle_gpu_is_named() -> None:
    summary = Summary(5, 0.1, {**dict.fromkeys(PHASES, 0.0), "forward": 0.5}, 0.3, {"gemm": 0.6}, 2)
    assert summary.bottleneck.startswith("the GPU is idle for 30% of the time")
    assert _covered([(0, 2), (1, 3), (5, 6), (5.5, 5.7)]) == 4


def test_on_a_gpu_the_backward_pass_is_what_runs_outside_of_the_other_phases() -> None:
    """autograd starts its kernels from a thread of its own: the range of the phase on the GPU is all but empty."""

    def event(name: str, start: float, end: float, gpu: bool = True) -> SimpleNamespace:
        kind = torch.autograd.DeviceType.CUDA if gpu else torch.autograd.DeviceType.CPU
        span = SimpleNamespace(start=start, end=end)
        return SimpleNamespace(name=name, time_range=span, device_type=kind, self_cpu_time_total=0.0)

    events = [
        event("vfm.forward", 0, 30), event("product", 0, 20), event("sum", 22, 30),
        event("vfm.backward", 31, 31.5), event("product", 31, 70), event("product", 60, 80),
        event("vfm.optimiser", 80, 90), event("adam", 80, 90), event("vfm.backward", 5, 10, gpu=False),
    ]  # fmt: skip
    found = summarise(events, steps=1, workers=2)
    assert found.seconds == pytest.approx(90e-6)
    shares = {phase: round(share * 90, 6) for phase, share in found.phases.items()}
    assert shares == {"data": 0, "transfer": 0, "forward": 30, "backward": 49, "optimiser": 10}
    assert found.idle == pytest.approx(3 / 90)


def test_compiled_blocks_are_those_of_encoders_decoders_and_teachers_and_give_the_same() -> None:
    """With the backend that only traces: what is compiled for a GPU needs one."""
    plain, traced = build("discovr"), build("discovr")
    count = compile_blocks(traced, backend="eager")
    assert count > len(traced.encoder.blocks)
    losses = [objective(make_batch(objective))["loss"] for objective in (plain, traced)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[0], losses[1])
    assert traced.state_dict().keys() == plain.state_dict().keys()
    for one, other in zip(plain.parameters(), traced.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad)
