"""`vfm finetune`: adapt an encoder to a task, from labels of some patients."""

from __future__ import annotations

import json
from pathlib import Path

import click

from domains.errors import ConfigError
from vfm_cli.console import TerminalReporter, emit_json
from vfm_cli.options import Asked, domain_option, key_option, print_resolved, required, resolve_run, run_options
from vfm_cli.slurm import check_slurm, slurm_options, submit


def prepared_domain(data: str | None) -> str:
    """The domain that a prepared folder was made for; echo where there is none yet."""
    from domains.remote.place import is_url
    from domains.store.prepared import Prepared

    return Prepared.open(data).domain if data and (is_url(data) or Path(data).exists()) else "echo"


def is_of_moments(data: str | None, domain: str, task: str | None) -> bool:
    """Whether a task's labels are spans, so that its head goes over time; False where that cannot be told yet."""
    from domains.errors import VfmError
    from domains.store.annotated import task_of
    from domains.store.prepared import Prepared

    try:
        return bool(data and task) and task_of(Prepared.open(str(data)), domain, str(task)).of_moments
    except VfmError:  # whoever uses it says it better
        return False


def named_study(asked: Asked, domain: str) -> Asked:
    """`--task study` as the task that the domain means by it, at the level of studies; whatever else was asked as it is. Raises ConfigError."""
    from domains.base import load_domain
    from recipes.config import Layer

    if asked.get("task.name") != "study" or "study" in (declared := load_domain(domain)).tasks:
        return asked
    if not declared.study_task:
        what = f"domain '{declared.name}' does not say which task a study is asked"
        raise ConfigError(what, do="Name it: --task NAME --level study; or declare study_task in the domain")
    return Asked((*asked.layers, Layer("--task study", {"task": {"name": declared.study_task, "level": "study"}})))


@click.command()
@click.option("--encoder", default=None, help="vfm-tiny, vfm-small, a folder, a vfm run, or a hub name.")
@click.option("--data", default=None, help="A prepared folder, or its URL.")
@click.option(
    "--labels",
    default=None,
    help="CSV with one row per recording, study or patient; for phases and tools one per span [those of the public data set].",
)
@click.option("--split", default=None, help="An official split of the public data set, instead of folds.")
@click.option(
    "--task", default=None, help="A task of the domain, e.g. ef or view; study: the domain's task of whole studies."
)
@click.option(
    "--level",
    type=click.Choice(["recording", "study"]),
    default=None,
    help="study: one answer to all clips of a study, by attention over them [recording].",
)
@click.option(
    "--label-fraction", type=float, default=None, help="Share of the training patients whose labels are used."
)
@click.option(
    "--mode",
    type=click.Choice(["lora", "full", "last_k", "frozen"]),
    default=None,
    help="What of the encoder is trained [lora; frozen for phases, tools and studies].",
)
@click.option(
    "--head",
    type=click.Choice(["causal", "offline"]),
    default=None,
    help="Phases and tools: a head that knows what has been so far, or also what follows [causal].",
)
@domain_option
@key_option
@slurm_options
@run_options
def command(
    encoder: str | None, data: str | None, labels: str | None, split: str | None, task: str | None, label_fraction: float | None, mode: str | None,
    head: str | None, level: str | None, domain: str | None, key: Path | None, slurm: bool, slurm_option: tuple[str, ...], no_submit: bool,
    config: Path | None, out: Path | None, resume: bool, from_step: int | None, overwrite: bool, dry_run: bool, as_json: bool, online: bool,
    settings: tuple[str, ...],
) -> None:  # fmt: skip
    """Learn a task from the labels of some patients; test once, on patients that were never seen.

    The run folder holds the adapter (plain peft loads it), the merged encoder, the head, and a prediction for every test recording. A task of
    moments (phase, tool, triplet) gets a head over time, and a prediction and a picture of every moment of every test procedure. With --level study
    the clips of a study are read together, and every clip's weight in the answer is shown.
    """
    resume = resume or from_step is not None
    check_slurm(slurm, slurm_option, no_submit)
    asked = Asked.of(
        config,
        {
            "domain": domain, "encoder.name": encoder, "encoder.mode": mode, "data.path": data, "task.labels": labels, "task.split": split,
            "task.name": task, "task.label_fraction": label_fraction, "task.temporal.head": head, "task.level": level,
        },
        settings,
    )  # fmt: skip
    from recipes.finetune import clip_of_run, defaults

    start, of_domain = asked.get("encoder.name"), asked.get("domain") or prepared_domain(asked.get("data.path"))
    asked = named_study(asked, of_domain)
    resolved = resolve_run(
        asked,
        domain=of_domain,
        base=defaults(
            of_moments=is_of_moments(asked.get("data.path"), of_domain, asked.get("task.name")),
            of_studies=asked.get("task.level") == "study",
            mode=asked.get("encoder.mode"),
        ),
        encoder=clip_of_run(start) if start else None,
        resumed=out if resume else None,
    )
    if dry_run:
        print_resolved(resolved, as_json)
        return
    required(resolved.config.data.path or None, "--data", "--data ./prepared")
    required(resolved.config.task.name or None, "--task", "--task ef")
    out = required(out, "--out", f"--out runs/{resolved.config.task.name}")
    if slurm:
        submit(
            out, slurm_option, no_submit=no_submit, processes=1, workers=resolved.config.data.workers, resume=resume, overwrite=overwrite,
            as_json=as_json,
        )  # fmt: skip
        return
    from recipes.jobs.finetune import finetune

    run = finetune(
        resolved,
        out,
        key=find_key(key),
        overwrite=overwrite,
        resume=resume,
        from_step=from_step,
        online=online,
        reporter=TerminalReporter(),
    )
    found = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    if as_json:
        emit_json({"run": str(run), **found})
    else:
        click.echo(found["verdict"])
        click.echo(f"predictions: {next(run.glob('predictions*'))}")
        if (run / "report.html").is_file():
            click.echo(f"report: {run / 'report.html'}")


def find_key(key: Path | None) -> bytes | None:
    """The pseudonym key where there is one; labels that hold pseudonyms need none."""
    from domains.prepare.privacy import key_path, load_key

    if key is None and not key_path().exists():
        return None
    if key is not None and not key.exists():
        raise ConfigError("no such key file", where=key, do="Give the one used by 'vfm data prepare'")
    return load_key(key)
