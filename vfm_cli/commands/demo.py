"""`vfm demo`: the whole way on an embedded phantom."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from domains.errors import ConfigError, VfmError
from vfm_cli.console import Counter, duration, emit_json, say, table
from vfm_cli.options import LOCAL, json_option

MARK = "vfm-demo.json"
RECIPE = "rspnet"  # of those that gain on both questions in a short run from vfm-tiny, the one that needs the fewest steps (docs/results.md)
ASKED = (("linear", "ef"), ("knn", "view"))
GO_ON = "Run the same command again: it goes on where it stopped"


@click.command()
@click.option(
    "--out",
    type=LOCAL,
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
    "--steps", type=click.IntRange(1), default=100, show_default=True, help="Steps of pretraining, 16 clips each."
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
    places = Places(out)
    claim(places, {"patients": patients, "steps": steps, "finetune_epochs": finetune_epochs, "seed": seed})
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what the verbs say on the way; results alone go to stdout
            take_steps(places, patients, steps, finetune_epochs, seed)
            found = measure(places, seed)
    except KeyboardInterrupt:
        raise Stopped(130, out) from None
    except VfmError as error:
        if error.exit_code > 128:
            raise Stopped(error.exit_code, out) from None
        raise
    if as_json:
        seconds = round(time.monotonic() - began, 1)
        evaluations = [one.to_dict() for one in found]
        emit_json({"report": str(places.report), "seconds": seconds, "evaluations": evaluations})
        return
    for one in found:
        head, lines = one.table()
        table(head, lines, title=f"\n{one.protocol} {one.task}: {one.size()}")
        click.echo(one.verdict())
    click.echo(
        "\nThese are synthetic hearts and a short run: the figures show that the way works, not how well it does on patients."
    )
    click.echo(f"report: {places.report}  ({duration(time.monotonic() - began)})")
    click.echo("next, your own: vfm data prepare ./studies --domain echo --out ./prepared")


class Stopped(VfmError):
    """The demo was asked to stop."""

    def __init__(self, code: int, out: Path) -> None:
        super().__init__("stopped; what is finished is kept", where=out, do=GO_ON)
        self.exit_code = code


@dataclass(frozen=True)
class Places:
    """Where things lie below the demo's folder."""

    out: Path

    @property
    def studies(self) -> Path:
        """The phantom's DICOM files and labels."""
        return self.out / "studies"

    @property
    def labels(self) -> Path:
        """Written last of the phantom."""
        return self.studies / "labels.csv"

    @property
    def prepared(self) -> Path:
        """The prepared folder."""
        return self.out / "prepared"

    @property
    def key(self) -> Path:
        """A pseudonym key of the demo's own: a person's key stays untouched."""
        return self.out / "demo.key"

    @property
    def pretrained(self) -> Path:
        """The run of pretraining."""
        return self.out / "runs" / "echo"

    @property
    def finetuned(self) -> Path:
        """The run of fine-tuning."""
        return self.out / "runs" / "ef"

    @property
    def report(self) -> Path:
        """The page that the demo ends with."""
        return self.out / "report.html"


def claim(places: Places, settings: dict[str, Any]) -> None:
    """Make the folder, or go on in one that was begun with the same settings. Raises ConfigError for any other."""
    out, mark = places.out, places.out / MARK
    if mark.exists():
        before = json.loads(mark.read_text(encoding="utf-8"))
        if before != settings:
            changed = ", ".join(f"{name} {before.get(name)}" for name in settings if before.get(name) != settings[name])
            what = f"holds a demo with other settings ({changed})"
            raise ConfigError(what, where=out, do="Choose another --out, or remove the folder")
        say(f"going on with the demo in {out}")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("the output folder is not empty", where=out, do="Choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps(settings) + "\n", encoding="utf-8")


def take_steps(places: Places, patients: int, steps: int, finetune_epochs: int, seed: int) -> None:
    """Each step is the verb that a person would type; a step that was finished before is left out."""
    studies, prepared, key = places.studies, places.prepared, places.key
    run, tuned = places.pretrained, places.finetuned
    step(
        "1  synthesise recordings", places.labels.exists(),
        "data", "synth", "echo", "--patients", patients, "--seed", seed, "--out", studies, "--overwrite",
    )  # fmt: skip
    step(
        "2  prepare them", (prepared / "prepared.json").exists(),
        "data", "prepare", studies, "--domain", "echo", "--out", prepared, "--key", key,
    )  # fmt: skip
    step(
        "3  continue the encoder's training without labels", finished(run),
        "pretrain", "--domain", "echo", "--recipe", RECIPE, "--data", prepared, "--out", run, *begun(run),
        f"train.steps={steps}", f"train.seed={seed}", "train.save_every=50",
    )  # fmt: skip
    step(
        "4  fine-tune it with LoRA on half of the labels", finished(tuned),
        "finetune", "--encoder", run, "--data", prepared, "--labels", places.labels, "--task", "ef", "--label-fraction", "0.5",
        "--key", key, "--out", tuned, *begun(tuned), f"train.epochs={finetune_epochs}", f"train.seed={seed}",
    )  # fmt: skip


def finished(run: Path) -> bool:
    """Whether a run came to its end."""
    return (run / "record.json").is_file()


def begun(run: Path) -> list[str]:
    """`--resume` where a run has begun and not ended; a folder without a configuration is begun anew."""
    if finished(run):
        return []
    return ["--resume"] if (run / "config.resolved.yaml").is_file() else ["--overwrite"] if run.exists() else []


def step(what: str, done: bool, *arguments: Any) -> None:
    """One verb of vfm, named, shown as it would be typed, and left out where it was done before."""
    from vfm_cli.main import invoke

    say(f"\n{what}{' (done before)' if done else ''}\n   $ {typed(*arguments)}")
    if not done:
        invoke(*arguments)


def typed(*arguments: Any) -> str:
    """A command line as a person would type it."""
    return "vfm " + shlex.join(str(argument) for argument in arguments)


def measure(places: Places, seed: int) -> list[Any]:
    """The evaluations, which share their features, and the report page."""
    from domains.prepare.privacy import load_key
    from recipes.jobs.report import evaluate_and_report

    run, prepared, labels, page = places.pretrained, places.prepared, places.labels, places.report
    say("\n5  measure what was gained, and write the report")
    for protocol, task in ASKED:
        same = ("--encoder", run, "--data", prepared, "--labels", labels, "--key", places.key)
        say(f"   $ {typed('evaluate', protocol, *same, '--task', task, '--report', page)}")
    verdict = json.loads((places.finetuned / "evaluation.json").read_text(encoding="utf-8"))["verdict"]
    return evaluate_and_report(
        ASKED, run, prepared, labels, page, title="vfm demo: echocardiography phantom", key=load_key(places.key),
        out=places.out / "evaluation", phantom=True, seed=seed, progress=Counter("embedding", "recordings"),
        notes=[f"Fine-tuned with LoRA on half of the training patients' labels: {verdict}"],
    )  # fmt: skip
