"""The generic encoder's training: what it is told is what the scenes know, and the loop takes it as it takes recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from objective_factory import small_encoder
from torch.nn import functional as F

from domains.base import ClipSettings
from domains.generic.samples import draw_sample
from recipes.encoders import open_encoder
from recipes.generic.data import SceneData
from recipes.generic.objective import SIDE, Generic, coarse_pictures
from recipes.generic.train import looked_at, main
from recipes.objective import Batch
from recipes.runs.metrics import read_metrics
from recipes.training.data import collate, to_batch

CLIP = ClipSettings(frames=4, size=32, stride=1)


class Nothing:
    """Where nothing is looked at."""

    def __len__(self) -> int:
        return 0


def data(seed: int = 0) -> SceneData:
    return SceneData(Nothing(), CLIP, (2, 8), seed=seed)  # type: ignore[arg-type]


def batch(count: int = 4) -> Batch:
    return to_batch(collate([data()[number] for number in range(count)]), small_encoder().geometry, torch.device("cpu"))


def build(**settings: object) -> Generic:
    torch.manual_seed(0)
    return Generic(small_encoder(), Generic.Settings(head_hidden=16, head_outputs=8, **settings)).train()


def test_targets_are_the_scenes_own() -> None:
    found, truth = batch(3), draw_sample(0, 2, 4, 32, (2, 8))
    assert found["first"].shape == (3, 4, 3, 32, 32)
    assert found.targets["flow_second"].shape == (3, 2 * 4 * 4, 2)
    np.testing.assert_allclose(
        found.targets["flow_second"][2].numpy(), np.clip(truth.truths[1].flow.reshape(-1, 2) / 2, -4, 4), rtol=1e-6
    )
    assert found.targets["pace"][2] == truth.pace
    assert found.targets["backwards"][2] == truth.backwards
    assert found.targets["swapped"][2] == truth.swapped
    speed = truth.truths[0].facts[0]
    assert found.targets["facts_first"][2, 0].item() == pytest.approx(np.log1p(speed), rel=1e-5)


def test_the_local_loss_by_hand() -> None:
    """Two tokens. Told (0, 0) and logit 0 of (0.1, 0) behind and (2, 0) in front: Huber with beta 0.25, and ln 2 a quarter."""
    objective = build()
    torch.nn.init.zeros_(objective.local.weight)
    torch.nn.init.zeros_(objective.local.bias)
    targets = {
        "flow_first": torch.tensor([[[9.0, 9.0], [0.1, 0.0], [2.0, 0.0]]]), "front_first": torch.tensor([[1.0, 0.0, 1.0]]),
    }  # fmt: skip
    loss = objective.local_loss(torch.randn(1, 2, 24), torch.tensor([[1, 2]]), targets, "first")
    huber = (0.5 * 0.1**2 / 0.25 + (2 - 0.125)) / 4
    assert loss.item() == pytest.approx(huber + 0.25 * np.log(2), abs=1e-6)


def test_facts_are_read_as_a_probe_reads_them() -> None:
    """By linear layers from features standardised over the batch: their scale and offset do not matter."""
    objective, found, read = build(), batch(4), torch.randn(4, 48)
    even = (read - read.mean(0)) / (read.var(0, correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(objective.even(7 * read + 3), even, rtol=1e-3, atol=1e-4)
    expected = F.smooth_l1_loss(objective.facts(even), found.targets["facts_first"].float())
    for name in ("pace", "backwards", "swapped", "texture"):
        expected = expected + 0.25 * F.cross_entropy(objective.kinds[name](even), found.targets[name])
    torch.testing.assert_close(objective.facts_loss(even, found.targets, "first"), expected)


def test_coarse_pictures_by_hand() -> None:
    """Left half 1, 2, 3, 6 over time in one channel and three times that in another, right half black: brightness 2, 4, 6, 12."""
    clip = torch.zeros(1, 4, 2, 32, 32)
    clip[0, :, 0, :, :16] = torch.tensor([1.0, 2.0, 3.0, 6.0])[:, None, None]
    clip[0, :, 1] = 3 * clip[0, :, 0]
    mean, deviation, trend = coarse_pictures(clip)[0].unflatten(1, (SIDE, SIDE))
    for found, expected in ((mean, 6.0), (deviation, 14**0.5), (trend, 9.0 - 3.0)):
        torch.testing.assert_close(found[:, : SIDE // 2], torch.full((SIDE, SIDE // 2), expected))
        assert (found[:, SIDE // 2 :] == 0).all()


def test_nothing_told_of_the_pictures_costs_one_and_all_of_it_nothing() -> None:
    objective, clip = build(), torch.randn(4, 4, 3, 32, 32)
    wanted = coarse_pictures(clip)
    torch.nn.init.zeros_(objective.pictures.bias)
    nothing = objective.pictures_loss(torch.zeros(4, 48), clip - clip.mean())
    centred = coarse_pictures(clip - clip.mean())
    expected = (centred.square().mean(dim=(0, 2)) / centred.var(dim=(0, 2), correction=0)).mean()
    torch.testing.assert_close(nothing, expected)
    even = torch.eye(4, 48)  # each clip has a feature of its own, whose weights are its pictures
    with torch.no_grad():
        objective.pictures.weight[:, :4] = wanted.flatten(1).T
    assert objective.pictures_loss(even, clip).item() < 1e-10


def test_gradients_reach_everything_and_the_loss_is_its_parts() -> None:
    weights = {"contrast": 2.0, "flow": 3.0, "facts": 0.5, "pictures": 0.25}
    objective, found = build(**{f"weight_{name}": weight for name, weight in weights.items()}), batch(4)
    torch.nn.init.normal_(objective.pictures.weight)
    losses = objective(found)
    losses["loss"].backward()
    torch.testing.assert_close(losses["loss"].detach(), sum(w * losses[f"loss_{name}"] for name, w in weights.items()))
    assert not [name for name, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert build().encoder.random_start


def test_a_run_learns_motion_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.generic.train.LOOKED", 6)
    words = [
        "generic", "--out", str(tmp_path), "--size", "32", "train.batch_size=8", "train.log_every=1", "train.monitor_every=4", "data.workers=0",
        "train.precision=fp32", "train.save_every=2", "monitor.clips=6",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", [*words, "train.steps=3"])
    main()
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[-1]["loss_flow"] != rows[0]["loss_flow"]
    assert "rankme" in rows[-1]
    encoder = open_encoder(tmp_path / "run")
    assert encoder.geometry.size == 32
    assert len(looked_at(tmp_path / "looked")) == 6
    monkeypatch.setattr("sys.argv", [*words, "train.steps=3"])
    main()  # finished: nothing more
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2, 3]
    assert len({data(seed).fingerprint() for seed in (0, 1)}) == 2
