"""Which settings make a run what it is: against its recipe, and against other runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from domains.base import load_domain
from domains.errors import VfmError
from recipes.config import Layer, flatten, recipe_names, recipe_yaml, resolve, yaml_layer
from recipes.runs.metrics import read_json
from recipes.runs.run import ENVIRONMENT, Run

ABSENT = "-"
# Where a run lies and what it reads are named elsewhere; they differ always.
PLACES = {"data.path", "task.labels", "monitor.knn.labels", "data.source.path", "data.source.labels"}


class Difference(NamedTuple):
    """A setting: its value in the run, what the recipe and the domain have (None: they do not say), and who set it ("" unknown)."""

    key: str
    value: Any
    default: Any
    origin: str


def defaults_of(run: Run) -> tuple[dict[str, Any], str]:
    """(setting -> value, words) of what a run like this begins with: the schema's defaults, the recipe, the domain.

    Recipes and domains that are not at hand any more, such as files of one's own, are left out, and the words say so.
    """
    layers: list[Layer] = []
    missing = []
    method, task = run.get("method"), run.get("task.name")
    name = "vfm finetune" if task else f"recipe {method}"
    if task:
        from recipes.finetune import defaults

        layers.append(defaults())
    elif method in recipe_names():
        layers.append(yaml_layer(recipe_yaml(str(method))))
    else:
        missing.append(name)
    domain = str(run.get("domain") or "")
    try:
        layers.append(Layer("domain", {"domain": domain, **load_domain(domain).run_layer()}))
    except VfmError:
        missing.append(f"domain {domain or '?'}")
    words = f"{name}, domain {domain}" + (f" (not at hand: {', '.join(missing)})" if missing else "")
    return dict(flatten(resolve(layers).config.model_dump(mode="json"))), words


def differences_from_recipe(run: Run) -> tuple[list[Difference], int]:
    """(settings that differ from what the recipe and the domain have, number of the method's own settings that could not be compared).

    What a recipe leaves to its method is the method's own default, which only the method knows: such a setting is named where somebody set
    it, and counted where a run of an earlier version did not keep who did.
    """
    defaults, _ = defaults_of(run)
    origins = run.origins
    found, unknown = [], 0
    for key, value in flatten(run.config):
        origin = (origins or {}).get(key, "")
        if key in PLACES or key in ("task.name", "method") or is_same(defaults.get(key, ABSENT), value):
            continue
        if key.startswith(("objective.", "pretext.")) and key not in defaults:
            if origins is None:
                unknown += 1
                continue
            if not origin:
                continue
        found.append(Difference(key, value, defaults.get(key), origin))
    return found, unknown


def differences(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """(setting, its value in each run) wherever they are not all alike; ABSENT where a run has none of that name."""
    flat = [dict(flatten(run.config)) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, [one.get(key, ABSENT) for one in flat]) for key in keys]
    return [(key, values) for key, values in rows if not all(is_same(values[0], value) for value in values)]


def environments(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """(version or machine, in each run) wherever they are not all alike."""
    flat = [dict(flatten(read_json(run.path / ENVIRONMENT))) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, [one.get(key, ABSENT) for one in flat]) for key in keys]
    return [(key, values) for key, values in rows if any(values[0] != value for value in values)]


def is_same(one: Any, other: Any) -> bool:
    """Whether two settings mean the same: 1 and 1.0 do, True and 1 do not, a tuple is a list."""
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(is_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)
