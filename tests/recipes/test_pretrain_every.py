"""What every method of pretraining promises. A new one only adds its line to `objective_factory.SMALL`."""

from __future__ import annotations

import copy
import math
import socket
from pathlib import Path

import pytest
import torch
from objective_factory import RECORDINGS, SHORT, SMALL, WATCHED, build, make_batch, small_encoder
from store_factory import make_prepared, write_events, write_measured
from text_factory import write_narrations, write_text
from torch import Tensor, nn
from torch import distributed as dist
from torch import multiprocessing as mp

from domains.base import load_domain
from recipes.config import Layer, parse_assignments, recipe_names, recipe_yaml, resolve, yaml_layer
from recipes.jobs.pretrain import complete, pretrain
from recipes.objective import Batch, Contrast, Objective, Progress
from recipes.parts.gradient_cache import GradientCache
from recipes.pretrain import METHODS, method
from recipes.runs.metrics import read_lines, read_metrics
from recipes.runs.run import ALARMS
from recipes.training.flops import flops_on_paper
from recipes.training.reporter import SilentReporter
from recipes.training.sharding import weights_of, whole_tensor

NAMES = [one.name for one in METHODS]
ECHO = load_domain("echo").run_layer()
# Of two processes: with whole weights, where the second step meets what the first left behind (queues, centres, teachers), and with weights spread
# over them, of which each tensor is gathered to be looked at, which takes its time.
STEPS = {False: 2, True: 1}
HALFWAY = Progress(step=50, total=100, epoch=1.0)


def gradients(objective: nn.Module) -> dict[str, Tensor]:
    """A copy of each, which are then forgotten."""
    found = {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}
    objective.zero_grad()
    return found


def values(objective: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, copied."""
    return {name: value.detach().clone() for name, value in objective.state_dict().items()}


def one_step(objective: Objective, batch: Batch) -> dict[str, Tensor]:
    """A whole optimiser step, as the loop makes it. Returns the losses."""
    optimiser = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.1)
    objective.before_step(HALFWAY)
    losses = objective(batch)
    losses["loss"].backward()
    optimiser.step()
    optimiser.zero_grad()
    objective.after_step(HALFWAY)
    return losses


def test_every_method_has_a_recipe_and_every_recipe_a_method() -> None:
    assert set(NAMES) <= set(recipe_names())  # and some add pretext tasks to a method
    for recipe in recipe_names():
        resolved = complete(resolve([yaml_layer(recipe_yaml(recipe))]))
        other = resolved.config.method != recipe  # it adds pretext tasks to a method, or sets one up as a paper does
        assert not other or resolved.config.pretext or resolved.config.method in NAMES
    assert set(SMALL) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_its_recipe_is_whole(name: str) -> None:
    kind, layer = method(name), yaml_layer(recipe_yaml(name))
    assert layer.values["method"] == name
    kind.Settings(**layer.values.get("objective", {}))
    resolve([layer])
    assert kind.paper
    assert all(field.description for field in kind.Settings.model_fields.values())
    head = recipe_yaml(name).read_text().splitlines()
    assert head[0].startswith("# ")
    assert any("vfm pretrain" in line and f"--recipe {name}" in line for line in head[:12])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_all_that_is_trained_and_nothing_else(name: str) -> None:
    objective = build(name)
    objective.before_step(HALFWAY)
    losses = objective(make_batch(objective))
    assert all(value.ndim == 0 for value in losses.values())
    assert [key for key, value in losses.items() if value.requires_grad] == ["loss"]
    losses["loss"].backward()
    assert math.isfinite(losses["loss"].item())
    for key, parameter in objective.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), key
    moved = [key for key, p in objective.encoder.named_parameters() if p.grad is not None and bool(p.grad.any())]
    assert any("encoder.layer.0" in key for key in moved) == objective.adapts  # to the first block
    assert any("patch_embeddings" in key for key in moved) == objective.adapts
    assert moved  # in what is left behind


@pytest.mark.parametrize("name", NAMES)
def test_one_step_changes_the_student_and_not_what_is_frozen(name: str) -> None:
    objective = build(name)
    frozen = {key for key, p in objective.named_parameters() if not p.requires_grad}
    teachers = {key for key in frozen if "teacher" in key}  # they follow, after the step
    before = values(objective)
    one_step(objective, make_batch(objective))
    after = values(objective)
    changed = {key for key in before if not before[key].equal(after[key])}
    assert any(key.startswith("encoder.") for key in changed)
    assert not changed & (frozen - teachers)
    assert all(after[key].isfinite().all() for key in after)
    first, last = small_encoder().state_dict(), objective.final_encoder().state_dict()
    assert first.keys() <= last.keys()  # what is left behind is an encoder of the same kind
    assert all(key in first or key.startswith(("context.", "temporal.", "trajectory.")) for key in last)
    assert any(not first[key].equal(last[key]) for key in first) == objective.adapts


@pytest.mark.parametrize("name", NAMES)
def test_a_step_can_be_replayed_and_nothing_is_hidden_from_a_checkpoint(name: str) -> None:
    """The state after a step, loaded into a new objective, gives the same next step to the bit."""
    objective = build(name)
    batch = make_batch(objective)
    one_step(objective, batch)
    again = build(name)
    again.load_state_dict(values(objective))
    other = make_batch(objective, seed=1)
    first, second = one_step(objective, other), one_step(again, other)
    assert first.keys() == second.keys()
    assert all(first[key].equal(second[key]) for key in first)
    assert all(value.equal(again.state_dict()[key]) for key, value in objective.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_samples_do_not_know_their_place_in_the_batch(name: str) -> None:
    objective = build(name)
    batch, order = make_batch(objective), torch.tensor([3, 0, 5, 1, 4, 2])
    moved = batch.take(order)
    objective.before_step(HALFWAY)
    there = copy.deepcopy(objective)
    torch.testing.assert_close(objective(batch)["loss"], there(moved)["loss"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_in_half_precision(name: str) -> None:
    objective = build(name)
    batch = make_batch(objective)
    objective.before_step(HALFWAY)
    exact = copy.deepcopy(objective)(batch)["loss"].item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = objective(batch)
    losses["loss"].backward()
    assert losses["loss"].dtype == torch.float32
    assert losses["loss"].item() == pytest.approx(exact, rel=0.1, abs=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_decided_by_values(name: str) -> None:
    """On torch's meta device, where tensors have shapes and no values: a step never waits for the device, and its operations can be counted."""
    objective = build(name)
    objective.before_step(HALFWAY)
    assert flops_on_paper(objective, make_batch(objective))


@pytest.mark.parametrize("name", [one.name for one in METHODS if issubclass(one, Contrast)])
def test_pieces_have_the_gradients_of_the_whole_batch(name: str) -> None:
    whole = build(name)
    assert isinstance(whole, Contrast)
    batch = make_batch(whole)
    whole.before_step(HALFWAY)
    pieces = copy.deepcopy(whole)
    loss = whole(batch)["loss"]
    loss.backward()
    cache = GradientCache(batch.pieces(4), pieces.embed, pieces.compare)
    for piece, slopes in cache:
        pieces(piece, slopes)["loss"].backward()
    torch.testing.assert_close(cache.losses["loss"], loss)
    expected, found = gradients(whole), gradients(pieces)
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-6, msg=key)
    whole.after_step(HALFWAY)
    pieces.after_step(HALFWAY)
    for key, value in whole.state_dict().items():  # queues saw every sample once
        torch.testing.assert_close(pieces.state_dict()[key], value, rtol=1e-5, atol=1e-6, msg=key)


def looked_at(objective: Objective) -> Tensor:
    """Features of whole clips, by the encoder that a run would leave behind."""
    clip = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return objective.final_encoder().eval().embed(clip).detach()


def rank_main(rank: int, port: int, folder: str) -> None:
    """Steps of every method, of half of the batch, with whole weights and with weights spread over the processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    results: dict[str, Tensor] = {}
    for name in NAMES:
        for shard in (False, True):
            weights = weights_of(build(name), torch.device("cpu"), shard=shard)
            objective, title = weights.learner, f"{name}.{shard}"
            wrapped = objective if shard else nn.parallel.DistributedDataParallel(objective)
            for number in range(STEPS[shard]):
                objective.before_step(HALFWAY)
                loss = wrapped(make_batch(objective, seed=number).pieces(3)[rank])["loss"]
                loss.backward()
                results[f"{title}.{number}.loss"] = loss.detach()
                found = {key: whole_tensor(value) for key, value in gradients(objective).items()}
                results |= {f"{title}.{number}.gradient.{key}": value for key, value in found.items()}
                weights.after_step(HALFWAY)
            state = {key: whole_tensor(value) for key, value in values(objective).items()}
            results |= {f"{title}.state.{key}": value for key, value in state.items()}
            with weights.whole(weights.objective.final_encoder()):  # as a monitor looks at it
                results[f"{title}.seen"] = looked_at(weights.objective)
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(rank_main, args=(port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_are_one_with_the_whole_batch(name: str, shard: bool, ranks: list[dict[str, Tensor]]) -> None:
    objective, title = build(name), f"{name}.{shard}"
    for number in range(STEPS[shard]):
        objective.before_step(HALFWAY)
        loss = objective(make_batch(objective, seed=number))["loss"]
        loss.backward()
        mean = (ranks[0][f"{title}.{number}.loss"] + ranks[1][f"{title}.{number}.loss"]) / 2
        torch.testing.assert_close(mean, loss.detach(), rtol=1e-6, atol=2e-6)
        expected = gradients(objective)
        # A gradient that cancels (of a bias that a standardised head does not see) is rounding of the others.
        rounding = 5e-6 * max(1.0, *(value.abs().max().item() for value in expected.values()))
        for key, value in expected.items():
            for rank in ranks:
                found = rank[f"{title}.{number}.gradient.{key}"]
                torch.testing.assert_close(found, value, rtol=1e-4, atol=rounding, msg=f"{number} {key}")
        objective.after_step(HALFWAY)
    for key, value in objective.state_dict().items():
        for rank in ranks:
            torch.testing.assert_close(rank[f"{title}.state.{key}"], value, rtol=1e-4, atol=2e-6, msg=key)
    for rank in ranks:
        torch.testing.assert_close(rank[f"{title}.seen"], looked_at(objective), rtol=1e-4, atol=2e-6)


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rings that beat (see `store_factory`), prepared, and a small encoder for their clips."""
    root = tmp_path_factory.mktemp("rings")
    made = make_prepared(root / "prepared", videos=32, patients=32, size=48, frames=40)
    write_narrations(made.labels, root / "narrations.csv")
    write_text(root / "text", num_hidden_layers=2)
    write_events(made, root / "prepared" / "views.csv")
    write_measured(made, SMALL["imu"]["channels"], SMALL["previps"]["joints"])
    make_prepared(root / "fading", videos=32, patients=32, size=48, frames=40, fading=True)
    small_encoder(width=48).save(root / "encoder")
    return root


@pytest.mark.parametrize("name", NAMES)
def test_a_short_run_learns_without_collapse(name: str, rings: Path, tmp_path: Path) -> None:
    words = [
        f"data.path={rings / RECORDINGS.get(name, 'prepared')}",
        f"encoder.name={rings / 'encoder'}", "data.workers=0", "clip.frames=4", "clip.size=32",
        "train.steps=80", "train.batch_size=8", "train.log_every=5", "train.monitor_every=20", "train.precision=fp32", "monitor.clips=16",
        "optim.lr=0.0005", *SHORT.get(name, ()),
    ]  # fmt: skip
    if method(name).labelled:
        words += [
            f"data.source.path={rings / 'fading'}",
            "data.source.task=view",
            f"data.source.labels={rings / 'fading.labels.csv'}",
        ]
    if method(name).texts:
        words += [f"text.files=[{rings / 'narrations.csv'}]", f"text.name={rings / 'text'}"]
    layers = [Layer("the method", {"method": name, "objective": SMALL[name]}), Layer("echo", ECHO)]
    resolved = resolve([*layers, Layer("test", parse_assignments(words))])
    run = pretrain(resolved, tmp_path / "run", reporter=SilentReporter()).parent
    rows = [row for row in read_metrics(run) if "loss" in row]
    watched = [WATCHED.get(name, lambda row: row["loss"])(row) for row in rows]
    assert sum(watched[-3:]) < sum(watched[:3])
    assert read_lines(run / ALARMS) == []
    looked = [row for row in rows if "rankme" in row]
    assert len({row["rankme"] for row in looked}) >= 3  # so that there was something to raise an alarm
    for row in looked:
        assert all(math.isfinite(row[figure]) for figure in ("rankme", "feature_entropy", "deviation", "grad_norm"))
        assert all(
            0 <= value <= 1.0001
            for figure, value in row.items()
            if "prototype_entropy" in figure or "output_entropy" in figure
        )
