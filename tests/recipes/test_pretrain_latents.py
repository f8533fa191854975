"""V-JEPA and SALT: block masks that keep every time, losses by their equations, and a run that changes stages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from objective_factory import SMALL, build, make_batch, small_encoder
from pydantic import ValidationError
from store_factory import make_prepared
from torch import Tensor
from torch.nn import functional as F

from domains.errors import ConfigError
from recipes.config import Layer, OptimSettings, parse_assignments, resolve
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.jobs.pretrain import pretrain
from recipes.objective import Progress
from recipes.parts.blocks import Blocks, block_masks, usual_size
from recipes.parts.latents import idle, latents, variety
from recipes.parts.pixels import masked_pixel_loss
from recipes.parts.teacher import FrozenTeacher
from recipes.pretrain.salt import SALT
from recipes.pretrain.vjepa import VJEPA
from recipes.runs.metrics import read_metrics
from recipes.training.checkpoint import load_file
from recipes.training.optim import learning_rate
from recipes.training.reporter import SilentReporter

GRID = (4, 14, 14)
SHORT, LONG = Blocks(8, 0.15), Blocks(2, 0.7)


@pytest.mark.parametrize("blocks", [SHORT, LONG])
def test_block_masks_hide_the_same_number_of_places_in_every_frame(blocks: Blocks) -> None:
    masks = block_masks(torch.arange(40), GRID, blocks)
    size = usual_size(14, 14, blocks)
    assert masks.hidden.shape == (40, 1, 4 * size)
    both = torch.cat([masks.visible, masks.hidden], dim=-1).sort(dim=-1).values
    assert torch.equal(both, torch.arange(4 * 196).expand(40, 1, -1))
    assert (masks.visible.diff(dim=-1) > 0).all()
    frames = masks.hidden[:, 0].view(40, 4, size) - 196 * torch.arange(4).view(1, 4, 1)
    assert torch.equal(frames, frames[:, :1].expand(-1, 4, -1))  # hidden through the whole clip


def test_nothing_is_cut_off_the_end() -> None:
    """Lists in the order of time, cut to the shortest of the batch as the authors' collator does, lose their last frames; ours lose nothing."""
    seeds = torch.arange(16)
    random = torch.Generator().manual_seed(0)
    unions = torch.rand(16, 14, 14, generator=random) < torch.linspace(0.6, 0.9, 16).view(-1, 1, 1)  # of 16 sizes
    visible = [(~union).flatten().repeat(4).nonzero().flatten() for union in unions]
    shortest = min(len(one) for one in visible)
    theirs = torch.stack([torch.bincount(one[:shortest] // 196, minlength=4) for one in visible])
    assert (theirs[:, 3] < theirs[:, 0]).sum() == 15  # all samples but the shortest itself
    ours = block_masks(seeds, GRID, SHORT)
    for places in (ours.visible[:, 0], ours.hidden[:, 0]):
        counts = torch.stack([torch.bincount(one // 196, minlength=4) for one in places])
        assert torch.equal(counts, counts[:, :1].expand(-1, 4))
        assert torch.equal(counts, counts[:1].expand(16, -1))  # in every sample


def test_block_masks_are_blocks_grown_or_shrunk_at_their_edges() -> None:
    hidden = torch.zeros(200, 196).scatter(1, block_masks(torch.arange(200), (1, 14, 14), SHORT).hidden[:, 0], 1.0)
    around = F.avg_pool2d(F.pad(hidden.view(200, 1, 14, 14), (1, 1, 1, 1), mode="replicate"), 3, 1)
    alone = (around * 9 <= 1.5) & (hidden.view(200, 1, 14, 14) == 1)
    assert alone.sum() <= 2  # hidden places lie together; by chance alone, one in seven of what is visible would not
    scattered = (around * 9 >= 7.5) & (hidden.view(200, 1, 14, 14) == 0)
    assert scattered.sum() / (1 - hidden).sum() < 0.02


def test_the_usual_size_of_a_mask() -> None:
    assert usual_size(14, 14, Blocks(1, 0.25, (1.0, 1.0))) == 49  # one square of half the side
    assert usual_size(14, 14, Blocks(30, 0.9)) == 195  # one place stays visible
    assert usual_size(4, 4, Blocks(1, 0.01)) == 1
    # What 8 blocks that fell anywhere, also over the border, would leave is 0.85^8 = 0.27; within the frame they overlap more.
    assert usual_size(14, 14, SHORT) / 196 == pytest.approx(0.64, abs=0.01)
    assert usual_size(14, 14, LONG) / 196 == pytest.approx(0.84, abs=0.01)


def test_a_block_mask_follows_from_its_own_seed() -> None:
    seeds = torch.tensor([3, 2**62, 2**62 + 1])
    together = block_masks(seeds, GRID, LONG).hidden
    for row in range(3):
        assert torch.equal(block_masks(seeds[row : row + 1], GRID, LONG).hidden[0], together[row])
    assert not torch.equal(together[1], together[2])
    assert not torch.equal(block_masks(seeds, GRID, LONG, name="other").hidden, together)


def predicted(objective: VJEPA | SALT, clip: Tensor, module: str, seeds: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(what a module says of the hidden places, the places) for both masks."""
    found = []
    for visible, hidden in objective.settings.places(seeds, objective.encoder.grid, torch.device("cpu")):
        found.append((getattr(objective, module)(objective.encoder(clip, visible), visible, hidden), hidden))
    return found


def by_hand(targets: Tensor, found: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean over masks of the mean absolute difference, token by token."""
    means = []
    for tokens, hidden in found:
        rows = [
            (tokens[b, n] - targets[b, place]).abs().mean()
            for b, row in enumerate(hidden)
            for n, place in enumerate(row)
        ]
        means.append(torch.stack(rows).mean())
    return torch.stack(means).mean()


@torch.no_grad()
def test_vjepa_by_its_equation() -> None:
    objective = build("vjepa")
    assert isinstance(objective, VJEPA)
    for parameter in objective.teacher.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape))
    batch = make_batch(objective)
    tokens = objective.teacher.module(batch["clip"])
    targets = (tokens - tokens.mean(dim=-1, keepdim=True)) / (
        tokens.var(dim=-1, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    losses = objective(batch)
    found = predicted(objective, batch["clip"], "predictor", batch.seeds)
    assert found[0][1].shape != found[1][1].shape  # two masks, of different sizes
    torch.testing.assert_close(losses["loss"], by_hand(targets, found), rtol=1e-4, atol=1e-5)


def test_latents_are_normalised_and_carry_no_gradient() -> None:
    tokens = torch.nn.Linear(1, 1)

    class Says(torch.nn.Module):
        def forward(self, clip: Tensor) -> Tensor:
            return tokens(clip.new_ones(1)) * torch.tensor([[[1.0, 3.0], [-2.0, 2.0]]])

    found = latents(Says(), torch.zeros(1))
    torch.testing.assert_close(found.abs(), torch.ones(1, 2, 2), rtol=1e-4, atol=1e-4)
    assert not found.requires_grad


def test_variety() -> None:
    assert variety(torch.ones(2, 3, 4)).item() == 0
    assert variety(torch.tensor([[[1.0, -1.0]], [[-1.0, 1.0]]])).item() == pytest.approx(1)


def test_idle_parameters_have_a_gradient_of_zero() -> None:
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    nothing = idle(layer)
    nothing.backward()
    assert nothing.item() == 0
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()
    assert layer.bias.grad is None


def test_vjepa_teacher_follows_in_a_straight_line_and_is_left_behind() -> None:
    objective = build("vjepa", teacher_momentum=0.5, teacher_momentum_end=1.0)
    assert isinstance(objective, VJEPA)
    for step, momentum in ((0, 0.5), (50, 0.75), (100, 1.0)):
        objective.before_step(Progress(step, 100, 0))
        assert objective.teacher_momentum == pytest.approx(momentum)
    objective.before_step(Progress(50, 100, 0))
    before = objective.teacher.module.model.layernorm.weight.clone()
    with torch.no_grad():
        objective.encoder.model.layernorm.weight.add_(1)
    objective.after_step(Progress(51, 100, 0))
    torch.testing.assert_close(objective.teacher.module.model.layernorm.weight, before + 0.25)
    assert objective.final_encoder() is objective.teacher.module


def salt(**settings: object) -> SALT:
    objective = build("salt", **settings)
    assert isinstance(objective, SALT)
    return objective


@torch.no_grad()
def test_salt_by_its_equations() -> None:
    objective = salt(stage1=0.5)
    batch = make_batch(objective)
    objective.before_step(Progress(49, 100, 0))
    losses = objective(batch)
    assert losses["stage"] == 1
    means = [
        masked_pixel_loss(pixels, batch["clip"], hidden, objective.encoder.patch)
        for pixels, hidden in predicted(objective, batch["clip"], "decoder", batch.seeds)
    ]
    torch.testing.assert_close(losses["loss"], torch.stack(means).mean(), rtol=1e-5, atol=1e-6)
    objective.before_step(Progress(50, 100, 0))
    losses = objective(batch)
    assert losses["stage"] == 2
    tokens = objective.teacher.module(batch["clip"])
    expected = by_hand(F.layer_norm(tokens, (24,)), predicted(objective, batch["clip"], "predictor", batch.seeds))
    torch.testing.assert_close(losses["loss"], expected, rtol=1e-4, atol=1e-5)


def test_salt_changes_teacher_and_student_after_the_last_step_of_stage_1() -> None:
    objective = salt(stage1=0.3)
    start = {name: p.clone() for name, p in objective.encoder.named_parameters()}
    with torch.no_grad():
        for parameter in objective.encoder.parameters():
            parameter.add_(0.1)
    learned = {name: p.clone() for name, p in objective.encoder.named_parameters()}
    for step in (1, 2):
        objective.after_step(Progress(step, 10, 0))
        assert all(torch.equal(p, learned[name]) for name, p in objective.encoder.named_parameters())
    for step in (3, 4, 10):  # and never back
        objective.after_step(Progress(step, 10, 0))
        assert all(torch.equal(p, start[name]) for name, p in objective.encoder.named_parameters())
        assert all(torch.equal(p, learned[name]) for name, p in objective.teacher.module.named_parameters())
    assert not any(p.requires_grad for p in objective.teacher.parameters())
    assert all(p.requires_grad for p in objective.encoder.parameters())


def test_each_stage_of_salt_has_a_learning_rate_of_its_own() -> None:
    objective, optim = salt(stage1=0.25), OptimSettings(warmup=0.2)
    stages = [objective.stage(Progress(step, 100, 0.5)) for step in range(100)]
    assert [(one.step, one.total) for one in (stages[0], stages[24], stages[25], stages[99])] == [
        (0, 25), (24, 25), (0, 75), (74, 75),
    ]  # fmt: skip
    rates = [learning_rate(optim, one.step, one.total) for one in stages]
    assert rates[0] == pytest.approx(optim.lr / 5)
    assert rates[4] == rates[39] == pytest.approx(optim.lr)
    assert rates[24] == rates[99] == pytest.approx(optim.final_lr)
    assert rates[25] == pytest.approx(optim.lr / 15)
    whole = build("vjepa").stage(Progress(7, 100, 0.5))
    assert (whole.step, whole.total) == (7, 100)


def test_only_the_stage_of_a_module_gives_it_a_gradient() -> None:
    for step, learns, idles in ((0, "decoder", "predictor"), (99, "predictor", "decoder")):
        objective = salt()
        objective.before_step(Progress(step, 100, 0))
        objective(make_batch(objective))["loss"].backward()
        moved = {
            name: any(bool(p.grad is not None and p.grad.any()) for p in getattr(objective, name).parameters())
            for name in ("encoder", learns, idles, "teacher")
        }
        assert moved == {"encoder": True, learns: True, idles: False, "teacher": False}


def test_a_salt_teacher_of_ones_own_may_be_of_another_width(tmp_path: Path) -> None:
    shape = {
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "patch_size": 8,
        "tubelet_size": 2,
    }
    narrow = fresh_videomae(Geometry(frames=8, size=32), seed=3, hidden_size=16, **shape)
    narrow.save(tmp_path / "teacher")
    objective = salt(teacher=str(tmp_path / "teacher"))
    assert objective.settings.first == 0
    objective.before_step(Progress(0, 100, 0))
    batch = make_batch(objective)
    losses = objective(batch)
    assert losses["stage"] == 2
    narrow.set_geometry(objective.encoder.geometry)
    with torch.no_grad():
        targets = F.layer_norm(narrow(batch["clip"]), (16,))
        expected = by_hand(targets, predicted(objective, batch["clip"], "predictor", batch.seeds))
    torch.testing.assert_close(losses["loss"].detach(), expected, rtol=1e-4, atol=1e-5)
    before = [p.clone() for p in objective.teacher.parameters()]
    for step in range(3):
        objective.after_step(Progress(step, 2, 0))
    assert all(torch.equal(p, old) for p, old in zip(objective.teacher.parameters(), before, strict=True))

    coarse = fresh_videomae(Geometry(frames=4, size=32), seed=0, hidden_size=16, **{**shape, "patch_size": 16})
    coarse.save(tmp_path / "coarse")
    with pytest.raises(ConfigError, match="2x2x2 tokens and the encoder as 2x4x4"):
        salt(teacher=str(tmp_path / "coarse"))
    other = fresh_videomae(Geometry(frames=4, size=32, mean=(0.5, 0.5, 0.5)), seed=0, hidden_size=16, **shape)
    other.save(tmp_path / "other")
    with pytest.raises(ConfigError, match="another mean and deviation"):
        salt(teacher=str(tmp_path / "other"))


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValidationError, match="leave one of the two out"):
        SALT.Settings(teacher="runs/a", stage1=0.5)
    with pytest.raises(ValidationError, match="multiple of predictor_heads"):
        VJEPA.Settings(predictor_width=100, predictor_heads=12)
    with pytest.raises(ValidationError, match="two rising numbers"):
        VJEPA.Settings(aspect=(1.5, 0.75))
    assert SALT.Settings().first == 0.25
    assert SALT.Settings(stage1=0).first == 0


def test_teachers_change_places_with_their_students() -> None:
    student = torch.nn.BatchNorm1d(2)
    teacher = FrozenTeacher(student)
    with torch.no_grad():
        student.weight.fill_(3)
        student.running_mean.fill_(5)
        student.num_batches_tracked.fill_(7)
    teacher.swap(student)
    assert teacher.module.weight.tolist() == [3, 3]
    assert student.weight.tolist() == [1, 1]
    assert (teacher.module.running_mean[0], student.running_mean[0]) == (5, 0)
    assert (teacher.module.num_batches_tracked, student.num_batches_tracked) == (7, 0)
    assert not teacher.train().training


def test_a_run_of_salt_goes_through_both_stages_and_resumes_in_either(tmp_path: Path) -> None:
    make_prepared(tmp_path / "prepared", videos=4, patients=4, size=48, frames=12)
    small_encoder().save(tmp_path / "encoder")
    words = [
        f"data.path={tmp_path / 'prepared'}", f"encoder.name={tmp_path / 'encoder'}", "data.workers=0", "clip.frames=4", "clip.size=32",
        "train.steps=8", "train.batch_size=2", "train.log_every=1", "train.save_every=1", "train.keep=20", "train.monitor_every=100",
        "train.precision=fp32", "monitor.clips=4", "objective.stage1=0.5",
    ]  # fmt: skip
    resolved = resolve(
        [Layer("salt", {"method": "salt", "objective": SMALL["salt"]}), Layer("test", parse_assignments(words))]
    )
    run = pretrain(resolved, tmp_path / "run", reporter=SilentReporter()).parent
    rows = {row["step"]: row for row in read_metrics(run) if "loss" in row}
    assert [rows[step]["stage"] for step in (1, 4, 5, 8)] == [1, 1, 2, 2]
    assert [rows[step]["target_variety"] > 0 for step in (4, 5)] == [False, True]
    assert rows[4]["lr"] < 0.1 * rows[2]["lr"]
    assert rows[5]["lr"] > 10 * rows[4]["lr"]  # it rises again

    def weights(folder: Path, step: int) -> dict[str, Tensor]:
        return load_file(folder / "checkpoints" / f"step_{step:08d}" / "objective.safetensors")

    start, whole = small_encoder().state_dict(), weights(run, 8)
    assert all(torch.equal(value, start[name]) for name, value in part(weights(run, 4), "encoder.").items())
    teacher = part(weights(run, 4), "teacher.module.")
    assert any(not torch.equal(value, start[name]) for name, value in teacher.items())
    assert all(torch.equal(value, teacher[name]) for name, value in part(whole, "teacher.module.").items())
    for step in (3, 4):  # in stage 1, and between the two
        pretrain(resolved, run, from_step=step, reporter=SilentReporter())
        again = weights(run, 8)
        assert all(torch.equal(value, again[name]) for name, value in whole.items()), step


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What lies under a prefix, by its name there."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
