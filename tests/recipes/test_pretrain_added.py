"""Pretext tasks added to a method by one setting: views, losses, checkpoints, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_factory import SMALL, make_batch, small_encoder
from safetensors.torch import load_file
from store_factory import make_prepared

from domains.base import AugmentPolicies, ClipSettings
from domains.errors import ConfigError
from domains.store.clips import draw_views
from recipes.config import Layer, Resolved, parse_assignments, recipe_yaml, resolve, yaml_layer
from recipes.jobs.finetune import finetune
from recipes.jobs.pretrain import complete, pretrain
from recipes.jobs.replay import build as build_again
from recipes.objective import Contrast, Objective, Progress
from recipes.pretrain import build_method
from recipes.pretrain.added import WithPretext, beside, own
from recipes.runs.metrics import read_metrics
from recipes.runs.run import Run
from recipes.runs.settings import differences_from_recipe
from recipes.training.broken import BrokenStep
from recipes.training.reporter import SilentReporter

TT = {"weight": 0.5, "skips": [1, 2], "head_hidden": 16}
STATISTICS = {"weight": 2.0, "blocks": 2, "head_hidden": 16}
HALFWAY = Progress(step=50, total=100, epoch=1.0)


def made(name: str, **added: Any) -> Objective:
    torch.manual_seed(0)
    return build_method(name, SMALL[name], added, small_encoder()).train()


def said(*words: str, **values: Any) -> Resolved:
    layers = [
        yaml_layer(recipe_yaml("simclr")),
        Layer("a file", values),
        Layer("command line", parse_assignments(words)),
    ]
    return complete(resolve(layers))


# --- what is minimised


@pytest.mark.parametrize("name", ["simclr", "moco", "videomae", "discovr"])
def test_the_loss_is_the_sum_and_every_part_is_logged(name: str) -> None:
    both, main = made(name, tt=TT, statistics=STATISTICS), made(name)
    assert isinstance(both, WithPretext)
    assert (both.name, both.paper) == (main.name, main.paper)
    batch = make_batch(both)
    for objective in (both, main):
        objective.before_step(HALFWAY)
    losses, alone = both(batch), main(batch)
    tasks = {task: both.added[task](both.encoder, own(batch, task)) for task in ("tt", "statistics")}
    expected = alone["loss"] + 0.5 * tasks["tt"]["loss"] + 2.0 * tasks["statistics"]["loss"]
    torch.testing.assert_close(losses["loss"], expected)
    torch.testing.assert_close(losses[f"loss_{name}"], alone["loss"].detach())
    assert losses.keys() >= {f"loss_{name}", "tt_loss", "tt_accuracy", "statistics_loss", *alone}
    assert [key for key, value in losses.items() if value.requires_grad] == ["loss"]


def test_a_method_begins_the_same_with_tasks_and_without() -> None:
    with_tasks, without = made("simclr", tt=TT), made("simclr")
    for key, value in without.state_dict().items():
        assert value.equal(with_tasks.state_dict()[f"main.{key}"])
    encoders = [key for key in with_tasks.state_dict() if key.endswith("patch_embeddings.projection.weight")]
    assert encoders == ["main.encoder.model.embeddings.patch_embeddings.projection.weight"]  # one, kept once


def test_gradients_of_both_meet_in_the_encoder() -> None:
    both, main = made("videomae", tt=TT), made("videomae")
    batch = make_batch(both)
    both(batch)["loss"].backward()
    main(batch)["loss"].backward()
    (0.5 * both.added["tt"](main.encoder, own(batch, "tt"))["loss"]).backward()
    for (key, one), other in zip(both.encoder.named_parameters(), main.encoder.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=key)


def test_schedules_averages_and_the_result_are_the_methods() -> None:
    both = made("discovr", tt=TT)
    teachers = {key: value.clone() for key, value in both.state_dict().items() if "teacher" in key}
    both.before_step(HALFWAY)
    both(make_batch(both))["loss"].backward()
    with torch.no_grad():
        for parameter in both.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    both.after_step(HALFWAY)
    assert any(not value.equal(both.state_dict()[key]) for key, value in teachers.items())
    assert both.final_encoder() is both.main.final_encoder()
    assert both.encoder is both.main.encoder


def test_all_that_the_loop_asks_of_an_objective_reaches_the_method() -> None:
    """What the contract gains later must be handed on too."""
    asked = {name for name, value in vars(Objective).items() if callable(value) and not name.startswith("_")}
    said = {name for name in Objective.__annotations__ if name != "Settings"} - {"name", "paper"}
    assert asked - {"Settings"} <= vars(WithPretext).keys()
    both = made("videomae", tt=TT)
    assert said - {"views"} <= vars(both).keys()


# --- views


def test_views_of_a_task_have_its_name_and_look_where_the_method_does() -> None:
    both = made("simclr", tt=TT, rspnet={"weight": 1.0})
    assert list(both.views) == ["first", "second", "tt.clip", "rspnet.anchor", "rspnet.same", "rspnet.other"]
    clip = both.views["tt.clip"]
    assert (clip.near, clip.within, clip.like, clip.length) == ("first", 0.0, "first", 2)
    same = both.views["rspnet.same"]
    assert (same.near, same.within, same.like) == ("rspnet.anchor", None, None)


def test_a_task_sees_the_methods_clip_and_changes_nothing_of_it(tmp_path: Path) -> None:
    prepared = make_prepared(tmp_path / "prepared", videos=1, patients=1, size=40, frames=60).prepared
    main = made("simclr").views
    views = {**main, **beside("first", "tt", made("tt").views)}
    clip = ClipSettings(frames=4, size=32, stride=2)
    plain = draw_views(prepared, 0, main, clip, AugmentPolicies(), seed=3, epoch=0)
    drawn = draw_views(prepared, 0, views, clip, AugmentPolicies(), seed=3, epoch=0)
    for name in main:
        assert (plain[name].frames == drawn[name].frames).all()
    assert drawn["tt.clip"].frames.shape[0] == 8
    assert (drawn["tt.clip"].frames[:4] == drawn["first"].frames).all()  # the same time, crop and light


# --- settings


def test_a_weight_a_section_and_nothing() -> None:
    resolved = said(
        "pretext.tt=0.5", "pretext.order=0", pretext={"order": 1.0, "statistics": {"weight": 2, "blocks": 3}}
    )
    added = resolved.config.pretext
    assert list(added) == ["statistics", "tt"]
    assert added["tt"] == {"weight": 0.5, "head_hidden": 512, "skips": [1, 2, 4, 8]}
    assert (added["statistics"]["blocks"], added["statistics"]["weight"]) == (3, 2.0)
    origins = {key: origin for key, _, origin in resolved.rows()}
    assert origins["pretext.tt.weight"] == "command line"
    assert origins["pretext.statistics.blocks"] == "a file"
    assert origins["pretext.tt.skips"] == "default"
    again = complete(resolve([Layer("resolved", resolved.config.model_dump(mode="json"))]))
    assert again.config == resolved.config
    assert said(pretext={"tt": 0.5}).config.pretext["tt"]["weight"] == 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretext.ordr=0.5"], "no pretext task 'ordr'.*Did you mean 'order'"),
        (["pretext.order.clip=3", "pretext.order.weight=1"], "unknown key 'clip'.*Did you mean 'clips'"),
        (["pretext.order.clips=3"], "'pretext.order' has no weight.*pretext.order.weight=0.5"),
        (["pretext.order=-1"], "'weight': input should be greater than or equal to 0"),
        (["pretext.order=much"], "'weight': input should be a valid number"),
        (["pretext.tt=0.5", "train.piece=4"], "'train.piece' and 'pretext' do not go together"),
        (["pretext=0.5"], "'pretext': input should be a valid dictionary"),
        (["pretext.simclr=0.5"], "no pretext task 'simclr'.*Known: cpnet, oddoneout, order, rspnet, statistics, tt"),
    ],
)
def test_what_cannot_be_is_one_line(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        said(*words)


def test_a_task_is_not_added_to_itself() -> None:
    with pytest.raises(ConfigError, match="'tt' is the method itself"):
        complete(resolve([Layer("command line", parse_assignments(["method=tt", "pretext.tt=0.5"]))]))


def test_a_section_takes_the_place_of_a_number() -> None:
    resolved = said("pretext.order.weight=2", "pretext.order.clips=2", pretext={"order": 0.5})
    assert (resolved.config.pretext["order"]["weight"], resolved.config.pretext["order"]["clips"]) == (2.0, 2)
    assert said("pretext.order=0.7", pretext={"order": {"weight": 1, "clips": 2}}).config.pretext["order"]["clips"] == 3


def test_fine_tuning_refuses_them(tmp_path: Path) -> None:
    resolved = resolve([Layer("command line", parse_assignments(["pretext.tt=0.5"]))])
    with pytest.raises(ConfigError, match="'pretext' is for pretraining"):
        finetune(resolved, tmp_path / "run", reporter=SilentReporter())


# --- runs


def test_a_run_with_tasks_goes_on_where_it_stopped_and_can_be_built_again(tmp_path: Path) -> None:
    make_prepared(tmp_path / "prepared", videos=8, patients=8, size=40, frames=16)
    small_encoder().save(tmp_path / "encoder")
    values = {
        "method": "simclr", "objective": SMALL["simclr"], "pretext": {"tt": TT, "statistics": STATISTICS},
        "encoder": {"name": str(tmp_path / "encoder")}, "data": {"path": str(tmp_path / "prepared"), "workers": 0},
        "clip": {"frames": 4, "size": 32, "stride": 2}, "augment": {"weak": {}, "strong": {}},
        "train": {"steps": 2, "batch_size": 4, "log_every": 1, "save_every": 1, "keep": 9, "precision": "fp32"},
    }  # fmt: skip
    resolved = resolve([Layer("test", values)])
    pretrain(resolved, tmp_path / "straight", reporter=SilentReporter())
    shutil.copytree(tmp_path / "straight", tmp_path / "again")
    pretrain(resolved, tmp_path / "again", from_step=1, reporter=SilentReporter())
    ends = [
        load_file(tmp_path / out / "checkpoints/step_00000002/objective.safetensors") for out in ("straight", "again")
    ]
    assert ends[0].keys() == ends[1].keys()
    assert all(value.equal(ends[1][key]) for key, value in ends[0].items())
    line = read_metrics(tmp_path / "straight")[-1]
    total = line["loss_simclr"] + 0.5 * line["tt_loss"] + 2 * line["statistics_loss"]
    assert line["loss"] == pytest.approx(total, abs=1e-5)
    assert {"tt_accuracy", "statistics_accuracy_motion", "agreement"} <= line.keys()
    run = Run.open(tmp_path / "straight")
    changed = {one.key for one in differences_from_recipe(run)[0]}
    assert {"pretext.tt.weight", "pretext.tt.skips"} <= changed
    assert "pretext.tt.head_hidden" in changed  # somebody set it
    assert "pretext.statistics.weight_motion" not in changed  # nobody did

    config = complete(resolved).config
    broken = BrokenStep(
        step=1, what="", precision="fp32", progress=HALFWAY, config=config, objective="simclr", settings=config.objective, forwards=[],
        videos=[], weights=tmp_path, generator=torch.empty(0), generator_cuda=None,
    )  # fmt: skip
    build_again(broken).load_state_dict(ends[0])


def test_the_recipes_that_add_are_methods_with_tasks() -> None:
    for name, task in (("taco", "tt"), ("pcl", "order")):
        config = complete(resolve([yaml_layer(recipe_yaml(name))])).config
        objective = build_method(config.method, {**config.objective, "head_hidden": 8}, config.pretext, small_encoder())
        assert isinstance(objective, WithPretext)
        assert isinstance(objective.main, Contrast)
        assert list(objective.added) == [task]
        assert objective(make_batch(objective))["loss"].isfinite()
