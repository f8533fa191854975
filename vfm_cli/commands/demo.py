"""`vfm demo`: the whole way on an embedded phantom."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import click

from domains.errors import ConfigError
from vfm_cli.console import Counter, duration, emit_json, say, table
from vfm_cli.options import json_option

MARK = "vfm-demo.json"


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("vfm-demo"),
    show_default=True,
    help="Folder for everything it makes.",
)
@click.option(
    "--patients",
    type=click.IntRange(10),
    default=32,
    show_default=True,
    help="Patients of the phantom; more are surer and slower.",
)
@click.option(
    "--steps", type=click.IntRange(1), default=240, show_default=True, help="Steps of pretraining, 16 clips each."
)
@click.option(
    "--finetune-epochs", type=click.IntRange(1), default=6, show_default=True, help="Passes over the labelled patients."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@json_option
def command(out: Path, patients: int, steps: int, finetune_epochs: int, seed: int, as_json: bool) -> None:
    """Everything on an embedded phantom: synthesise, prepare, pretrain, fine-tune, evaluate, report.

    Minutes on two CPU cores, no network, no data of your own. Started again, it goes on where it stopped.
    """
    began = time.monotonic()
    settings = {"patients": patients, "steps": steps, "finetune_epochs": finetune_epochs, "seed": seed}
    claim(out, settings)
    studies, prepared, run, tuned = out / "studies", out / "prepared", out / "runs" / "echo", out / "runs" / "ef"
    labels, key = studies / "labels.csv", out / "demo.key"
    step(
        1,
        "synthesise recordings",
        labels.exists(),
        "data",
        "synth",
        "echo",
        "--patients",
        patients,
        "--seed",
        seed,
        "--out",
        studies,
        "--overwrite",
    )
    step(
        2,
        "prepare them",
        (prepared / "prepared.json").exists(),
        "data",
        "prepare",
        studies,
        "--domain",
        "echo",
        "--out",
        prepared,
        "--key",
        key,
    )
    pretrain = [
        "pretrain",
        "--domain",
        "echo",
        "--data",
        prepared,
        "--out",
        run,
        f"train.steps={steps}",
        f"train.seed={seed}",
        "train.save_every=50",
    ]
    step(3, "continue the encoder's training without labels", finished(run), *pretrain, *resumed(run))
    finetune = [
        "finetune", "--encoder", run, "--data", prepared, "--labels", labels, "--task", "ef", "--label-fraction", "0.5", "--key", key,
        "--out", tuned, f"train.epochs={finetune_epochs}", f"train.seed={seed}",
    ]  # fmt: skip
    step(4, "fine-tune it with LoRA on half of the labels", finished(tuned), *finetune, *resumed(tuned))
    say("\n5  measure what was gained, and write the report")
    for protocol, task in (("linear", "ef"), ("knn", "view")):
        say(
            "   $ vfm "
            + words(
                "evaluate",
                protocol,
                "--encoder",
                run,
                "--data",
                prepared,
                "--labels",
                labels,
                "--task",
                task,
                "--key",
                key,
            )
        )
    found, page = measure(run, prepared, labels, key, tuned, out, seed)
    if as_json:
        emit_json(
            {
                "report": str(page),
                "seconds": round(time.monotonic() - began, 1),
                "evaluations": [one.to_dict() for one in found],
            }
        )
        return
    for one in found:
        click.echo("")
        head, lines = one.table()
        table(head, lines, title=f"{one.protocol} {one.task}: {one.size()}")
        click.echo(one.verdict())
    click.echo(
        f"\nThese are synthetic hearts and a short run: the figures show that the way works, not how well it does on patients.\nreport: {page}"
    )
    click.echo(
        f"took {duration(time.monotonic() - began)}; next, your own: vfm data prepare ./studies --domain echo --out ./prepared"
    )


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or go on in one that was begun with the same settings. Raises ConfigError for any other."""
    mark = out / MARK
    if mark.exists():
        before = json.loads(mark.read_text(encoding="utf-8"))
        if before != settings:
            changed = ", ".join(f"{name} {before.get(name)}" for name in settings if before.get(name) != settings[name])
            raise ConfigError(
                f"holds a demo with other settings ({changed})",
                where=out,
                do="Choose another --out, or remove the folder",
            )
        say(f"going on with the demo in {out}")
        return
    if out.exists() and any(out.iterdir()):
        raise ConfigError("the output folder is not empty", where=out, do="Choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps(settings) + "\n", encoding="utf-8")


def finished(run: Path) -> bool:
    """Whether a run came to its end."""
    return (run / "record.json").is_file()


def resumed(run: Path) -> list[str]:
    """`--resume` where a run has begun; a folder without a configuration is begun anew."""
    return ["--resume"] if (run / "config.resolved.yaml").is_file() else ["--overwrite"] if run.exists() else []


def words(*arguments: Any) -> str:
    """A command line as it would be typed."""
    return shlex.join(str(argument) for argument in arguments)


def step(number: int, what: str, done: bool, *arguments: Any) -> None:
    """One verb of vfm, named, timed, and left out where it was done before."""
    from vfm_cli.main import invoke

    say(f"\n{number}  {what}{' (done before)' if done else ''}\n   $ vfm {words(*arguments)}")
    if not done:
        invoke(*arguments)


def measure(
    run: Path, prepared: Path, labels: Path, key: Path, tuned: Path, out: Path, seed: int
) -> tuple[list[Any], Path]:
    """The two evaluations and the report page."""
    from domains.prepare.privacy import load_key
    from recipes.jobs.report import evaluate_and_report

    page = out / "report.html"
    verdict = json.loads((tuned / "evaluation.json").read_text(encoding="utf-8"))["verdict"]
    found = evaluate_and_report(
        [("linear", "ef"), ("knn", "view")], run, prepared, labels, page, title="vfm demo: echocardiography phantom", key=load_key(key),
        out=out / "evaluation", phantom=True, seed=seed, progress=Counter("embedding", "recordings"),
        notes=[f"Fine-tuned with LoRA on half of the training patients' labels: {verdict}"],
    )  # fmt: skip
    return found, page
