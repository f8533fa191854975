"""`vfm predict`: a finished fine-tuning run on recordings that nobody labelled."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from vfm_cli.console import Counter, TerminalReporter, emit_json, say
from vfm_cli.options import LOCAL, json_option, overwrite_option


@click.command()
@click.option("--model", required=True, type=LOCAL, help="A run of vfm finetune.")
@click.option("--data", required=True, help="A prepared folder, or its URL; labels are not read.")
@click.option("--out", required=True, type=LOCAL, help="Folder for the predictions.")
@click.option(
    "--clips",
    type=click.IntRange(1),
    default=None,
    help="Averaged of each recording, for tasks of whole recordings [3].",
)
@overwrite_option
@json_option
def command(model: Path, data: str, out: Path, clips: int | None, overwrite: bool, as_json: bool) -> None:
    """Predict every recording of a prepared folder.

    Of a task of whole recordings --out gets predictions.csv; of a task of moments (phase, tool, triplet) a table for each recording, a line a
    moment; of a task of studies (--level study) predictions.csv, a line a study, and attention.csv, what each of its clips weighed.
    """
    from recipes.jobs.predict import predict

    found = predict(
        model, data, out, clips=clips, overwrite=overwrite, reporter=TerminalReporter(), progress=Counter("predicting", "recordings")
    )  # fmt: skip
    if as_json:
        lost = [dataclasses.asdict(one) for one in found.failed]
        emit_json(
            {"task": found.task, "recordings": found.recordings, "predictions": str(found.where), "left_out": lost}
        )
        return
    for one in found.failed:
        say(f"left out: {one.video_id}: {one.reason}")
    click.echo(f"{found.task} of {found.recordings} recordings: {found.where}")
