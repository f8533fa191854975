"""`vfm evaluate choice`: which of five clips a text is about, from other recordings and from the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from domains.errors import DataError
from domains.store.prepared import Prepared
from domains.store.texts import Asked
from recipes.evaluate.both_ways import BASELINES, UNALIGNED, check_rows, untrained
from recipes.evaluate.choice import CHOICES, METRICS, Kind, Questions, questions_of, scorer_of
from recipes.evaluate.features import ReadProgress
from recipes.evaluate.knn import unit
from recipes.evaluate.scored import Line, Scored, lines_of, write_scored
from recipes.evaluate.statistics import DRAWS, LEVEL
from recipes.evaluate.zero_shot import mean_of
from recipes.jobs.retrieval import Shown, embed_pairs
from recipes.jobs.seen import meetings, who

KINDS: dict[Kind, str] = {"inter": "of other recordings", "intra": "of the same recording"}


def choice(
    run: str | Path,
    data: Prepared | str | Path,
    *,
    texts: Sequence[str | Path] = (),
    levels: tuple[str, ...] = (),
    sources: tuple[str, ...] = (),
    baselines: tuple[str, ...] = BASELINES,
    split: str = "",
    clips: int = 1,
    seed: int = 0,
    draws: int = DRAWS,
    key: bytes | None = None,
    domain: str | None = None,
    out: Path | None = None,
    online: bool = False,
    progress: ReadProgress | None = None,
) -> Scored:
    """Accuracy of choosing among CHOICES clips; arguments as `recipes.jobs.retrieval.retrieval`. Raises ConfigError, DataError, ModelError."""
    check_rows(baselines)
    fresh = UNALIGNED if "unaligned" in baselines else 0
    found = embed_pairs(
        run, data, texts=texts, asked=Asked(levels=levels, sources=sources), fresh=fresh, split=split, clips=clips, key=key, domain=domain,
        online=online, progress=progress,
    )  # fmt: skip
    asked = {kind: one for kind in KINDS if len(one := questions_of(found.pairs, kind, seed))}
    if not asked:
        what = f"no text has {CHOICES - 1} other clips to choose from"
        raise DataError(what, where=found.prepared.place, do="Leave out --split, --level or --source")
    lines = [
        line for kind, questions in asked.items() for line in _lines(found, kind, questions, baselines, draws, seed)
    ]
    people, patients = who(found.prepared), found.patients
    counts = ", ".join(f"{len(questions)} among clips {KINDS[kind]}" for kind, questions in asked.items())
    scored = Scored(
        protocol="choice",
        task="texts",
        metrics=METRICS,
        lines=tuple(lines),
        asked=tuple(asked),
        how=(
            f"a text chooses among {CHOICES} clips: its own, and others of other words ({counts}); of the same recording those nearest in time",
            f"a clip is the mean of {clips} clip{'s' * (clips > 1)} of {found.clip.frames} frames spread evenly over its stretch",
            *((f"the test part of the official split '{split}' alone",) if split else ()),
        ),
        size=f"{counts}, {len(patients)} {people}, {LEVEL:.0%} intervals over {people}",
        settings={
            "choices": CHOICES, "questions": {kind: len(questions) for kind, questions in asked.items()}, "levels": list(levels),
            "sources": list(sources), "clips_per_stretch": clips, "split": split, "patients": len(patients), "seed": seed,
            "bootstrap": {"draws": draws, "over": "patients of the questions", "level": LEVEL},
        },
        predictions=_predictions(found, asked),
        excluded=found.failed,
        notes=meetings(run, found.prepared, patients),
    )  # fmt: skip
    if out is not None:
        write_scored(scored, out)
    return scored


def _lines(
    found: Shown, kind: Kind, questions: Questions, baselines: tuple[str, ...], draws: int, seed: int
) -> tuple[Line, ...]:
    """The rows of one kind of question."""
    title = f"{kind} ({KINDS[kind]})"
    scored = [_accuracy(found, questions, way) for way in range(found.shown.shape[1])]
    scorers = {}
    if scored[1:]:
        scorers[f"{kind}_unaligned"] = (
            f"{title}: {untrained('projections')}",
            mean_of([scorer_of(one) for one in scored[1:]]),
        )
    if "chance" in baselines:
        scorers[f"{kind}_chance"] = (f"{title}: chance", scorer_of(np.full(len(questions), 1 / CHOICES)))
    scorers[kind] = (f"{title}: aligned", scorer_of(scored[0]))
    patients = [found.prepared.patients[found.pairs.moments[moment][0]] for moment in questions.clips[:, 0]]
    return lines_of(scorers, METRICS, patients, next(iter(scorers)), draws=draws, seed=seed)


def _accuracy(found: Shown, questions: Questions, way: int) -> np.ndarray:
    return questions.accuracy(unit(found.shown[:, way]), unit(found.words[:, way]))


def _predictions(found: Shown, asked: dict[Kind, Questions]) -> tuple[list[str], list[list[str]]]:
    """A line a question, without a word."""
    lines = []
    for kind, questions in asked.items():
        for text, clips, right in zip(questions.texts, questions.clips, _accuracy(found, questions, 0), strict=True):
            row, start, end = found.pairs.moments[clips[0]]
            when = ["", ""] if np.isinf(end) else [f"{start:g}", f"{end:g}"]
            lines.append([kind, found.prepared.video_id(row), *when, str(int(text)), f"{right:g}"])
    return ["question", "video_id", "start", "end", "text", "right"], lines
