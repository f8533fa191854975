"""`vfm evaluate retrieval`: clips among texts and texts among clips, next to chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domains.base import ClipSettings
from domains.errors import ConfigError, DataError, MediaError
from domains.store.actions import Actions
from domains.store.annotated import read_split
from domains.store.clips import starts_within
from domains.store.prepared import Prepared
from domains.store.studies import rows_by_study
from domains.store.text_tables import read_texts
from domains.store.texts import Asked, Texts
from recipes.encoders.aligned import open_aligned
from recipes.evaluate.both_ways import BASELINES, UNALIGNED, Way, both_ways, check_rows
from recipes.evaluate.features import Failure, ReadProgress
from recipes.evaluate.metrics import Array
from recipes.evaluate.relevance import GRADED, relevance
from recipes.evaluate.retrieval import METRICS, OVERLAP, Moment, Pairs, pairs_of
from recipes.evaluate.scored import Scored, write_scored
from recipes.evaluate.statistics import DRAWS, LEVEL
from recipes.evaluate.towers import comparing, vectors_at
from recipes.jobs.evaluate import clip_seen
from recipes.jobs.seen import meetings, who
from recipes.jobs.signals import signal_retrieval
from recipes.parts.sensed import is_sensed

CLIPS = 3  # of each stretch
WAYS = {"clip_to_text": "clip to text", "text_to_clip": "text to clip"}
WAYS_OF_STUDIES = {"study_to_text": "study to text", "text_to_study": "text to study"}


@dataclass(frozen=True)
class Shown:
    """Clips and texts of the recordings that are asked, embedded by the model and by projections that were never trained.

    said: all texts; pairs: what is asked; shown (M, F, D) of its moments; words (K, F, D) of its texts, the model's own first. failed: recordings
    that could not be read. studies: a moment is a whole study, named by its first recording.
    """

    prepared: Prepared
    said: Texts
    pairs: Pairs
    shown: Array
    words: Array
    clip: ClipSettings
    failed: tuple[Failure, ...]
    studies: bool = False

    @property
    def ways(self) -> dict[str, str]:
        """Names and titles of both directions."""
        return WAYS_OF_STUDIES if self.studies else WAYS

    @property
    def patients(self) -> set[str]:
        """Of whom the moments are."""
        return {self.prepared.patients[row] for row, _, _ in self.pairs.moments}


def embed_pairs(
    run: str | Path,
    data: Prepared | str | Path,
    *,
    texts: Sequence[str | Path],
    asked: Asked,
    fresh: int,
    split: str,
    clips: int,
    key: bytes | None,
    domain: str | None,
    online: bool,
    progress: ReadProgress | None,
    studies: bool = False,
) -> Shown:
    """Both sides of what is asked, `fresh` untrained projections beside the model's. See `retrieval`, also for what it raises."""
    prepared = data if isinstance(data, Prepared) else Prepared.open(data)
    parts = read_split(prepared, split) if split else ["test"] * len(prepared)
    said = read_texts(list(texts), prepared, key)
    members = rows_by_study(prepared).values() if studies else [(row,) for row in range(len(prepared))]
    rows_of = {rows[0]: rows for rows in members}
    first = {row: rows[0] for rows in members for row in rows}
    allowed = [part == "test" for part in parts]
    pairs = _pairs(said, asked, allowed, first, studies)
    if not len(pairs.said):
        what = "no text is of the recordings, levels and sources that are asked"
        what += " and about a whole study" if studies else ""
        raise DataError(what, where=prepared.place, do="Leave out --split, --level, --source or --studies")
    aligned = open_aligned(run, online=online)
    clip = clip_seen(aligned.encoder, prepared, domain)
    each = [(moment, row) for moment in pairs.moments for row in rows_of[moment[0]] if allowed[row]]
    places = [(row, starts_within(prepared, row, clip, clips, moment[1:])) for moment, row in each]
    seen: dict[Moment, list[Array]] = {}
    failed: dict[str, Failure] = {}
    with comparing(aligned, fresh) as towers:
        answers = vectors_at(towers.clips, prepared, places, clip, progress)
        for (moment, row), vectors in zip(each, answers, strict=True):
            if isinstance(vectors, MediaError):
                failed[prepared.video_id(row)] = Failure(prepared.video_id(row), vectors.reason)
            else:
                seen.setdefault(moment, []).append(vectors.mean(axis=0))  # (F, D)
        if not seen:
            raise DataError(f"none of {len(failed)} recordings could be read", where=prepared.place)
        if failed:
            readable = [good and prepared.video_id(row) not in failed for row, good in enumerate(allowed)]
            pairs = _pairs(said, asked, readable, first, studies)
        words = towers.texts([said.words(int(place)) for place in pairs.texts])  # (K, F, D)
    shown = np.stack([np.mean(seen[moment], axis=0) for moment in pairs.moments])  # (M, F, D)
    return Shown(prepared, said, pairs, shown, words, clip, tuple(failed.values()), studies)


def retrieval(
    run: str | Path,
    data: Prepared | str | Path,
    *,
    texts: Sequence[str | Path] = (),
    levels: tuple[str, ...] = (),
    sources: tuple[str, ...] = (),
    acts: bool = False,
    studies: bool = False,
    baselines: tuple[str, ...] = BASELINES,
    split: str = "",
    clips: int | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    key: bytes | None = None,
    domain: str | None = None,
    out: Path | None = None,
    online: bool = False,
    progress: ReadProgress | None = None,
) -> Scored:
    """R@1, R@5, R@10 and the median rank, both ways, over all clips and texts that are asked.

    run: one that aligned clips and texts; of one that brought clips and signals together see `recipes.jobs.signals.signal_retrieval`. texts: tables;
    none: those that came with the recordings. levels, sources: of texts, () for all. acts: also mAP and nDCG, where a text is as right as its verbs
    and nouns are (EPIC-KITCHENS' multi-instance retrieval). studies: whole studies are asked, each the mean of its recordings, among the texts that
    are not about a stretch. split: its test part alone is asked. clips: embedded of each stretch, whose vectors are averaged; None: CLIPS. key:
    needed where a table names original identifiers. out: predictions.csv (a rank for each question) and evaluation.json are written there.

    Raises ConfigError, DataError (no texts, nothing that can be read), ModelError.
    """
    check_rows(baselines)
    if is_sensed(run):
        if texts or levels or sources or acts or studies:
            what = "the run brought clips and signals together, and knows no texts"
            raise ConfigError(what, where=run, do="Leave out --text, --level, --source, --acts and --studies")
        return signal_retrieval(
            run, data, baselines=baselines, split=split, clips=clips, seed=seed, draws=draws, domain=domain, out=out, online=online,
            progress=progress,
        )  # fmt: skip
    clips = clips or CLIPS
    fresh = UNALIGNED if "unaligned" in baselines else 0
    found = embed_pairs(
        run, data, texts=texts, asked=Asked(levels=levels, sources=sources), fresh=fresh, split=split, clips=clips, key=key, domain=domain,
        online=online, progress=progress, studies=studies,
    )  # fmt: skip
    prepared, pairs, clip, patients = found.prepared, found.pairs, found.clip, found.patients
    alike = relevance_of(found) if acts else None
    lines, ranked = both_ways(_ways(found, alike), "projections", baselines, draws=draws, seed=seed)
    people, what = who(prepared), "studies" if studies else "clips"
    scored = Scored(
        protocol="retrieval",
        task="texts",
        metrics=METRICS if alike is None else (*GRADED, *METRICS),
        lines=lines,
        asked=tuple(found.ways),
        how=(
            f"{len(pairs.moments)} {what} and {len(pairs.texts)} distinct texts, each among all of the other kind; ties averaged",
            *_shown(clips, clip, studies),
            *(("mAP, nDCG: relevance is the mean share of verbs and of nouns that both have in common; right for mAP: all of them",) if acts else ()),
            *((f"the test part of the official split '{split}' alone",) if split else ()),
        ),
        size=f"{len(pairs.moments)} {what}, {len(pairs.texts)} texts, {len(patients)} {people}, {LEVEL:.0%} intervals over {people}",
        settings={
            what: len(pairs.moments), "texts": len(pairs.texts), "pairs": len(pairs.said), "levels": list(levels), "sources": list(sources),
            "clips_per_stretch": clips, "split": split, "patients": len(patients), "seed": seed, "acts": acts,
            "bootstrap": {"draws": draws, "over": "patients of the questions", "level": LEVEL},
        },
        predictions=_predictions(found, ranked),
        excluded=found.failed,
        notes=(*_passed(found.said), *meetings(run, prepared, patients)),
    )  # fmt: skip
    if out is not None:
        write_scored(scored, out)
    return scored


def relevance_of(found: Shown) -> Array:
    """(M, K): how relevant each text is for each clip, by what is done in both."""
    actions = Actions.of(found.prepared, found.said)
    of_text = [actions[int(place)] for place in found.pairs.texts]
    own = dict(reversed(found.pairs.said.tolist()))  # of each moment, the text that was given first
    return relevance([of_text[own[moment]] for moment in range(len(found.pairs.moments))], of_text)


def _shown(clips: int, clip: ClipSettings, studies: bool) -> tuple[str, ...]:
    each = f"the mean of {clips} clips of {clip.frames} frames spread evenly over"
    if studies:
        return (f"a study is the mean of its recordings, each {each} it",)
    return (
        f"a clip is {each} its stretch",
        f"a text is right for every stretch of its recording that shares {OVERLAP:.0%} of their common time with one of which it was said",
    )


def _passed(said: Texts) -> Iterator[str]:
    for why, count in sorted(said.passed.items()):
        yield f"{count} line{'s' * (count > 1)} of the texts {'were' if count > 1 else 'was'} passed over: {why}"


def _pairs(said: Texts, asked: Asked, allowed: Sequence[bool], first: Mapping[int, int], whole: bool = False) -> Pairs:
    """What was said of the recordings that are allowed. A text about several (a study's report) is one of each that `first` leads to: of itself, or
    of the one that stands for its study. whole: texts about whole recordings alone."""
    moments: list[Moment] = []
    numbers: list[int] = []
    places: list[int] = []
    for place in np.flatnonzero(asked.allowed(said)).tolist():
        if whole and said.span(place) is not None:
            continue
        for row in dict.fromkeys(first[row] for row in said.rows(place) if allowed[row]):
            moments.append((row, float(said.starts[place]), float(said.ends[place])))
            numbers.append(int(said.numbers[place]))
            places.append(place)
    pairs = pairs_of(moments, numbers)
    return Pairs(pairs.moments, np.array(places, np.int64)[pairs.texts], pairs.said, pairs.texts_of, pairs.moments_of)


def _ways(found: Shown, alike: Array | None) -> tuple[Way, Way]:
    """Every clip asks once; a text asks as often as it was said."""
    shown, words, pairs = found.shown, found.words, found.pairs
    asking = pairs.said[:, 1]
    of_moment = [found.prepared.patients[row] for row, _, _ in pairs.moments]
    there, back = found.ways.items()
    return (
        Way(*there, shown, words, pairs.texts_of, of_moment, alike),
        Way(
            *back, words[asking], shown, [pairs.moments_of[text] for text in asking], [of_moment[moment] for moment in pairs.said[:, 0]],
            None if alike is None else alike.T[asking],
        ),
    )  # fmt: skip


def _predictions(found: Shown, ranked: dict[str, Array]) -> tuple[list[str], list[list[str]]]:
    """A line for every question, without a word: texts may name people. text: the number of a distinct text."""
    prepared, pairs = found.prepared, found.pairs
    studies = prepared.column("study")

    def line(way: str, moment: Moment, text: str, rank: float) -> list[str]:
        row, start, end = moment
        when = [] if found.studies else ["", ""] if np.isinf(end) else [f"{start:g}", f"{end:g}"]
        return [found.ways[way], studies[row] if found.studies else prepared.video_id(row), *when, text, f"{rank:g}"]

    there, back = found.ways
    asking = [line(there, *one) for one in zip(pairs.moments, [""] * len(pairs.moments), ranked[there], strict=True)]
    asked = [
        line(back, pairs.moments[moment], str(text), rank)
        for (moment, text), rank in zip(pairs.said.tolist(), ranked[back], strict=True)
    ]
    own = ["study"] if found.studies else ["video_id", "start", "end"]
    return ["question", *own, "text", "rank"], [*asking, *asked]
