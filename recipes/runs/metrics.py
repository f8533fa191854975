"""The lines of a run's metrics.jsonl, as they are read while somebody else writes them."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any, TypeGuard

METRICS = "metrics.jsonl"
# Shares of the time between two lines.
SHARES = {f"share_{phase}": phase for phase in ("transfer", "forward", "backward", "optimiser")}
# Clocks and counters say nothing as a curve.
NOT_CURVES = {
    "step", "epoch", "seconds", "lr", "clips_per_second", "data_wait", "device_seconds", "monitor_seconds", "tflops", "mfu", *SHARES,
}  # fmt: skip
CLOCKS = {
    "step",
    "epoch",
    "seconds",
    "device_seconds",
    "monitor_seconds",
}  # of which a picture of everything says nothing either
ORDER = (
    "loss",
    "val_",
    "knn_",
    "rankme",
    "deviation",
    "agreement",
    "prototype_entropy",
    "grad_norm",
    "feature_entropy",
    "output_entropy",
)
# Measured now and then; earlier versions logged them on every line until they were measured again.
HELD = ("val_", "rankme", "deviation", "feature_entropy", "prototype_entropy", "output_entropy", "knn_")
TAIL = 1 << 16  # bytes from the end that surely hold a whole line

Row = dict[str, Any]
Points = list[tuple[float, float]]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none to read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def read_lines(path: Path) -> list[Row]:
    """The JSON objects of a file of lines; one that is half written is passed over, and so is a file that is not there."""
    try:
        return list(parsed(path.read_bytes()))
    except OSError:
        return []


def parsed(data: bytes) -> Iterator[Row]:
    """JSON objects, one a line; what is no object is passed over."""
    for line in data.split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:  # of bytes that are no UTF-8 as well
            continue
        if isinstance(row, dict):
            yield row


def read_metrics(run: Path) -> list[Row]:
    """Every line that was logged."""
    return read_lines(run / METRICS)


def last_row(run: Path) -> Row:
    """The last whole line, without reading the rest; empty where there is none."""
    try:
        with (run / METRICS).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            rows = [row for row in parsed(file.read()) if is_number(row.get("step"))]
    except OSError:
        return {}
    return rows[-1] if rows else {}


class Follower:
    """New whole lines of metrics.jsonl since the last call. A log that became shorter, as a resumed run leaves it, is read from its start."""

    def __init__(self, run: Path) -> None:
        self.path, self.place = run / METRICS, 0
        self.rows: list[Row] = []

    def new(self) -> list[Row]:
        """Rows that came since; `rows` holds all."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self.place:
                    self.place, self.rows = 0, []
                file.seek(self.place)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self.place += len(whole)
        found = [row for row in parsed(whole) if is_number(row.get("step"))]
        self.rows += found
        return found


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a logged value is one (a bool is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def series_of(rows: list[Row], *, least: int = 1, skip: Set[str] = NOT_CURVES) -> dict[str, Points]:
    """Figure -> (step, value) points, for figures with `least` or more that are not in `skip`; of held figures only where they change."""
    series: dict[str, Points] = defaultdict(list)
    for row in rows:
        if not is_number(row.get("step")):
            continue
        for name, value in row.items():
            if name in skip or not is_number(value):
                continue
            if name.startswith(HELD) and series[name] and series[name][-1][1] == value:
                continue
            series[name].append((float(row["step"]), float(value)))
    return {name: points for name, points in series.items() if len(points) >= max(1, least)}


def kind_of(name: str) -> int:
    """Place of a figure among those that people look at first."""
    return next((place for place, start in enumerate(ORDER) if name.startswith(start)), len(ORDER))


def ordered(names: list[str]) -> list[str]:
    """The loss, its parts, the validation, what watches for collapse, the rest."""
    return sorted(names, key=lambda name: -1 if name == "loss" else kind_of(name))


def leading(names: list[str], count: int) -> list[str]:
    """`count` of the figures: one of each kind before the second of any, in order."""
    first: dict[int, str] = {}
    for name in ordered(names):
        first.setdefault(kind_of(name), name)
    others = [name for name in ordered(names) if name not in first.values()]
    return ordered([*first.values(), *others][:count])


def time_spent(rows: list[Row]) -> dict[str, float]:
    """Seconds by what they went to: "training", "data" (waiting for the loader), "monitors"; and of the training, as far as the run has taken it
    apart, "transfer", "forward", "backward", "optimiser".
    """
    spent = {"training": 0.0, "data": 0.0, "monitors": 0.0}
    before = looking = 0.0
    for row in rows:
        if not is_number(row.get("seconds")):
            continue
        passed = max(0.0, row["seconds"] - before)
        before = row["seconds"]
        so_far = row["monitor_seconds"] if is_number(row.get("monitor_seconds")) else looking
        watched, looking = min(passed, max(0.0, so_far - looking)), so_far
        waited = (passed - watched) * share_of(row, "data_wait")
        spent["monitors"] += watched
        spent["data"] += waited
        spent["training"] += passed - watched - waited
        for name, phase in SHARES.items():
            if name in row:
                spent[phase] = spent.get(phase, 0.0) + (passed - watched) * share_of(row, name)
    return spent


def share_of(row: Row, name: str) -> float:
    """A share of the time, 0 where the line has none."""
    value = row.get(name)
    return min(1.0, max(0.0, float(value))) if is_number(value) and math.isfinite(value) else 0.0
