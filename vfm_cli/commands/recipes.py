"""`vfm recipes`: the methods of pretraining and their settings."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from domains.errors import ConfigError, StorageError
from vfm_cli.console import emit_json, say, table
from vfm_cli.options import json_option


def first_comment(path: Path) -> str:
    """The line that a recipe opens with."""
    return path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").strip()


@click.group()
def command() -> None:
    """The methods of pretraining and their settings."""


@command.command()
@json_option
def ls(as_json: bool) -> None:
    """List the recipes that ship with vfm."""
    from recipes.config import recipe_names, recipe_yaml

    rows = [[name, first_comment(recipe_yaml(name))] for name in recipe_names()]
    if as_json:
        emit_json([{"name": name, "about": about} for name, about in rows])
    else:
        table(["recipe", "about"], rows)


@command.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Print the YAML of recipe NAME: what it needs, the command that runs it, what its settings cost."""
    from domains.schema import read_yaml
    from recipes.config import recipe_yaml

    path = recipe_yaml(name)
    if as_json:
        emit_json(read_yaml(path))
    else:
        click.echo(path.read_text(encoding="utf-8"), nl=False)


@command.command()
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace TARGET.")
def cp(name: str, target: Path, overwrite: bool) -> None:
    """Copy recipe NAME to the file TARGET, to change it: vfm pretrain --recipe TARGET."""
    from recipes.config import recipe_yaml

    path = recipe_yaml(name)
    if target.is_dir():
        target = target / f"{name}.yaml"
    if target.exists() and not overwrite:
        raise ConfigError("exists already", where=target, do="Choose another name, or --overwrite")
    try:
        shutil.copyfile(path, target)
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror})", where=target) from None
    say(f"wrote {target}; use it with: vfm pretrain --recipe {target}")
