"""Figures beyond their limits: said, kept in alarms.jsonl, and on request the end of the run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domains.errors import AlarmError
from recipes.monitor import AlarmSettings, Falling, Least, MonitorSettings, Most
from recipes.runs.metrics import read_lines
from recipes.runs.run import ALARMS
from recipes.training.run import full, replace

COLLAPSE = "Features are collapsing: lower optim.lr, or raise the teacher's momentum"
ADVICE = {
    "rankme": COLLAPSE,
    "deviation": COLLAPSE,
    "feature_entropy": COLLAPSE,
    "prototype_entropy": "Few clusters are used: fewer of them (objective.prototypes), or a larger sinkhorn_epsilon",
    "output_entropy": "The teacher says the same of most clips: a lower optim.lr, fewer outputs, or a slower centre",
    "agreement": "Student and teacher drift apart: a lower optim.lr or teacher momentum",
    "grad_norm": "Lower optim.lr, or clip (optim.clip_norm)",
}


@dataclass(frozen=True)
class Raised:
    """An alarm: at which step, of which figure, with which value, beyond which limit; what is said of it."""

    step: int
    monitor: str
    value: float
    limit: float
    action: str
    text: str


class Alarms:
    """Holds figures against their limits.

    An alarm is raised once, when its figure has been beyond the limit for `patience` looks in a row, and again only after it has been back. `state`
    goes into checkpoints: a run that goes on after an alarm is not stopped by the same one before it is cured.
    """

    def __init__(
        self, settings: MonitorSettings, run: Path, warn: Callable[[str], None], state: dict[str, Any]
    ) -> None:
        self.settings, self.run, self.warn = settings, run, warn
        self.start: dict[str, float] = state.setdefault("monitor_start", {})
        self.beyond: dict[str, int] = state.setdefault("alarms", {})

    def check(self, step: int, figures: Mapping[str, float]) -> Raised | None:
        """Hold newly measured figures against their limits; the first alarm that stops the run, None where none does. Raises StorageError."""
        raised = [one for name, value in figures.items() if (one := self._hold(step, name, value)) is not None]
        for one in raised:
            self.warn(one.text)
            self._keep(one)
        return next((one for one in raised if one.action == "stop"), None)

    def _hold(self, step: int, name: str, value: float) -> Raised | None:
        kind = next((kind for kind in ADVICE if is_of(name, kind)), None)
        if kind is None:
            return None
        alarm: AlarmSettings = getattr(self.settings, kind)
        first = self.start.setdefault(name, value) if math.isfinite(value) else self.start.get(name, math.nan)
        broken = next(((limit, words) for limit, words, wrong in limits(alarm, value, first) if wrong), None)
        if broken is None:
            self.beyond.pop(name, None)
            return None
        self.beyond[name] = self.beyond.get(name, 0) + 1
        if self.beyond[name] != alarm.patience:
            return None
        text = f"{name} is {value:.3g}, {broken[1]}. {ADVICE[kind]}"
        return Raised(step, name, value, broken[0], alarm.action, text)

    def _keep(self, one: Raised) -> None:
        try:
            with (self.run / ALARMS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(vars(one)) + "\n")
        except OSError as error:
            raise full(error, self.run) from None

    def rewind(self, step: int) -> None:
        """Drop those of steps that are run again. Raises StorageError."""
        if (self.run / ALARMS).is_file():
            kept = [one for one in read_lines(self.run / ALARMS) if one.get("step", 0) <= step]
            try:
                replace(self.run / ALARMS, "".join(json.dumps(one) + "\n" for one in kept))
            except OSError as error:
                raise full(error, self.run) from None


def is_of(name: str, kind: str) -> bool:
    """Whether a figure is watched by the alarm `kind`: agreement_video by agreement; the mean gradient norm by none, its largest is."""
    if kind == "grad_norm":
        return name == "grad_norm_max"
    return name == kind or (name.startswith(f"{kind}_") and name != "rankme_centred")


def limits(alarm: AlarmSettings, value: float, first: float) -> Iterator[tuple[float, str, bool]]:
    """(limit, how a value beyond it is said, whether this one is). A value that is not finite is beyond every limit."""
    wrong = not math.isfinite(value)
    if isinstance(alarm, Falling) and alarm.drop is not None:
        yield (
            alarm.drop * first,
            f"below {alarm.drop:g} of its first value {first:.3g}",
            wrong or value < alarm.drop * first,
        )
    if isinstance(alarm, Falling | Least) and alarm.minimum is not None:
        yield alarm.minimum, f"below {alarm.minimum:g}", wrong or value < alarm.minimum
    if isinstance(alarm, Most) and alarm.maximum is not None:
        yield alarm.maximum, f"above {alarm.maximum:g}", wrong or value > alarm.maximum


def stopped(one: Raised | None, step: int, run: Path) -> AlarmError:
    """The end of a run by an alarm; None: it was raised on another rank."""
    what = f"stopped at step {step} by an alarm; everything up to it is saved"
    said = f" ({one.text})" if one is not None else ""
    return AlarmError(
        what + said, where=run, do="See 'vfm runs show'; --resume goes on, also with other monitor.* settings"
    )
