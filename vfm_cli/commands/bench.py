"""`vfm bench`: which recipe suits these recordings?"""

from __future__ import annotations

import re
from pathlib import Path

import click

from domains.errors import ConfigError
from vfm_cli.commands.finetune import find_key
from vfm_cli.console import TerminalReporter, duration, emit_json, say, table
from vfm_cli.options import LOCAL, assignments, domain_option, json_option, key_option, online_option, overwrite_option

SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


@click.command()
@domain_option
@click.option("--data", required=True, help="A prepared folder, or its URL.")
@click.option("--recipes", required=True, help="Names or YAML files with commas between them, or all.")
@click.option("--budget", required=True, help="Time of the device for each trial: 90s, 10m, 2h.")
@click.option(
    "--labels",
    type=LOCAL,
    default=None,
    help="CSV with labels, or with spans of moments; default: those of the public data set.",
)
@click.option(
    "--task", "tasks", multiple=True, required=True, help="What features are asked, of recordings or of moments; may be given again.",
)  # fmt: skip
@click.option(
    "--protocol", "protocols", multiple=True, type=click.Choice(["knn", "linear"]), default=["linear"], show_default=True,
    help="How they are asked; may be given again.",
)  # fmt: skip
@click.option(
    "--label-fraction", "fractions", multiple=True, type=click.FloatRange(0, 1, min_open=True), default=[1.0], show_default=True,
    help="Share of the teaching patients whose labels the probes use; may be given again.",
)  # fmt: skip
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Trials of each recipe.")
@click.option("--encoder", default="vfm-tiny", show_default=True, help="What every trial begins with.")
@click.option(
    "--folds", type=click.IntRange(2), default=5, show_default=True, help="Patients are split into this many."
)
@click.option(
    "--split", default="", help="An official split: trials learn from its training part, its test part is asked."
)
@click.option("--clips", type=click.IntRange(1), default=3, show_default=True, help="Clips averaged per recording.")
@click.option(
    "--every",
    type=click.FloatRange(0, min_open=True),
    default=None,
    help="Tasks of what is there at each moment: seconds from one clip to the next [a clip's length].",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Trials at a time, each a process; for many cores.",
)
@click.option("--out", type=LOCAL, required=True, help="Folder of the comparison; the same command goes on in it.")
@key_option
@overwrite_option
@online_option
@json_option
@assignments
def command(
    domain: str | None, data: str, recipes: str, budget: str, labels: Path | None, tasks: tuple[str, ...], protocols: tuple[str, ...],
    fractions: tuple[float, ...], seeds: int, encoder: str, folds: int, split: str, clips: int, every: float | None, workers: int,
    out: Path, key: Path | None, overwrite: bool, online: bool, as_json: bool, settings: tuple[str, ...],
) -> None:  # fmt: skip
    """Train every recipe from the same encoder for the same time of the device, over several seeds, and ask all of them the same.

    Killed at any point, the same command goes on. More recipes, seeds or tasks in the same --out are added to what is there. KEY=VALUE are settings
    of every trial.
    """
    from domains.base import load_domain
    from recipes.config import recipe_names

    seconds = seconds_of(budget)
    words = recipe_names() if recipes == "all" else [word.strip() for word in recipes.split(",") if word.strip()]
    if not words:
        raise ConfigError("--recipes names none", do="For example: --recipes discovr,videomae, or all")
    refused = [word for word in settings if word.startswith(("train.steps=", "train.epochs=", "train.seed="))]
    if refused:
        raise ConfigError(f"'{refused[0]}' is what a comparison decides", do="Use --budget and --seeds")
    from domains.store.prepared import Prepared
    from recipes.bench.bench import bench, check_recipes
    from recipes.bench.page import table_of
    from recipes.bench.plan import Plan
    from recipes.bench.trial import device_name
    from recipes.encoders.loading import shipped_weights

    prepared = Prepared.open(data)
    declared = load_domain(domain or prepared.domain)
    plan = Plan(
        domain=domain or prepared.domain, data=data, fingerprint=prepared.fingerprint(), encoder=encoder,
        weights=shipped_weights().get(encoder, ""),
        recipes=check_recipes(words), seeds=seeds, budget=seconds, device=device_name(), tasks=list(dict.fromkeys(tasks)),
        labels=None if labels is None else str(labels), protocols=list(dict.fromkeys(protocols)), fractions=sorted(set(fractions)), folds=folds,
        split=split, clips=clips, every=every, settings=list(settings),
    )  # fmt: skip
    count = len(plan.trials())
    say(
        f"{count} trials of {duration(seconds)}: about {duration(1.1 * -(-count // workers) * seconds)} for those that are not there yet"
    )
    outcome = bench(
        plan,
        out,
        declared,
        key=find_key(key),
        overwrite=overwrite,
        online=online,
        workers=workers,
        reporter=TerminalReporter(),
    )
    if as_json:
        emit_json(outcome.to_dict())
        return
    for number in range(len(outcome.questions)):
        title, head, lines = table_of(outcome, number)
        table(head, lines, title=title)
        click.echo("")
    for name, why in outcome.failed().items():
        click.echo(f"no result: {name}: {why}")
    for note in outcome.notes:
        click.echo(f"note: {note}")
    click.echo(outcome.verdict())
    click.echo(f"picture: {out / 'results.png'}   table: {out / 'results.csv'}")


def seconds_of(budget: str) -> float:
    """`10m` -> 600. Raises ConfigError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", budget)
    if found is None or float(found[1]) <= 0:
        raise ConfigError(f"--budget '{budget}' is no time", do="For example: 90s, 10m, 2h")
    return float(found[1]) * SECONDS[found[2] or ""]
