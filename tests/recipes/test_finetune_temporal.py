"""The temporal head and its loss against hand-computed cases; what may reach an answer, and what may not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from domains.errors import ModelError
from domains.store.moments import UNLABELLED
from recipes.finetune.head import load_temporal_head, save_head
from recipes.finetune.temporal import (
    DESCRIPTIONS,
    INSIDE,
    RAREST,
    TRUTH,
    TemporalHeadSettings,
    TemporalObjective,
    balanced,
)
from recipes.objective import Batch


def objective(**over) -> TemporalObjective:
    values = {"task": "phase", "kind": "phases", "classes": ("a", "b", "c"), "channels": 5, "layers": 3, "width": 8}
    torch.manual_seed(0)
    return TemporalObjective(TemporalHeadSettings.model_validate(values | over))


def batch(truth: torch.Tensor, inside: torch.Tensor | None = None, channels: int = 5) -> Batch:
    count, moments = truth.shape[:2]
    descriptions = torch.randn(count, moments, channels, generator=torch.Generator().manual_seed(1))
    inside = torch.ones(count, moments) if inside is None else inside
    targets = {DESCRIPTIONS: descriptions, TRUTH: truth, INSIDE: inside}
    return Batch({}, torch.arange(count), targets, torch.arange(count))


@pytest.mark.parametrize("kind", ["phases", "presence"])
def test_nothing_of_the_future_reaches_a_causal_answer(kind):
    model = objective(kind=kind).eval()
    told = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    before = model.predict(told)
    for moment in (0, 17, 40, 58):
        changed = told.copy()
        changed[moment + 1 :] = 50 * np.random.default_rng(1).normal(size=changed[moment + 1 :].shape)
        np.testing.assert_array_equal(model.predict(changed)[: moment + 1], before[: moment + 1])
        np.testing.assert_allclose(model.predict(told[: moment + 1]), before[: moment + 1], atol=1e-6)
    sums = before.sum(axis=1)
    assert np.allclose(sums, 1) if kind == "phases" else not np.allclose(sums, 1)


def test_an_offline_head_sees_the_future_and_both_see_the_past():
    told = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    changed = told.copy()
    changed[40] += 5
    for head, ahead in (("causal", False), ("offline", True)):
        model = objective(head=head).eval()
        differs = np.abs(model.predict(changed) - model.predict(told)).max(axis=1) > 1e-7
        assert differs[40]
        assert differs[41:46].any()
        assert differs[:40].any() == ahead


def test_how_far_back_a_stage_looks_follows_from_its_layers():
    """Dilations 1, 2, 4 with three taps: 2 * (1 + 2 + 4) = 14 moments back, and not one more."""
    model = objective(stages=1).eval()
    told = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    changed = told.copy()
    changed[20] += 5
    differs = np.abs(model.predict(changed) - model.predict(told)).max(axis=1) > 0
    assert np.flatnonzero(differs).min() == 20
    assert np.flatnonzero(differs).max() == 34


@pytest.mark.parametrize("head", ["causal", "offline"])
def test_what_fills_a_batch_changes_nothing(head):
    model = objective(head=head).eval()
    whole = batch(torch.zeros(2, 30, dtype=torch.int64))
    inside = torch.ones(2, 30)
    inside[1, 19:] = 0
    filled = model.head(whole.targets[DESCRIPTIONS], inside)[-1]
    alone = model.predict(whole.targets[DESCRIPTIONS][1, :19].numpy())
    np.testing.assert_allclose(filled[1, :, :19].softmax(dim=0).T.detach().numpy(), alone, atol=1e-6)
    # neither is there any of it in the loss
    truth = torch.randint(0, 3, (2, 30), generator=torch.Generator().manual_seed(2))
    truth[1, 19:] = UNLABELLED
    cut = batch(truth, inside)
    loss = model(cut)["loss"]
    cut.targets[DESCRIPTIONS][1, 19:] += 100
    torch.testing.assert_close(model(cut)["loss"], loss)


def test_pieces_give_what_the_whole_gives(monkeypatch):
    import recipes.finetune.temporal as temporal

    model = objective().eval()
    told = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    whole = model.predict(told)
    monkeypatch.setattr(temporal, "PIECE", 7)
    np.testing.assert_allclose(model.predict(told), whole, atol=1e-6)


def test_the_loss_of_phases_by_hand():
    model = objective(class_weights=(1.0, 2.0, 0.5), smooth=0.3, smooth_limit=1.0, stages=2).eval()
    truth = torch.tensor([[0, 1, UNLABELLED, 2], [1, 1, 0, UNLABELLED]])
    given = batch(truth)
    losses = model(given)
    told, smooth = [], []
    for logits in model.head(given.targets[DESCRIPTIONS], torch.ones(2, 4)):
        weight, total, jumps = 0.0, 0.0, []
        said = logits.detach().log_softmax(dim=1)
        for one in range(2):
            for t in range(4):
                if truth[one, t] != UNLABELLED:
                    w = (1.0, 2.0, 0.5)[truth[one, t]]
                    weight, total = weight + w, total - w * float(said[one, truth[one, t], t])
                if t:
                    jumps += [min(abs(float(said[one, c, t] - said[one, c, t - 1])), 1.0) ** 2 for c in range(3)]
        told.append(total / weight)
        smooth.append(np.mean(jumps))
    assert float(losses["loss_told"]) == pytest.approx(np.mean(told), rel=1e-5)
    assert float(losses["loss_smooth"]) == pytest.approx(np.mean(smooth), rel=1e-5)
    assert float(losses["loss"]) == pytest.approx(np.mean(told) + 0.3 * np.mean(smooth), rel=1e-5)


def test_the_loss_of_presence_by_hand():
    model = objective(kind="presence", class_weights=(1.0, 3.0, 1.0), smooth=0.0, stages=1).eval()
    truth = torch.tensor([[[1, 0, 0], [0, 1, 1], [UNLABELLED] * 3]])
    given = batch(truth)
    logits = model.head(given.targets[DESCRIPTIONS], torch.ones(1, 3))[0][0].T[:2]
    p = logits.sigmoid()
    y = truth[0, :2].float()
    weight = torch.tensor([1.0, 3.0, 1.0])
    by_hand = -(weight * y * p.log() + (1 - y) * (1 - p).log()).mean()
    torch.testing.assert_close(model(given)["loss"], by_hand)
    assert "accuracy" not in model(given)


def test_gradients_reach_every_weight_and_a_jump_pulls_only_the_later_moment():
    model = objective()
    model(batch(torch.randint(0, 3, (2, 40))))["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    logits = torch.randn(1, 3, 2, requires_grad=True)
    model.jumps(logits, torch.ones(1, 2)).backward()
    assert logits.grad[..., 0].abs().sum() == 0
    assert logits.grad[..., 1].abs().sum() > 0


def test_nothing_labelled_is_no_loss_and_not_a_number_neither():
    for kind, shape in (("phases", (2, 6)), ("presence", (2, 6, 3))):
        losses = objective(kind=kind)(batch(torch.full(shape, UNLABELLED)))
        assert float(losses["loss_told"]) == 0
        assert losses["loss"].isfinite()


def test_weights_of_classes():
    truths = [np.array([0, 0, 0, 1]), np.array([0, 0, UNLABELLED, 1])]
    assert balanced(truths, "phases", 3) == pytest.approx((7 / (2 * 5), 7 / (2 * 2), 0.0))
    seen = [np.array([[1, 0], [1, 0], [0, 0]]), np.array([[0, 1]] + [[0, 0]] * 96)]
    assert balanced(seen, "presence", 2) == pytest.approx((RAREST, RAREST))
    assert balanced([np.array([[1], [1], [0]])], "presence", 1) == (0.5,)


def test_a_head_is_saved_with_what_it_means(tmp_path):
    model = objective(head="offline", rate=2.0).eval()
    model.head.mean.fill_(0.5)
    save_head(model, tmp_path)
    again = load_temporal_head(tmp_path)
    assert again.settings == model.settings
    told = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    np.testing.assert_array_equal(again.predict(told), model.predict(told))
    (tmp_path / "head.json").write_text((tmp_path / "head.json").read_text().replace('"width": 8', '"width": 9'))
    with pytest.raises(ModelError, match="do not belong together"):
        load_temporal_head(tmp_path)
