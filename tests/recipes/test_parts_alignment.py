"""Losses between modalities, held against cases of few numbers and against brute force."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from alignment_factory import rows
from torch import Tensor
from torch.nn import functional as F

from recipes.parts import draws
from recipes.parts.alignment import (
    both_ways,
    mil_nce,
    of_one_group,
    same_time,
    set_apart,
    shared_nce,
    sharing,
    sigmoid_loss,
)
from recipes.parts.centroids import Centroids, joint
from recipes.parts.contrast import info_nce
from recipes.parts.multilinear import Placeholder, symile
from recipes.parts.soft_dtw import procedure_loss, soft_dtw
from recipes.parts.volume import gram_loss, volumes

AXES = torch.eye(3)


def nce(positives: list[float], *strangers: float, tau: float = 1.0) -> float:
    """- log of the share of the positives."""
    top = sum(math.exp(one / tau) for one in positives)
    return -math.log(top / (top + sum(math.exp(one / tau) for one in strangers)))


def test_both_ways_weighs_the_two_directions() -> None:
    """Clips on the axes; texts at cosines 1 and 0.6: from the clips and from the texts the strangers differ."""
    clips, texts = 3 * AXES[:2], torch.tensor([[2.0, 0, 0], [3.0, 4.0, 0]])
    there = (nce([1], 0.6, tau=0.5) + nce([0.8], 0, tau=0.5)) / 2
    back = (nce([1], 0, tau=0.5) + nce([0.8], 0.6, tau=0.5)) / 2
    assert both_ways(clips, texts, 0.5, forward=0.75).item() == pytest.approx(0.75 * there + 0.25 * back, abs=1e-6)
    assert both_ways(clips, texts, 0.5).item() == pytest.approx((there + back) / 2, abs=1e-6)


def test_pairs_set_apart_are_no_strangers() -> None:
    clips, texts = rows(4, 6), rows(4, 6, seed=1)
    apart = of_one_group(torch.tensor([0, 1, 0, 2]))  # the first and the third say the same
    assert apart.sum() == 6
    scores = F.normalize(clips, dim=1) @ F.normalize(texts, dim=1).T
    by_hand = [nce([scores[i, i]], *(scores[i, j] for j in range(4) if j != i and {i, j} != {0, 2})) for i in range(4)]
    assert info_nce(clips, texts, 1.0, apart=apart).item() == pytest.approx(sum(by_hand) / 4, abs=1e-5)


def test_sigmoid_loss_by_hand() -> None:
    """Two pairs at cosine 1, strangers at 0: each partner costs log(1 + e^-(s + b)), each stranger log(1 + e^b)."""
    scale, bias = (torch.tensor(value, requires_grad=True) for value in (10.0, -10.0))
    partner, stranger = math.log(2), math.log(1 + math.exp(-10))
    loss = sigmoid_loss(AXES[:2], 5 * AXES[:2], scale, bias)
    assert loss.item() == pytest.approx(partner + stranger, abs=1e-6)
    loss.backward()
    assert scale.grad is not None
    assert bias.grad is not None
    assert bias.grad.item() == pytest.approx(-0.5 + 1 / (1 + math.exp(10)), abs=1e-6)
    assert scale.grad.item() == pytest.approx(-0.5, abs=1e-5)
    apart = torch.ones(2, 2, dtype=torch.bool)
    assert sigmoid_loss(AXES[:2], AXES[:2], 10.0, -10.0, apart=apart).item() == pytest.approx(partner, abs=1e-6)


def test_a_learned_temperature_has_a_gradient_also_where_pairs_are_set_apart() -> None:
    scale = torch.tensor(20.0, requires_grad=True)
    both_ways(rows(4, 5), rows(4, 5, seed=1), 1 / scale, apart=of_one_group(torch.tensor([0, 0, 1, 2]))).backward()
    assert scale.grad is not None
    assert scale.grad.item() > 0  # strangers are nearer: a smaller scale costs less


def test_mil_nce_by_hand_counts_positives_once() -> None:
    """Two clips; the first has two texts, at cosines 1 and 0.6, the second one, at cosine 1, and a place that is empty."""
    clips = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    texts = torch.tensor([[[2.0, 0, 0], [3.0, 4.0, 0]], [[0, 0, 1.0], [math.nan] * 3]])
    texts = texts.nan_to_num(7.0)
    present = torch.tensor([[True, True], [True, False]])
    first = nce([1, 0.6], 0, 0, 0)  # its row: the other's text; its column: the other clip with either of its texts
    second = nce([1], 0, 0, 0)  # its row: both texts of the first; its column: the first clip with its text
    assert mil_nce(clips, texts, 1.0, present).item() == pytest.approx((first + second) / 2, abs=1e-6)
    nobody = torch.tensor([[True, True], [False, False]])
    alone = nce([1, 0.6], 0, 0)
    assert mil_nce(clips, texts, 1.0, nobody).item() == pytest.approx(alone, abs=1e-6)
    assert mil_nce(clips, texts, 1.0, torch.zeros(2, 2, dtype=torch.bool)).item() == 0
    everyone = torch.ones(2, 2, dtype=torch.bool)  # whoever is set apart is no stranger, and what is left costs nothing
    assert mil_nce(clips, texts, 1.0, present, apart=everyone).item() == pytest.approx(0.0, abs=1e-6)
    three = rows(3, 2, 3, seed=1)
    apart = of_one_group(torch.tensor([0, 1, 0]))  # the first and the third say the same
    v, t = F.normalize(rows(3, 3), dim=1), F.normalize(three, dim=2)
    expected = 0.0
    for i in range(3):
        strangers = [j for j in range(3) if j != i and not apart[i, j]]
        own = [(v[i] @ t[i, k]).item() for k in range(2)]
        others = [(v[i] @ t[j, k]).item() for j in strangers for k in range(2)]
        others += [(v[j] @ t[i, k]).item() for j in strangers for k in range(2)]
        expected += nce(own, *others) / 3
    assert mil_nce(rows(3, 3), three, 1.0, apart=apart).item() == pytest.approx(expected, abs=1e-5)


def official_mil_nce(clips: Tensor, texts: Tensor) -> Tensor:
    """As the official code computes it: row and column of one matrix, the diagonal in both, raw dot products."""
    count = len(clips)
    scores = (clips @ texts.flatten(0, 1).T).view(count, count, -1)
    top = (scores * torch.eye(count)[:, :, None]).sum(dim=1).logsumexp(dim=1)
    bottom = torch.cat([scores, scores.permute(1, 0, 2)], dim=1).flatten(1).logsumexp(dim=1)
    return (bottom - top).mean()


def test_the_official_mil_nce_has_a_floor_of_log_2_and_ours_has_none() -> None:
    clips, texts = 10 * AXES, 10 * AXES.unsqueeze(1)
    assert official_mil_nce(clips, texts).item() == pytest.approx(math.log(2), abs=1e-4)
    assert mil_nce(clips, texts, 0.01).item() == pytest.approx(0, abs=1e-6)


def test_positives_that_are_shared_stand_in_one_sum() -> None:
    clips, texts = rows(3, 4), rows(3, 4, seed=1)
    verbs, nouns = torch.tensor([[1, 0], [1, 1], [0, 1]]), torch.tensor([[1, 0], [1, 0], [1, 1]])
    positives = sharing(verbs, nouns)
    assert positives.tolist() == [[True, True, False], [True, True, True], [False, True, True]]
    scores = F.normalize(clips, dim=1) @ F.normalize(texts, dim=1).T

    def one_way(matrix: Tensor) -> float:
        return (
            sum(
                nce(
                    [x.item() for x, p in zip(row, mine, strict=True) if p],
                    *(x.item() for x, p in zip(row, mine, strict=True) if not p),
                    tau=0.5,
                )
                for row, mine in zip(matrix, positives, strict=True)
            )
            / 3
        )

    expected = (one_way(scores) + one_way(scores.T)) / 2
    assert shared_nce(clips, texts, 0.5, positives).item() == pytest.approx(expected, abs=1e-6)
    alone = shared_nce(clips, texts, 0.5, torch.zeros(3, 3, dtype=torch.bool))
    assert alone.item() == pytest.approx(both_ways(clips, texts, 0.5).item(), abs=1e-6)


def alignments(n: int, m: int) -> list[list[tuple[int, int]]]:
    """All monotone alignments of n things with m, by walking them."""
    if n == 1 and m == 1:
        return [[(0, 0)]]
    before = [(n - 1, m), (n, m - 1), (n - 1, m - 1)]
    return [[*path, (n - 1, m - 1)] for a, b in before if a > 0 and b > 0 for path in alignments(a, b)]


@pytest.mark.parametrize("gamma", [1.0, 0.01])
def test_soft_dtw_is_the_soft_minimum_over_all_alignments(gamma: float) -> None:
    costs = rows(2, 4, 3).abs().double()
    assert len(alignments(4, 3)) == 25  # the Delannoy number
    for sample, found in zip(costs, soft_dtw(costs, gamma), strict=True):
        totals = torch.stack([sum((sample[i, j] for i, j in path), sample.new_zeros(())) for path in alignments(4, 3)])
        assert found.item() == pytest.approx((-gamma * (-totals / gamma).logsumexp(dim=0)).item(), rel=1e-9)
        assert found <= totals.min()
        if gamma == 0.01:
            assert found.item() == pytest.approx(totals.min().item(), abs=0.02)


def test_soft_dtw_has_the_gradients_that_differences_have() -> None:
    costs = rows(2, 3, 4).double().requires_grad_()
    lengths = torch.tensor([3, 2]), torch.tensor([4, 3])
    assert torch.autograd.gradcheck(lambda c: soft_dtw(c, 0.3, *lengths), (costs,))


def test_soft_dtw_of_padded_sequences_is_that_of_each_alone_whatever_the_padding_holds() -> None:
    costs = rows(2, 5, 4)
    costs[1, 3:], costs[1, :, 2:] = math.nan, math.inf
    padded = costs.requires_grad_()
    found = soft_dtw(padded, 0.1, torch.tensor([5, 3]), torch.tensor([4, 2]))
    assert found[0].item() == pytest.approx(soft_dtw(costs[:1], 0.1).item(), rel=1e-6)
    assert found[1].item() == pytest.approx(soft_dtw(costs[1:, :3, :2], 0.1).item(), rel=1e-6)
    found.sum().backward()
    assert padded.grad is not None
    assert padded.grad.isfinite().all()
    assert padded.grad[1, 3:].eq(0).all()
    assert padded.grad[1, :, 2:].eq(0).all()


@pytest.mark.parametrize(("size", "gamma"), [(1e4, 1e-3), (1e-4, 10.0), (0.0, 0.1)])
def test_soft_dtw_is_exact_in_float32(size: float, gamma: float) -> None:
    costs = size * rows(1, 40, 30).abs()
    single, double = costs.clone().requires_grad_(), costs.double().requires_grad_()
    ones = [soft_dtw(one, gamma) for one in (single, double)]
    torch.testing.assert_close(ones[0].double(), ones[1], rtol=1e-5, atol=1e-5)
    grads = [torch.autograd.grad(loss, at)[0].double() for loss, at in zip(ones, (single, double), strict=True)]
    torch.testing.assert_close(*grads, rtol=1e-2, atol=1e-3)


def test_steps_in_order_cost_less_than_in_reverse() -> None:
    """Three frames, three steps on the axes: s D of the right order; of the wrong one the hinge as well."""
    wide, gamma, tau = 100 * AXES.unsqueeze(0), 0.1, 0.1
    logs = -F.log_softmax(AXES / tau, dim=0).unsqueeze(0)
    right, wrong = (0.01 * soft_dtw(one, gamma).item() for one in (logs, logs.flip(2)))
    assert right < 0.01 < wrong
    assert procedure_loss(wide, wide).item() == pytest.approx(right, abs=1e-6)
    assert procedure_loss(wide, wide.flip(1)).item() == pytest.approx(wrong + 0.5 * (wrong - right), abs=1e-6)
    padded = torch.cat([wide.flip(1), torch.full((1, 2, 3), 7.0)], dim=1)
    counted = {"frame_count": torch.tensor([3]), "step_count": torch.tensor([3])}
    assert procedure_loss(padded.flip(1)[:, 2:], padded, **counted).item() == pytest.approx(
        wrong + 0.5 * (wrong - right), abs=1e-6
    )
    both = procedure_loss(wide.expand(2, -1, -1), wide.expand(2, -1, -1), step_count=torch.tensor([3, 0]))
    assert both.item() == pytest.approx(right, abs=1e-6)  # who has no steps is not asked


def test_volumes_are_those_of_the_determinant() -> None:
    a, others = rows(4, 6), rows(5, 3, 6, seed=1)
    found = volumes(a, others, eps=0.0)
    for i, j in product(range(4), range(5)):
        m = F.normalize(torch.cat([a[i : i + 1], others[j]]).double(), dim=1)
        assert found[i, j].item() == pytest.approx(math.sqrt(torch.linalg.det(m @ m.T).item()), abs=1e-9)
    one = F.cosine_similarity(a[0], others[0, 0], dim=0).item()
    assert volumes(a, others[:, :1], eps=0.0)[0, 0].item() == pytest.approx(math.sqrt(1 - one**2), abs=1e-6)  # a sine


def test_a_missing_modality_spans_nothing() -> None:
    a, others = rows(4, 6), rows(2, 3, 6, seed=1)
    others[0, 1] = math.nan
    present = torch.tensor([[True, False, True], [True, True, True]])
    found = volumes(a, others, present)
    torch.testing.assert_close(found[:, 0], volumes(a, others[:1, [0, 2]])[:, 0])
    torch.testing.assert_close(found[:, 1], volumes(a, others[1:])[:, 0])


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_vectors_that_depend_on_each_other_have_finite_gradients(modalities: int) -> None:
    a = rows(3, 6).requires_grad_()
    others = a.detach()[:, None].repeat(1, modalities, 1).requires_grad_()  # all of a sample alike: volume 0
    loss = gram_loss(a, others, 0.07)
    loss.backward()
    assert a.grad is not None
    assert others.grad is not None
    assert a.grad.isfinite().all()
    assert others.grad.isfinite().all()
    flat = torch.eye(2)[[0, 1, 0]].requires_grad_()  # the official way: nothing under the root, in fp32
    torch.linalg.det(flat @ flat.T).sqrt().backward()
    assert not flat.grad.isfinite().all()


def test_gram_by_hand() -> None:
    """Two samples, two modalities: volumes 0 with the own, 1 with the other; smoothing over the two."""
    tau, s = 0.5, 0.1
    own, other = (math.log(math.exp(-v / tau) / (1 + math.exp(-1 / tau))) for v in (0, 1))
    expected = -(1 - s) * own - s * (own + other) / 2
    loss = gram_loss(AXES[:2], AXES[:2].unsqueeze(1), tau, smoothing=s, eps=1e-12)
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    a, others = rows(4, 6), rows(4, 2, 6, seed=1)
    vol = -volumes(a, others).float() / 0.07
    target = torch.arange(4)
    plain = sum(F.cross_entropy(one, target, label_smoothing=0.1) for one in (vol, vol.T)) / 2
    assert gram_loss(a, others, 0.07).item() == pytest.approx(float(plain), abs=1e-5)


def test_gram_leaves_out_pairs_that_are_set_apart() -> None:
    a, others = rows(3, 6), rows(3, 2, 6, seed=1)
    apart = of_one_group(torch.tensor([0, 1, 0]))
    vol = (-volumes(a, others).float() / 0.5).masked_fill(apart & ~torch.eye(3).bool(), -torch.inf)
    expected = sum(F.cross_entropy(one, torch.arange(3)) for one in (vol, vol.T)) / 2
    assert gram_loss(a, others, 0.5, apart=apart, smoothing=0.0).item() == pytest.approx(float(expected), abs=1e-5)


def test_times_that_overlap_in_one_recording_make_no_strangers() -> None:
    row = torch.tensor([0, 0, 0, 1, 2, 0])
    about = torch.tensor(
        [[0, -1], [0, -1], [0, -1], [1, -1], [1, 2], [0, -1]]
    )  # the fifth is a report of two recordings
    span = torch.tensor([[0, 1000], [500, 1500], [1500, 2500], [0, 1000], [0, 2**62], [1500, 1500]])
    found = same_time(row, about, span)
    expected = {(0, 1), (3, 4), (1, 5), (2, 5)}  # the second and third touch; the last is a moment at their border
    assert {(i, j) for i, j in found.nonzero().tolist() if i < j} == expected
    assert found.equal(found.T)
    assert set_apart({"words": row}).equal(of_one_group(row))
    told = {"words": torch.arange(6), "row": row, "about": about, "span": span}
    assert set_apart(told).equal(found | torch.eye(6).bool())


def test_gram_does_not_ask_those_who_have_the_anchor_alone() -> None:
    a, others = rows(3, 6), rows(3, 2, 6, seed=1)
    present = torch.tensor([[True, True], [False, False], [True, True]])
    vol = -volumes(a, others).float() / 0.5
    rows_of, columns_of = vol[[0, 2]][:, [0, 2]], vol[:, [0, 2]].T
    expected = F.cross_entropy(rows_of, torch.tensor([0, 1])) + F.cross_entropy(columns_of, torch.tensor([0, 2]))
    assert gram_loss(a, others, 0.5, present=present, smoothing=0.0).item() == pytest.approx(
        expected.item() / 2, abs=1e-5
    )


def test_symile_against_all_is_brute_force_over_all_combinations() -> None:
    parts = [F.normalize(rows(3, 5, seed=seed), dim=1) for seed in range(3)]
    total = 0.0
    for a in range(3):
        others = [parts[m] for m in range(3) if m != a]
        for i in range(3):
            scores = {
                (j, k): 4 * sum((parts[a][i] * others[0][j] * others[1][k]).tolist())
                for j, k in product(range(3), repeat=2)
            }
            total += nce([scores.pop((i, i))], *scores.values())
    found = symile([2 * part for part in parts], 4.0, torch.arange(3), strangers="all")
    assert found.item() == pytest.approx(total / 9, abs=1e-5)


def test_symile_against_all_leaves_out_what_is_all_set_apart() -> None:
    parts, apart = [F.normalize(rows(3, 5, seed=seed), dim=1) for seed in range(3)], torch.eye(3).bool()
    apart[0, 2] = apart[2, 0] = True
    total = 0.0
    for a in range(3):
        others = [parts[m] for m in range(3) if m != a]
        for i in range(3):
            alike = {j for j in range(3) if apart[i, j]}
            scores = {
                (j, k): 4 * sum((parts[a][i] * others[0][j] * others[1][k]).tolist())
                for j, k in product(range(3), repeat=2)
                if (j, k) == (i, i) or not {j, k} <= alike
            }
            total += nce([scores.pop((i, i))], *scores.values())
    assert symile(parts, 4.0, torch.arange(3), "all", apart=apart).item() == pytest.approx(total / 9, abs=1e-5)


def test_symile_of_two_modalities_against_all_is_infonce_both_ways() -> None:
    clips, texts = rows(5, 6), rows(5, 6, seed=1)
    expected = both_ways(clips, texts, 0.25).item()
    for strangers in ("all", "shuffled"):
        found = symile([clips, texts], 4.0, torch.arange(5), strangers=strangers)  # type: ignore[arg-type]
        assert found.item() == pytest.approx(expected, abs=1e-5)


def test_symiles_shuffled_strangers_are_products_of_rows_in_the_orders_drawn() -> None:
    parts, seeds = [F.normalize(rows(4, 5, seed=seed), dim=1) for seed in range(3)], torch.arange(4) + 7
    total, without, left_out = 0.0, 0.0, 0
    apart = of_one_group(torch.tensor([0, 1, 0, 2]))
    for a in range(3):
        left, right = (parts[m] for m in range(3) if m != a)
        first, second = draws.uniform(seeds, (2,), name=f"symile {a}").argsort(dim=0).T.tolist()
        for i in range(4):
            pairs = [pair for pair in zip(first, second, strict=True) if pair[0] != i]  # each row of the first once
            scores = [4 * sum((parts[a][i] * left[j] * right[k]).tolist()) for j, k in [(i, i), *pairs]]
            total += nce(scores[:1], *scores[1:])
            alike = {j for j in range(4) if apart[i, j]} | {i}
            strangers = [score for score, pair in zip(scores[1:], pairs, strict=True) if not set(pair) <= alike]
            left_out += len(pairs) - len(strangers)
            without += nce(scores[:1], *strangers)
    assert left_out > 0
    assert symile(parts, 4.0, seeds).item() == pytest.approx(total / 12, abs=1e-5)
    assert symile(parts, 4.0, seeds, apart=apart).item() == pytest.approx(without / 12, abs=1e-5)
    order = torch.tensor([2, 0, 3, 1])  # whatever places the samples have
    assert symile([part[order] for part in parts], 4.0, seeds[order]).item() == pytest.approx(total / 12, abs=1e-5)


def test_symile_draws_its_strangers_from_the_seeds_and_never_the_sample_itself() -> None:
    parts = [rows(6, 5, seed=seed) for seed in range(3)]
    one, again, other = (symile(parts, 3.0, torch.arange(6) + start) for start in (0, 0, 50))
    assert one.item() == again.item() != other.item()
    # Two samples: a shuffle gives the sample's own product, a mixed one or the other's. Its own as a stranger would cost log 2 at least.
    alike = torch.tensor([[1.0, 0], [0, 1.0]])
    for seed in range(8):
        assert symile([alike] * 3, 50.0, torch.tensor([seed, seed + 100])).item() < 1e-6


def test_a_placeholder_stands_in_and_says_so() -> None:
    torch.manual_seed(0)
    stand_in = Placeholder(4)
    embeddings = torch.cat([rows(1, 4), torch.full((1, 4), math.nan)]).requires_grad_()
    present = torch.tensor([True, False])
    out = stand_in(embeddings, present)
    torch.testing.assert_close(out[0], embeddings[0])
    assert out[1].norm().item() == pytest.approx(1.0, abs=1e-6)
    out.sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad[1].eq(0).all()
    assert stand_in.stand_in.grad is not None
    assert stand_in.stand_in.grad.abs().sum() > 0


def grouped(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(count, 2, 3) of two modalities near three axes in turn, and which axis."""
    axis = torch.arange(count) % 3
    return AXES[axis].unsqueeze(1) + 0.1 * rows(count, 2, 3, seed=seed), axis


def test_centroids_find_the_groups_and_draw_both_modalities_to_them() -> None:
    torch.manual_seed(0)
    centroids = Centroids(3, 3, memory=12).train()
    modalities, axis = grouped(6, 0)
    centroids.observe(modalities[:2], torch.arange(2))
    centroids.fit()
    assert not centroids.fitted
    assert centroids([modalities[:, 0], modalities[:, 1]], 0.1).item() == 0
    centroids.observe(modalities, torch.arange(6))
    centroids.fit()
    nearest = (joint(modalities) @ centroids.rows.T).argmax(dim=1)
    assert all(len(set(nearest[axis == k].tolist())) == 1 for k in range(3))
    assert len(set(nearest.tolist())) == 3
    cosines = F.normalize(modalities, dim=-1) @ centroids.rows.T
    one, other = cosines[2, 1, nearest[2]].item(), [cosines[2, 1, k].item() for k in range(3) if k != nearest[2]]
    present = torch.zeros(6, 2, dtype=torch.bool)
    present[2, 1] = True
    loss = centroids(list(modalities.unbind(1)), 0.5, margin=0.2, present=present)
    assert loss.item() == pytest.approx(nce([one - 0.2], *other, tau=0.5), abs=1e-5)


def test_a_joint_embedding_is_of_those_that_are_there() -> None:
    modalities = torch.stack([torch.stack([3 * AXES[0], AXES[1]]), torch.stack([AXES[2], torch.full((3,), math.nan)])])
    found = joint(modalities, torch.tensor([[True, True], [True, False]]))
    torch.testing.assert_close(found, torch.stack([(AXES[0] + AXES[1]) / math.sqrt(2), AXES[2]]))
