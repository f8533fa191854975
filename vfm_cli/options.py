"""Options that several verbs share, and how they become layers of a run's configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from domains.errors import ConfigError
from domains.remote.place import Place, is_url, to_place

if TYPE_CHECKING:
    from recipes.config import Layer, Resolved

F = TypeVar("F", bound=Callable[..., Any])


class PlaceType(click.ParamType):
    """A local path, or a URL that fsspec reads. One that names what is not there is found out by whoever opens it."""

    name = "path or URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """A URL with a password, a chain of URLs: ConfigError."""
        return to_place(value)


class LocalType(click.ParamType):
    """A local path, for what must not or cannot lie on a storage: runs, keys, reports."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """A URL: ConfigError."""
        if is_url(str(value)):
            what = f"{param.opts[0] if param else 'this'} takes a local path, not a URL"
            raise ConfigError(what, do="Sources and prepared folders can be on a storage; all else is local")
        return Path(value)


PLACE, LOCAL = PlaceType(), LocalType()

domain_option = click.option("--domain", default=None, help="A shipped domain (vfm domains ls) or a YAML of your own.")
key_option = click.option(
    "--key",
    type=LOCAL,
    default=None,
    help="Pseudonym key; default $VFM_KEY or ~/.config/vfm/pseudonym.key.",
)
online_option = click.option("--online", is_flag=True, help="Allow fetching a hub model that is not in the cache.")
json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is in --out.")
assignments = click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")


def run_options(command: F) -> F:
    """Options of verbs that train: --config, --out, --resume, --from-step, --overwrite, --dry-run, --json, --online, key=value."""
    for decorate in reversed(
        (
            click.option("--config", type=LOCAL, default=None, help="YAML with settings of your own."),
            click.option("--out", type=LOCAL, default=None, help="Folder of the run."),
            click.option("--resume", is_flag=True, help="Go on exactly where the run in --out stopped."),
            click.option(
                "--from-step",
                type=click.IntRange(1),
                default=None,
                help="Go on from this kept checkpoint; forget later ones.",
            ),
            overwrite_option,
            click.option("--dry-run", is_flag=True, help="Print every setting and where it comes from; do nothing."),
            json_option,
            online_option,
            assignments,
        )
    ):
        command = decorate(command)
    return command


@dataclass(frozen=True)
class Asked:
    """What a person said, before anything is filled in: `--config`, options, and key=value, lowest first."""

    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, config: Path | None, options: dict[str, Any], settings: Sequence[str]) -> Asked:
        """options: dotted key -> value, None where it was not given. Raises ConfigError."""
        from recipes.config import Layer, parse_assignments, set_key, yaml_layer

        typed: dict[str, Any] = {}
        for key, value in options.items():
            if value is not None:
                set_key(typed, key, value)
        user = [yaml_layer(config)] if config else []
        command_line = [Layer("command line", typed), Layer("command line", parse_assignments(settings))]
        return cls((*user, *command_line))

    def get(self, key: str) -> str | None:
        """The word that counts for a dotted key; None where nothing was said."""
        for layer in reversed(self.layers):
            value: Any = layer.values
            for part in key.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is not None:
                return str(value)
        return None


def resolve_run(
    asked: Asked,
    *,
    domain: str,
    recipe: str | None = None,
    base: Layer | None = None,
    encoder: Layer | None = None,
    resumed: Path | None = None,
) -> Resolved:
    """defaults < base, recipe < domain < encoder < the user's YAML < the command line.

    base: what a verb without recipes starts from. encoder: what an encoder says of the clips that it was made to see. resumed: a run that
    goes on: its own settings take the place of all that stands below the user's, so that `--resume --out RUN` is enough.
    """
    from domains.base import load_domain
    from recipes.config import Layer, recipe_yaml, resolve, yaml_layer

    if resumed is not None and (resumed / "config.resolved.yaml").is_file():
        return resolve([yaml_layer(resumed / "config.resolved.yaml", f"run {resumed}"), *asked.layers])
    declared = load_domain(domain)
    layers = [] if base is None else [base]
    if recipe is not None:
        layers.append(yaml_layer(recipe_yaml(recipe), f"recipe {recipe}"))
    layers.append(Layer(f"domain {declared.name}", {"domain": domain, **declared.run_layer()}))
    if encoder is not None:
        layers.append(encoder)
    return resolve([*layers, *asked.layers])


def print_resolved(resolved: Resolved, as_json: bool) -> None:
    """Every setting, its value and its origin."""
    from vfm_cli.console import emit_json, table

    rows = resolved.rows()
    if as_json:
        emit_json({key: {"value": value, "from": origin} for key, value, origin in rows})
    else:
        table(["setting", "value", "from"], rows)


def required(value: Any, option: str, example: str) -> Any:
    """Raises a usage error that shows how the option is used."""
    if value is None:
        raise click.UsageError(f"{option} is missing. For example: {example}")
    return value


def without_option(words: Sequence[str], option: str) -> list[str]:
    """A command line without an option and its value, `--processes N` or `--processes=N`, however often it is there."""
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word == option:
            skip = True
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept
