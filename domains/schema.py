"""Strict settings: every YAML and every option of vfm is parsed by one of these models, and a mistake is one clear line."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from domains.errors import ConfigError


class Strict(BaseModel):
    """Base of all settings: unknown keys and wrong types are errors; instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


S = TypeVar("S", bound=Strict)


def submodel(annotation: Any) -> type[Strict] | None:
    """The settings class inside an annotation such as `X` or `X | None`; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        return next((found for arg in get_args(annotation) if (found := submodel(arg))), None)
    return None


def keys_of(model: type[Strict], prefix: str = "") -> Iterator[str]:
    """All dotted keys that `model` knows, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if inner := submodel(field.annotation):
            yield from keys_of(inner, f"{prefix}{name}.")


def nearest(word: str, known: list[str]) -> str:
    """A phrase that names the closest known words, or the whole list where nothing is close."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not close and "." not in word:  # perhaps only the section is missing: `lr` for `optim.lr`
        close = [key for key in known if key.rsplit(".", 1)[-1] == word][:1]
    if close:
        return f"Did you mean '{close[0]}'?"
    return "Known: " + ", ".join(sorted(key for key in known if "." not in key) or sorted(known)) + "."


def parse(model: type[S], values: Mapping[str, Any], where: str | Path) -> S:
    """Validate `values` against `model`.

    Raises ConfigError with one line that names the dotted key, what is wrong, and for an unknown key the nearest known one.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top)"
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"unknown key '{key}'", where=where, do=nearest(key, list(keys_of(model)))) from None
        got = "" if first["type"] == "missing" else f" (got {first['input']!r})"
        more = len(error.errors()) - 1
        also = f" (and {more} more)" if more else ""
        raise ConfigError(f"'{key}': {first['msg'][0].lower()}{first['msg'][1:]}{got}{also}", where=where) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top is a mapping. Raises ConfigError with the line of a syntax error."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such file", where=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read as text ({error.__class__.__name__})", where=path) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"not valid YAML: {getattr(error, 'problem', error)}", where=line) from None
    if not isinstance(values, dict):
        raise ConfigError("the file must hold 'key: value' lines", where=path)
    return values
