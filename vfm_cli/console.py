"""What a person sees: progress, tables, and errors turned into one clear line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from domains.errors import StorageError, VfmError

if TYPE_CHECKING:
    from recipes.training.reporter import StepInfo


def say(text: str) -> None:
    """A line for a person, on stderr: stdout is for results."""
    click.echo(text, err=True)


def emit_json(values: Any) -> None:
    """A result for a program, on stdout."""
    click.echo(json.dumps(values, indent=2, default=str))


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
    """A table on stdout; plain and as wide as it needs to be where stdout is no terminal."""
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else 200, soft_wrap=not terminal)
    grid = Table(
        title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold",
        show_header=any(head),
    )  # fmt: skip
    for name in head:
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    console.print(grid, markup=False)


def duration(seconds: float) -> str:
    """3 min 20 s."""
    seconds = round(seconds)
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds % 60:02d} s" if minutes else f"{seconds} s"


class Counter:
    """Progress of something that is counted: `counter(done, total)`. A bar on a terminal, a line now and then elsewhere."""

    def __init__(self, what: str, unit: str) -> None:
        self.what, self.unit = what, unit
        self.began = self.told = time.monotonic()  # nothing is said of the first moment: its estimate would be wrong
        self.terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        """Called after every unit."""
        now = time.monotonic()
        if done < total and now - self.told < (0.2 if self.terminal else 15):
            return
        self.told = now
        rate = done / max(1e-9, now - self.began)
        left = f", {duration((total - done) / rate)} left" if 0 < done < total and rate else ""
        line = f"{self.what}: {done} of {total} {self.unit}, {rate:.1f}/s{left}"
        show(line, last=done >= total)


def show(line: str, last: bool) -> None:
    """A line that replaces the one before it on a terminal."""
    if not sys.stderr.isatty():
        say(line)
        return
    width = max(20, os.get_terminal_size(sys.stderr.fileno()).columns - 1)
    click.echo("\r\033[K" + line[:width], err=True, nl=last)


class TerminalReporter:
    """A run on the terminal; see recipes.training.reporter.Reporter."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet, self.open = quiet, False
        self.told = 0.0

    def start(self, total_steps: int, first_step: int) -> None:
        """See Reporter."""
        if not self.quiet:
            self.line(f"{total_steps} steps" if not first_step else f"continuing at step {first_step} of {total_steps}")

    def step(self, info: StepInfo) -> None:
        """See Reporter."""
        now = time.monotonic()
        last = info.step == info.total
        if self.quiet or (not sys.stderr.isatty() and not last and now - self.told < 15):
            return
        self.told = now
        loss = info.losses.get("loss", float("nan"))
        extra = "".join(f"  {name} {info.losses[name]:.3g}" for name in ("rankme",) if name in info.losses)
        left = f"{duration(info.eta_seconds)} left" if not last else "done"
        share = info.step / max(1, info.total)
        bar = "#" * round(24 * share) + "." * (24 - round(24 * share))
        show(
            f"[{bar}] step {info.step}/{info.total}  epoch {info.epoch:.1f}  loss {loss:.4g}{extra}  "
            f"{info.clips_per_second:.1f} clips/s  waiting for data {info.data_wait:.0%}  {left}",
            last=last,
        )
        self.open = not last and sys.stderr.isatty()

    def line(self, text: str) -> None:
        """A line of its own below the bar."""
        if self.open:
            click.echo("", err=True)
            self.open = False
        say(text)

    def note(self, text: str) -> None:
        """See Reporter."""
        if not self.quiet:
            self.line(f"note: {text}")

    def warn(self, text: str) -> None:
        """See Reporter."""
        self.line(f"warning: {text}")

    def finish(self) -> None:
        """See Reporter."""
        self.open = False


def run_guarded(command: click.Command, arguments: list[str]) -> int:
    """Run a command line; every way it can end becomes one line and an exit code."""
    debug = "--debug" in arguments
    if not (debug or sys.warnoptions):  # what will change in a library is for those who write vfm
        warnings.simplefilter("ignore", FutureWarning)
    try:
        outcome = command.main(args=arguments, prog_name="vfm", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.Exit as leave:
        return int(leave.exit_code)
    except click.ClickException as error:
        return end_with(2, " ".join(error.format_message().split()))
    except (KeyboardInterrupt, click.Abort):
        return end_with(
            130,
            "stopped. Nothing half-written was kept; start the command again, or with --resume where it has that option",
        )
    except VfmError as error:
        if debug:
            traceback.print_exc()
        return end_with(error.exit_code, " ".join(str(error).split()))
    except ReaderLeft:
        return 0
    except OSError as error:
        if debug:
            traceback.print_exc()
        what = error.strerror or type(error).__name__
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        problem = StorageError(what, where=error.filename, do="Free some space and try again" if full else None)
        return end_with(problem.exit_code, str(problem))
    except Exception as error:
        place = write_trace()
        if debug:
            traceback.print_exc()
        what = f"an error that should not happen ({type(error).__name__}: {str(error)[:160]})"
        return end_with(1, f"{what}. The details are in {place}; please report it")


class ReaderLeft(Exception):
    """Whoever reads our results has closed the pipe, as `head` does. (click would make it exit code 1.)"""


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """A closed stdout ends the command quietly; a pipe that broke elsewhere stays the error that it is."""
    try:
        yield
    except BrokenPipeError as error:
        watch = select.poll()
        watch.register(sys.stdout.fileno(), 0)  # POLLERR is always told
        if not any(what & select.POLLERR for _, what in watch.poll(0)):
            raise RuntimeError("a pipe between processes broke") from error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is unwritten goes nowhere
        raise ReaderLeft from None


def end_with(code: int, line: str) -> int:
    """Say why the command ends, once for a group of processes, and return its exit code.

    torchrun turns every failure into exit code 1; the true one travels in a file (see recipes.training.launch). Who finds that file
    written ends because another process did, which has said so.
    """
    if place := os.environ.get("VFM_EXIT_FILE"):
        try:
            with open(place, "x", encoding="ascii") as file:
                file.write(str(code))
        except FileExistsError:
            return code
        except OSError:
            pass  # the line is said all the same
    say(f"vfm: {line}")
    return code


def write_trace() -> str:
    """The stack trace of the current exception, in a file that only its owner reads."""
    handle, place = tempfile.mkstemp(prefix="vfm-error-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        traceback.print_exc(file=file)
    return place
