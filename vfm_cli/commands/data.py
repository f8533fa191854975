"""`vfm data`: from recordings to a prepared folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vfm_cli.commands.data_look import SHOWN, audit, local_folder, show
from vfm_cli.console import Counter, duration, emit_json, say, table
from vfm_cli.engines import engine_options, hands
from vfm_cli.options import LOCAL, PLACE, json_option, key_option, overwrite_option

if TYPE_CHECKING:
    from domains.base import Domain
    from domains.layouts import Layout
    from domains.prepare.decodable import Missing
    from domains.prepare.ingest import PrepareResult
    from domains.prepare.listed import Listed
    from domains.remote.place import Place

layout_option = click.option(
    "--layout", default="auto", show_default=True, help="A public data set by name; auto: what SOURCE looks like; none: any folder."
)  # fmt: skip


@click.group()
def command() -> None:
    """Prepare recordings for training; synthesise a phantom; look at a prepared folder."""


@command.command()
@click.argument("source", type=PLACE)
@click.option("--domain", default=None, help="A shipped domain or a YAML of your own [the data set's, else echo].")
@layout_option
@click.option("--out", type=PLACE, required=True, help="Folder to make; a URL is sent to when all is done.")
@click.option("--local", type=LOCAL, default=None, help="Where it is made, with --out URL [its last part, here].")
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; default: one per core.")
@engine_options
@key_option
@overwrite_option
@click.option("--update", is_flag=True, help="Bring --out up to date: only new and changed files are looked at.")
@click.option(
    "--without-decoders", is_flag=True, help="Set files aside whose decoder is not installed, instead of stopping."
)
@json_option
def prepare(
    source: Place,
    domain: str | None,
    layout: str,
    out: Place,
    local: Path | None,
    workers: int | None,
    engine: str,
    ray_address: str | None,
    key: Path | None,
    overwrite: bool,
    update: bool,
    without_decoders: bool,
    as_json: bool,
) -> None:
    """Look at every file below SOURCE once: identity removed, the picture found, frames stored for training.

    Files that cannot be used are set aside with a reason. Killed at any point, the same command goes on where it stopped. Nothing outside the
    picture and no name is written to --out; the table that leads back to the sources lies beside it, in OUT.private, and never leaves the
    machine. Where SOURCE is a public data set, its labels, official splits and texts come along.
    """
    from domains.prepare.ingest import prepare as run
    from domains.prepare.privacy import key_path, load_key
    from domains.prepare.to_storage import prepare_to

    if engine == "ray" and isinstance(source, Path):  # workers elsewhere stand in other folders
        source = source.absolute()
    data_set = find_layout(source, layout)
    declared = declared_for(data_set, source, domain)
    fresh = not key_path(key).exists()
    made = local_folder(out, local)
    secret = load_key(key, create=True, outside=made)
    if fresh:
        say(
            f"made a pseudonym key: {key_path(key)} (keep it: the same patient gets the same pseudonym only with the same key)"
        )
    begin = (
        partial(run, source, made)
        if isinstance(out, Path)
        else partial(prepare_to, source, out, made, sending=Counter("sending", "files"))
    )
    with hands(engine, ray_address, workers) as (crew, processes):
        result = begin(
            declared,
            key=secret,
            workers=processes,
            overwrite=overwrite,
            update=update,
            layout=data_set,
            without_decoders=without_decoders,
            engine=crew,
            progress=Counter("preparing", "files"),
        )
    if as_json:
        emit_json(as_data(result, out))
        return
    tell(result, out, made)
    click.echo(f"next:         vfm pretrain --domain {domain or declared.name} --data {out} --out runs/{declared.name}")


def as_data(result: PrepareResult, out: Place) -> dict[str, object]:
    """What `--json` prints."""
    return {
        **({"layout": result.listed.info()} if result.listed else {}),
        "out": str(out), "videos": result.videos, "patients": result.patients, "seconds": round(result.seconds, 2),
        "reused": result.reused,
        "excluded": [{"source": str(one.source), "category": one.category, "reason": one.reason} for one in result.excluded],
        "noted": [{"source": str(source), "note": note} for source, note in result.noted],
    }  # fmt: skip


def tell(result: PrepareResult, out: Place, made: Path) -> None:
    """What came of it, for a person to read. made: the folder on this machine."""
    click.echo(f"{result.videos} recordings of {result.patients} patients in {out} ({duration(result.seconds)})")
    if result.outside:
        what = "show no inside of a body for sure, and are withheld (docs/surgical.md)"
        click.echo(f"{result.outside} of {result.frames} frames {what}")
    if result.reused:
        click.echo(f"{result.reused} files were as before and not looked at again")
    if result.excluded:
        click.echo(f"\n{len(result.excluded)} files set aside:")
        table(["files", "why"], [[count, category] for category, count in result.by_category().items()])
        told = [one for one in result.excluded if one.category != "not a recording"]
        if told:
            click.echo("")
            table(["file", "why", "reason"], [[one.source, one.category, one.reason] for one in told[:SHOWN]])
            if len(told) > SHOWN:
                click.echo(f"... and {len(told) - SHOWN} more")
    if result.noted:
        click.echo(f"\n{len(result.noted)} prepared with a note:")
        table(["file", "note"], [[source, note] for source, note in result.noted[:SHOWN]])
    if result.listed is not None:
        show_listed(result.listed)
    click.echo(f"\nlook at it:   {made / 'contact_sheet.png'}")
    click.echo(
        f"set aside:    {made / 'excluded.csv'} (pseudonyms), {made}.private/sources.csv (real names; keep it private)"
    )
    if made != out:
        click.echo(f"local copy:   {made} (remove it when you need the room; keep {made}.private)")


def find_layout(source: Place, wanted: str) -> Layout | None:
    """The data set in `source`: the named one, or with "auto" the one it looks like, if any."""
    from domains.errors import ConfigError
    from domains.layouts import detect, layout_named, open_layout
    from domains.prepare.afar import shadow

    if not isinstance(source, Path):
        if wanted in ("auto", "none"):  # a look at its tables would fetch them from any folder that holds some
            return None
        if layout_named(wanted).opens_recordings:
            what = f"{layout_named(wanted).title} can only be read from a local folder: its tables count what is in the recordings"
            raise ConfigError(what, where=source, do="Copy it first")
        return open_layout(click.get_current_context().with_resource(shadow(source)), wanted)
    name = (detect(source) if source.is_dir() else None) if wanted == "auto" else None if wanted == "none" else wanted
    if name is None:
        return None
    found = open_layout(source, name)
    say(
        f"{found.title} (layout {found.name}){'' if wanted == name else ': read as it lies on disk; --layout none: as any folder'}"
    )
    return found


def declared_for(layout: Layout | None, source: Place, named: str | None) -> Domain:
    """The domain that is named; else that of the data set, with what its recordings need otherwise."""
    from domains.base import domain_names, load_domain
    from domains.errors import ConfigError

    if named is not None:
        return load_domain(named)
    if layout is None:
        return load_domain("echo")
    if layout.domain not in domain_names():
        what = f"{layout.title} is {layout.domain}, a domain that does not ship with vfm yet"
        raise ConfigError(what, where=source, do="Declare one: --domain ./ours.yaml (docs/domains.md)")
    return load_domain(layout.domain).changed(layout.changes)


def show_listed(listed: Listed) -> None:
    """What came with a public data set."""
    click.echo(f"\nfrom the tables of {listed.layout.title}:")
    rows = [["label", name, f"{count} recordings"] for name, count in listed.labels.items()]
    rows += [["spans", name, f"{count}"] for name, count in listed.spans.items()]
    rows += [["texts", "", f"{listed.texts}"]] if listed.texts else []
    rows += [["signal", name, f"{count} recordings"] for name, count in listed.signals.items()]
    for name, parts in listed.splits.items():
        rows.append(["official split", name, ", ".join(f"{count} {part}" for part, count in parts.items())])
    rows += [
        ["withheld", name, f"{count} values are words of no declared task"] for name, count in listed.withheld.items()
    ]
    table(["", "name", "of"], rows)
    for note in listed.notes:
        click.echo(f"note: {note.what}: {note.count}{' (' + ', '.join(note.places) + ')' if note.places else ''}")


@command.command()
@click.argument("source", type=PLACE)
@click.option("--domain", default=None, help="A shipped domain or a YAML of your own [the data set's, else echo].")
@layout_option
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; default: one per core.")
@json_option
def check(source: Place, domain: str | None, layout: str, workers: int | None, as_json: bool) -> None:
    """Look at every file below SOURCE, write nothing, and tell what is usable and why the rest is not.

    Every frame is decoded: what is called usable here will be read in training. Exit code 3 where nothing is usable.
    """
    from domains.errors import DataError
    from domains.machine import cores
    from domains.prepare.ingest import check as run

    data_set = find_layout(source, layout)
    declared = declared_for(data_set, source, domain)
    missing: list[Missing] = []

    def told(found: list[Missing]) -> None:
        missing.extend(found)
        if found:
            say(f"decoders that are not installed: {'; '.join(map(str, found))}")

    looked = run(
        source,
        declared,
        workers=workers or cores(),
        layout=data_set,
        missing=told,
        progress=Counter("checking", "files"),
    )
    usable = [(one.source, one.row) for one in looked if one.row is not None]
    aside = [one for one in looked if one.row is None]
    if as_json:
        emit_json(
            {
                "usable": [
                    {"source": str(path), "codec": row.codec, "frames": row.n_frames, "fps": row.fps, "width": row.width,
                     "height": row.height, "region": list(row.region), "region_source": row.region_source, "note": row.note}
                    for path, row in usable
                ],
                "set_aside": [{"source": str(one.source), "category": one.category, "reason": one.reason} for one in aside],
                "missing_decoders": [{"decoder": one.decoder, "files": one.files, "install": one.install} for one in missing],
            }
        )  # fmt: skip
    else:
        frames = sum(row.n_frames for _, row in usable)
        click.echo(f"{len(usable)} of {len(looked)} files are usable ({frames} frames)")
        noted = [[path, row.note] for path, row in usable if row.note]
        if noted:
            click.echo("")
            table(["usable, but", "note"], noted)
        if aside:
            click.echo("")
            table(["not usable", "why", "reason"], [[one.source, one.category, one.reason] for one in aside])
    if not usable:
        raise DataError(f"none of {len(looked)} files is usable", where=source, do="The reasons are in the table")


@command.group()
def synth() -> None:
    """Synthesise a phantom data set."""


@synth.command("echo")
@click.option("--patients", type=click.IntRange(1), default=64, show_default=True)
@click.option("--out", type=LOCAL, required=True, help="Folder to make.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same bytes.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; default: one per core.")
@overwrite_option
@json_option
def synth_echo(patients: int, out: Path, seed: int, workers: int | None, overwrite: bool, as_json: bool) -> None:
    """Beating hearts as DICOM studies, with labels.csv, reports.csv, captions.csv and ventricle masks."""
    from domains.echo.phantom import synthesise
    from domains.machine import cores

    claim(out, overwrite)
    processes = workers or cores()
    result = synthesise(out, patients, seed, workers=processes, progress=Counter("synthesising", "patients"))
    if as_json:
        emit_json(
            {
                "out": str(out),
                "patients": result.patients,
                "files": result.files,
                "labelled": result.labelled,
                "seed": seed,
            }
        )
    else:
        click.echo(
            f"{result.files} files of {result.patients} patients in {out}; {result.labelled} cines in {out / 'labels.csv'}"
        )
        click.echo(f"next: vfm data prepare {out} --domain echo --out prepared")


@synth.command("surgical")
@click.option("--procedures", type=click.IntRange(1), default=24, show_default=True)
@click.option("--out", type=LOCAL, required=True, help="Folder to make.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same bytes.")
@click.option(
    "--pace", type=click.FloatRange(1), default=9.0, show_default=True, help="Times faster than an operation."
)
@click.option(
    "--operation",
    "operations",
    multiple=True,
    default=("cholecystectomy",),
    show_default=True,
    help="Kinds of operations, as many of each: cholecystectomy, appendectomy, hernia_repair.",
)
@click.option(
    "--silent", type=click.IntRange(0), default=0, show_default=True, help="Training procedures without texts."
)
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; default: one per core.")
@overwrite_option
@json_option
def synth_surgical(
    procedures: int,
    out: Path,
    seed: int,
    pace: float,
    operations: tuple[str, ...],
    silent: int,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Operations as videos, with phases, tools, triplets, narrations and views of the room."""
    from domains.machine import cores
    from domains.surgical.operations import known_operations
    from domains.surgical.phantom import synthesise

    known_operations(operations)  # before anything is removed
    claim(out, overwrite)
    result = synthesise(
        out,
        procedures,
        seed,
        operations=operations,
        pace=pace,
        silent=silent,
        workers=workers or cores(),
        progress=Counter("synthesising", "procedures"),
    )
    if as_json:
        emit_json({"out": str(out), **vars(result), "seed": seed})
    else:
        click.echo(
            f"{result.procedures} procedures ({duration(result.seconds)} of video) in {out}; {result.spans} spans, {result.texts} texts"
        )
        click.echo(f"next: vfm data prepare {out} --out prepared")


@synth.command("egocentric")
@click.option("--events", type=click.IntRange(1), default=24, show_default=True)
@click.option("--people", type=click.IntRange(1, 10), default=4, show_default=True, help="In each, in two teams.")
@click.option("--seconds", type=click.FloatRange(4), default=40.0, show_default=True, help="Of an event.")
@click.option("--exo", is_flag=True, help="Also a camera that stands beside the first person.")
@click.option("--hud", is_flag=True, help="With a head-up display, whose map shows where the team is.")
@click.option("--out", type=LOCAL, required=True, help="Folder to make.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same bytes.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; default: one per core.")
@overwrite_option
@json_option
def synth_egocentric(
    events: int, people: int, seconds: float, exo: bool, hud: bool, out: Path, seed: int, workers: int | None, overwrite: bool, as_json: bool
) -> None:  # fmt: skip
    """A house seen by the people in it at the same time, with actions, places, narrations, inertial signals and poses."""
    from domains.egocentric.phantom import synthesise
    from domains.machine import cores

    claim(out, overwrite)
    result = synthesise(
        out, events, people, seed, seconds=seconds, exo=exo, hud=hud, workers=workers or cores(), progress=Counter("synthesising", "events")
    )  # fmt: skip
    if as_json:
        emit_json({"out": str(out), **vars(result), "seed": seed})
    else:
        click.echo(
            f"{result.recordings} recordings of {result.events} events ({duration(result.seconds)} of video) in {out}; {result.spans} spans, "
            f"{result.texts} texts"
        )
        click.echo(f"next: vfm data prepare {out} --out prepared")


def claim(out: Path, overwrite: bool) -> None:
    """Raises ConfigError where a phantom would be written among other files."""
    from domains.errors import ConfigError

    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ConfigError("the output folder is not empty", where=out, do="Choose another --out, or --overwrite")


command.add_command(audit)
command.add_command(show)
