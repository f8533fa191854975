"""Retrieval in both directions: a line of figures for each, next to projections that were never trained and to chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domains.errors import ConfigError
from domains.schema import nearest
from recipes.evaluate.knn import unit
from recipes.evaluate.metrics import Array
from recipes.evaluate.relevance import GRADED, graded_by_chance, graded_figures
from recipes.evaluate.retrieval import METRICS, Ranked, Right, ranks
from recipes.evaluate.scored import Line, lines_of
from recipes.evaluate.zero_shot import mean_of

BASELINES = ("unaligned", "chance")
UNALIGNED = 5  # of what was never trained


def untrained(what: str) -> str:
    """What the row is called."""
    return f"unaligned (mean of {UNALIGNED} untrained {what})"


def check_rows(baselines: tuple[str, ...]) -> None:
    """Raises ConfigError for a name that is no baseline."""
    if odd := [name for name in baselines if name not in BASELINES]:
        raise ConfigError(f"no baseline '{odd[0]}'", do=nearest(odd[0], list(BASELINES)))


@dataclass(frozen=True)
class Way:
    """One direction: each query asks for its like among a gallery.

    name, title: for a program, and for people. queries (Q, F, D), gallery (G, F, D): the model's own vectors first, then those of what was never
    trained. right: of each query, which of the gallery are; patients: and whose it is. relevant (Q, G): how right each is, None: not asked.
    """

    name: str
    title: str
    queries: Array
    gallery: Array
    right: Sequence[Right]
    patients: Sequence[str]
    relevant: Array | None = None


def both_ways(
    ways: Sequence[Way], fresh: str, baselines: tuple[str, ...], *, draws: int, seed: int
) -> tuple[tuple[Line, ...], dict[str, Array]]:
    """The rows of the table, and the ranks (Q,) of the model's own vectors by name of the way. fresh: what was never trained, in words."""
    lines: list[Line] = []
    ranked: dict[str, Array] = {}
    for way in ways:
        sides = [(unit(way.queries[:, one]), unit(way.gallery[:, one])) for one in range(way.queries.shape[1])]
        places = [ranks(*side, way.right) for side in sides]
        ranked[way.name] = places[0]
        graded = [None if way.relevant is None else graded_figures(*side, way.relevant) for side in sides]
        made = [Ranked.of(one, figures).scorer() for one, figures in zip(places, graded, strict=True)]
        scorers = {}
        if made[1:]:
            scorers[f"{way.name}_unaligned"] = (f"{way.title}: {untrained(fresh)}", mean_of(made[1:]))
        if "chance" in baselines:
            by_chance = None if way.relevant is None else graded_by_chance(way.relevant, seed)
            chance = Ranked.chance(len(way.gallery), way.right, by_chance).scorer()
            scorers[f"{way.name}_chance"] = (f"{way.title}: chance (any order as likely)", chance)
        scorers[way.name] = (f"{way.title}: aligned", made[0])
        metrics = METRICS if way.relevant is None else (*GRADED, *METRICS)
        lines += lines_of(scorers, metrics, way.patients, next(iter(scorers)), draws=draws, seed=seed)
    return tuple(lines), ranked
