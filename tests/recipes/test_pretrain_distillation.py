"""BYOL, SwAV and DINO on rho clips: their losses by hand, small crops, and what is held, queued or masked."""

from __future__ import annotations

import math

import pytest
import torch
from objective_factory import build, make_batch, small_encoder
from torch import Tensor
from torch.nn import functional as F

from recipes.objective import Batch, Clip, Progress
from recipes.parts.branch import Branch
from recipes.parts.crops import crop_box, of_crops, token_crops
from recipes.parts.heads import CosineLinear, renormalise
from recipes.parts.losses import teacher_probabilities
from recipes.parts.masks import tube_masks
from recipes.parts.prototypes import sinkhorn
from recipes.parts.rho import cross_entropy_across, distance_across, stacked
from recipes.parts.views import clips_of, rho_views
from recipes.pretrain.byol import BYOL
from recipes.pretrain.dino import DINO
from recipes.pretrain.swav import SwAV

VIEWS = ("first", "second")
STRONG = Clip(augment="strong")
HALFWAY = Progress(step=50, total=100, epoch=1.0)


def test_distances_by_hand() -> None:
    """One sample, three clips: the cosines of each prediction with the two other targets are -1 and 1, 0 and 0, 1 and -1."""
    predictions = torch.tensor([[[2.0, 0.0]], [[0.0, 3.0]], [[1.0, 0.0]]])
    targets = torch.tensor([[[1.0, 0.0]], [[-5.0, 0.0]], [[1.0, 0.0]]])
    pairs = [2 - 2 * -1, 2 - 2 * 1, 2 - 2 * 0, 2 - 2 * 0, 2 - 2 * 1, 2 - 2 * -1]
    assert distance_across(predictions, targets).item() == pytest.approx(sum(pairs) / 6)


def test_cross_entropies_by_hand() -> None:
    """Two clips of one sample with hard targets 0 and 1 out of two, and one small crop."""
    log2, log3 = math.log(2), math.log(3)
    targets = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    whole = torch.tensor([[[log3, 0.0]], [[0.0, 0.0]]])  # (3/4, 1/4) and (1/2, 1/2)
    small = torch.tensor([[[0.0, log2]]])  # (1/3, 2/3)
    first = log2 + log3  # target 0 against the other clip and the crop
    second = math.log(4) - math.log(2 / 3)  # target 1 against the other clip and the crop
    assert cross_entropy_across(targets, whole, 1.0, small).item() == pytest.approx((first + second) / 4)
    assert cross_entropy_across(targets, whole, 1.0).item() == pytest.approx((log2 + math.log(4)) / 2)
    sharper = cross_entropy_across(targets, whole, 0.5)  # (9/10, 1/10) and (1/2, 1/2)
    assert sharper.item() == pytest.approx((log2 + math.log(10)) / 2)


def test_views_of_rho_clips() -> None:
    assert [view.near for view in rho_views(3, STRONG).values()] == [None, None, None]
    one = rho_views(1, STRONG)
    assert one["second"].near == "first"
    assert one["second"].within == 0  # the same time
    assert one["second"].like is None  # another crop and light
    assert set(build("byol", rho=1).views) == set(build("dino").views) == {"first", "second"}
    assert list(clips_of(6, STRONG)) == ["first", "second", "third", "fourth", "clip_5", "clip_6"]
    clips = {"second": torch.full((2, 1), 2.0), "first": torch.full((2, 1), 1.0)}
    assert stacked(clips, rho_views(2, STRONG)).flatten().tolist() == [1, 1, 2, 2]


def test_small_crops_are_boxes_of_tokens() -> None:
    grid, seeds = (4, 7, 7), torch.tensor([3, 2**62])
    box = crop_box(grid, 0.5, 0.43)
    assert box == (2, 3, 3)
    assert crop_box((4, 2, 2), 0.01, 0.01) == (1, 1, 1)
    places = token_crops(seeds, grid, box, 50)
    assert places.shape == (2, 50, 18)
    assert (places.diff(dim=-1) > 0).all()
    t, h, w = places // 49, places // 7 % 7, places % 7
    for axis, length in ((t, 2), (h, 3), (w, 3)):
        assert (axis.amax(dim=-1) - axis.amin(dim=-1) == length - 1).all()
    assert set(t.flatten().tolist()) == {0, 1, 2, 3}  # anywhere, up to both ends
    assert set(h.flatten().tolist()) == set(w.flatten().tolist()) == set(range(7))
    assert torch.equal(token_crops(seeds[1:], grid, box, 50)[0], places[1])  # a sample's own
    assert not torch.equal(places[0], places[1])


@pytest.mark.parametrize("motion", [False, True])
def test_crops_of_each_clip_come_back_in_order(motion: bool) -> None:
    torch.manual_seed(0)
    encoder, seeds = small_encoder(), torch.tensor([5, 6, 7])
    branch = Branch(encoder, torch.nn.Linear(Branch.width(encoder, motion=motion), 5), motion=motion)
    clips = torch.randn(6, 4, 3, 32, 32)  # two views of three samples
    found = of_crops(branch, clips, seeds, 2, 2, frames=1.0, side=0.5)
    assert found.shape == (3, 4, 5)
    places = token_crops(seeds, encoder.grid, (2, 2, 2), 4, name="crops")
    for sample in range(3):
        for number in range(4):
            clip = clips[number // 2 * 3 + sample].unsqueeze(0)
            expected = branch(clip, places[sample, number].unsqueeze(0))
            torch.testing.assert_close(found[sample, number], expected[0], rtol=1e-4, atol=1e-5)


def test_shorter_crops_know_their_times() -> None:
    encoder = small_encoder()
    tokens = torch.randn(2, 8, 24)  # 8 places at one time
    places = torch.arange(8).expand(2, -1)
    assert encoder.statistics(tokens, places)[:, 24:].max() < 1e-5  # nothing changes at a single moment
    both = torch.cat([places[:, :4], places[:, :4] + 16], dim=1)
    by_hand = (tokens[:, :4] - tokens[:, 4:]).abs().div(2).mean(dim=1)  # four places at two times
    torch.testing.assert_close(encoder.statistics(tokens, both)[:, 24:], by_hand)
    several = encoder.statistics(tokens.view(1, 2, 8, 24), both.view(1, 2, 8))
    torch.testing.assert_close(several[0], encoder.statistics(tokens, both))
    losses = build("dino", head_motion=True, crop_frames=0.5)(make_batch(build("dino")))
    assert losses["loss"].isfinite()


@torch.no_grad()
def test_byol_by_its_equation() -> None:
    objective = build("byol", rho=2)
    assert isinstance(objective, BYOL)
    for parameter in objective.teacher.parameters():
        parameter.add_(0.05)  # no longer the student
    batch = make_batch(objective)
    losses = objective(batch)
    clips = torch.cat([batch["first"], batch["second"]])
    predicted = objective.predictor(objective.projector(objective.encoder.embed(clips))).unflatten(0, (2, -1))
    teacher = objective.teacher.module
    wanted = teacher.head(teacher.encoder.embed(clips)).unflatten(0, (2, -1))
    cosines = [F.cosine_similarity(predicted[i], wanted[1 - i], dim=-1) for i in (0, 1)]
    torch.testing.assert_close(losses["loss"], 2 - 2 * torch.stack(cosines).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["agreement"], torch.stack(cosines).mean(), rtol=1e-4, atol=1e-5)


def test_byol_keeps_the_student_and_averages_encoder_and_projector() -> None:
    objective = build("byol", teacher_momentum=0.75, teacher_momentum_end=0.75)
    assert isinstance(objective, BYOL)
    before = {name: p.clone() for name, p in objective.teacher.module.named_parameters()}
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.1 * parameter.requires_grad)
    objective.before_step(HALFWAY)
    objective.after_step(HALFWAY)
    student = dict(objective.student.named_parameters())
    assert {name.split(".")[0] for name in before} == {"encoder", "head"}  # the predictor has no teacher
    for name, p in objective.teacher.module.named_parameters():
        torch.testing.assert_close(p, 0.75 * before[name] + 0.25 * student[name])
    assert objective.final_encoder() is objective.encoder


def swav(**settings: object) -> SwAV:
    objective = build("swav", **{"queue": 0, "prototypes_wait": 0, **settings})
    assert isinstance(objective, SwAV)
    return objective


@torch.no_grad()
def test_swav_by_its_equation() -> None:
    objective = swav(crops=1, crop_side=0.5)
    batch = make_batch(objective)
    loss = objective(batch)["loss"]
    clips = torch.cat([batch["first"], batch["second"]])
    cosines = objective.prototypes(objective.head(objective.encoder.embed(clips))).unflatten(0, (2, -1))
    places = token_crops(batch.seeds, objective.encoder.grid, (2, 2, 2), 2, name="crops")
    tokens = [objective.encoder(batch[VIEWS[view]], places[:, view]) for view in (0, 1)]
    pooled = objective.encoder.pool(torch.stack(tokens))
    small = objective.prototypes(objective.head(pooled.flatten(0, 1))).unflatten(0, (2, -1))
    total = torch.zeros(())
    for i in (0, 1):
        assigned = sinkhorn(cosines[i], 0.05, 3)
        for view in (cosines[1 - i], small[0], small[1]):
            total -= (assigned * F.log_softmax(view / 0.1, dim=-1)).sum(dim=-1).mean() / 6
    torch.testing.assert_close(loss, total, rtol=1e-4, atol=1e-5)


def test_swav_assignments_are_balanced_with_the_queue_from_its_time_on() -> None:
    objective = swav(queue=16, queue_from=0.5)
    scores = torch.randn(6, 6).clamp(-1, 1)
    objective.before_step(Progress(49, 100, 0))
    torch.testing.assert_close(objective.assign(scores), sinkhorn(scores, 0.05, 3))
    objective.before_step(Progress(50, 100, 0))
    assert objective.queue is not None
    earlier = objective.prototypes(objective.queue.rows).detach()
    torch.testing.assert_close(objective.assign(scores), sinkhorn(torch.cat([scores, earlier]), 0.05, 3)[:6])
    before, batch = objective.queue.rows.clone(), make_batch(objective)
    objective(batch)
    clips = torch.cat([batch["first"], batch["second"]])
    with torch.no_grad():
        embedded = objective.head(objective.encoder.embed(clips))[:6]
    torch.testing.assert_close(objective.queue.rows[:6], F.normalize(embedded, dim=-1), rtol=1e-4, atol=1e-5)
    assert torch.equal(objective.queue.rows[6:], before[6:])


def test_swav_assignments_carry_no_gradient() -> None:
    objective = swav(crops=0, rho=2)
    q = torch.softmax(torch.randn(2, 6, 6), dim=-1).requires_grad_()
    cross_entropy_across(q, torch.randn(2, 6, 6, requires_grad=True), 0.1).backward()
    assert q.grad is None
    loss = objective(make_batch(objective))["loss"]
    loss.backward()
    assert objective.prototypes.weight.grad is not None
    assert objective.prototypes.weight.grad.abs().sum() > 0


def test_rows_that_are_held_stay_and_what_they_multiply_learns() -> None:
    torch.manual_seed(0)
    layer, x = CosineLinear(4, 3), torch.randn(5, 4, requires_grad=True)
    before, free = layer.weight.detach().clone(), layer(x)
    layer.held = True
    torch.testing.assert_close(layer(x), free)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.5)
    layer(x).square().sum().backward()
    assert layer.weight.grad is not None  # a process group waits for it
    assert not layer.weight.grad.any()
    assert x.grad is not None
    assert x.grad.any()
    optimiser.step()
    renormalise(layer)
    torch.testing.assert_close(layer.weight.detach(), before)


@pytest.mark.parametrize(("name", "setting"), [("swav", "prototypes_wait"), ("dino", "head_wait")])
def test_rows_are_held_over_their_share_of_the_run(name: str, setting: str) -> None:
    objective = build(name, **{setting: 0.1})
    layer = objective.prototypes if isinstance(objective, SwAV) else objective.head.last
    assert isinstance(layer, CosineLinear)
    for step, held in ((0, True), (9, True), (10, False)):
        objective.before_step(Progress(step, 100, 0))
        assert layer.held == held, step


def dino(**settings: object) -> DINO:
    objective = build("dino", **{"standardise": False, "head_wait": 0, **settings})
    assert isinstance(objective, DINO)
    return objective


@torch.no_grad()
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_dino_by_its_equation(ratio: float) -> None:
    objective = dino(mask_ratio=ratio, crops=1, crop_side=0.5)
    objective.centre.value.copy_(torch.linspace(-0.1, 0.1, 16))
    for parameter in objective.teacher.parameters():
        parameter.mul_(1.1)
    batch = make_batch(objective)
    losses = objective(batch)
    teacher, grid = objective.teacher.module, objective.encoder.grid
    crops = token_crops(batch.seeds, grid, (2, 2, 2), 2, name="crops")
    seen = tube_masks(batch.seeds, grid, ratio, 2, name="whole").visible

    def says(view: int, places: Tensor | None) -> Tensor:
        tokens = objective.encoder(batch[VIEWS[view]], places)
        return F.log_softmax(objective.head(objective.encoder.pool(tokens)) / 0.1, dim=-1)

    whole = [says(view, seen[:, view] if ratio else None) for view in (0, 1)]
    small = [says(view, crops[:, view]) for view in (0, 1)]
    total = torch.zeros(())
    for i in (0, 1):
        logits = teacher.head(teacher.encoder.embed(batch[VIEWS[i]]))
        p_t = teacher_probabilities(logits, objective.centre.value, objective.teacher_temperature)
        for view in (whole[1 - i], *small):
            total -= (p_t * view).sum(dim=-1).mean() / 6
    torch.testing.assert_close(losses["loss"], total, rtol=1e-4, atol=1e-5)


def test_dino_teacher_centre_and_last_layer_move_after_the_step() -> None:
    objective = dino(teacher_momentum=0.5, teacher_momentum_end=0.5, centre_momentum=0.75)
    batch = make_batch(objective)
    objective.before_step(HALFWAY)
    objective(batch)["loss"].backward()
    with torch.no_grad():
        logits = objective.teacher(stacked(batch.clips, objective.views))
        objective.head.last.weight.mul_(3)
        objective.encoder.model.layernorm.weight.add_(1)
    before = objective.teacher.module.encoder.model.layernorm.weight.clone()
    objective.after_step(HALFWAY)
    torch.testing.assert_close(objective.centre.value, 0.25 * logits.mean(dim=0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(objective.head.last.weight.norm(dim=-1), torch.ones(16))
    torch.testing.assert_close(objective.teacher.module.encoder.model.layernorm.weight, before + 0.5)
    assert objective.final_encoder() is objective.teacher.module.encoder


def test_dino_targets_are_of_whole_clips_and_no_clip_is_its_own_target() -> None:
    """What the student says of clip 1 is compared with the target of clip 2 alone."""
    objective, batch = dino(crops=0), make_batch(build("dino"))
    changed = Batch({"first": batch["first"], "second": batch["second"].flip(0)}, batch.seeds)
    targets = torch.softmax(torch.randn(2, 6, 16), dim=-1)
    logits = torch.randn(2, 6, 16)
    moved = logits.clone()
    moved[1] += torch.randn(6, 16)
    only_second = torch.stack([torch.zeros_like(targets[0]), targets[1]])
    assert cross_entropy_across(only_second, logits, 0.1) == cross_entropy_across(only_second, moved, 0.1)
    assert objective(batch)["loss"] != objective(changed)["loss"]
