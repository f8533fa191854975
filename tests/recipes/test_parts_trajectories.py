"""Motion found in the clip itself: known shifts come back, and points follow them."""

import pytest
import torch

from recipes.parts.trajectories import block_motion, clip_motion, grey, look_up, places, towards, trace


def texture(side: int = 48, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    rough = torch.randn(1, 1, side // 4, side // 4, generator=draw)
    return torch.nn.functional.interpolate(rough, size=(side, side), mode="bicubic")[0, 0]


def test_a_shift_comes_back() -> None:
    still = texture()
    frames = torch.stack([still, still.roll((2, -3), dims=(0, 1)), still.roll((1, -1), dims=(0, 1))])
    motion = block_motion(frames.unsqueeze(0), spacing=4, reach=4)
    assert motion.shape == (1, 2, 2, 12, 12)
    inner = motion[0, :, :, 3:-3, 3:-3]  # away from where the roll wraps round
    for step, (x, y) in enumerate([(-3.0, 2.0), (2.0, -1.0)]):
        expected = torch.tensor([x, y]).view(2, 1, 1).expand_as(inner[step])
        torch.testing.assert_close(inner[step], expected, atol=0.2, rtol=0)


def test_half_a_pixel() -> None:
    fine = texture(96)
    frames = torch.stack([fine[::2, ::2], fine.roll(1, dims=1)[::2, ::2]]).unsqueeze(0)
    inner = block_motion(frames, spacing=4, reach=2)[0, 0, :, 3:-3, 3:-3]
    assert inner[0].mean().item() == pytest.approx(0.5, abs=0.1)
    assert inner[1].abs().mean().item() < 0.1


def test_what_is_flat_does_not_move() -> None:
    assert not block_motion(torch.ones(2, 3, 16, 16), spacing=4, reach=3).any()


def test_motion_of_a_clip_is_in_its_own_pixels() -> None:
    still = texture(96)
    clip = torch.stack([still, still.roll(4, dims=1)]).view(1, 2, 1, 96, 96).expand(-1, -1, 3, -1, -1)
    motion, spacing = clip_motion(clip, side=16, reach=8)  # searched on pictures of half the size
    assert spacing == 8
    assert motion.shape == (1, 1, 2, 12, 12)
    assert motion[0, 0, 0, 3:-3, 3:-3].mean().item() == pytest.approx(4, abs=0.2)
    motion, spacing = clip_motion(clip[..., :84, :84], side=14, reach=8)  # patches of an odd half
    assert (spacing, motion.shape[-1]) == (7, 12)
    assert motion[0, 0, 0, 3:-3, 3:-3].mean().item() == pytest.approx(4, abs=0.2)


def test_grey_is_the_mean_channel_of_squares() -> None:
    clip = torch.arange(12.0).view(1, 1, 3, 2, 2)
    assert grey(clip).tolist() == [[[[4.0, 5.0], [6.0, 7.0]]]]
    assert grey(clip, 2).tolist() == [[[[5.5]]]]


def test_fields_are_linear_between_places_and_held_beyond() -> None:
    assert places(1, 2, 8, torch.device("cpu")).tolist() == [[[4.0, 12.0]], [[4.0, 4.0]]]
    field = torch.tensor([[[[1.0, 3.0]]]])
    points = torch.tensor([[[[4.0, 8.0, 12.0, 20.0]], [[4.0, 4.0, 4.0, 4.0]]]])
    torch.testing.assert_close(look_up(field, points, 8), torch.tensor([[[[1.0, 2.0, 3.0, 3.0]]]]))


def test_points_follow_the_motion_where_they_have_come_to() -> None:
    """Left half moves right by 8, right half stands: a point of the left crosses over and stays there."""
    step = torch.zeros(1, 1, 2, 1, 4)
    step[..., 0, :, :2] = 8
    track = trace(step.expand(-1, 3, -1, -1, -1), torch.tensor([[[[12.0]], [[4.0]]]]), spacing=8)
    assert track[0, :, 0, 0, 0].tolist() == [12.0, 20.0, 20.0, 20.0]
    assert track[0, :, 1, 0, 0].tolist() == [4.0] * 4


def test_motions_back_add_up() -> None:
    back = torch.zeros(1, 3, 2, 2, 2)
    back[:, :, 0] = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1)
    shift = towards(back, spacing=4)
    assert shift[0, :, 0, 0, 0].tolist() == [0.0, 1.0, 3.0, 7.0]
    assert not shift[:, :, 1].any()
