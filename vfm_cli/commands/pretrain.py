"""`vfm pretrain`: continue an encoder's training on recordings without labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from domains.errors import ConfigError
from vfm_cli.commands.finetune import find_key
from vfm_cli.console import TerminalReporter, emit_json, say
from vfm_cli.options import (
    Asked,
    domain_option,
    key_option,
    print_resolved,
    required,
    resolve_run,
    run_options,
    without_option,
)
from vfm_cli.slurm import check_slurm, slurm_options, submit

PROFILED = 5  # steps that --profile takes apart
GUIDANCE = """no recordings named. Either try it on made-up ones:   vfm pretrain --domain {domain} --data phantom --out runs/{domain}
or prepare a folder of your own (DICOM cines, AVI, MP4, in any sub-folders; 250 and more recordings are worth the while):
   vfm data prepare ./studies --domain {domain} --out ./prepared
   vfm pretrain --domain {domain} --data ./prepared --out runs/{domain}"""


@click.command()
@domain_option
@click.option("--data", default=None, help="A prepared folder, its URL, or 'phantom'.")
@click.option("--split", default=None, help="Learn only from the training part of this official split.")
@click.option("--encoder", default=None, help="vfm-tiny, vfm-small, a folder, a vfm run, or a hub name.")
@click.option("--recipe", default=None, help="vfm recipes ls; default: the domain's.")
@click.option(
    "--text",
    "texts",
    multiple=True,
    help="CSV of narrations or reports, for recipes that learn from words; may be given several times.",
)
@click.option("--init-from", default=None, help="Take the weights of this run's encoder, and nothing else.")
@click.option(
    "--processes", type=click.IntRange(1), default=1, show_default=True, help="Processes on this machine (one per GPU)."
)
@click.option("--batch-size", default=None, help="Samples of a process in a forward pass; auto: as many as fit.")
@click.option("--profile", is_flag=True, help="Take five steps apart: a trace, and what they wait for, in OUT/profile.")
@click.option(
    "--patients", type=click.IntRange(4), default=64, show_default=True, help="Size of the phantom of --data phantom."
)
@click.option(
    "--knn-labels", default=None, help="Labels to look at while it trains, never to learn from; the record says so."
)
@click.option(
    "--knn-task", default=None, help="The task of those labels, e.g. ef; alone: labels of the public data set."
)
@key_option
@slurm_options
@run_options
def command(
    domain: str | None, data: str | None, split: str | None, encoder: str | None, recipe: str | None, texts: tuple[str, ...],
    init_from: str | None, processes: int, batch_size: str | None, profile: bool, patients: int, knn_labels: str | None, knn_task: str | None,
    key: Path | None, slurm: bool, slurm_option: tuple[str, ...], no_submit: bool, config: Path | None, out: Path | None, resume: bool,
    from_step: int | None, overwrite: bool, dry_run: bool, as_json: bool, online: bool, settings: tuple[str, ...],
) -> None:  # fmt: skip
    """Continue an encoder's training on your own recordings, without labels.

    Settings come from the recipe, the domain, --config and KEY=VALUE, in that order; --dry-run shows them all.
    """
    from domains.base import load_domain

    resume = resume or from_step is not None
    check_slurm(slurm, slurm_option, no_submit)
    options = {
        "domain": domain,
        "data.path": data,
        "data.split": split,
        "encoder.name": encoder,
        "encoder.init_from": init_from,
        "text.files": list(texts) or None,
        "train.batch_size": check_batch_size(batch_size),
        "train.profile": PROFILED if profile else None,
        "monitor.knn.labels": knn_labels,
        "monitor.knn.task": knn_task,
    }
    asked = Asked.of(config, options, settings)
    domain = asked.get("domain") or "echo"
    declared = load_domain(domain)
    named = recipe
    recipe = recipe or recipe_of(asked.get("method")) or declared.recipe
    resolved = resolve_run(asked, domain=domain, recipe=recipe, resumed=out if resume else None)
    if resume and named:
        check_recipe(named, resolved.config.method, out)
    from recipes.jobs.pretrain import complete, pretrain

    resolved = complete(resolved)
    if dry_run:
        print_resolved(resolved, as_json)
        return
    if not resolved.config.data.path:
        say("vfm: " + GUIDANCE.format(domain=declared.name))
        raise click.exceptions.Exit(2)
    out = required(out, "--out", f"--out runs/{declared.name}")
    if slurm:
        if resolved.config.data.path == "phantom":
            make_phantom(out, patients, key)  # here, once: the job's processes find it
        submit(
            out, slurm_option, no_submit=no_submit, processes=processes, workers=resolved.config.data.workers, resume=resume, overwrite=overwrite,
            as_json=as_json,
        )  # fmt: skip
        return
    if processes > 1 and "LOCAL_RANK" not in os.environ:
        from recipes.training.launch import relaunch

        if resolved.config.data.path == "phantom":
            make_phantom(out, patients, key)
        words = click.get_current_context().meta["vfm.words"]
        raise click.exceptions.Exit(relaunch(processes, without_option(words, "--processes")))
    if resolved.config.data.path == "phantom":
        resolved = with_data(resolved, make_phantom(out, patients, key))
    main = int(os.environ.get("RANK", "0")) == 0
    labels = resolved.config.monitor.knn.task or resolved.config.data.source.path or resolved.config.text.files
    encoder_folder = pretrain(
        resolved, out, overwrite=overwrite, resume=resume, from_step=from_step, online=online, auto_batch=batch_size == "auto",
        key=find_key(key) if labels else None, reporter=TerminalReporter(quiet=not main),
    )  # fmt: skip
    if main:
        tell(out, encoder_folder, resolved.config.data.path, as_json=as_json)


def tell(out: Path, encoder: Path, data: str | None, *, as_json: bool) -> None:
    """Where it all is, and what comes next."""
    if as_json:
        emit_json({"run": str(out), "encoder": str(encoder)})
        return
    click.echo(f"the adapted encoder is in {encoder} (transformers' own format); curves in {out / 'curves.png'}")
    click.echo(f"next: vfm evaluate linear --encoder {out} --data {data} --labels labels.csv --task TASK")


def check_batch_size(word: str | None) -> int | None:
    """The number that was said; None for none and for auto. Raises ConfigError."""
    if word is None or word == "auto":
        return None
    if not word.isdigit() or int(word) < 1:
        raise ConfigError(f"--batch-size '{word}' is no number", do="Use 1 or more, or auto")
    return int(word)


def recipe_of(method: str | None) -> str | None:
    """The recipe that ships for a method that a person named (in --config, or method=NAME)."""
    from recipes.config import recipe_names

    return method if method in recipe_names() else None


def check_recipe(recipe: str, begun: str, out: Path | None) -> None:
    """A run goes on with the method that it began with. Raises ConfigError."""
    from recipes.config import recipe_yaml, yaml_layer

    asked = yaml_layer(recipe_yaml(recipe)).values.get("method")
    if asked != begun:
        what = f"the run began with method '{begun}', and recipe '{recipe}' is of '{asked}'"
        raise ConfigError(what, where=out, do="Resume without --recipe, or choose another --out")


def with_data(resolved: Any, folder: Path) -> Any:
    """The same run on another prepared folder."""
    from recipes.config import Resolved

    data = resolved.config.data.model_copy(update={"path": str(folder)})
    return Resolved(resolved.config.model_copy(update={"data": data}), resolved.origins)


def make_phantom(out: Path, patients: int, key: Path | None) -> Path:
    """A phantom beside the run: `<out>.phantom/{studies,prepared}`; made once and used again. Returns the prepared folder."""
    from domains.base import load_domain
    from domains.echo.phantom import synthesise
    from domains.machine import cores
    from domains.prepare.ingest import prepare
    from domains.prepare.privacy import load_key
    from vfm_cli.console import Counter

    folder = out.with_name(out.name + ".phantom")
    prepared, studies = folder / "prepared", folder / f"studies-{patients}"
    if (prepared / "prepared.json").exists():
        if not studies.exists():
            raise ConfigError("holds a phantom of another size", where=folder, do="Remove it, or choose another --out")
        say(f"using the phantom in {folder}")
        return prepared
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # every process would make it
        do = "Let vfm start the processes (--processes N), or make it first: vfm data synth echo, vfm data prepare, --data"
        raise ConfigError("there is no phantom yet, and a launcher has started several processes", where=folder, do=do)
    workers = cores()
    say(f"making a phantom of {patients} patients in {folder}")
    synthesise(studies, patients, workers=workers, progress=Counter("synthesising", "patients"))
    secret = load_key(key, create=True, outside=prepared)
    prepare(
        studies,
        prepared,
        load_domain("echo"),
        key=secret,
        workers=workers,
        overwrite=True,
        progress=Counter("preparing", "files"),
    )
    say(f"labels are in {studies / 'labels.csv'}")
    return prepared
