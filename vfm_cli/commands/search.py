"""`vfm search`: what in an embedded collection is like a text, or like an example."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from vfm_cli.console import emit_json, table
from vfm_cli.options import LOCAL, json_option, online_option


@click.command()
@click.argument("text", required=False)
@click.option("--index", required=True, type=LOCAL, help="Folder that vfm embed made.")
@click.option(
    "--clip",
    default=None,
    help="An example instead of a text: a file, or the pseudonym of a recording of the collection.",
)
@click.option("--start", type=click.FloatRange(0), default=None, help="Seconds at which the example begins [0].")
@click.option("--count", type=click.IntRange(1), default=5, show_default=True, help="Answers.")
@click.option(
    "--apart",
    type=click.FloatRange(0),
    default=None,
    help="Answers of one recording are so many seconds apart, the best of those nearby stands for them [a clip's length].",
)
@click.option("--encoder", default=None, help="The model that embedded, should it lie elsewhere now.")
@click.option("--data", default=None, help="The prepared folder or URL, should it lie elsewhere now.")
@click.option("--picture", type=LOCAL, default=None, help="Draw the answers to this PNG, a strip of frames for each.")
@online_option
@json_option
def command(
    text: str | None, index: Path, clip: str | None, start: float | None, count: int, apart: float | None, encoder: str | None, data: str | None,
    picture: Path | None, online: bool, as_json: bool,
) -> None:  # fmt: skip
    """Find the stretches of a collection that are most like TEXT, or like an example.

    Exact: every vector is compared. The model must be the one that embedded the collection; its weights are checked.
    """
    from domains.errors import ConfigError
    from recipes.jobs.search import Query, moment, search

    if start is not None and clip is None:
        raise ConfigError("--start is the time of an example", do="Give one: --clip FILE, or leave --start out")
    query = Query(text=text, clip=clip, start=start or 0.0)
    hits = search(index, query, count=count, apart=apart, model=encoder, data=data, picture=picture, online=online)
    if as_json:
        emit_json([dataclasses.asdict(hit) for hit in hits])
        return
    rows = [[place, hit.video_id, moment(hit), f"{hit.similarity:.3f}"] for place, hit in enumerate(hits, 1)]
    table(["", "recording", "time", "similarity"], rows)
    if picture is not None:
        click.echo(f"picture: {picture}")
