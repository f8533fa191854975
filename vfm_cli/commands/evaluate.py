"""`vfm evaluate`: what an encoder's features hold, next to what is trivial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vfm_cli.commands.finetune import find_key
from vfm_cli.console import Counter, emit_json, table
from vfm_cli.options import LOCAL, domain_option, json_option, key_option, online_option


@click.command()
@click.argument("protocol", type=click.Choice(["knn", "linear"]))
@click.option("--encoder", required=True, help="A vfm run, a folder, vfm-tiny, or a hub name.")
@click.option("--data", required=True, help="A prepared folder, or its URL.")
@click.option(
    "--labels",
    default=None,
    type=LOCAL,
    help="CSV with one row per recording, study or patient; default: those of the public data set.",
)
@click.option("--task", required=True, help="A task of the domain, e.g. ef or view.")
@click.option(
    "--baselines", default="pixels,random,generic", show_default=True, help="Rows to compare with; 'none' for none."
)
@click.option("--folds", type=int, default=5, show_default=True, help="Patients are split into this many parts.")
@click.option("--split", default="", help="An official split of the public data set, instead of folds.")
@click.option("--clips", type=click.IntRange(1), default=3, show_default=True, help="Clips averaged per recording.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the folds and the bootstrap.")
@click.option(
    "--out",
    type=LOCAL,
    default=None,
    help="Folder for predictions.csv, evaluation.json and a picture.",
)
@click.option("--report", type=LOCAL, default=None, help="Write one self-contained HTML page.")
@domain_option
@key_option
@online_option
@json_option
def command(
    protocol: str, encoder: str, data: str, labels: Path | None, task: str, baselines: str, folds: int, split: str, clips: int, seed: int,
    out: Path | None, report: Path | None, domain: str | None, key: Path | None, online: bool, as_json: bool,
) -> None:  # fmt: skip
    """Probe frozen features by cross-validation over patients: kNN or linear, with patient-level bootstrap intervals.

    Pixel statistics, random weights and the encoder that the run started from stand in the same table.
    """
    rows = tuple(word.strip() for word in baselines.split(",") if word.strip() and word.strip() != "none")
    asked: dict[str, Any] = {
        "baselines": rows, "folds": folds, "split": split, "clips": clips, "seed": seed, "key": find_key(key), "domain": domain, "online": online,
        "progress": Counter("embedding", "recordings"),
    }  # fmt: skip
    if report is not None:
        from recipes.jobs.report import evaluate_and_report

        title = f"{Path(encoder).name}: {protocol} {task}"
        found = evaluate_and_report([(protocol, task)], encoder, data, labels, report, title=title, out=out, **asked)[0]
    else:
        from recipes.jobs.evaluate import evaluate

        found = evaluate(protocol, encoder, data, labels, task, out=out, **asked)
    if as_json:
        emit_json(found.to_dict())
        return
    head, lines = found.table()
    table(head, lines, title=f"{protocol} {task}: {found.size()}")
    click.echo("")
    for note in found.notes:
        click.echo(f"note: {note}")
    click.echo(found.verdict())
    if out is not None:
        click.echo(f"predictions: {out / 'predictions.csv'}")
    if report is not None:
        click.echo(f"report: {report}")
