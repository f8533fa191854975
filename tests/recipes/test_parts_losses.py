"""Losses, centre, assignments and schedules against cases worked out by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from recipes.encoders.tokens import patches
from recipes.parts import schedules
from recipes.parts.centre import Centre
from recipes.parts.heads import CosineLinear, DistillationHead, renormalise
from recipes.parts.losses import (
    cluster_cross_entropy,
    distillation_loss,
    entropy,
    teacher_probabilities,
)
from recipes.parts.pixels import PIECE, masked_pixel_loss, normalise_patches_
from recipes.parts.prototypes import Prototypes, sinkhorn


def test_distillation_by_hand() -> None:
    probabilities = torch.tensor([[0.75, 0.25]])
    logits = torch.tensor([[[0.0, 0.0], [0.1 * math.log(3), 0.0]]])  # at temperature 0.1: (1/2, 1/2) and (3/4, 1/4)
    first = math.log(2)
    second = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert distillation_loss(probabilities, logits, 0.1).item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_distillation_is_least_where_the_student_agrees() -> None:
    target = torch.tensor([[0.3, -0.2, 0.1]])
    probabilities = teacher_probabilities(target, torch.zeros(3), 0.1)
    agree = distillation_loss(probabilities, target.unsqueeze(1), 0.1)
    assert agree.item() == pytest.approx(entropy(probabilities).item(), abs=1e-6)
    assert distillation_loss(probabilities, target.flip(1).unsqueeze(1), 0.1) > agree


def test_teacher_probabilities_by_hand() -> None:
    logits = torch.tensor([[1.0, 0.5]], requires_grad=True)
    probabilities = teacher_probabilities(logits, torch.tensor([0.5, 0.5]), 0.5)
    expected = torch.tensor([[math.e / (math.e + 1), 1 / (math.e + 1)]])
    torch.testing.assert_close(probabilities, expected)
    assert not probabilities.requires_grad


def test_entropy_by_hand() -> None:
    assert entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]])).item() == pytest.approx(math.log(2) / 2)


def test_the_centre_averages_logits_of_one_step() -> None:
    centre = Centre(2).train()
    centre.observe(torch.tensor([[1.0, 0.0], [3.0, 2.0]]))
    centre.observe(torch.tensor([[[5.0, 4.0]]]))
    assert centre.value.tolist() == [0, 0]  # moves with the step, not with the forward pass
    centre.update(0.9)
    torch.testing.assert_close(centre.value, torch.tensor([0.3, 0.2]))
    centre.update(0.9)  # nothing observed since
    torch.testing.assert_close(centre.value, torch.tensor([0.3, 0.2]))
    centre.observe(torch.tensor([[0.3, 1.2]]))
    centre.update(0.5)
    torch.testing.assert_close(centre.value, torch.tensor([0.3, 0.7]))
    centre.eval().observe(torch.tensor([[9.0, 9.0]]))
    centre.update(0.5)
    torch.testing.assert_close(centre.value, torch.tensor([0.3, 0.7]))


def test_cluster_cross_entropy_by_hand() -> None:
    scores = torch.tensor([[0.1 * math.log(3), 0.0], [0.0, 0.0]], requires_grad=True)
    assignments = torch.tensor([[1.0, 0.0], [0.5, 0.5]], requires_grad=True)
    loss = cluster_cross_entropy(scores, assignments, 0.1)
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2, abs=1e-6)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.abs().sum() > 0
    assert assignments.grad is None


def test_sinkhorn_balances() -> None:
    scores = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)).tanh()
    scores[:, 0] += 0.5  # every token likes the first prototype best
    q = sinkhorn(scores, 0.5, iterations=50)
    torch.testing.assert_close(q.sum(dim=1), torch.ones(60))
    torch.testing.assert_close(q.sum(dim=0), torch.full((6,), 10.0), rtol=1e-3, atol=0)


def test_sinkhorn_equals_the_plain_algorithm() -> None:
    scores = torch.rand(12, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    q = (scores / 0.05).exp()
    for _ in range(10):
        q = q / q.sum(dim=0, keepdim=True) * 12 / 5
        q = q / q.sum(dim=1, keepdim=True)
    torch.testing.assert_close(sinkhorn(scores.float(), 0.05, 10), q.float(), rtol=1e-4, atol=1e-6)


def test_sinkhorn_of_a_symmetric_case_by_hand() -> None:
    q = sinkhorn(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 1.0)
    high = math.e / (math.e + 1)
    torch.testing.assert_close(q, torch.tensor([[high, 1 - high], [1 - high, high]]))


def test_sinkhorn_survives_a_hard_epsilon() -> None:
    scores = torch.tensor([[1.0, -1.0], [0.99, -1.0], [-1.0, 1.0]])
    assert sinkhorn(scores, 0.001).isfinite().all()


def test_prototypes_give_cosines() -> None:
    prototypes = Prototypes(2, 2)
    with torch.no_grad():
        prototypes.weight.copy_(torch.tensor([[5.0, 0.0], [0.0, 0.1]]))
    torch.testing.assert_close(prototypes(torch.tensor([[3.0, 4.0]])), torch.tensor([[0.6, 0.8]]))
    renormalise(prototypes)
    torch.testing.assert_close(prototypes.weight.detach(), torch.eye(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert prototypes(torch.randn(1, 2)).dtype == torch.float32


def test_the_head_gives_cosines() -> None:
    head = DistillationHead(6, 8, 4, 10)
    x = torch.randn(3, 2, 6)
    expected = F.normalize(head.mlp(x), dim=-1) @ F.normalize(head.last.weight, dim=-1).T
    torch.testing.assert_close(head(x), expected)
    assert head(x).abs().max() <= 1 + 1e-6
    assert isinstance(head.last, CosineLinear)


def test_patches_are_normalised_per_channel() -> None:
    patch = torch.tensor([[[1.0, 2.0, 3.0], [10.0, 10.0, 10.0]]])  # two channels of three pixels
    torch.testing.assert_close(normalise_patches_(patch), torch.tensor([[[-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]))


def test_pixel_loss_by_hand() -> None:
    """One frame of one channel: one hidden patch, of 1, 2, 3, 4."""
    clip = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 1, 2, 2)
    predicted, hidden = torch.zeros(1, 1, 4), torch.tensor([[0]])
    assert masked_pixel_loss(predicted, clip, hidden, (1, 2), normalise=False).item() == pytest.approx(30 / 4)
    assert masked_pixel_loss(predicted, clip, hidden, (1, 2)).item() == pytest.approx(3 / 4, abs=1e-5)  # n - 1 of n


@pytest.mark.parametrize("normalise", [True, False])
def test_pixel_loss_and_its_gradient_are_those_of_the_formula(normalise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the plain way, whole and in pieces."""
    torch.manual_seed(0)
    clip = torch.randn(5, 4, 3, 8, 8, dtype=torch.float64)
    hidden = torch.stack([torch.randperm(8)[:5] for _ in range(5)])
    predicted = torch.randn(5, 5, 3 * 2 * 16, dtype=torch.float64, requires_grad=True)
    target = patches(clip, 2, 4, hidden).unflatten(-1, (3, -1))
    if normalise:
        target = (target - target.mean(-1, keepdim=True)) / (target.std(-1, keepdim=True) + 1e-6)
    plain = F.mse_loss(predicted, target.flatten(-2))
    (expected,) = torch.autograd.grad(3 * plain, predicted)
    for piece in (1, 2 * clip[0].numel(), 1 << 30):
        monkeypatch.setitem(PIECE, "cpu", piece)
        loss = masked_pixel_loss(predicted, clip, hidden, (2, 4), normalise)
        (found,) = torch.autograd.grad(3 * loss, predicted)
        torch.testing.assert_close(loss, plain)
        torch.testing.assert_close(found, expected)


def test_pixel_loss_is_computed_in_full_precision() -> None:
    clip, hidden = torch.randn(2, 2, 3, 8, 8), torch.arange(4).expand(2, -1)
    predicted = torch.randn(2, 4, 3 * 2 * 16).bfloat16().requires_grad_()
    loss = masked_pixel_loss(predicted, clip, hidden, (2, 4))
    assert loss.dtype == torch.float32
    loss.backward()
    assert predicted.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, masked_pixel_loss(predicted.float(), clip, hidden, (2, 4)))


def test_schedules() -> None:
    assert schedules.cosine(0.996, 1.0, 0.0) == pytest.approx(0.996)
    assert schedules.cosine(0.996, 1.0, 0.5) == pytest.approx(0.998)
    assert schedules.cosine(0.996, 1.0, 1.0) == pytest.approx(1.0)
    assert schedules.ramp(0.04, 0.07, 0.05, 0.1) == pytest.approx(0.055)
    assert schedules.ramp(0.04, 0.07, 0.1, 0.1) == schedules.ramp(0.04, 0.07, 0.9, 0.1) == pytest.approx(0.07)
    assert schedules.ramp(0.04, 0.07, 0.0, 0.0) == pytest.approx(0.07)
