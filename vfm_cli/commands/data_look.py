"""`vfm data audit` and `vfm data show`: what a prepared folder holds, and whether it holds what it should not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vfm_cli.console import Counter, emit_json, say, table
from vfm_cli.options import LOCAL, PLACE, json_option

if TYPE_CHECKING:
    from domains.remote.place import Place

SHOWN = 20  # files that are listed one by one


def local_folder(out: Place, local: Path | None) -> Path:
    """Where the prepared folder is made: `out`, or what `local` says where `out` is a URL."""
    from domains.errors import ConfigError

    if isinstance(out, Path):
        if local is not None:
            raise ConfigError("--local is for a prepared folder that is at a URL", where=local, do="Leave it out")
        return out
    return local or Path(out.name)


@click.command()
@click.argument("prepared", type=PLACE)
@click.option("--against", type=PLACE, default=None, help="The folder that was prepared.")
@click.option(
    "--also",
    type=LOCAL,
    multiple=True,
    help="A run, a report: whatever was made from it. Repeatable.",
)
@click.option(
    "--local",
    type=LOCAL,
    default=None,
    help="With PREPARED at a URL: the local folder that it was made in [its last part, here].",
)
@click.option("--looked", is_flag=True, help="You have looked at the suspects: no text stands in their pictures.")
@json_option
def audit(
    prepared: Place, against: Place | None, also: tuple[Path, ...], local: Path | None, looked: bool, as_json: bool
) -> None:
    """Search PREPARED, and what was made from it, for anything that the sources know and nobody else should.

    Every tag of every header (private ones and nested ones too), names of files and folders, and text in the kept pixels. Exit code 3 where
    something is found. The signed-off table is kept in PREPARED.private/audit.json.
    """
    from domains.errors import DataError
    from domains.prepare.audit import SUSPECTS
    from domains.prepare.audit import audit as run

    made = local_folder(prepared, local)
    result = run(prepared, against, also, local=made, looked=looked, progress=Counter("reading headers", "files"))
    found = [(finding.where, finding.what) for check in result.checks for finding in check.found]
    private = f"{made}.private"
    if as_json:
        emit_json(result.to_dict())
    else:
        rows = [
            [check.name, check.looked_at, f"{len(check.found)} found" if check.found else "clean"]
            for check in result.checks
        ]
        table(["looked for", "in", "answer"], rows)
        for note in result.notes:
            say(f"note: {note}")
        if found:
            click.echo("")
            table(["file", "holds"], [list(pair) for pair in found[:SHOWN]])
            if len(found) > SHOWN:
                click.echo(f"... and {len(found) - SHOWN} more in {private}/audit.json")
    if not result.clean:
        count = sum(len(check.found) for check in result.checks)
        do = (
            f"Look at {private}/{SUSPECTS}; if it shows no text, say so: --looked"
            if result.only_suspects
            else "Do not pass it on"
        )
        raise DataError(f"{count} findings", where=prepared, do=do)
    if not as_json:
        click.echo(f"\nclean: manifest {result.manifest_sha256[:16]}; the table is kept in {private}/audit.json")


@click.command()
@click.argument("folder", type=PLACE)
@click.option("--verify", is_flag=True, help="Read every frame file and compare it with its hash.")
@json_option
def show(folder: Place, verify: bool, as_json: bool) -> None:
    """What a prepared FOLDER holds."""
    from domains.errors import DataError
    from domains.store.prepared import Prepared

    prepared = Prepared.open(folder)
    values = prepared.summary()
    damaged = prepared.verify() if verify else []
    if as_json:
        emit_json({**values, **({"damaged": [error.path.stem for error in damaged]} if verify else {})})
    else:
        table(["", ""], [[name.replace("_", " "), value] for name, value in values.items()])
        if verify and not damaged:
            click.echo("every frame file is as it was written")
    if damaged:
        raise DataError(
            f"{len(damaged)} frame files are damaged; the first: {damaged[0].reason}",
            where=folder,
            do="Prepare it again",
        )
