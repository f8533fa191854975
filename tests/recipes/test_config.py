"""How the layers of a run are merged, checked, and remembered."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from domains.errors import ConfigError
from recipes.config import (
    Layer,
    RunConfig,
    flatten,
    parse_assignments,
    recipe_names,
    recipe_yaml,
    resolve,
    yaml_layer,
)


def test_later_layers_win_and_are_named() -> None:
    resolved = resolve(
        [
            Layer("recipe", {"optim": {"lr": 1e-3, "warmup": 0.2}, "method": "discovr"}),
            Layer("domain", {"optim": {"lr": 2e-3}}),
            Layer("command line", {"optim": {"warmup": 0.3}}),
        ]
    )
    assert (resolved.config.optim.lr, resolved.config.optim.warmup) == (2e-3, 0.3)
    rows = {key: (value, origin) for key, value, origin in resolved.rows()}
    assert rows["optim.lr"] == (2e-3, "domain")
    assert rows["optim.warmup"] == (0.3, "command line")
    assert rows["method"] == ("discovr", "recipe")
    assert rows["optim.weight_decay"] == (RunConfig().optim.weight_decay, "default")


def test_a_layer_below_is_not_changed_by_one_above() -> None:
    below = {"optim": {"lr": 1e-3}}
    resolve([Layer("recipe", below), Layer("command line", {"optim": {"lr": 2e-3}})])
    assert below == {"optim": {"lr": 1e-3}}


def test_resolved_yaml_gives_the_same_run(tmp_path: Path) -> None:
    first = resolve([Layer("command line", {"train": {"steps": 7}, "augment": {"weak": {"crop_scales": [1.0, 0.5]}}})])
    (tmp_path / "again.yaml").write_text(first.to_yaml())
    assert resolve([yaml_layer(tmp_path / "again.yaml")]).config == first.config


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"otpim": {}}, "mine.yaml: unknown key 'otpim'. Did you mean 'optim'?"),
        ({"optim": {"learning": 1}}, "mine.yaml: unknown key 'optim.learning'"),
        ({"train": {"step": 1}}, "Did you mean 'train.steps'?"),
        ({"optim": 3}, "mine.yaml: 'optim' is a section. Set one of its keys, e.g. optim.lr"),
        ({"optim": {"lr": 0}}, "mine.yaml: 'optim.lr': input should be greater than 0 (got 0)"),
        ({"train": {"epochs": "many"}}, "'train.epochs'"),
        ({"encoder": {"mode": "half"}}, "'encoder.mode'"),
        ({"optim": {"warmup": 1.5}}, "less than or equal to 1 (got 1.5)"),
        ({"lr": 1}, "Did you mean 'optim.lr'?"),
    ],
)
def test_mistakes_name_layer_key_and_neighbour(values: dict, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve([Layer("recipe discovr", {"method": "discovr"}), Layer("mine.yaml", values)])
    assert said in str(error.value)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


def test_assignments_are_yaml_and_nest() -> None:
    found = parse_assignments(
        ["optim.lr=1e-4", "train.steps=null", "augment.weak.crop_scales=[1.0, 0.5]", "method=discovr"]
    )
    assert found == {
        "optim": {"lr": 1e-4},
        "train": {"steps": None},
        "augment": {"weak": {"crop_scales": [1.0, 0.5]}},
        "method": "discovr",
    }
    assert parse_assignments(["train.seed=1", "train.seed=2"]) == {"train": {"seed": 2}}


@pytest.mark.parametrize("word", ["steps", "=3", "optim.lr=[1", "optim=1 optim.lr=2"])
def test_assignments_that_are_none(word: str) -> None:
    with pytest.raises(ConfigError, match="command line"):
        parse_assignments(word.split(" ") if word.startswith("optim=1") else [word])


def test_yaml_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("optim: {lr: 1e-4, betas: [9e-1, 0.95]}\n")
    layer = yaml_layer(tmp_path / "mine.yaml")
    assert layer.origin == str(tmp_path / "mine.yaml")
    assert layer.values == {"optim": {"lr": 1e-4, "betas": [0.9, 0.95]}}


def test_flatten_keeps_empty_sections() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": {}}) == [("a.b", 1), ("a.c.d", [2]), ("e", {})]


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_that_ship_are_whole(name: str) -> None:
    path = recipe_yaml(name)
    text = path.read_text(encoding="utf-8")
    config = resolve([yaml_layer(path)]).config
    settings_of = {"surgclip": "clip"}  # SurgCLIP is CLIP over captions of all levels
    assert config.method == settings_of.get(name, name) or config.pretext, (
        "a recipe is a method, or adds pretext tasks to one"
    )
    assert text.startswith("#")
    assert "vfm pretrain" in text.split("method:")[0], "each opens with the command that runs it"
    assert set(yaml.safe_load(text)) <= set(RunConfig.model_fields)


def test_an_unknown_recipe_names_its_neighbour(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'discovr'"):
        recipe_yaml("discover")
    assert recipe_yaml("ours.yaml") == Path("ours.yaml")
