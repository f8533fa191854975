"""IIC, DSM, ViDiDi, VTHCL and CoCLR: what they do to a clip against values, and their losses by hand."""

from __future__ import annotations

import math

import pytest
import torch
from objective_factory import build, make_batch, small_encoder
from torch import Tensor
from torch.nn import functional as F

from domains.errors import ConfigError
from recipes.encoders.base import VideoEncoder
from recipes.objective import Progress
from recipes.parts.depths import spread, tokens_at
from recipes.parts.disorder import repeated, shuffled
from recipes.parts.mining import nce_of_many, nearest
from recipes.parts.motion import FLOOR, derivative
from recipes.parts.queue import Queue
from recipes.parts.warp import drawn_bends, warp
from recipes.pretrain.coclr import CoCLR
from recipes.pretrain.vididi import ViDiDi

AXES = torch.eye(4)
SEEDS = torch.arange(200)


def nce(positive: float, *strangers: float, tau: float) -> float:
    """- log of the softmax of `positive` among all."""
    return -math.log(math.exp(positive / tau) / sum(math.exp(one / tau) for one in (positive, *strangers)))


def test_derivatives_are_differences_of_neighbours_on_one_scale() -> None:
    times = torch.tensor([0.0, 1.0, 4.0, 9.0, 16.0]).view(1, 5, 1, 1, 1)
    clip = torch.cat([times, -3 * times]).expand(2, 5, 1, 2, 2)
    first = torch.tensor([1.0, 3.0, 5.0])
    scale = first.square().mean().sqrt()
    found = derivative(clip, 1, 3)[:, :, 0, 0, 0]
    torch.testing.assert_close(found, torch.stack([first, -first]) / scale)
    torch.testing.assert_close(derivative(clip, 2, 3)[:, :, 0, 1, 1], torch.tensor([[1.0] * 3, [-1.0] * 3]))
    assert derivative(clip, 0, 3).equal(clip[:, :3])


def test_a_recording_that_stands_still_does_not_become_noise() -> None:
    clip = 0.001 * torch.randn(1, 5, 3, 4, 4)
    assert derivative(clip, 1, 4).abs().max() < 0.01 / FLOOR
    assert derivative(torch.ones(1, 5, 3, 4, 4), 1, 4).abs().max() == 0


def test_a_repeated_frame_is_one_of_the_clip_all_the_time() -> None:
    indices = repeated(SEEDS, 6, name="a")
    assert (indices == indices[:, :1]).all()
    assert sorted(set(indices[:, 0].tolist())) == list(range(6))


@pytest.mark.parametrize(("frames", "window"), [(4, None), (16, None), (16, 4), (7, 4)])
def test_shuffled_frames_are_all_there_out_of_order_and_within_their_window(frames: int, window: int | None) -> None:
    orders = shuffled(SEEDS, frames, window=window, name="a")
    assert orders.sort(dim=1).values.equal(torch.arange(frames).expand(200, -1))
    size = window or frames
    assert (orders // size).equal((torch.arange(frames) // size).expand(200, -1))
    kept = (orders.diff(dim=1).abs() == 1).float().mean()
    assert kept < (0.35 if window else 0.2)  # of a drawn order of 4 frames, half
    assert shuffled(SEEDS[7:9], frames, window=window, name="a").equal(orders[7:9])


def test_a_warp_moves_the_picture_by_its_bends_in_every_frame_alike() -> None:
    """A pull of one distance between points, everywhere, is a shift by (9 - 1) / (3 - 1) = 4 pixels."""
    ramp = torch.arange(9.0).expand(9, 9)
    clip = torch.stack([ramp, ramp.T]).view(1, 2, 1, 9, 9).expand(2, 2, 1, 9, 9)
    bends = torch.zeros(2, 2, 3, 3)
    bends[0, 0] = 1.0
    out = warp(clip, bends)
    torch.testing.assert_close(out[0, 0, 0], (ramp + 4).clamp_max(8), rtol=0, atol=1e-4)
    torch.testing.assert_close(out[0, 1, 0], ramp.T, rtol=0, atol=1e-4)  # moved along its lines
    torch.testing.assert_close(out[1], clip[1], rtol=0, atol=1e-5)
    bends[1, :, 1, 1] = 0.4  # the middle alone
    moved = (warp(clip, bends) - clip)[1, 0, 0]
    assert moved[4, 4].item() == pytest.approx(1.6, abs=1e-4)
    assert moved[0, 0].abs() < 1e-4


def test_bends_are_drawn_within_reach() -> None:
    bends = drawn_bends(SEEDS, 4, 0.4, name="a")
    assert bends.shape == (200, 2, 4, 4)
    assert -0.4 <= bends.min() < -0.39
    assert 0.39 < bends.max() <= 0.4


def test_iic_by_hand() -> None:
    """Clip and residual alike, one stranger at 0, the broken clip at 0.6 to both of its own sample."""
    objective = build("iic", head_outputs=4, temperature=0.5)
    z = {"clip": AXES[:2], "residual": 3 * AXES[:2], "broken": torch.tensor([[3.0, 0, 4, 0], [0, 3.0, 0, 4]])}
    losses = objective.compare(z)
    assert losses["loss"].item() == pytest.approx(nce(1, 0, 0.6, tau=0.5), abs=1e-6)
    assert losses["likeness_broken"].item() == pytest.approx(0.6)
    assert losses["motion_wins"].item() == 1
    assert objective.compare({**z, "broken": 2 * z["residual"], "clip": z["broken"]})["motion_wins"].item() == 0


def test_iic_reads_clip_differences_and_broken_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(
        VideoEncoder, "embed", lambda self, pixels: seen.append(pixels) or pixels.mean((1, 3, 4)).repeat(1, 8)
    )
    objective = build("iic", broken="repeat")
    batch = make_batch(objective)
    assert batch["clip"].shape[1] == 5
    objective.embed(batch)
    clip, residual, broken = seen
    assert clip.equal(batch["clip"][:, :4])
    torch.testing.assert_close(residual, derivative(batch["clip"], 1, 4))
    which = repeated(batch.seeds, 4, name="intra")[:, 0]
    assert broken.equal(clip[torch.arange(6), which].unsqueeze(1).expand(-1, 4, -1, -1, -1))
    build("iic", broken="shuffle").embed(batch)
    assert seen[5].sum(1).allclose(clip.sum(1), atol=1e-5)  # the same frames
    assert not seen[5].equal(clip)


def test_dsm_by_hand() -> None:
    """The first sample's negative is nearer than its positive, the second's farther."""
    z = {
        "clip": AXES[:2],
        "scene": torch.tensor([[3.0, 0, 4, 0], [0, 2.0, 0, 0]]),  # at 0.6 and 1
        "motion": torch.tensor([[4.0, 0, 3, 0], [0, 0, 0, 1.0]]),  # at 0.8 and 0
    }
    loss = build("dsm", head_outputs=4, temperature=0.5).compare(z)
    assert loss["loss"].item() == pytest.approx((nce(0.6, 0, 0.8, tau=0.5) + nce(1, 0, 0, tau=0.5)) / 2, abs=1e-6)
    assert loss["motion_wins"].item() == 0.5
    triplet = build("dsm", head_outputs=4, form="triplet", margin=0.5).compare(z)
    assert triplet["loss"].item() == pytest.approx((0.8 - 0.4 + 0.5 + 0) / 2, abs=1e-6)  # |a - b|^2 = 2 - 2 cos


def test_dsms_triplet_has_a_slope_where_two_clips_say_the_same() -> None:
    z = AXES[:2].clone().requires_grad_()
    objective = build("dsm", head_outputs=4, form="triplet")
    objective.compare({"clip": z, "scene": z.detach(), "motion": AXES[:2]})["loss"].backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_vididi_takes_every_pair_of_orders_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = build("vididi", orders=2)
    assert isinstance(objective, ViDiDi)
    assert objective.turns == [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2)]
    orders = [order for pair in objective.turns for order in pair]
    assert [orders.count(order) for order in range(3)] == [4, 4, 4]
    seen: list[Tensor] = []
    monkeypatch.setattr(
        VideoEncoder, "embed", lambda self, pixels: seen.append(pixels) or pixels.mean((1, 3, 4)).repeat(1, 8)
    )
    batch = make_batch(objective)
    assert batch["first"].shape[1] == 6
    objective.before_step(Progress(10, 100, 0.0))  # the fifth of the second round
    objective.embed(batch)
    torch.testing.assert_close(seen[0], derivative(batch["first"], 1, 4))
    torch.testing.assert_close(seen[1], derivative(batch["second"], 2, 4))


def test_depths_end_with_the_last_block() -> None:
    assert (spread(12, 1), spread(12, 2), spread(12, 3), spread(2, 2)) == ([12], [6, 12], [4, 8, 12], [1, 2])
    with pytest.raises(ConfigError, match=r"3 levels of an encoder of 2 blocks.*objective.levels=2"):
        spread(2, 3)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_tokens_at_a_depth_are_those_of_the_block(checkpointing: bool) -> None:
    encoder = small_encoder().train()
    encoder.checkpointing = checkpointing
    pixels = torch.randn(2, 4, 3, 32, 32)
    first, last = tokens_at(encoder, pixels, [1, 2])
    torch.testing.assert_close(last, encoder(pixels))
    kept = encoder.blocks[1]
    encoder.blocks[1] = torch.nn.Identity()
    raw, encoder.blocks[1] = encoder(pixels), kept
    through_norm = encoder.final_norm
    assert through_norm is not None  # at its start it scales by 1 and shifts by 0
    torch.testing.assert_close(first, raw, rtol=1e-4, atol=1e-5)
    first.square().sum().backward()
    assert all(p.grad is None for p in kept.parameters())  # the second block is behind it
    assert not encoder.blocks[0]._forward_hooks


def test_vthcl_by_hand() -> None:
    objective = build("vthcl", head_outputs=4, levels=2, temperature=0.5)
    deep, shallow = AXES[:2], F.normalize(AXES[:2] + AXES[2], dim=-1)  # of two samples at 0, and at 0.5
    z = torch.stack([shallow, deep], dim=1)
    losses = objective.compare({"slow": z, "fast": 2 * z})
    expected = [nce(1, 0.5, tau=0.5), nce(1, 0, tau=0.5)]
    assert [losses[f"loss_depth_{depth}"].item() for depth in (1, 2)] == pytest.approx(expected, abs=1e-6)
    assert losses["loss"].item() == pytest.approx(sum(expected) / 2, abs=1e-6)
    assert [(view.rate, view.near) for view in objective.views.values()] == [(1.0, None), (4.0, "slow")]


def test_the_nearest_rows_are_named_but_those_of_ones_own_recording_and_of_nobody() -> None:
    queue = Queue(5, 2)
    angles = torch.tensor([0.0, 0.1, 0.2, 0.3, 2.0])
    queue.rows.copy_(torch.stack([angles.cos(), angles.sin()], dim=1))
    queue.recordings.copy_(torch.tensor([7, 8, -1, 9, 10]))  # the third is what it started with
    keys = torch.tensor([[5.0, 0.0], [-1.0, 1.0]])
    named = nearest(keys, queue, torch.tensor([7, 3]), 2)
    assert named.tolist() == [[False, True, False, True, False], [False, False, False, True, True]]
    assert nearest(keys, queue, torch.tensor([7, 3]), 9).sum(dim=1).tolist() == [3, 4]


def test_several_positives_are_in_one_sum() -> None:
    """Queue at cosines 0.6, 0 and -1; of the second sample two rows are positive."""
    queries, keys = AXES[:2] * 3, AXES[:2]
    queue = torch.stack([0.6 * (AXES[0] + AXES[1]) + 0.28**0.5 * AXES[3], AXES[2], -AXES[1]])
    positive = torch.tensor([[False, False, False], [True, False, True]])
    e = [math.exp(2 * cosine) for cosine in (1, 0.6, 0, -1)]
    first = math.log((e[0] + e[2] + e[1] + e[2] + e[2]) / e[0])  # own, the other's key, three rows
    second = math.log((e[0] + e[2] + e[1] + e[2] + e[3]) / (e[0] + e[1] + e[3]))
    found = nce_of_many(queries, keys, queue, positive, 0.5)
    assert found.item() == pytest.approx((first + second) / 2, abs=1e-6)
    assert nce_of_many(AXES[:1], keys[:1], queue, positive[:1] | True, 0.5).item() == pytest.approx(0, abs=1e-6)


def coclr(**settings: object) -> CoCLR:
    objective = build("coclr", head_outputs=4, queue=3, positives=1, temperature=0.5, **settings)
    assert isinstance(objective, CoCLR)
    for mode, rows in (("picture", AXES[[0, 2, 3]]), ("motion", AXES[[3, 0, 2]])):
        objective.queue_of(mode).rows.copy_(rows)
        objective.queue_of(mode).recordings.copy_(torch.tensor([7, 8, 9]))
    return objective


def test_one_network_names_the_others_positives() -> None:
    """One sample of recording 5, everything at the first axis. Motion holds its second row to be nearest, pictures their first."""
    objective = coclr(alone=0.5)
    names = ("query_picture", "key_picture", "query_motion", "key_motion")
    embedded = {**dict.fromkeys(names, AXES[:1]), "recordings": torch.tensor([5])}
    e, one = math.exp(2), 1.0
    everything = e + e + one + one  # own key, the row that is the same, two others; in both modes
    alone, mined = math.log(everything / e), math.log(everything / (e + one))

    objective.eval()  # so that queues stay
    objective.before_step(Progress(49, 100, 0.0))
    assert objective.compare(embedded)["loss"].item() == pytest.approx(2 * alone, abs=1e-6)
    objective.before_step(Progress(50, 100, 0.0))
    losses = objective.compare(embedded)
    assert losses["loss_picture"].item() == pytest.approx(mined, abs=1e-6)  # the row that motion named, at cosine 0
    assert losses["loss_motion"].item() == pytest.approx(mined, abs=1e-6)
    assert losses["named_by_both"].item() == 0

    embedded["recordings"] = torch.tensor(
        [7]
    )  # the first row is of its own recording: a positive, and nobody's to name
    losses = objective.compare(embedded)
    assert losses["loss_picture"].item() == pytest.approx(math.log(everything / (e + e + one)), abs=1e-6)


def test_coclrs_networks_are_apart_and_its_queues_in_step() -> None:
    objective = coclr(alone=0.0)
    own = dict(objective.motion_encoder.named_parameters())
    assert all(p is not own[name] and p.equal(own[name]) for name, p in objective.encoder.named_parameters())
    objective(make_batch(objective))["loss"].backward()
    assert all(p.grad is None for p in objective.teachers.parameters())
    assert objective.queue_of("picture").recordings.tolist() == [3, 4, 5]
    assert objective.queue_of("motion").recordings.tolist() == [3, 4, 5]
    assert objective.final_encoder() is objective.encoder
