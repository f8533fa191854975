"""DISCOVR: every term where the equations have it, and none of the defects of the released code."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from recipes.encoders.base import Geometry, VideoEncoder
from recipes.encoders.videomae import fresh_videomae
from recipes.objective import Batch, Progress
from recipes.parts.losses import distillation_loss, teacher_probabilities
from recipes.parts.masks import tube_masks
from recipes.pretrain import method
from recipes.pretrain.discovr import DISCOVR, as_frames, average_tubelets

SMALL = {
    "views": 2,
    "mask_ratio": 0.5,
    "frame_mask_ratio": 0.5,
    "head_hidden": 16,
    "head_bottleneck": 8,
    "head_outputs": 12,
    "prototypes": 6,
    "decoder_depth": 1,
    "decoder_width": 12,
    "decoder_heads": 2,
    "teacher_momentum": 0.9,
}


def small_encoder(frames: int = 4, size: int = 32) -> VideoEncoder:
    return fresh_videomae(
        Geometry(frames=frames, size=size),
        seed=0,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        patch_size=8,
        tubelet_size=2,
    )


def build(**settings: object) -> DISCOVR:
    torch.manual_seed(0)
    return DISCOVR(small_encoder(), DISCOVR.Settings(**{**SMALL, **settings})).train()


def batch(size: int = 3) -> Batch:
    clips = torch.randn(size, 4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    return Batch({"clip": clips}, torch.arange(size) + 10)


def gradients(module: torch.nn.Module) -> float:
    return sum(p.grad.abs().sum().item() for p in module.parameters() if p.grad is not None)


def test_it_is_registered() -> None:
    assert method("discovr") is DISCOVR


def test_the_loss_is_the_sum_of_its_three_terms() -> None:
    losses = build(weight_video=2.0, weight_image=3.0, weight_cluster=5.0)(batch())
    parts = 2 * losses["loss_video"] + 3 * losses["loss_image"] + 5 * losses["loss_cluster"]
    torch.testing.assert_close(losses["loss"].detach(), parts)
    assert all(value.ndim == 0 for value in losses.values())


@torch.no_grad()
def test_the_video_term_by_the_equation() -> None:
    """(1 / M) sum_m H(P_t, P_s^m), one view and one clip at a time, through the plain encoder."""
    objective, data = build(), batch()
    objective.video_centre.value.copy_(torch.linspace(-0.1, 0.1, 12))
    losses = objective(data)
    seen = tube_masks(data.seeds, objective.encoder.grid, 0.5, 2, name="video").visible
    total = torch.zeros(())
    for row in range(3):
        clip = data["clip"][row : row + 1]
        teacher = objective.head(objective.encoder(clip).mean(dim=1))  # equal to its student so far
        p_t = ((teacher - objective.video_centre.value) / objective.teacher_temperature).softmax(dim=-1)
        for view in range(2):
            student = objective.head(objective.encoder(clip, seen[row : row + 1, view]).mean(dim=1))
            total -= (p_t * (student / 0.1).log_softmax(dim=-1)).sum()
    torch.testing.assert_close(losses["loss_video"], total / 6, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_teacher_can_have_a_clip_of_its_own() -> None:
    """H(P_t(other clip), P_s(masked clip)); L_img and L_SCD compare places, so they stay with the student's."""
    objective, data = build(teacher_clip="other"), batch()
    assert set(objective.views) == {"clip", "teacher"}
    assert set(build().views) == {"clip"}
    same = objective(Batch({"clip": data["clip"], "teacher": data["clip"]}, data.seeds))
    assert same["loss_video"] == build()(data)["loss_video"]
    other = data["clip"].flip(0) * 0.5
    found = objective(Batch({"clip": data["clip"], "teacher": other}, data.seeds))
    target = objective.head(objective.encoder(other).mean(dim=1))
    seen = tube_masks(data.seeds, objective.encoder.grid, 0.5, 2, name="video").visible
    student = objective.head(objective.encoder(data["clip"], seen).mean(dim=2))
    p_t = teacher_probabilities(target, objective.video_centre.value, objective.teacher_temperature)
    torch.testing.assert_close(found["loss_video"], distillation_loss(p_t, student, 0.1), rtol=1e-4, atol=1e-5)
    assert found["loss_image"] == same["loss_image"]
    assert found["loss_cluster"] == same["loss_cluster"]


def test_heads_can_read_how_tokens_change_over_time() -> None:
    objective, data = build(head_motion=True), batch()
    tokens = torch.randn(3, 2, 8, 24)  # two views of 4 places at 2 times
    read = objective.encoder.statistics(tokens)
    torch.testing.assert_close(read[..., :24], tokens.mean(dim=2))
    by_hand = (tokens[:, :, :4] - tokens[:, :, 4:]).abs().div(2).mean(dim=2)  # the deviation of two values
    torch.testing.assert_close(read[..., 24:], by_hand)
    logits = objective.video(data["clip"])
    whole = objective.encoder(data["clip"])
    torch.testing.assert_close(logits, objective.head(objective.encoder.statistics(whole)))
    still = data["clip"][:, :1].expand(-1, 4, -1, -1, -1)
    objective(Batch({"clip": still}, data.seeds))["loss"].backward()
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.grad is not None)


@torch.no_grad()
def test_every_frame_counts_in_the_image_term() -> None:
    objective, data = build(), batch(2)
    before = objective(data)["loss_image"]
    for frame in range(4):
        data["clip"][1, frame] *= -3
        after = objective(data)["loss_image"]
        assert not torch.isclose(after, before, atol=1e-6, rtol=0), f"frame {frame} does not count"
        before = after


@torch.no_grad()
def test_the_image_term_is_the_mean_over_frames() -> None:
    objective, data = build(), batch(2)
    framed = tube_masks(data.seeds, objective.encoder.grid, 0.5, 1, name="image").visible
    places = framed.view(2, 2, -1)[:, 0]  # the first tubelet's
    total = torch.zeros(())
    for row in range(2):
        for frame in range(4):
            still = data["clip"][row : row + 1, frame : frame + 1]
            target = objective.frame_head(objective.frame_encoder(still).mean(dim=1))
            student = objective.frame_head(objective.frame_encoder(still, places[row : row + 1]).mean(dim=1))
            p_t = teacher_probabilities(target, objective.image_centre.value, objective.teacher_temperature)
            total += distillation_loss(p_t, student.unsqueeze(1), 0.1)
    torch.testing.assert_close(objective(data)["loss_image"], total / 8, rtol=1e-4, atol=1e-5)


def constructed(objective: DISCOVR) -> tuple[Tensor, Tensor, Tensor]:
    """Video tokens and frame tokens that say their own position: token n of both grids points at prototype n % K."""
    width, grid, k = objective.encoder.width, objective.encoder.grid, 6
    prototypes = torch.nn.functional.one_hot(torch.arange(k), width).float()
    framed = tube_masks(torch.arange(2), grid, 0.5, 1, name="image").visible
    video = prototypes[framed % k]  # (B, F, W, D), as the decoder is asked for them
    every_frame = prototypes[torch.arange(objective.encoder.tokens) % k].view(grid[0], -1, width)
    places = framed.view(2, grid[0], -1)[:, 0]
    # frame tokens of frame f lie in tubelet f // 2; the two frames of a tubelet differ and only their mean is right
    noise = torch.randn(2, 2, places.shape[1], width, generator=torch.Generator().manual_seed(0)) * 0.2
    frames = [every_frame[f // 2][places] + (noise[f // 2] if f % 2 else -noise[f // 2]) for f in range(4)]
    image = torch.stack(frames, dim=1).flatten(0, 1).unsqueeze(1)  # (B * T, F, P, D)
    with torch.no_grad():
        objective.prototypes.weight.copy_(prototypes)
    return video.unsqueeze(2), image, framed


def test_both_grids_are_aligned() -> None:
    """Fails when either side is permuted: in time, in space, or as [visible, masked]."""
    objective = build()
    video, image, _ = constructed(objective)
    aligned = average_tubelets(image, 4, 2)
    torch.testing.assert_close(aligned, video[:, :, 0], rtol=0, atol=1e-6)
    least = objective.cluster_loss(video, aligned)
    frames = torch.tensor([0, 2, 1, 3, 4, 6, 5, 7])  # frames 1 and 2 of each clip change tubelets
    for wrong in (aligned.flip(2), aligned.roll(1, dims=2), average_tubelets(image[frames], 4, 2)):
        assert objective.cluster_loss(video, wrong) > least + 0.5


@torch.no_grad()
def test_decoded_tokens_are_those_of_the_places_that_the_frame_student_sees() -> None:
    objective, data = build(views=4, frame_views=2), batch()
    grid = objective.encoder.grid
    seen = tube_masks(data.seeds, grid, 0.5, 4, name="video").visible
    framed = tube_masks(data.seeds, grid, 0.5, 2, name="image").visible
    tokens = objective.encoder(data["clip"], seen)
    filled = objective.fill_in(tokens, seen, framed)
    assert filled.shape == (3, 2, 2, framed.shape[-1], 24)
    for view in range(4):
        own = framed[:, view // 2]
        expected = objective.decoder(tokens[:, view], seen[:, view], own)
        torch.testing.assert_close(filled[:, view // 2, view % 2], expected, rtol=0, atol=1e-5)


def test_frames_keep_the_places_of_their_tubes() -> None:
    clip = torch.arange(2 * 4.0).view(2, 4, 1, 1, 1).expand(2, 4, 3, 32, 32)
    tubes = tube_masks(torch.tensor([5, 6]), (2, 4, 4), 0.75, 2).visible
    frames, places = as_frames(clip, tubes, (2, 4, 4))
    assert frames.shape == (8, 1, 3, 32, 32)
    assert frames[:, 0, 0, 0, 0].tolist() == list(range(8))
    for frame in range(4):
        for row in range(2):
            assert torch.equal(places[row * 4 + frame], tubes[row, :, :4])


@torch.no_grad()
def test_with_no_mask_the_cluster_term_counts_every_position() -> None:
    objective, data = build(frame_mask_ratio=0.0), batch()
    framed = tube_masks(data.seeds, objective.encoder.grid, 0.0, 1, name="image").visible
    assert torch.equal(framed[:, 0], torch.arange(objective.encoder.tokens).expand(3, -1))
    assert objective(data)["loss"].isfinite()


def test_each_term_has_the_gradients_of_its_equation() -> None:
    own = {"video": ("encoder", "head"), "image": ("frame_encoder", "frame_head")}
    both = ("encoder", "frame_encoder", "decoder", "prototypes")
    for term, expected in {**own, "cluster": both}.items():
        objective = build(**{f"weight_{name}": float(name == term) for name in ("video", "image", "cluster")})
        objective(batch())["loss"].backward()
        for name in ("encoder", "head", "frame_encoder", "frame_head", "decoder", "prototypes"):
            moved = gradients(getattr(objective, name))
            assert (moved > 0) == (name in expected), f"{term}: {name} {moved}"
        for name in ("video_teacher", "image_teacher", "video_centre", "image_centre"):
            assert gradients(getattr(objective, name)) == 0


def test_both_directions_of_the_cluster_term_carry_gradient() -> None:
    """In the released code the direction towards the frames carries none."""
    objective = build()
    video = torch.randn(2, 1, 2, 5, 24, requires_grad=True)
    image = torch.randn(2, 1, 5, 24, requires_grad=True)
    objective.cluster_loss(video, image).backward()
    assert video.grad is not None
    assert image.grad is not None
    assert video.grad.abs().sum() > 0
    assert image.grad.abs().sum() > 0


def test_every_trained_parameter_is_used() -> None:
    """A process group waits for ever on one that is not."""
    objective = build()
    objective(batch())["loss"].backward()
    assert not [name for name, p in objective.named_parameters() if p.requires_grad and p.grad is None]


def test_the_teacher_moves_after_the_step_and_not_before() -> None:
    objective = build(teacher_momentum=0.75, teacher_momentum_end=0.75)
    before = {name: p.clone() for name, p in objective.video_teacher.named_parameters()}
    objective(batch())["loss"].backward()
    assert all(torch.equal(p, before[name]) for name, p in objective.video_teacher.named_parameters())
    with torch.no_grad():
        for parameter in objective.parameters():
            if parameter.requires_grad:
                parameter += 0.1
    assert all(torch.equal(p, before[name]) for name, p in objective.video_teacher.named_parameters())
    objective.after_step(Progress(1, 10, 0.1))
    student = dict(objective.video.named_parameters())
    for name, p in objective.video_teacher.module.named_parameters():
        torch.testing.assert_close(p, 0.75 * before[f"module.{name}"] + 0.25 * student[name])


def test_schedules_reach_the_model() -> None:
    objective, data = build(teacher_momentum=0.5), batch()
    objective.before_step(Progress(0, 100, 0))
    early = objective(data)
    assert early["teacher_temperature"].item() == pytest.approx(0.04)
    assert early["teacher_momentum"].item() == pytest.approx(0.5)
    objective.before_step(Progress(50, 100, 5))
    late = objective(data)
    assert late["teacher_temperature"].item() == pytest.approx(0.07)
    assert late["teacher_momentum"].item() == pytest.approx(0.75)
    assert late["teacher_entropy_video"] > early["teacher_entropy_video"]  # softer targets, the weights being the same
    assert late["loss_video"] != early["loss_video"]


def test_teacher_momentum_decides_how_far_the_teacher_moves() -> None:
    def moved(momentum: float) -> float:
        objective = build(teacher_momentum=momentum, teacher_momentum_end=momentum)
        before = objective.video_teacher.module.head.mlp[0].weight.clone()
        with torch.no_grad():
            objective.head.mlp[0].weight += 1
        objective.before_step(Progress(3, 10, 0))
        objective.after_step(Progress(4, 10, 0))
        return (objective.video_teacher.module.head.mlp[0].weight - before).mean().item()

    assert moved(0.9) == pytest.approx(0.1, abs=1e-5)
    assert moved(1.0) == 0


def test_the_centre_follows_the_teachers_logits() -> None:
    objective, data = build(centre_momentum=0.75), batch()
    objective(data)
    with torch.no_grad():
        logits = objective.video_teacher(data["clip"])
        frames = objective.image_teacher(data["clip"].flatten(0, 1).unsqueeze(1))
    assert objective.video_centre.value.abs().sum() == 0
    objective.after_step(Progress(1, 10, 0))
    torch.testing.assert_close(objective.video_centre.value, 0.25 * logits.mean(dim=0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(objective.image_centre.value, 0.25 * frames.mean(dim=0), rtol=1e-4, atol=1e-6)
    assert objective.video_centre.value.min() < 0  # probabilities could not be


def test_a_sample_does_not_depend_on_its_batch() -> None:
    objective, data = build().eval(), batch(3)
    alone = [objective.eval()(Batch({"clip": data["clip"][i : i + 1]}, data.seeds[i : i + 1])) for i in range(3)]
    for name in ("loss_video", "loss_image"):
        mean = torch.stack([losses[name] for losses in alone]).mean()
        torch.testing.assert_close(objective(data)[name], mean, rtol=1e-5, atol=1e-5)


def test_nothing_is_saved_twice() -> None:
    objective = build()
    pointers = [tensor.data_ptr() for tensor in objective.state_dict().values()]
    assert len(pointers) == len(set(pointers))


def test_settings_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValidationError, match="frame_views must divide views"):
        DISCOVR.Settings(views=3, frame_views=2)
    with pytest.raises(ValidationError, match="multiple of decoder_heads"):
        DISCOVR.Settings(decoder_width=100, decoder_heads=6)


def blobs(count: int) -> Tensor:
    """Bright discs that go round at different radii and speeds: (count, 4, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(0)
    radius, speed, phase = (torch.rand(count, 1, generator=generator) for _ in range(3))
    angle = 2 * math.pi * (phase + speed * torch.arange(4) / 4)
    x, y = 16 + (4 + 8 * radius) * angle.cos(), 16 + (4 + 8 * radius) * angle.sin()
    rows, columns = torch.arange(32.0).view(1, 1, -1, 1), torch.arange(32.0).view(1, 1, 1, -1)
    distance = (rows - y.view(count, 4, 1, 1)) ** 2 + (columns - x.view(count, 4, 1, 1)) ** 2
    frames = (-distance / 18).exp() * 4 - 1
    return frames.unsqueeze(2).expand(-1, -1, 3, -1, -1).contiguous()


def test_a_short_run_learns_and_does_not_collapse() -> None:
    objective = build(head_outputs=32, prototypes=8, teacher_momentum=0.99, standardise=True)
    clips, steps = blobs(16), 50
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=5e-4, betas=(0.9, 0.95))
    history = []
    for step in range(steps):
        objective.before_step(Progress(step, steps, 0))
        losses = objective(Batch({"clip": clips}, torch.arange(16) + 100 * step))
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
        objective.after_step(Progress(step + 1, steps, 0))
        history.append({name: value.item() for name, value in losses.items()})
    first, last = (
        {name: sum(step[name] for step in part) / 5 for name in part[0]} for part in (history[:5], history[-5:])
    )
    assert last["loss"] < first["loss"] - 3
    assert last["loss_cluster"] < first["loss_cluster"] - 1
    for branch in (
        "video",
        "image",
    ):  # the targets' own entropy changes with their temperature: what is above it counts
        above = [part[f"loss_{branch}"] - part[f"teacher_entropy_{branch}"] for part in (first, last)]
        assert above[1] < 0.5 * above[0], branch
    with torch.no_grad():
        features = objective.encoder.embed(clips)
        logits = objective.video_teacher(clips)
    values = torch.linalg.svdvals(features - features.mean(dim=0))
    share = values / values.sum()
    assert (-(share * share.clamp_min(1e-12).log()).sum()).exp() > 3  # effective rank
    p_t = teacher_probabilities(logits, objective.video_centre.value, objective.teacher_temperature)
    assert len(set(p_t.argmax(dim=1).tolist())) >= 4  # clips have outputs of their own
    assert 0.1 < history[-1]["teacher_entropy_video"] < math.log(32) - 0.1  # neither one output for all nor all alike


def test_standardising_takes_away_what_the_samples_share() -> None:
    head = build(standardise=True).head
    shared, own = torch.randn(24), torch.randn(6, 24) * 0.01
    logits = head(shared + own)
    torch.testing.assert_close(head(5 * shared + 1 + 3 * own), logits, rtol=0, atol=0.05)
    assert logits.std(dim=0).mean() > 0.1
    plain = build().head
    assert plain(shared + own).std(dim=0).mean() < 0.05
