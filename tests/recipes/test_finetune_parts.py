"""The head, its loss and its files; who teaches and who tests; the best epoch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from domains.errors import ConfigError, DataError, ModelError
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.finetune import clip_of_run, defaults
from recipes.finetune.best import Best
from recipes.finetune.head import load_head, save_head
from recipes.finetune.split import split_patients
from recipes.finetune.task import TARGET, TaskHeadSettings, TaskObjective, head_settings
from recipes.objective import Batch

SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 16, "tubelet_size": 2}
EF = TaskHeadSettings(task="ef", kind="regression", unit="%", mean=50, std=10)
VIEW = TaskHeadSettings(task="view", kind="classification", classes=("A2C", "A4C", "PLAX"))


def make_encoder(width: int = 16):
    return fresh_videomae(Geometry(frames=4, size=32), seed=0, hidden_size=width, **SMALL)


def make_batch(target: list[float]) -> Batch:
    pixels = torch.randn(len(target), 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return Batch({"clip": pixels}, torch.arange(len(target)), {TARGET: torch.tensor(target, dtype=torch.float64)})


# --- head and loss


def test_a_new_head_predicts_near_the_training_mean_in_the_targets_unit():
    objective = TaskObjective(make_encoder(), EF).eval()
    found = objective.predict(make_batch([0, 0])["clip"])
    assert found.shape == (2,)
    assert ((found - 50).abs() < 3).all()


def test_huber_loss_is_of_standardised_targets_and_mae_of_the_unit():
    objective = TaskObjective(make_encoder(), EF).eval()
    batch = make_batch([55.0, 90.0])
    found = ((objective.predict(batch["clip"]) - 50) / 10).detach()
    errors = (found - torch.tensor([0.5, 4.0])).abs()
    by_hand = torch.where(errors < 1, 0.5 * errors**2, errors - 0.5).mean()
    losses = objective(batch)
    torch.testing.assert_close(losses["loss"], by_hand)
    torch.testing.assert_close(losses["mae"], errors.mean() * 10)
    absolute = TaskObjective(make_encoder(), EF.model_copy(update={"loss": "l1"})).eval()
    absolute.load_state_dict(objective.state_dict())
    torch.testing.assert_close(absolute(batch)["loss"], errors.mean())


def test_cross_entropy_with_class_weights():
    settings = VIEW.model_copy(update={"class_weights": (0.5, 2.0, 1.0)})
    objective = TaskObjective(make_encoder(), settings).eval()
    with torch.no_grad():
        objective.head.weight.normal_()
    batch = make_batch([0, 1, 1])
    logits = objective.head(objective.encoder.describe(batch["clip"]))
    each = F.cross_entropy(logits, torch.tensor([0, 1, 1]), reduction="none")
    torch.testing.assert_close(objective(batch)["loss"], (each * torch.tensor([0.5, 2, 2])).sum() / 4.5)
    torch.testing.assert_close(objective.predict(batch["clip"]), logits.softmax(1))
    assert objective(batch)["accuracy"] == (logits.argmax(1) == torch.tensor([0, 1, 1])).float().mean()


def test_the_head_has_a_learning_rate_of_its_own():
    from recipes.config import OptimSettings
    from recipes.training.optim import make_optimiser, set_learning_rate

    objective = TaskObjective(make_encoder(), EF, head_scale=3.0)
    optimiser = make_optimiser(objective, OptimSettings())
    set_learning_rate(optimiser, OptimSettings(lr=0.1, warmup=0.0), 0, 2)
    rate = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert rate[id(objective.head.weight)] == rate[id(objective.head.bias)] == pytest.approx(0.3)
    assert {rate[id(p)] for p in objective.encoder.parameters() if p.requires_grad} == {0.1}


def test_settings_of_a_head_come_from_the_training_targets():
    found = head_settings("ef", "regression", "%", (), np.array([40.0, 50, 60]))
    assert (found.mean, found.std) == (50, pytest.approx(np.std([40, 50, 60])))
    balanced = head_settings("view", "classification", "", ("A", "B", "C"), np.array([0.0, 0, 0, 2]), balance=True)
    assert balanced.class_weights == (pytest.approx(4 / 6), 0, 2)
    assert np.mean([balanced.class_weights[c] for c in (0, 0, 0, 2)]) == pytest.approx(1)
    assert head_settings("view", "classification", "", ("A", "B"), np.array([0.0, 1])).class_weights == ()
    with pytest.raises(DataError, match="all have the same view"):
        head_settings("view", "classification", "", ("A", "B"), np.array([1.0, 1]))


def test_a_head_comes_back_as_it_was(tmp_path):
    encoder = make_encoder()
    objective = TaskObjective(encoder, EF).eval()
    save_head(objective, tmp_path)
    assert json.loads((tmp_path / "head.json").read_text())["unit"] == "%"
    clips = make_batch([0, 0, 0])["clip"]
    torch.testing.assert_close(load_head(encoder, tmp_path).predict(clips), objective.predict(clips), rtol=0, atol=0)


def test_a_head_that_does_not_fit_or_is_not_there_is_one_line(tmp_path):
    save_head(TaskObjective(make_encoder(), EF), tmp_path)
    with pytest.raises(ModelError, match="the head takes 32 channels, the encoder gives 64"):
        load_head(make_encoder(32), tmp_path)
    (tmp_path / "head.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        load_head(make_encoder(), tmp_path)
    with pytest.raises(ModelError, match=r"no head\.json"):
        load_head(make_encoder(), tmp_path / "absent")


# --- split


def test_no_patient_is_in_two_parts_and_smaller_fractions_are_subsets():
    patients = [f"p{i // 3}" for i in range(60)]
    names = np.array(patients)
    whole = split_patients(patients, 5, 0, 1.0, seed=0)
    parts = [whole.train, whole.validation, whole.test]
    assert [len(set(names[part])) for part in parts] == [12, 4, 4]
    assert (np.sum(parts, axis=0) == 1).all()
    assert set(names[whole.train]).isdisjoint(names[whole.test])
    tenth, half = split_patients(patients, 5, 0, 0.1, seed=0), split_patients(patients, 5, 0, 0.5, seed=0)
    assert len(set(names[tenth.train])) == 1
    assert set(names[tenth.train]) < set(names[half.train]) < set(names[whole.train])
    assert (tenth.test == whole.test).all()
    assert (tenth.validation == whole.validation).all()
    assert (tenth.train | tenth.unused).sum() == whole.train.sum()
    other = split_patients(patients, 5, 1, 1.0, seed=0)
    assert (other.test == whole.validation).all()


def test_impossible_splits():
    patients = [f"p{i}" for i in range(4)]
    with pytest.raises(ConfigError, match=r"'task\.folds' is 2"):
        split_patients(patients, 2, 0, 1.0, 0)
    with pytest.raises(ConfigError, match=r"'task.fold' is 3 of 3 folds.*Use 0 to 2"):
        split_patients(patients, 3, 3, 1.0, 0)
    with pytest.raises(DataError, match="4 patients cannot be split into 5 folds"):
        split_patients(patients, 5, 0, 1.0, 0)
    with pytest.raises(DataError, match="not one patient"):
        split_patients(patients, 3, 0, 0.1, 0)


# --- best epoch


def test_the_best_epoch_is_kept_and_comes_back(tmp_path):
    objective = TaskObjective(make_encoder(), EF)
    best = Best(tmp_path / "best")
    assert best.record() is None

    def fill(value: float) -> None:
        with torch.no_grad():
            objective.head.bias.fill_(value)

    for step, (score, kept) in enumerate([(5.0, True), (3.0, True), (4.0, False), (3.0, False)], 1):
        fill(step)
        assert best.offer(objective, score, step, float(step)) is kept
    assert [path.name for path in sorted((tmp_path / "best").iterdir())] == ["best.json", "step_00000002.safetensors"]
    assert best.load(objective)["score"] == 3.0
    assert objective.head.bias.item() == 2
    (tmp_path / "best/step_00000002.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="cannot be read"):
        best.load(objective)


def test_defaults_are_valid_settings():
    from recipes.config import resolve

    config = resolve([defaults()]).config
    assert (config.encoder.mode, config.task.folds) == ("lora", 5)


def test_an_adapted_encoder_is_fine_tuned_on_the_clips_it_was_adapted_to(tmp_path):
    from recipes.config import Layer, resolve

    run = tmp_path / "echo"
    run.mkdir()
    (run / "config.resolved.yaml").write_text("clip: {frames: 32, size: 96, rate: 25.0}\n")
    found = clip_of_run(str(run))
    assert found is not None
    resolved = resolve([defaults(), Layer("domain", {"clip": {"frames": 16, "size": 112}}), found])
    assert (resolved.config.clip.frames, resolved.config.clip.size, resolved.config.clip.rate) == (32, 96, 25.0)
    assert resolved.origins["clip.frames"] == "run echo"
    assert clip_of_run("vfm-tiny") is None
