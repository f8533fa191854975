"""Which checkpoints stay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from recipes.config import TrainSettings


@dataclass(frozen=True)
class Retention:
    """The newest `last`, every one at a multiple of `every` steps, and the `best` with the least (`largest`: largest) `figure`."""

    last: int = 2
    every: int | None = None
    best: int = 0
    figure: str = "loss"
    largest: bool = False

    @classmethod
    def of(cls, settings: TrainSettings) -> Retention:
        """As a run's settings say."""
        figure = settings.best_by.removeprefix("+")
        return cls(settings.keep, settings.keep_every, settings.keep_best, figure, settings.best_by.startswith("+"))

    def kept(self, found: Mapping[int, Mapping[str, float]], newest: int) -> set[int]:
        """Steps that stay, of checkpoints step -> logged figures. `newest` always does.

        Later ones are of steps that are being run again, from before a fall back: they go.
        """
        steps = sorted(step for step in found if step <= newest)
        stay = {newest, *steps[-self.last :]}
        if self.every is not None:
            stay |= {step for step in steps if step % self.every == 0}
        return stay | set(self.ranking({step: found[step] for step in steps})[: self.best])

    def ranking(self, found: Mapping[int, Mapping[str, float]]) -> list[int]:
        """Steps whose figure is known and finite, from the best; of equal ones the later is better."""
        scores = {step: figures[self.figure] for step, figures in found.items() if self.figure in figures}
        sign = -1 if self.largest else 1
        return sorted((step for step in scores if math.isfinite(scores[step])), key=lambda s: (sign * scores[s], -s))
