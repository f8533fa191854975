"""`vfm domains`: the kinds of recordings that vfm knows."""

from __future__ import annotations

import click

from vfm_cli.console import emit_json, table
from vfm_cli.options import json_option


@click.group()
def command() -> None:
    """The kinds of recordings that vfm knows."""


@command.command()
@json_option
def ls(as_json: bool) -> None:
    """List the domains that ship with vfm."""
    from domains.base import domain_names, load_domain

    found = [load_domain(name) for name in domain_names()]
    if as_json:
        emit_json(
            [{"name": one.name, "title": one.title, "recipe": one.recipe, "tasks": list(one.tasks)} for one in found]
        )
    else:
        table(
            ["domain", "title", "recipe", "tasks"],
            [[one.name, one.title, one.recipe, ", ".join(one.tasks)] for one in found],
        )


@command.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Print the YAML of domain NAME (or of a file of your own); it is the best start for one of your own."""
    from domains.base import domain_yaml, load_domain

    declared = load_domain(name)
    if as_json:
        emit_json(declared.model_dump(mode="json"))
    else:
        click.echo(domain_yaml(name).read_text(encoding="utf-8"), nl=False)
