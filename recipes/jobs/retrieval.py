"""`vfm evaluate retrieval`: clips among texts and texts among clips, next to chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domains.base import ClipSettings
from domains.errors import ConfigError, DataError, MediaError
from domains.store.actions import Actions
from domains.store.annotated import read_split
from domains.store.clips import starts_within
from domains.store.prepared import Prepared
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


@dataclass(frozen=True)
class Shown:
    """Clips and texts of the recordings that are asked, embedded by the model and by projections that were never trained.

    said: all texts; pairs: what is asked; shown (M, F, D) of its moments; words (K, F, D) of its texts, the model's own first. failed: recordings
    that could not be read.
    """

    prepared: Prepared
    said: Texts
    pairs: Pairs
    shown: Array
    words: Array
    clip: ClipSettings
    failed: tuple[Failure, ...]

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
) -> Shown:
    """Both sides of what is asked, `fresh` untrained projections beside the model's. See `retrieval`, also for what it raises."""
    prepared = data if isinstance(data, Prepared) else Prepared.open(data)
    parts = read_split(prepared, split) if split else ["test"] * len(prepared)
    said = read_texts(list(texts), prepared, key)
    pairs = _pairs(said, asked, [part == "test" for part in parts])
    if not len(pairs.said):
        what = "no text is of the recordings, levels and sources that are asked"
        raise DataError(what, where=prepared.place, do="Leave out --split, --level or --source")
    aligned = open_aligned(run, online=online)
    clip = clip_seen(aligned.encoder, prepared, domain)
    places = [(row, starts_within(prepared, row, clip, clips, (start, end))) for row, start, end in pairs.moments]
    seen: dict[Moment, Array] = {}
    failed: dict[str, Failure] = {}
    with comparing(aligned, fresh) as towers:
        for moment, vectors in zip(
            pairs.moments, vectors_at(towers.clips, prepared, places, clip, progress), strict=True
        ):
            if isinstance(vectors, MediaError):
                video_id = prepared.video_id(moment[0])
                failed[video_id] = Failure(video_id, vectors.reason)
            else:
                seen[moment] = vectors.mean(axis=0)  # (F, D)
        if not seen:
            raise DataError(f"none of {len(failed)} recordings could be read", where=prepared.place)
        if failed:
            readable = [part == "test" and prepared.video_id(row) not in failed for row, part in enumerate(parts)]
            pairs = _pairs(said, asked, readable)
        words = towers.texts([said.words(int(place)) for place in pairs.texts])  # (K, F, D)
    shown = np.stack([seen[moment] for moment in pairs.moments])  # (M, F, D)
    return Shown(prepared, said, pairs, shown, words, clip, tuple(failed.values()))


def retrieval(
    run: str | Path,
    data: Prepared | str | Path,
    *,
    texts: Sequence[str | Path] = (),
    levels: tuple[str, ...] = (),
    sources: tuple[str, ...] = (),
    acts: bool = False,
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
    and nouns are (EPIC-KITCHENS' multi-instance retrieval). split: its test part alone is asked. clips: embedded of each stretch, whose vectors are
    averaged; None: CLIPS. key: needed where a table names original identifiers. out: predictions.csv (a rank for each question) and evaluation.json
    are written there.

    Raises ConfigError, DataError (no texts, nothing that can be read), ModelError.
    """
    check_rows(baselines)
    if is_sensed(run):
        if texts or levels or sources or acts:
            what = "the run brought clips and signals together, and knows no texts"
            raise ConfigError(what, where=run, do="Leave out --text, --level, --source and --acts")
        return signal_retrieval(
            run, data, baselines=baselines, split=split, clips=clips, seed=seed, draws=draws, domain=domain, out=out, online=online,
            progress=progress,
        )  # fmt: skip
    clips = clips or CLIPS
    fresh = UNALIGNED if "unaligned" in baselines else 0
    found = embed_pairs(
        run, data, texts=texts, asked=Asked(levels=levels, sources=sources), fresh=fresh, split=split, clips=clips, key=key, domain=domain,
        online=online, progress=progress,
    )  # fmt: skip
    prepared, pairs, clip, patients = found.prepared, found.pairs, found.clip, found.patients
    alike = relevance_of(found) if acts else None
    lines, ranked = both_ways(_ways(found, alike), "projections", baselines, draws=draws, seed=seed)
    people = who(prepared)
    scored = Scored(
        protocol="retrieval",
        task="texts",
        metrics=METRICS if alike is None else (*GRADED, *METRICS),
        lines=lines,
        asked=tuple(WAYS),
        how=(
            f"{len(pairs.moments)} clips and {len(pairs.texts)} distinct texts, each among all of the other kind; ties averaged",
            f"a clip is the mean of {clips} clips of {clip.frames} frames spread evenly over its stretch",
            f"a text is right for every stretch of its recording that shares {OVERLAP:.0%} of their common time with one of which it was said",
            *(("mAP, nDCG: relevance is the mean share of verbs and of nouns that both have in common; right for mAP: all of them",) if acts else ()),
            *((f"the test part of the official split '{split}' alone",) if split else ()),
        ),
        size=f"{len(pairs.moments)} clips, {len(pairs.texts)} texts, {len(patients)} {people}, {LEVEL:.0%} intervals over {people}",
        settings={
            "clips": len(pairs.moments), "texts": len(pairs.texts), "pairs": len(pairs.said), "levels": list(levels), "sources": list(sources),
            "clips_per_stretch": clips, "split": split, "patients": len(patients), "seed": seed, "acts": acts,
            "bootstrap": {"draws": draws, "over": "patients of the questions", "level": LEVEL},
        },
        predictions=_predictions(pairs, prepared, ranked),
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


def _passed(said: Texts) -> Iterator[str]:
    for why, count in sorted(said.passed.items()):
        yield f"{count} line{'s' * (count > 1)} of the texts {'were' if count > 1 else 'was'} passed over: {why}"


def _pairs(said: Texts, asked: Asked, allowed: Sequence[bool]) -> Pairs:
    """What was said of the recordings that are allowed. A text about several (a study's report) is one of each."""
    moments: list[Moment] = []
    numbers: list[int] = []
    places: list[int] = []
    for place in np.flatnonzero(asked.allowed(said)).tolist():
        for row in said.rows(place):
            if allowed[row]:
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
    there, back = WAYS.items()
    return (
        Way(*there, shown, words, pairs.texts_of, of_moment, alike),
        Way(
            *back, words[asking], shown, [pairs.moments_of[text] for text in asking], [of_moment[moment] for moment in pairs.said[:, 0]],
            None if alike is None else alike.T[asking],
        ),
    )  # fmt: skip


def _predictions(pairs: Pairs, prepared: Prepared, ranked: dict[str, Array]) -> tuple[list[str], list[list[str]]]:
    """A line for every question, without a word: texts may name people. text: the number of a distinct text."""

    def line(way: str, moment: Moment, text: str, rank: float) -> list[str]:
        row, start, end = moment
        when = ["", ""] if np.isinf(end) else [f"{start:g}", f"{end:g}"]
        return [WAYS[way], prepared.video_id(row), *when, text, f"{rank:g}"]

    clips = [
        line("clip_to_text", *one)
        for one in zip(pairs.moments, [""] * len(pairs.moments), ranked["clip_to_text"], strict=True)
    ]
    texts = [
        line("text_to_clip", pairs.moments[moment], str(text), rank)
        for (moment, text), rank in zip(pairs.said.tolist(), ranked["text_to_clip"], strict=True)
    ]
    return ["question", "video_id", "start", "end", "text", "rank"], [*clips, *texts]
