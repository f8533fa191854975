"""`--slurm` of verbs that train: the same command as a job on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from domains.errors import ConfigError
from vfm_cli.console import emit_json, say
from vfm_cli.options import without_option

F = TypeVar("F", bound=Callable[..., Any])


def slurm_options(command: F) -> F:
    """--slurm, --slurm-option, --no-submit."""
    for decorate in reversed(
        (
            click.option(
                "--slurm", is_flag=True, help="Submit a Slurm job that does this, and goes on until it is done."
            ),
            click.option(
                "--slurm-option",
                multiple=True,
                metavar="KEY=VALUE",
                help="What to ask for: partition, account, nodes, gpus, time, ... (docs/scale.md). May be repeated.",
            ),
            click.option(
                "--no-submit", is_flag=True, help="With --slurm: write the job's script and leave it at that."
            ),
        )
    ):
        command = decorate(command)
    return command


def check_slurm(slurm: bool, options: Sequence[str], no_submit: bool) -> None:
    """Raises a usage error where the other two options stand without --slurm."""
    if not slurm and (options or no_submit):
        raise click.UsageError(f"{'--slurm-option' if options else '--no-submit'} belongs to --slurm")


def submit(
    out: Path, options: Sequence[str], *, no_submit: bool, processes: int, workers: int, resume: bool, overwrite: bool, as_json: bool
) -> None:  # fmt: skip
    """Write the job of the command line that is running, submit it, and say where it is. Raises ConfigError."""
    from recipes.training.slurm import SlurmSettings, write_job

    asked = SlurmSettings.of([*options, *([f"processes={processes}"] if processes > 1 else [])])
    if overwrite:
        do = "Remove the run's folder first, or choose another --out"
        raise ConfigError("a job that is requeued would start again with --overwrite", where="--slurm", do=do)
    if not resume and out.is_dir() and any(out.iterdir()):
        raise ConfigError("the output folder is not empty", where=out, do="Use --resume to go on, or another --out")
    job = write_job(job_words(click.get_current_context().meta["vfm.words"]), out, asked, workers, submit=not no_submit)
    if as_json:
        emit_json({"job": job.number, "script": str(job.script), "logs": str(job.logs), "run": str(out)})
    elif job.number is None:
        click.echo(f"the job's script is in {job.script}; submit it with: sbatch {job.script}")
    else:
        click.echo(f"submitted as job {job.number}; its log will be in {job.logs}")
        say(f"follow it with: vfm runs watch {out}")


def job_words(words: Sequence[str]) -> list[str]:
    """The command line that a process of the job runs: without what made it a job."""
    kept = [word for word in words if word not in ("--slurm", "--no-submit")]
    return without_option(without_option(kept, "--slurm-option"), "--processes")
