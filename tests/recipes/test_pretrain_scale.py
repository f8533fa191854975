"""SCALE: its loss by hand, what a set transformer may and may not know, and that what is left behind is read by evaluation and fine-tuning."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from objective_factory import build, make_batch, small_encoder
from pydantic import ValidationError
from store_factory import make_prepared
from torch.nn import functional as F
from transformers import AutoModel

from domains.base import ClipSettings
from domains.errors import ConfigError, ModelError
from domains.store.clips import evaluation_clips
from recipes.config import EncoderSettings, Layer, resolve
from recipes.encoders import build_encoder, open_encoder
from recipes.encoders.adapt import adapt
from recipes.encoders.base import VideoEncoder
from recipes.encoders.context import ContextSettings, SetTransformer
from recipes.evaluate.features import extract
from recipes.finetune.task import TARGET, TaskHeadSettings, TaskObjective
from recipes.jobs.pretrain import build_objective
from recipes.objective import Batch
from recipes.parts.draws import permutations
from recipes.pretrain.scale import SCALE
from recipes.training.data import plain_pixel_values

CPU = torch.device("cpu")


def scale(**settings: object) -> SCALE:
    objective = build("scale", **settings)
    assert isinstance(objective, SCALE)
    return objective


def with_context(seed: int = 0) -> VideoEncoder:
    torch.manual_seed(seed)
    encoder = small_encoder()
    encoder.context = SetTransformer(ContextSettings(features=48, width=16, depth=1, heads=2))
    return encoder


@torch.no_grad()
def test_scale_by_its_equation() -> None:
    objective = scale(temperature=0.2)
    batch = make_batch(objective, 3)
    features = torch.stack(
        [objective.encoder.statistics(objective.encoder(batch[view])) for view in objective.views], dim=1
    )
    order = permutations(batch.seeds, 4, name="clips")
    assert objective.encoder.context is not None
    rows = torch.arange(3)
    hidden = torch.stack([features[rows, order[:, m]] for m in (0, 1)], dim=1)
    visible = torch.stack([features[rows, order[:, m]] for m in (2, 3)], dim=1)
    predicted = objective.predictor(objective.encoder.context(visible))
    flat = hidden.flatten(0, 1)
    targets = (hidden - flat.mean(dim=0)) / (flat.var(dim=0, correction=0) + 1e-6).sqrt()
    total = 0.0
    for m in (0, 1):
        for i in range(3):
            scores = [F.cosine_similarity(predicted[i], targets[j, m], dim=0).item() / 0.2 for j in range(3)]
            total += math.log(sum(math.exp(score) for score in scores)) - scores[i]
    assert objective(batch)["loss"].item() == pytest.approx(total / 6, rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("clips", "share", "hidden"), [(4, 0.25, 1), (4, 0.99, 3), (4, 0.01, 1), (5, 0.6, 3)])
def test_hidden_clips_are_predicted_and_not_seen(clips: int, share: float, hidden: int) -> None:
    objective = scale(clips=clips, hidden=share)
    batch = make_batch(objective, 2)
    found = objective.embed(batch)
    assert found["targets"].shape == (2, hidden, 48)
    order = permutations(batch.seeds, clips, name="clips")
    for number, view in enumerate(objective.views):
        changed = {**batch.clips, view: batch[view] * -2}
        again = objective.embed(Batch(changed, batch.seeds))
        for sample in range(2):
            was_hidden = number in order[sample, :hidden].tolist()
            assert torch.equal(again["predicted"][sample], found["predicted"][sample]) == was_hidden
            assert torch.equal(again["targets"][sample], found["targets"][sample]) != was_hidden


@torch.no_grad()
def test_a_set_has_no_order_and_any_size() -> None:
    context = with_context().context
    assert context is not None
    sets = torch.randn(2, 5, 48)
    summary = context(sets)
    torch.testing.assert_close(context(sets[:, torch.tensor([3, 0, 4, 1, 2])]), summary, rtol=1e-4, atol=1e-5)
    assert context(sets[:, :1]).shape == (2, 16)
    assert not torch.allclose(context(sets[:, :4]), summary, atol=1e-3)


def test_the_frozen_encoder_is_in_evaluation_mode_also_after_a_monitor_has_looked() -> None:
    objective = scale()
    assert not any(module.training for module in objective.encoder.model.modules())
    assert objective.predictor.training
    was, _ = objective.encoder.training, objective.encoder.eval()  # as Monitors do
    objective.encoder.train(was)
    assert not any(module.training for module in objective.encoder.model.modules())
    assert not any(p.requires_grad for p in objective.encoder.model.parameters())


@torch.no_grad()
def test_what_is_read_of_clips_and_of_recordings() -> None:
    encoder, clips = with_context(), torch.randn(3, 4, 3, 32, 32)
    assert encoder.context is not None
    statistics = encoder.statistics(encoder(clips))
    assert encoder.description == 64
    alone = torch.cat([encoder.context(one.view(1, 1, -1)) for one in statistics])
    torch.testing.assert_close(encoder.describe(clips), torch.cat([statistics, alone], dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder.embed(clips), alone, rtol=1e-4, atol=1e-5)
    together = encoder.context(statistics.unsqueeze(0))[0]
    expected = torch.cat([statistics.mean(dim=0), together])
    torch.testing.assert_close(encoder.describe_recording(clips), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together, alone.mean(dim=0), atol=1e-3)
    encoder.context = None
    assert encoder.description == 48
    torch.testing.assert_close(encoder.describe_recording(clips), encoder.describe(clips).mean(dim=0))


@torch.no_grad()
def test_it_is_saved_beside_the_encoder_and_opened_with_it(tmp_path: Path) -> None:
    encoder, clips = with_context(), torch.randn(2, 4, 3, 32, 32)
    encoder.save(tmp_path / "run")
    again = open_encoder(tmp_path / "run")
    torch.testing.assert_close(again.describe_recording(clips), encoder.describe_recording(clips))
    plain = AutoModel.from_pretrained(tmp_path / "run").eval()(pixel_values=clips).last_hidden_state
    torch.testing.assert_close(plain, encoder(clips), rtol=1e-4, atol=1e-5)  # for whom vfm is not at hand
    small_encoder().save(tmp_path / "plain")
    assert open_encoder(tmp_path / "plain").context is None
    asked = EncoderSettings(name=str(tmp_path / "plain"), init_from=str(tmp_path / "run"))
    taken = build_encoder(asked, ClipSettings(frames=4, size=32))
    torch.testing.assert_close(taken.describe_recording(clips), encoder.describe_recording(clips))
    (tmp_path / "run" / "context.safetensors").unlink()
    with pytest.raises(ModelError, match=r"added to the encoder.*Copy the whole folder"):
        open_encoder(tmp_path / "run")
    shape = json.loads((tmp_path / "run" / "vfm_encoder.json").read_text())
    shape["context"]["width"] = 32
    (tmp_path / "run" / "vfm_encoder.json").write_text(json.dumps(shape))
    again.save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "context.safetensors", tmp_path / "run")
    with pytest.raises(ModelError, match="RuntimeError"):
        open_encoder(tmp_path / "run")


def test_evaluation_reads_the_clips_of_a_recording_together(tmp_path: Path) -> None:
    made = make_prepared(tmp_path / "prepared", videos=2, patients=2, size=48, frames=30)
    prepared, encoder = made.prepared, with_context()
    found = extract(encoder, prepared, [1], clips_per_video=4, device=CPU)
    clips = evaluation_clips(prepared, 1, ClipSettings(frames=4, size=32, rate=None, stride=1), 4)
    with torch.no_grad():
        expected = encoder.describe_recording(plain_pixel_values(torch.from_numpy(clips), encoder.geometry, CPU))
    np.testing.assert_allclose(found.values[0], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_fine_tuning_trains_it_and_pretraining_begins_without_it() -> None:
    encoder = with_context()
    adapt(encoder, EncoderSettings(mode="frozen"))
    assert not any(p.requires_grad for p in encoder.parameters())
    adapt(encoder, EncoderSettings(mode="full"))
    task = TaskObjective(encoder, TaskHeadSettings(task="ef", kind="regression"))
    clip = torch.randn(2, 4, 3, 32, 32)
    task(Batch({"clip": clip}, torch.arange(2), {TARGET: torch.tensor([1.0, -1.0])}))["loss"].backward()
    assert not [name for name, p in task.named_parameters() if p.requires_grad and p.grad is None]
    resolved = resolve([Layer("test", {"method": "simclr"})])
    assert build_objective(resolved, encoder).encoder.context is None


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValidationError, match="multiple of set_heads"):
        SCALE.Settings(set_width=100, set_heads=8)
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        SCALE.Settings(clips=1)


@pytest.mark.parametrize("mode", ["lora", "last_k"])
def test_a_mode_that_would_be_ignored_is_refused(mode: str) -> None:
    resolved = resolve([Layer("test", {"method": "scale", "encoder": {"mode": mode}})])
    with pytest.raises(ConfigError, match=f"'encoder.mode' is {mode}, and 'scale' trains nothing of the encoder"):
        build_objective(resolved, small_encoder())
    assert build_objective(resolve([Layer("test", {"method": "scale"})]), small_encoder()).adapts is False
