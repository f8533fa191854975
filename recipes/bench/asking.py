"""Every row asked every question: probes fitted several at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from domains.errors import TrainingError, VfmError
from domains.prepare.pool import Beat, run
from recipes.bench.parallel import PATIENCE
from recipes.evaluate.metrics import Array
from recipes.training.reporter import Reporter

if TYPE_CHECKING:
    from recipes.bench.outcome import Subject

EVERY = 15.0  # seconds from one line about how far it is to the next


@dataclass(frozen=True)
class Ask:
    """What is asked of features (n, D); see `recipes.bench.outcome.Subject.predict`."""

    subject: Subject
    protocol: str
    features: Array
    fraction: float
    seed: int


def predictions(asks: Sequence[Ask], workers: int, reporter: Reporter) -> list[Array]:
    """What is predicted of each, in their order, `workers` at a time. Raises what one of them raised."""
    found: list[Array | None] = [None] * len(asks)
    began = told = time.monotonic()
    for done, (number, said) in enumerate(_predicted(asks, workers), start=1):
        if isinstance(said, VfmError):
            raise said
        if isinstance(said, str):
            do = "The same command goes on; fewer --workers need less memory"
            raise TrainingError(f"the process of a probe ({asks[number].protocol}) {said}", do=do)
        found[number], now = said, time.monotonic()
        if now - told > EVERY:
            told, left = now, (now - began) / done * (len(asks) - done)
            reporter.note(f"{done} of {len(asks)} answers are there, about {left:.0f} s left")
    return [one for one in found if one is not None]


def _predicted(asks: Sequence[Ask], workers: int) -> Iterator[tuple[int, Array | VfmError | str]]:
    if workers > 1:
        yield from run(_said, asks, workers, PATIENCE)
        return
    for number, ask in enumerate(asks):
        yield number, _said(ask, lambda: None)


def _said(ask: Ask, beat: Beat) -> Array | VfmError:
    try:
        return ask.subject.predict(ask.protocol, ask.features, fraction=ask.fraction, seed=ask.seed)
    except VfmError as error:
        return error
