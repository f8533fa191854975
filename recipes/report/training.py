"""How training went, and what it was made with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import yaml

from recipes.config import flatten
from recipes.report.charts import curve
from recipes.report.contents import Contents
from recipes.report.html import card, count, section, table
from recipes.report.scale import number
from recipes.runs.metrics import leading, ordered, read_json, read_metrics, series_of
from recipes.runs.run import ENVIRONMENT, Run

CURVES = 15
NAMES = {
    "rankme": "RankMe (effective rank)",
    "rankme_centred": "RankMe, centred",
    "deviation": "feature deviation",
    "grad_norm": "gradient norm",
    "grad_norm_max": "largest gradient norm",
}


def training(contents: Contents) -> str:
    """Every logged figure as a curve, losses first."""
    series = series_of(read_metrics(contents.run), least=2) if contents.run else {}
    names = ordered(list(series))
    drawn = []
    for name in leading(names, CURVES):
        steps, values = zip(*series[name], strict=True)
        drawn.append(curve(NAMES.get(name, name.replace("val_", "validation ").replace("_", " ")), steps, values))
    raised = alarms(contents)
    if not drawn and not raised:
        return ""
    lead = "Logged figures against optimiser steps; the faint line is as logged, the strong one its running mean."
    if "rankme" in names:
        lead += " A rank or deviation of the features that falls far is a collapse, which a loss can hide."
    charts = f'<div class="curves">{"".join(card(chart) for chart in drawn if chart)}</div>'
    return section("training", "Training", lead, raised, charts)


def alarms(contents: Contents) -> str:
    """What monitors raised while it trained, and whose labels it looked at; nothing where there is nothing to say."""
    if contents.run is None:
        return ""
    run = Run(contents.run)
    said = [
        f"Alarm at step {one.get('step', '?')}: {one.get('text') or one.get('monitor', '?')}." for one in run.alarms
    ]
    said += [
        f"Labels of {task} of {count(people, 'patient')} were looked at while it trained."
        for task, people in run.looked_at
    ]
    return card(f'<ul class="plain">{"".join(f"<li>{escape(line)}</li>" for line in said)}</ul>') if said else ""


def provenance(contents: Contents) -> str:
    """Settings and environment, folded away."""
    parts = []
    if contents.run is not None:
        if settings := _settings(contents.run / "config.resolved.yaml"):
            parts.append(_folded("Settings of the run", settings))
        found = flatten(read_json(contents.run / ENVIRONMENT))
        if found:
            words = [(key, number(value) if isinstance(value, float) else str(value)) for key, value in found]
            parts.append(_folded("Environment", words))
    info = contents.prepared.info
    kept = {str(key): info[key] for key in ("vfm", "format", "domain", "store", "counts") if key in info}
    parts.append(_folded("Prepared data", [(key, str(value)) for key, value in flatten(kept)]))
    return section("settings", "Settings and provenance", "Enough to do it again.", *parts)


def _settings(path: Path) -> list[tuple[str, str]]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return []
    return [(key, str(value)) for key, value in flatten(values)] if isinstance(values, dict) else []


def _folded(heading: str, rows: Sequence[tuple[str, str]]) -> str:
    lines = [[f"<code>{escape(key)}</code>", f"<code>{escape(place_free(value))}</code>"] for key, value in rows]
    shown = table(["key", "value"], lines)
    return f'<details class="card"><summary>{escape(heading)}</summary>{shown}</details>'


def place_free(value: str) -> str:
    """A path shortened to its last part: folders named after people stay off a page that is passed on."""
    return re.sub(r"(?:~|\.{1,2}|[A-Za-z]:)?(?:[/\\][^/\\\s,;:'\"]+)+[/\\]([^/\\\s,;:'\"]+)", r"…/\1", value)
