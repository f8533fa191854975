"""The `vfm` command. Verbs are imported when they are called: `vfm --help` answers at once and imports no torch."""

from __future__ import annotations

import importlib
import os
import sys
from importlib import metadata
from typing import Any

import click

# verb -> one line of help; the module is vfm_cli.commands.<verb>, the command in it is called `command`.
VERBS = {
    "demo": "Everything below on an embedded phantom; ends with a report to open.",
    "data": "Prepare recordings for training; synthesise a phantom; look at a prepared folder.",
    "pretrain": "Continue an encoder's training on recordings without labels.",
    "finetune": "Adapt it to a task with LoRA, from labels of some patients.",
    "predict": "Apply a fine-tuned run to recordings that nobody labelled.",
    "evaluate": "Measure what its features hold: kNN, linear probe, zero-shot; with intervals.",
    "embed": "Turn a prepared folder into vectors that can be searched.",
    "search": "Find clips by a text, or by an example.",
    "report": "Draft findings of a study from the reports of similar ones, with the evidence. For research.",
    "bench": "Which recipe suits these recordings? Same budget and evaluation for each.",
    "runs": "List, show, compare and watch runs: settings, curves, alarms, checkpoints.",
    "recipes": "The methods of pretraining and their settings.",
    "domains": "The kinds of recordings that vfm knows.",
    "debug": "Look into a run that stopped because a loss was not finite.",
    "doctor": "What this installation can do, and what is missing.",
}


class Verbs(click.Group):
    """A group whose commands are modules, loaded on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a person meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"vfm_cli.commands.{cmd_name}").command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's; the words are kept for a verb that starts itself again in several processes."""
        ctx.meta["vfm.words"] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """As click's; a reader of our results that goes away is no error."""
        from vfm_cli.console import reader_may_leave

        with reader_may_leave():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest verb for a mistyped one."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from domains.schema import nearest

            raise click.UsageError(f"no verb '{args[0]}'. {nearest(args[0], list(VERBS))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table: listing them imports nothing."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def version() -> str:
    """The installed version."""
    try:
        return metadata.version("vfm")
    except metadata.PackageNotFoundError:
        return "unknown"


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version(), prog_name="vfm")
@click.option("--debug", is_flag=True, help="Show the stack trace of an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Adapt a video foundation model to your domain, on your own recordings, offline.

    \b
    vfm demo                                                   the whole way on a phantom
    vfm data prepare ./studies --domain echo --out ./prepared
    vfm pretrain --domain echo --data ./prepared --out runs/echo
    vfm finetune --encoder runs/echo --data ./prepared --labels labels.csv --task ef --out runs/ef
    vfm evaluate linear --encoder runs/echo --data ./prepared --labels labels.csv --task ef
    """
    ctx.obj = {"debug": debug}


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs the command line and exits with a documented code (docs/errors.md)."""
    from vfm_cli.console import run_guarded

    # Nothing reaches for the network: --online lifts this for one command, before transformers is imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler talks to the terminal
    words = sys.argv[1:] if arguments is None else arguments
    if "--online" not in words:
        os.environ["HF_HUB_OFFLINE"] = "1"
    sys.exit(run_guarded(cli, words))


def invoke(*words: Any) -> None:
    """Run `vfm <words>` in this process; for commands that stand for others."""
    cli.main(args=[str(word) for word in words], prog_name="vfm", standalone_mode=False)
