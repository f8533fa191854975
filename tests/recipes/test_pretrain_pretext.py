"""Pretext tasks by themselves: what a clip is made into, what is asked of it, and the answer, against values."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from objective_factory import build, make_batch, small_encoder
from torch import Tensor
from torch.nn import functional as F

from recipes.objective import Batch
from recipes.parts.frames import mirrored, recorded
from recipes.parts.pretext import answered, answers
from recipes.parts.pretext_targets import appearance_of, luminance, motion_of
from recipes.pretrain import PRETEXTS, method
from recipes.pretrain.cpnet import sections
from recipes.pretrain.rspnet import ranking, two_speeds
from recipes.pretrain.tt import playback

SEEDS = torch.arange(200) + 7


class Shown:
    """In place of an encoder: remembers which frames it was shown, by their brightness."""

    def __init__(self, frames: int = 4) -> None:
        self.geometry = small_encoder(frames=frames).geometry
        self.width = 3
        self.frames = torch.empty(0)

    def measure(self, clips: Tensor) -> Tensor:
        self.frames = clips[:, :, 0, 0, 0].long()
        return torch.randn(len(clips), 6)


def counting(samples: int, length: int, recorded_frames: int | None = None) -> Tensor:
    """Clips whose frames are their own number, the last one held from `recorded_frames` on."""
    numbers = torch.arange(length).clamp_max((recorded_frames or length) - 1).float()
    return numbers.view(1, length, 1, 1, 1).expand(samples, length, 3, 2, 2).clone()


def ask(name: str, clip: Tensor, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[Tensor, Tensor]:
    """(frames that a task shows of a clip, the answer that it wants)."""
    import recipes.pretrain as methods

    kind = methods.pretext(name)
    wanted: list[Tensor] = []

    def remember(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        wanted.append(truth)
        return answered(scores, truth)

    monkeypatch.setattr(f"{kind.__module__}.answered", remember)
    encoder = Shown()
    task = kind(encoder, kind.Settings(head_hidden=4, **settings))  # type: ignore[arg-type]
    task(encoder, Batch({"clip": clip}, SEEDS[: len(clip)]))
    return encoder.frames, wanted[0]


# --- what they share


def test_frames_that_are_held_are_told_from_those_recorded() -> None:
    clip = torch.cat([counting(1, 6), counting(1, 6, 4), counting(1, 6, 1)])
    assert recorded(clip).tolist() == [6, 4, 1]


def test_time_runs_back_where_a_recording_ends() -> None:
    indices = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [0, 3, 9, 1, 1, 1]])
    count = torch.tensor([6, 3, 1])
    assert mirrored(indices, count).tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 1, 0, 1], [0, 0, 0, 0, 0, 0]]
    assert mirrored(indices.view(3, 2, 3), count)[1].tolist() == [[0, 1, 2], [1, 0, 1]]


def test_an_answer_by_hand() -> None:
    scores = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0]])
    loss, accuracy = answered(scores, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert accuracy.item() == 0.5
    assert answers(6, 8, 4)(torch.randn(5, 6)).abs().max() < 0.2  # no opinion yet


@pytest.mark.parametrize("name", [kind.name for kind in PRETEXTS])
def test_what_all_clips_share_is_not_read(name: str) -> None:
    """A bias of the final norm is the same in every embedding: the loss does not see it, and does not drive it."""
    objective = build(name)
    batch = make_batch(objective)
    norm = objective.encoder.final_norm
    assert norm is not None
    loss = objective(batch)["loss"]
    loss.backward()
    largest = max(parameter.grad.abs().max() for parameter in objective.parameters() if parameter.grad is not None)
    assert norm.bias.grad.abs().max() < 1e-5 * largest  # what is left is rounding
    with torch.no_grad():
        norm.bias += 3.0
    torch.testing.assert_close(objective(batch)["loss"], loss, rtol=1e-4, atol=1e-5)


# --- TT


def test_playback_by_its_name() -> None:
    order, kind = playback(SEEDS, (1, 3), 8)
    assert sorted(set(kind.tolist())) == [0, 1, 2, 3, 4]
    steps = order.diff(dim=1)
    assert (steps[kind == 0] == 1).all()
    assert (steps[kind == 1] == 3).all()
    for row in order[kind == 2]:  # shuffled: the frames of one speed, not in order
        low = row.sort().values
        assert low.diff().unique().tolist() in ([1], [3])
        assert not row.equal(low)
        assert not row.equal(low.flip(0))
    for row in steps[kind == 3]:  # up to the turning point in the middle half, and back
        up = int((row > 0).sum())
        assert 2 <= up < 6
        assert row.abs().unique().tolist() in ([1], [3])
        assert (row[:up] > 0).all()
        assert (row[up:] < 0).all()
    assert set(steps[kind == 4].flatten().tolist()) == {1, 3}
    assert sum(len(row.unique()) == 2 for row in steps[kind == 4]) > 0.8 * (kind == 4).sum()
    assert (order.amin(dim=1) == 0).all()


def test_a_clip_is_played_within_what_was_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, kind = ask("tt", counting(60, 8), monkeypatch, skips=(1, 2))
    assert (frames[kind == 0].diff(dim=1) == 1).all()
    assert set(frames[kind == 0][:, 0].tolist()) == {0, 1, 2, 3, 4}  # from any start that leaves room
    assert (frames[kind == 1].diff(dim=1) == 2).all()
    frames, kind = ask("tt", counting(60, 8, 5), monkeypatch, skips=(1, 2))
    assert frames[kind == 1].tolist() == [[0, 2, 4, 2]] * int((kind == 1).sum())  # mirrored, not held


# --- order, odd one out


def test_clips_are_shown_in_the_order_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, shown = ask("order", counting(40, 16), monkeypatch, clips=3, gap=0.5)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    for row, number in zip(frames.view(40, 3, 4), shown.tolist(), strict=True):
        assert (row.diff(dim=1) == 1).all()
        assert row[:, 0].tolist() == [6 * place for place in orders[number]]  # 4 frames, 2 between
    assert len(set(shown.tolist())) == 6
    frames, shown = ask("order", counting(40, 16, 8), monkeypatch, clips=3, gap=0.5)
    for row, number in zip(frames.view(40, 3, 4), shown.tolist(), strict=True):
        assert row[:, 0].tolist() == [2 * place for place in orders[number]]  # overlapping, and still in order


def test_one_clip_is_odd(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, odd = ask("oddoneout", counting(40, 8), monkeypatch, clips=4, length=2.0)
    for row, which in zip(frames.view(40, 4, 4), odd.tolist(), strict=True):
        for number, clip in enumerate(row):
            assert (clip.diff() == 1).all() != (number == which)
            assert clip.sort().values.diff().tolist() == [1, 1, 1]
            assert not (clip.diff() == -1).all()
    assert set(odd.tolist()) == {0, 1, 2, 3}


def test_an_odd_number_of_clips_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 2"):
        method("oddoneout").Settings(clips=5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="no two alike"):
        method("rspnet").Settings(speeds=(2, 2))  # type: ignore[call-arg]


# --- CPNet


def test_a_clip_is_cut_and_what_is_missing_is_kept() -> None:
    cut, gap = torch.tensor([2, 1]), torch.tensor([4, 2])
    whole, cut_up, missing = sections(4, cut, gap, torch.tensor([0.0, 0.99])).unbind(dim=1)
    assert whole.tolist() == [[0, 1, 2, 3], [2, 3, 4, 5]]
    assert cut_up.tolist() == [[0, 1, 6, 7], [0, 3, 4, 5]]
    assert missing.tolist() == [[2, 3, 4, 5], [1, 1, 2, 2]]


def test_short_recordings_miss_less(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, gap in ((8, 4), (6, 2), (3, 1)):
        frames, _ = ask("cpnet", counting(30, 8, count), monkeypatch)
        jumps = frames.view(30, 3, 4)[:, 1].diff(dim=1)
        if count > 4:
            assert (frames.view(30, 3, 4)[:, 0].diff(dim=1) == 1).all()
            assert jumps.amax(dim=1).unique().tolist() == [gap + 1]
            assert ((jumps > 1).sum(dim=1) == 1).all()
        assert frames.max() < count


# --- RSPNet


def test_relative_speed_by_hand() -> None:
    """Cosines 1 and 0.6: 0.4 ahead, above the margin. Then 0 and 0.6: 0.6 behind."""
    rows = torch.tensor([[[2.0, 0.0], [1.0, 0.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]]])
    loss, accuracy = ranking(rows, 0.15)
    assert loss.item() == pytest.approx((0 + 0.75) / 2)
    assert accuracy.item() == 0.5


def test_the_ranking_of_the_official_code_fails_today_and_ours_is_what_it_meant() -> None:
    rows = torch.randn(5, 3, 8)
    anchor, like, other = F.normalize(rows, dim=-1).unbind(dim=1)
    near, far = (anchor * like).sum(-1, keepdim=True), (anchor * other).sum(-1, keepdim=True)
    with pytest.raises(RuntimeError):
        F.margin_ranking_loss(near, far, torch.ones(5), margin=0.15)
    meant = F.margin_ranking_loss(near.squeeze(1), far.squeeze(1), torch.ones(5), margin=0.15)
    torch.testing.assert_close(ranking(rows, 0.15)[0], meant)


def test_two_clips_have_one_speed_and_the_third_another() -> None:
    first, second = two_speeds(SEEDS, (1, 2, 4))
    assert (first != second).all()
    assert set(first.tolist()) == set(second.tolist()) == {1, 2, 4}
    objective = build("rspnet")
    encoder, task = Shown(), objective.pretext
    clips = {name: counting(30, 8) for name in ("anchor", "same", "other")}
    task(encoder_like(encoder, task), Batch(clips, SEEDS[:30]))  # type: ignore[operator]
    steps = encoder.frames.view(30, 3, 4).diff(dim=2)
    assert (steps == steps[:, :, :1]).all()
    first, second = two_speeds(SEEDS[:30], (1, 2))
    assert steps[:, :, 0].equal(torch.stack([first, first, second], dim=1))


def encoder_like(shown: Shown, task: Any) -> Any:
    """`shown`, as wide as the heads of a task expect."""
    width = task.motion[0].in_features
    measure = shown.measure
    shown.measure = lambda clips: F.pad(measure(clips), (0, width - 6))  # type: ignore[method-assign]
    return shown


# --- statistics


def textured(frames: int = 5, size: int = 32) -> Tensor:
    """A still, dim scene without structure but for noise of one per cent: (1, frames, size, size)."""
    noise = 0.01 * torch.rand(size, size, generator=torch.Generator().manual_seed(0))
    return (0.3 + noise).expand(1, frames, size, size).clone()


@pytest.mark.parametrize(("shift", "direction"), [((0, 1), 0), ((1, 1), 1), ((1, 0), 2), ((0, -1), 4), ((-1, 0), 6)])
def test_where_it_moves_most_and_where_to(shift: tuple[int, int], direction: int) -> None:
    light = textured()
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    for t in range(5):  # a soft spot in the lower left block, which moves on by a pixel a frame
        down, across = 24 + (t - 2) * shift[0], 8 + (t - 2) * shift[1]
        light[0, t] += 0.5 * torch.exp(-((y - down) ** 2 + (x - across) ** 2) / 18)
    motion = motion_of(light, 2)
    assert (motion.block.item(), motion.direction.item()) == (2, direction)


def test_when_it_moves_most() -> None:
    light = textured()
    light[0, 3:, :16, 16:] += 0.4
    motion = motion_of(light, 2)
    assert (motion.block.item(), motion.moment.item()) == (1, 2)


def test_where_light_changes_most_and_least() -> None:
    """Blocks: blank, checked and still, slowly changing, flickering."""
    light = torch.zeros(1, 4, 32, 32)
    checks = (torch.arange(16).view(-1, 1) + torch.arange(16)) % 2
    light[0, :, :16, 16:] = 0.9 * (checks < 1) + 0.6 * (checks > 0)
    light[0, :, 16:, :16] = 0.3 + 0.02 * checks
    light[0, 3, 16:20, :16] = 0.6
    light[0, :, 16:, 16:] = torch.tensor([0.2, 0.2, 0.2, 0.95]).view(4, 1, 1)
    found = appearance_of(light, 2)
    assert (found.most.item(), found.most_shade.item()) == (3, 1)
    assert (found.least.item(), found.least_shade.item()) == (1, 4)  # of equal shares, the darker


def test_luminance_is_that_of_the_stored_pixels() -> None:
    geometry = small_encoder().geometry
    pixels = torch.rand(2, 4, 3, 8, 8)
    clip = (pixels - torch.tensor(geometry.mean).view(3, 1, 1)) / torch.tensor(geometry.std).view(3, 1, 1)
    expected = 0.299 * pixels[:, :, 0] + 0.587 * pixels[:, :, 1] + 0.114 * pixels[:, :, 2]
    torch.testing.assert_close(luminance(clip, geometry), expected)
