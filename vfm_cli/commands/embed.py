"""`vfm embed`: a prepared folder as vectors that can be searched."""

from __future__ import annotations

from pathlib import Path

import click

from vfm_cli.console import Counter, emit_json, say
from vfm_cli.options import LOCAL, domain_option, json_option, online_option, overwrite_option


@click.command()
@click.option(
    "--encoder", required=True, help="A vfm run that aligned clips with texts; any other encoder, for examples alone."
)
@click.option("--data", required=True, help="A prepared folder, or its URL.")
@click.option("--out", required=True, type=LOCAL, help="Folder of the embedded collection.")
@click.option(
    "--every",
    type=click.FloatRange(0, min_open=True),
    default=None,
    help="Seconds from one clip to the next [one after the other].",
)
@domain_option
@overwrite_option
@online_option
@json_option
def command(
    encoder: str, data: str, out: Path, every: float | None, domain: str | None, overwrite: bool, online: bool, as_json: bool
) -> None:  # fmt: skip
    """Embed every recording, clip by clip, to be searched with vfm search.

    The folder holds vectors, pseudonyms and times, and no picture; it belongs to the encoder that made it. A command that was stopped, however, goes
    on where it was when it is given again.
    """
    from recipes.jobs.search import embed

    about = embed(
        encoder, data, out, every=every, domain=domain, online=online, overwrite=overwrite, progress=Counter("embedding", "clips"), note=say
    )  # fmt: skip
    if as_json:
        lost = [{"video_id": video_id, "reason": reason} for video_id, reason in about.left_out.items()]
        emit_json({"index": str(out), **about.model_dump(mode="json"), "left_out": lost})
        return
    for video_id, reason in about.left_out.items():
        say(f"left out: {video_id}: {reason}")
    click.echo(f"{about.vectors} clips of {about.recordings} recordings, {about.width} numbers each: {out}")
    example = f"vfm search --clip FILE --start 12 --index {out}"
    click.echo(
        f'next: vfm search "what to look for" --index {out}, or {example}' if about.words else f"next: {example}"
    )
