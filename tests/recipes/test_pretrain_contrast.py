"""SimCLR with rho clips, MoCo, CVRL, VTHCL: losses by hand, what queues and teachers keep, which clips are asked for."""

from __future__ import annotations

import math

import pytest
import torch
from objective_factory import build, make_batch
from torch.nn import functional as F

from recipes.objective import Progress
from recipes.parts.blur import blur, drawn_blur
from recipes.parts.contrast import info_nce, nt_xent
from recipes.pretrain.moco import MoCo

AXES = torch.eye(4)


def nce(positive: float, *strangers: float, tau: float) -> float:
    """- log of the softmax of `positive` among all."""
    return -math.log(math.exp(positive / tau) / sum(math.exp(one / tau) for one in (positive, *strangers)))


def test_rho_clips_are_all_pairs_of_them() -> None:
    objective = build("simclr", rho=4)
    assert list(objective.views) == ["first", "second", "third", "fourth"]
    z = {view: torch.randn(5, 8) for view in objective.views}
    names = ("first second", "first third", "first fourth", "second third", "second fourth", "third fourth")
    pairs = [nt_xent(*(z[name] for name in pair.split()), 0.1) for pair in names]
    assert objective.compare(z)["loss"].item() == pytest.approx(torch.stack(pairs).mean().item(), rel=1e-6)


def moco(**settings: object) -> MoCo:
    objective = build("moco", head_outputs=4, queue=3, temperature=0.5, **settings)
    assert isinstance(objective, MoCo)
    return objective


def test_moco_by_hand() -> None:
    """Two queries; their keys at cosine 1; a queue with one row of the first's own recording, which is no stranger of it."""
    objective = moco(rho=2)
    objective.queue.rows.copy_(torch.stack([AXES[0], -AXES[1], AXES[2]]))
    objective.queue.recordings.copy_(torch.tensor([7, 8, 9]))
    embedded = {"first": 3 * AXES[:2], "second": 2 * AXES[:2], "recordings": torch.tensor([7, 5])}
    first = nce(1, 0, 0, 0, tau=0.5)  # the other's key, two rows of the queue at cosine 0
    second = nce(1, 0, 0, -1, 0, tau=0.5)
    assert objective.compare(embedded)["loss"].item() == pytest.approx((first + second) / 2, abs=1e-6)
    assert objective.queue.rows.equal(torch.stack([AXES[0], AXES[1], AXES[2]]))  # the oldest two went
    assert objective.queue.recordings.tolist() == [7, 5, 9]


def test_moco_pairs_one_query_with_every_key_and_keeps_the_first_key() -> None:
    objective = moco(rho=3)
    z = {view: torch.randn(2, 4) for view in objective.views}
    rows = objective.queue.rows.clone()
    expected = (
        info_nce(z["first"], z["second"], 0.5, queue=rows) + info_nce(z["first"], z["third"], 0.5, queue=rows)
    ) / 2
    assert objective.compare({**z, "recordings": torch.tensor([0, 1])})["loss"].item() == pytest.approx(
        expected.item(), rel=1e-6
    )
    torch.testing.assert_close(objective.queue.rows[:2], F.normalize(z["second"], dim=-1))
    assert objective.queue.rows[2].equal(rows[2])


def test_mocos_teacher_has_no_gradient_and_follows_its_schedule() -> None:
    objective = moco(rho=2, teacher_momentum=0.5, teacher_momentum_end=1.0)
    objective(make_batch(objective))["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in objective.teacher.parameters())
    old, new = (one.head[0].weight.detach().clone() for one in (objective.teacher.module, objective))
    with torch.no_grad():
        objective.head[0].weight.add_(1.0)
    objective.before_step(Progress(0, 10, 0.0))
    objective.after_step(Progress(1, 10, 0.1))
    torch.testing.assert_close(objective.teacher.module.head[0].weight, (old + new + 1) / 2)
    objective.before_step(Progress(10, 10, 1.0))
    assert objective.teacher_momentum == 1.0
    assert objective.queue.recordings.tolist() == [3, 4, 5]  # of a batch of six, in a queue of three


def test_a_stranger_that_is_skipped_weighs_nothing() -> None:
    queries, keys, queue = torch.randn(3, 4), torch.randn(3, 4), torch.randn(5, 4)
    skip = torch.zeros(3, 5, dtype=torch.bool)
    assert info_nce(queries, keys, 0.1, queue=queue, skip=skip).equal(info_nce(queries, keys, 0.1, queue=queue))
    skip[:, 2:] = True
    assert info_nce(queries, keys, 0.1, queue=queue, skip=skip).item() == pytest.approx(
        info_nce(queries, keys, 0.1, queue=queue[:2]).item(), rel=1e-5
    )


def test_cvrls_second_clip_is_drawn_near_the_first() -> None:
    first, second = build("cvrl", within=3.0).views.values()
    assert (first.near, second.near, second.within, second.falling) == (None, "a", 3.0, True)
    assert build("cvrl").views["b"].within is None


def test_cvrl_blurs_a_share_of_the_clips_and_both_by_themselves() -> None:
    objective = build("cvrl", blur=0.5)
    batch = make_batch(objective, count=40)
    changed = {view: (objective.blurred(batch, view) != batch[view]).flatten(1).any(dim=1) for view in "ab"}
    assert all(5 <= share.sum() <= 30 for share in changed.values())  # half, but for deviations of hardly a pixel
    assert not changed["a"].equal(changed["b"])
    assert build("cvrl", blur=0.0).blurred(batch, "a") is batch["a"]


def test_blur_is_a_gaussian_that_is_alike_in_every_frame() -> None:
    clip = torch.zeros(2, 2, 1, 9, 9)
    clip[:, :, :, 4, 4] = 1.0
    clip[1, 1] = 0.5  # a flat frame stays as it is, up to its border
    out = blur(clip, torch.tensor([0.0, 0.8]), most=0.8)
    assert out[0].equal(clip[0])
    taps = [math.exp(-0.5 * (offset / 0.8) ** 2) for offset in range(-3, 4)]
    weight = {offset: tap / sum(taps) for offset, tap in zip(range(-3, 4), taps, strict=True)}
    assert out[1, 0, 0, 4, 4].item() == pytest.approx(weight[0] ** 2, rel=1e-5)
    assert out[1, 0, 0, 3, 6].item() == pytest.approx(weight[1] * weight[2], rel=1e-5)
    torch.testing.assert_close(out[1, 1], clip[1, 1])


def test_drawn_blur_is_within_its_bounds_and_follows_the_seed() -> None:
    drawn = drawn_blur(torch.arange(400), 0.25, 0.5, 2.0, name="b")
    blurred = drawn[drawn > 0]
    assert 70 <= len(blurred) <= 130
    assert 0.5 <= blurred.min() < 0.6
    assert 1.9 < blurred.max() <= 2.0
    assert drawn_blur(torch.arange(5, 9), 0.25, 0.5, 2.0, name="b").equal(drawn[5:9])
