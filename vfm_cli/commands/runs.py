"""`vfm runs`: what lies in run folders, read without torch, also while a run trains."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from recipes.runs.metrics import CLOCKS, Follower, Points, Row, is_number, series_of
from recipes.runs.run import Run, find_runs
from recipes.runs.status import FINISHED, RUNNING
from vfm_cli import run_pages as pages
from vfm_cli.console import emit_json, say
from vfm_cli.options import json_option
from vfm_cli.plots import Style, grid, legend

NO_RECORD = 6  # a run that was killed cannot leave its exit code
run_argument = click.argument("run", type=click.Path(path_type=Path))
ascii_option = click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII characters alone.")
all_option = click.option("--all", "everything", is_flag=True, help="Draw every figure that was logged.")
curve_option = click.option(
    "--curve", "wanted", multiple=True, metavar="NAME", help="Draw this figure; may be repeated."
)
png_option = click.option(
    "--png", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Also draw every curve to this file."
)


@click.group()
def command() -> None:
    """List runs, look at one, compare several, follow one that trains."""


@command.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option(
    "--depth", type=click.IntRange(0), default=4, show_default=True, help="Folders are looked into this deep."
)
@json_option
def ls(folder: Path | None, depth: int, as_json: bool) -> None:
    """List every run under FOLDER (default: ./runs where there is one, else here)."""
    folder = folder or (Path("runs") if Path("runs").is_dir() else Path())
    rows = []
    for path in find_runs(folder, depth):
        name = str(path.relative_to(folder))
        rows.append(pages.row_of(Run(path), path.resolve().name if name == "." else name))
    if as_json:
        emit_json(pages.finite(rows))
    elif not rows:
        say(f"no runs under {folder}")
    else:
        head = ["run", "recipe", "encoder", "state", "step", "loss", "age", "size"]
        pages.print_table(head, [pages.cells_of(row) for row in rows])


@command.command()
@run_argument
@all_option
@curve_option
@png_option
@ascii_option
@json_option
def show(
    run: Path, everything: bool, wanted: tuple[str, ...], png: Path | None, ascii_only: bool, as_json: bool
) -> None:
    """Tell what RUN is: settings that differ from its recipe's, recordings, curves, alarms, checkpoints, where time went."""
    found = Run.open(run)
    if png is not None:
        draw({found.path.name: found}, png)
    if as_json:
        emit_json(pages.finite(pages.show_json(found)))
        return
    for line in pages.headline(found):
        pages.tell(line)
    click.echo("")
    pages.settings_table(found)
    click.echo("")
    pages.tell(f"recordings: {pages.data_line(found)}")
    for line in pages.looked_lines(found):
        pages.tell(line)
    echo("", *pages.curves(found, Style.of_stdout(ascii_only=ascii_only), everything=everything, wanted=wanted))
    section("alarms", pages.alarm_lines(found), "none")
    section("checkpoints", pages.checkpoint_lines(found), "none")
    if spent := pages.time_line(found):
        click.echo(f"time: {spent}")
    evaluations(("evaluations", [found]))
    if png is not None:
        click.echo(f"curves: {png}")


@command.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="RUN RUN...")
@all_option
@curve_option
@png_option
@ascii_option
@json_option
def compare(
    runs: tuple[Path, ...], everything: bool, wanted: tuple[str, ...], png: Path | None, ascii_only: bool, as_json: bool
) -> None:
    """Lay runs side by side: settings that differ, curves over one another, evaluations."""
    from recipes.runs.settings import differences, environments

    if len(runs) < 2:
        raise click.UsageError("compare needs two runs or more. For example: vfm runs compare runs/a runs/b")
    found = [Run.open(path) for path in runs]
    names = titles(runs)
    if png is not None:
        draw(dict(zip(names, found, strict=True)), png)
    if as_json:
        values = {
            "runs": {name: pages.show_json(run) for name, run in zip(names, found, strict=True)},
            "settings": {key: dict(zip(names, of_each, strict=True)) for key, of_each in differences(found)},
            "environment": {key: dict(zip(names, of_each, strict=True)) for key, of_each in environments(found)},
        }
        emit_json(pages.finite(values))
        return
    pages.print_table(
        ["run", "recipe", "encoder", "state", "step", "loss", "age", "size"],
        [pages.cells_of(pages.row_of(run, name)) for name, run in zip(names, found, strict=True)],
    )
    for title, rows in (
        ("settings that differ", differences(found)),
        ("environments that differ", environments(found)),
    ):
        click.echo("")
        if rows:
            pages.print_table(
                ["", *names], [[key, *map(pages.value_in_words, values)] for key, values in rows], title=title
            )
        else:
            click.echo(f"{title}: none")
    style = Style.of_stdout(ascii_only=ascii_only)
    series = [series_of(run.rows) for run in found]
    merged: dict[str, Points] = {}
    for one in series:
        for name, points in one.items():
            merged[name] = max(merged.get(name, []), points, key=len)
    figures = [
        (pages.printable(name), [one.get(name, []) for one in series])
        for name in pages.chosen(merged, everything=everything, curves=wanted)
    ]
    echo("", *legend([pages.printable(name) for name in names], style), *grid(figures, style))
    evaluations(*((name, [run]) for name, run in zip(names, found, strict=True)))
    if png is not None:
        click.echo(f"curves: {png}")


@command.command()
@run_argument
@click.option("--every", type=click.FloatRange(0.05), default=1.0, show_default=True, help="Seconds between two looks.")
@curve_option
@ascii_option
@json_option
def watch(run: Path, every: float, wanted: tuple[str, ...], ascii_only: bool, as_json: bool) -> None:
    """Follow RUN while it trains; end when it ends, with its exit code. Ctrl-C ends the watching alone.

    On a terminal curves are drawn again and again; elsewhere, and with --json, every line that it logs is one line.
    """
    found = Run.open(run)
    screen = Screen(Style.of_stdout(ascii_only=ascii_only)) if sys.stdout.isatty() and not as_json else None
    follower = Follower(run)
    try:
        while True:
            alive = Run(run).state[0] == RUNNING  # asked before reading: what is logged in between is not missed
            new = follower.new()
            if screen is not None and (new or not alive):
                screen.draw(picture(run, follower.rows, wanted, screen.style))
            elif screen is None:
                for row in new:
                    emit_line(row, found.total, as_json)
            if not alive:
                break
            time.sleep(every)
    except KeyboardInterrupt:
        say(f"\nwatching ended; {run} goes on")
        return
    ended(Run(run), as_json)


def ended(run: Run, as_json: bool) -> None:
    """Say how a run ended, and leave with its exit code."""
    state, why = run.state
    code = run.status.get("exit_code")
    code = 0 if state == FINISHED else code if isinstance(code, int) and code else NO_RECORD
    if as_json:
        click.echo(_json({"state": state, "why": why, "exit_code": code, "step": run.step}))
    else:
        say(pages.printable(f"{run.path} {state} at step {run.step}" + (f": {why}" if why else "")))
    if code:
        raise click.exceptions.Exit(code)


class Screen:
    """Lines that replace those before them on a terminal."""

    def __init__(self, style: Style) -> None:
        self.style, self.drawn = style, 0

    def draw(self, lines: Sequence[str]) -> None:
        """Draw over what was drawn; no more lines than the terminal has, since what scrolled away cannot be replaced."""
        import shutil

        fit = list(lines)[: shutil.get_terminal_size().lines - 1]
        up = f"\033[{self.drawn}F\033[J" if self.drawn else ""
        click.echo(up + "\n".join(fit))
        self.drawn = len(fit)


def picture(path: Path, rows: Sequence[Row], wanted: Sequence[str], style: Style) -> list[str]:
    """What a watcher sees: how the run stands, alarms, and its first curves."""
    run = Run(path)
    series = series_of(list(rows))
    names = pages.chosen(series, everything=False, curves=[name for name in wanted if name in series])
    alarms = pages.alarm_lines(run)[-2:]
    # A line that the terminal would break in two could not be drawn over.
    words = [
        pages.printable(one)[: style.width - 1]
        for one in (*pages.headline(run)[:2], *(f"alarm, {one}" for one in alarms))
    ]
    return [*words, "", *grid([(pages.printable(name), [series[name]]) for name in names], style, height=5)]


def emit_line(row: Row, total: int | None, as_json: bool) -> None:
    """One line that the run logged."""
    if as_json:
        click.echo(_json(row))
        return
    of = f"/{total}" if total else ""
    said = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in CLOCKS and is_number(value))
    pages.tell(f"step {row['step']}{of}  {said}")
    sys.stdout.flush()


def _json(values: Any) -> str:
    import json

    return json.dumps(pages.finite(values), default=str)


def draw(runs: dict[str, Run], png: Path) -> None:
    """Every figure of the runs as a picture, with the steps of alarms where it is one run."""
    from recipes.runs.curves import draw_curves

    marks = [float(one["step"]) for run in runs.values() for one in run.alarms if is_number(one.get("step"))]
    draw_curves(
        {name: series_of(run.rows, skip=CLOCKS) for name, run in runs.items()}, png, marks if len(runs) == 1 else ()
    )


def titles(paths: Sequence[Path]) -> list[str]:
    """As short as tells them apart: the last part of the path, or all of it."""
    short = [path.resolve().name for path in paths]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    return [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, 1)]


def evaluations(*groups: tuple[str, Sequence[Run]]) -> None:
    """Headline figures of evaluations that lie in the run folders; nothing where there are none."""
    rows = []
    for name, runs in groups:
        for run in runs:
            for place, found in run.evaluations:
                if one := pages.evaluation_of(found):
                    figure = pages.interval(one)
                    where = name if len(groups) > 1 else ("" if place == "." else place)
                    rows.append(
                        [where, f"{one['protocol']} {one['task']}", one["metric"], figure, str(one["patients"] or "-")]
                    )
    if rows:
        click.echo("")
        pages.print_table(["", "evaluation", "metric", "value [interval]", "patients"], rows)


def section(title: str, lines: Sequence[str], empty: str) -> None:
    """A heading and its lines, on one line where there is little to say."""
    if len(lines) < 2:
        pages.tell(f"{title}: {lines[0] if lines else empty}")
    else:
        pages.tell(f"{title}:", *(f"  {one}" for one in lines))


def echo(*lines: str) -> None:
    """Lines on stdout."""
    for one in lines:
        click.echo(one)
