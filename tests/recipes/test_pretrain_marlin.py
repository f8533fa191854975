"""MARLIN: regions are hidden first, the critic and the autoencoder each have their own gradients."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from objective_factory import SMALL, build, make_batch, small_encoder
from store_factory import make_prepared

from domains.base import AugmentPolicies, AugmentSettings, ClipSettings, RegionMapSettings
from domains.errors import ConfigError
from recipes.config import Layer, parse_assignments, resolve
from recipes.jobs.pretrain import pretrain
from recipes.objective import Batch
from recipes.parts.critic import PatchCritic
from recipes.parts.pixels import masked_pixel_loss
from recipes.parts.regions import labels_of, patch_labels, region_masks
from recipes.training.data import ClipData, collate, to_batch
from recipes.training.reporter import SilentReporter

SEEDS = torch.arange(40)


def as_view(labels: torch.Tensor) -> torch.Tensor:
    """labels (B, H, W) as the loader hands them on: (B, 1, 3, H, W), normalised."""
    geometry = small_encoder().geometry
    mean, std = torch.tensor(geometry.mean).view(3, 1, 1), torch.tensor(geometry.std).view(3, 1, 1)
    return ((labels[:, None, None] / 255) - mean) / std


def test_labels_survive_normalisation() -> None:
    labels = torch.arange(256).view(1, 16, 16)
    assert torch.equal(labels_of(as_view(labels), small_encoder().geometry), labels)


def test_a_map_comes_through_the_loader_as_it_is(tmp_path: Path) -> None:
    """Flipped and cut with its clip; light and frequencies are the clip's alone."""
    prepared = make_prepared(tmp_path / "prepared", videos=3, patients=3, size=32, channels=3).prepared
    drawn = np.arange(1024, dtype=np.uint8).reshape(32, 32)
    cv2.imwrite(str(tmp_path / "map.png"), drawn)
    weak = AugmentSettings(
        flip=1.0, brightness=0.5, contrast=0.5, temporal_drop={"probability": 1.0}, spatial_drop={"probability": 1.0}
    )
    data = ClipData(
        prepared, [0, 1, 2], build("marlin").views, ClipSettings(frames=4, size=32), AugmentPolicies(weak=weak),
        regions=RegionMapSettings(source="map", path=str(tmp_path / "map.png")),
    )  # fmt: skip
    geometry = small_encoder().geometry
    batch = to_batch(collate([data[0], data[1]]), geometry, torch.device("cpu"))
    expected = torch.from_numpy(drawn).flip(-1).long().expand(2, -1, -1)
    assert torch.equal(labels_of(batch["regions"], geometry), expected)
    assert batch["clip"].shape == (2, 4, 3, 32, 32)


def test_a_patch_is_what_a_quarter_of_it_is() -> None:
    labels = torch.ones(1, 4, 4, dtype=torch.int64)
    labels[0, 0, 0] = 5  # a quarter of the first patch
    labels[0, 2:, 2:] = torch.tensor([[2, 3], [0, 0]])
    assert patch_labels(labels, 2).tolist() == [[5, 1, 1, 3]]
    labels[0, :2, 2:] = 9
    assert patch_labels(labels, 2).tolist() == [[5, 9, 1, 3]]
    assert patch_labels(labels, 4).tolist() == [[9]]


def test_regions_of_interest_are_hidden_first_then_the_picture_and_nothing_outside_is_seen() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3]).expand(40, -1)
    visible = region_masks(SEEDS, labels, 2, ratio=0.75).visible[:, 0]
    assert visible.shape == (40, 8)
    assert torch.equal(visible[:, 4:], visible[:, :4] + 16)  # tubes
    assert (labels.gather(1, visible[:, :4]) == 1).all()
    assert torch.bincount(visible[:, :4].flatten(), minlength=10)[4:10].min() > 10  # by chance
    half = region_masks(SEEDS, labels, 2, ratio=0.5).visible[:, 0, :8]  # all of the picture, and two of one region
    kinds = labels.gather(1, half)
    assert (kinds == 1).sum(dim=1).eq(6).all()
    assert ((kinds == 2).any(dim=1) != (kinds == 3).any(dim=1)).all()
    assert 5 < (kinds == 2).any(dim=1).sum() < 35  # either region, by sample
    assert (labels.gather(1, region_masks(SEEDS, labels, 2, 0.3).visible[:, 0, :11]) > 0).all()
    alone = region_masks(SEEDS[7:8], labels[:1], 2, ratio=0.75).visible
    assert torch.equal(alone[0, 0], visible[7])


def test_a_part_may_be_visible_anywhere() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]).expand(40, -1)
    kinds = labels.gather(1, region_masks(SEEDS, labels, 1, ratio=0.75, anywhere=0.5).visible[:, 0])
    assert kinds.shape == (40, 4)
    assert (kinds == 1).sum(dim=1).ge(2).all()  # the other half
    assert (kinds == 2).float().mean() == pytest.approx(0.5 * 8 / 14, abs=0.12)
    assert (kinds > 0).all()


def test_the_critic_by_hand() -> None:
    """D(x) = leaky(2 x_1): scores, the gradient's length and the penalty are known."""
    critic = PatchCritic(2, 1)
    with torch.no_grad():
        critic.first.weight.copy_(torch.tensor([[2.0, 0.0]]))
        critic.last.weight.fill_(1.0)
        for layer in (critic.first, critic.last):
            layer.bias.zero_()
    fake = torch.tensor([[[1.0, 5.0], [2.0, 5.0]]], requires_grad=True)
    real = torch.tensor([[[4.0, 0.0], [6.0, 0.0]]])
    judged = critic.judge(fake, real, torch.tensor([3]), penalty=10.0)
    assert judged.maker.item() == pytest.approx(-3.0)
    assert judged.distance.item() == pytest.approx(10.0 - 3.0)
    assert judged.critic.item() == pytest.approx(3.0 - 10.0 + 10.0 * (2.0 - 1.0) ** 2)
    judged.maker.backward()
    torch.testing.assert_close(fake.grad, torch.tensor([[[-1.0, 0.0], [-1.0, 0.0]]]))
    assert all(parameter.grad is None for parameter in critic.parameters())
    fake.grad = None
    judged.critic.backward()
    assert fake.grad is None
    assert critic.first.weight.grad is not None


def test_the_slope_is_the_gradient_and_has_gradients_of_its_own() -> None:
    torch.manual_seed(0)
    critic = PatchCritic(6, 8)
    patches = torch.randn(3, 5, 6, requires_grad=True)
    (expected,) = torch.autograd.grad(critic(patches).sum(), patches, create_graph=True)
    torch.testing.assert_close(critic.slope(patches.detach()), expected)
    twice = torch.autograd.grad(expected.norm(dim=-1).sum(), [critic.first.weight, critic.last.weight])
    ours = torch.autograd.grad(
        critic.slope(patches.detach()).norm(dim=-1).sum(), [critic.first.weight, critic.last.weight]
    )
    for found, wanted in zip(ours, twice, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_penalty_mixes_every_patch_by_its_own_number() -> None:
    """The authors' code has one number for the batch: its penalty knows one point between all pairs."""
    critic, mixed = PatchCritic(1, 4), []
    slope = critic.slope
    critic.slope = lambda patches: (mixed.append(patches), slope(patches))[1]  # type: ignore[method-assign]
    critic.judge(torch.zeros(2, 50, 1), torch.ones(2, 50, 1), torch.tensor([3, 4]), penalty=10.0)
    share = mixed[-1].detach().flatten()
    assert share.min() >= 0
    assert share.max() <= 1
    assert share.std() > 0.2
    assert share.unique().numel() == 100


def test_parts_of_the_loss_and_whose_gradients_they_are() -> None:
    objective = build("marlin", weight_adversarial=0.5)
    batch = make_batch(objective)
    found = objective(batch)
    total = found["loss_reconstruction"] + 0.5 * found["loss_adversarial"] + found["loss_critic"]
    torch.testing.assert_close(found["loss"].detach(), total)
    found["loss"].backward()
    critic = {name: p.grad.clone() for name, p in objective.critic.named_parameters()}
    deaf = build("marlin", weight_adversarial=0.0)
    deaf(batch)["loss"].backward()
    for name, parameter in deaf.critic.named_parameters():  # the critic learns the same, heard or not
        torch.testing.assert_close(parameter.grad, critic[name])
    plain = build("marlin")  # and what it learns does not reach the encoder
    labels = patch_labels(labels_of(batch["regions"], plain.encoder.geometry), 8)
    masks = region_masks(batch.seeds, labels, 2, plain.settings.mask_ratio)
    visible, hidden = masks.visible[:, 0], masks.hidden[:, 0]
    made = plain.decoder(plain.encoder(batch["clip"], visible), visible, hidden)
    masked_pixel_loss(made, batch["clip"], hidden, plain.encoder.patch).backward()
    expected = dict(plain.encoder.named_parameters())
    for name, parameter in deaf.encoder.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-7)


def test_what_is_hidden_is_counted() -> None:
    objective = build("marlin", mask_ratio=0.75)
    labels = torch.ones(3, 32, 32, dtype=torch.int64)
    labels[:, :8, :8] = 2
    clip = torch.randn(3, 4, 3, 32, 32)
    batch = Batch({"clip": clip, "regions": as_view(labels)}, torch.tensor([1, 2, 3]))
    assert objective(batch)["regions_hidden"].item() == 1
    objective.settings = objective.Settings(**{**SMALL["marlin"], "mask_ratio": 0.75, "anywhere": 1.0})
    many = Batch({"clip": clip.repeat(20, 1, 1, 1, 1), "regions": as_view(labels.repeat(20, 1, 1))}, torch.arange(60))
    assert objective(many)["regions_hidden"].item() == pytest.approx(0.75, abs=0.15)


def test_a_domain_without_regions_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    make_prepared(tmp_path / "prepared", videos=4, patients=4, size=48)
    words = [f"data.path={tmp_path / 'prepared'}", "domain=ours", "clip.frames=4", "clip.size=32", "train.steps=2"]
    layers = [Layer("the method", {"method": "marlin", "objective": SMALL["marlin"]})]
    with pytest.raises(ConfigError, match="domain 'ours' has no region map"):
        pretrain(
            resolve([*layers, Layer("test", parse_assignments(words))]), tmp_path / "run", reporter=SilentReporter()
        )
    assert not (tmp_path / "run").exists()
