"""`vfm debug`: what a run that went wrong has left to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from vfm_cli.console import emit_json, table
from vfm_cli.options import json_option, online_option


@click.group()
def command() -> None:
    """Look into a run that went wrong."""


@command.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16"]), default=None, help="Compute at this precision [the run's own]."
)
@json_option
@online_option
def replay(run: Path, precision: str | None, as_json: bool, online: bool) -> None:
    """Run the step again at which RUN stopped because it was not finite.

    Tells which term of the loss, which module and which parameter's gradient is the first that is not finite. RUN is left as it is.
    """
    from recipes.jobs.replay import replay_run

    broken, found = replay_run(run, precision=precision, online=online)
    if as_json:
        emit_json({
            "step": found.step, "precision": found.precision, "said": broken.what, "finite": found.finite, "verdict": found.verdict(),
            "videos": broken.videos, "weights": found.weights, "inputs": found.inputs, "terms": found.terms, "module": found.module,
            "gradient": found.first, "norm": plain(found.norm),
            "losses": plain(found.losses), "gradients": plain(found.gradients),
        })  # fmt: skip
        return
    names = list(found.losses[0])
    rows = [
        [number, " ".join(videos[:4]) + (" ..." if len(videos) > 4 else ""), *(f"{losses[name]:.4g}" for name in names)]
        for number, (videos, losses) in enumerate(zip(broken.videos, found.losses, strict=True), start=1)
    ]
    table(["forward", "recordings", *names], rows, title=f"step {found.step} of {run}, in {found.precision}")
    click.echo(found.verdict())
    if found.first:
        click.echo(f"The first gradient that is not finite, as the backward pass comes to them: {found.first}.")


def plain(value: Any) -> Any:
    """Numbers that JSON does not have, as words: "nan", "inf", "-inf"."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
