"""What `vfm runs` prints of a run, and the same as plain values for --json."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from domains.store.info import described
from recipes.report.scale import number
from recipes.runs.metrics import Points, is_number, leading, ordered, series_of, time_spent
from recipes.runs.run import Run
from recipes.runs.status import FINISHED, RUNNING
from vfm_cli.console import duration, table
from vfm_cli.plots import Style, grid

if TYPE_CHECKING:
    from recipes.runs.settings import Difference

SILENT = 1800  # seconds after which a running run that logs nothing is worth a look
CHARTS = 6  # of the figures that people look at first; --all shows every one


def row_of(run: Run, name: str) -> dict[str, Any]:
    """One line of `vfm runs ls`."""
    state, why = run.state
    loss = run.loss
    return {
        "run": name,
        "recipe": run.recipe,
        "encoder": run.encoder,
        "state": state,
        "why": why,
        "step": run.step,
        "steps": run.total,
        "loss": loss,
        "alarms": len(run.alarms),
        "age_seconds": round(max(0.0, time.time() - run.began)),
        "silent_seconds": round(max(0.0, time.time() - run.heard)),
        "bytes": run.size(),
    }


def cells_of(row: Mapping[str, Any]) -> list[str]:
    """The same in words."""
    of = f"{row['step']}/{row['steps']}" if row["steps"] else str(row["step"])
    loss = number(row["loss"]) if is_number(row["loss"]) else "-"
    state = row["state"] + (f", {plural(row['alarms'], 'alarm')}" if row["alarms"] else "")
    if row["state"] == RUNNING and row["silent_seconds"] > SILENT:
        state += f", silent for {ago(row['silent_seconds'])}"
    return [
        row["run"],
        row["recipe"],
        row["encoder"],
        state,
        of,
        loss,
        ago(row["age_seconds"]),
        bytes_in_words(row["bytes"]),
    ]


def headline(run: Run) -> list[str]:
    """What it is, how it stands, and why."""
    row = row_of(run, run.path.name)
    steps = f"step {row['step']} of {row['steps']}" if row["steps"] else f"step {row['step']}"
    loss = f", loss {number(row['loss'])}" if is_number(row["loss"]) else ""
    took = run.last.get("seconds")
    after = f" after {duration(float(took))}" if is_number(took) else ""
    lines = [f"{run.path}: {run.recipe} on {run.encoder}", f"{row['state']}, {steps}{after}{loss}"]
    if row["why"]:
        lines.append(f"why: {row['why']}")
    if row["state"] == RUNNING:
        lines.append(f"last heard of {ago(row['silent_seconds'])} ago")
    elif row["state"] != FINISHED:
        lines.append(f"go on with: vfm {'finetune' if run.get('task.name') else 'pretrain'} --resume --out {run.path}")
    lines.append(f"began {ago(row['age_seconds'])} ago, {bytes_in_words(row['bytes'])} on the disk")
    return lines


def data_line(run: Run) -> str:
    """The recordings that it learns from, in words."""
    path = str(run.get("data.path") or "?")
    told = run.record.get("data")
    if not (isinstance(told, dict) and "videos" in told):
        told = described(Path(path))
    if not told:
        return f"{path} (not at hand)"
    of = (
        f"{plural(told['videos'], 'recording')} of {plural(told.get('patients', 0), 'patient')}"
        if "videos" in told
        else "?"
    )
    titled = f", {told['data_set']}" if told.get("data_set") else ""
    split = f", training part of the split '{run.get('data.split')}'" if run.get("data.split") else ""
    return f"{of}, domain {told.get('domain', '?')}{titled}{split} ({path})"


def looked_lines(run: Run) -> list[str]:
    """Labels that the run has looked at without learning from them, which an evaluation on the same people should not forget."""
    return [
        f"labels looked at while it trained: {task} of {plural(people, 'patient')}" for task, people in run.looked_at
    ]


def settings_table(run: Run) -> None:
    """Settings that differ from the recipe's."""
    from recipes.runs.settings import defaults_of, differences_from_recipe

    found, unknown = differences_from_recipe(run)
    _, words = defaults_of(run)
    if found:
        head = ["setting", "value", "default", "set by"]
        print_table(head, [shown(one) for one in found], title=f"settings that differ from {words}")
    else:
        tell(f"settings: as {words} have them")
    if unknown:
        tell(f"{unknown} settings of the method are not compared: this run did not keep where they came from")


def shown(one: Difference) -> list[str]:
    """A line of the table of settings."""
    return [
        one.key,
        value_in_words(one.value),
        value_in_words(one.default) if one.default is not None else "-",
        one.origin or "-",
    ]


def value_in_words(value: Any) -> str:
    """A setting as it would be typed."""
    known = {None: "null", True: "true", False: "false"}
    return known[value] if value is None or isinstance(value, bool) else str(value)


def tell(*lines: str) -> None:
    """Lines on stdout that hold what run folders say."""
    for one in lines:
        click.echo(printable(one))


def print_table(head: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
    """A table of what run folders say."""
    table([printable(name) for name in head], [[printable(cell) for cell in row] for row in rows], title=title)


def printable(value: Any) -> str:
    """A text of a run folder without what a terminal would act on: folders are passed on, and names and settings are anybody's."""
    return "".join(sign if sign.isprintable() else "?" for sign in str(value))


def finite(value: Any) -> Any:
    """The same for JSON, which knows no numbers that are not finite: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list | tuple) else value


def chosen(series: Mapping[str, Points], *, everything: bool, curves: Sequence[str]) -> list[str]:
    """Names of the figures to draw: those asked for, all, or the first few. Unknown ones raise a usage error."""
    from domains.schema import nearest

    for name in curves:
        if name not in series:
            raise click.UsageError(f"no figure '{name}' was logged. {nearest(name, list(series))}")
    if curves:
        return list(curves)
    names = [name for name, points in series.items() if len(points) > 1]
    return ordered(names) if everything else leading(names, CHARTS)


def curves(run: Run, style: Style, *, everything: bool = False, wanted: Sequence[str] = ()) -> list[str]:
    """Charts of one run."""
    series = series_of(run.rows)
    names = chosen(series, everything=everything, curves=wanted)
    return grid([(printable(name), [series[name]]) for name in names], style)


def alarm_lines(run: Run) -> list[str]:
    """What monitors raised, one line each."""
    return [
        f"step {one.get('step', '?')}: {one.get('text') or one.get('monitor', '?')}"
        + (" (stopped the run)" if one.get("action") == "stop" else "")
        for one in run.alarms
    ]


def checkpoint_lines(run: Run) -> list[str]:
    """Those that are there."""
    return [
        f"{one.name}, {bytes_in_words(one.bytes)}"
        + ("".join(f", {mark}" for mark in one.marks))
        + ("" if one.whole else ", NOT WHOLE")
        for one in run.checkpoints()
    ]


def time_line(run: Run) -> str:
    """Where the time went; "" where nothing tells."""
    spent = time_spent(run.rows)
    words = {"training": "training", "data": "waiting for data", "monitors": "monitors"}
    total = sum(spent[name] for name in words)
    if total <= 0:
        return ""
    parts = ", ".join(f"{words[name]} {spent[name] / total:.1%}" for name in words)
    inside = ", ".join(f"{name} {seconds / total:.1%}" for name, seconds in spent.items() if name not in words)
    said = f"{duration(total)}: {parts}" + (f" ({inside})" if inside else "")
    rate, mfu = run.last.get("clips_per_second"), run.last.get("mfu")
    said += f"; {rate:.1f} clips/s at the end" if is_number(rate) else ""
    return said + (f", MFU {mfu:.1%}" if is_number(mfu) else "")


def show_json(run: Run) -> dict[str, Any]:
    """Everything that `vfm runs show` tells, as values."""
    from recipes.runs.settings import differences_from_recipe

    found, unknown = differences_from_recipe(run)
    return {
        **row_of(run, str(run.path)),
        "data": data_line(run),
        "settings": {one.key: {"value": one.value, "default": one.default, "from": one.origin} for one in found},
        "settings_not_compared": unknown,
        "last": dict(run.last),
        "curves": series_of(run.rows),
        "alarms": run.alarms,
        "checkpoints": [
            {"name": one.name, "step": one.step, "bytes": one.bytes, "whole": one.whole, "marks": one.marks}
            for one in run.checkpoints()
        ],
        "seconds": time_spent(run.rows),
        "labels_looked_at": [{"task": task, "patients": people} for task, people in run.looked_at],
        "evaluations": [
            {"place": place, **outcome} for place, found in run.evaluations if (outcome := evaluation_of(found))
        ],
    }


def evaluation_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Headline figure of an evaluation: protocol, task, metric, value, low, high; empty for what is none."""
    try:
        row, metric = found["rows"][-1], found["headline"]
        figure = row["figures"][metric]
        return {
            "protocol": found["protocol"], "task": found["task"], "metric": metric, "unit": found.get("unit", ""),
            "value": figure["value"], "low": figure["low"], "high": figure["high"],
            "patients": found.get("patients"), "split": found.get("split", ""),
        }  # fmt: skip
    except (KeyError, IndexError, TypeError):
        return {}


def interval(one: Mapping[str, Any]) -> str:
    """A figure and its interval."""
    if not all(is_number(one[name]) for name in ("value", "low", "high")):
        return "-"
    return f"{number(one['value'])} [{number(one['low'])}, {number(one['high'])}] {one['unit']}".rstrip()


def ago(seconds: float) -> str:
    """An age in words: 40 s, 12 min, 5 h, 3 days."""
    for least, unit in ((172800, 86400), (5400, 3600), (90, 60)):
        if seconds >= least:
            return f"{seconds / unit:.0f} {({86400: 'days', 3600: 'h', 60: 'min'})[unit]}"
    return f"{seconds:.0f} s"


def bytes_in_words(count: float) -> str:
    """Bytes as 12 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def plural(count: int, noun: str) -> str:
    """1 recording, 2 recordings."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
