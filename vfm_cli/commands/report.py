"""`vfm report`: findings drafted from the reports of the most similar studies, with their evidence. For research."""

from __future__ import annotations

from pathlib import Path

import click

from vfm_cli.commands.finetune import find_key
from vfm_cli.console import Counter, emit_json, table
from vfm_cli.options import LOCAL, json_option, key_option, online_option, overwrite_option


@click.command()
@click.option("--index", required=True, type=LOCAL, help="Folder that vfm embed made of studies that have reports.")
@click.option(
    "--text",
    "texts",
    type=LOCAL,
    multiple=True,
    help="CSV with the reports of those studies, may be given several times [those that came with the recordings].",
)
@click.option(
    "--data",
    default=None,
    help="Prepared folder, or its URL, of the studies to draft for [the collection's own, each against all others].",
)
@click.option("--study", "studies", multiple=True, help="Pseudonym of a study; may be given several times [all].")
@click.option("--out", required=True, type=LOCAL, help="Folder for the drafts, a page and a JSON for each study.")
@click.option("--count", type=click.IntRange(2), default=5, show_default=True, help="Similar studies.")
@click.option(
    "--least", type=click.IntRange(2), default=2, show_default=True, help="Patients whose reports must say a thing."
)
@click.option("--encoder", default=None, help="The model that embedded, should it lie elsewhere now.")
@click.option(
    "--collection-data", default=None, help="The prepared folder that was embedded, should it lie elsewhere now."
)
@key_option
@overwrite_option
@online_option
@json_option
def command(
    index: Path, texts: tuple[Path, ...], data: str | None, studies: tuple[str, ...], out: Path, count: int, least: int, encoder: str | None,
    collection_data: str | None, key: Path | None, overwrite: bool, online: bool, as_json: bool,
) -> None:  # fmt: skip
    """Draft findings for studies: what the reports of the most similar studies say alike, and the clips that make them similar.

    A research draft, not a diagnosis. Sentences are copied from reports, never made up; one that a single patient's report makes, or that may name
    somebody, is not repeated. How right such drafts are: vfm evaluate findings.
    """
    from recipes.jobs.findings import check_least, draft_reports, summary

    check_least(count, least)
    drafts = draft_reports(
        index, texts, out, data=data, studies=studies, count=count, least=least, collection_data=collection_data, model=encoder,
        key=find_key(key), overwrite=overwrite, online=online, progress=Counter("drafting", "studies"),
    )  # fmt: skip
    if as_json:
        emit_json({"out": str(out), **summary(drafts), "drafts": [f"{one.study}.html" for one in drafts]})
        return
    rows = [
        [one.study, one.recordings, len(one.findings), f"{one.neighbours[0].similarity:.3f}", f"{one.study}.html"]
        for one in drafts
    ]
    table(["study", "recordings", "statements", "nearest", "page"], rows)
    click.echo(f"research drafts, no diagnoses: {out}")
