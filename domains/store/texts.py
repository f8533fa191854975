"""What was said or written of recordings: narrations of stretches, reports of whole studies, from tables or from the data set itself.

    recording,start,end,text,source,level        identifier as in any label table; seconds from the first frame
    video01.mp4,12.5,17,"we open the peritoneum",asr,clip

source: who said it (none: the name of the file). level: what it is about, a moment (clip), a step (keystep), or the whole (abstract); none: `clip`
with a time, `abstract` without. Without start and end a text is about whole recordings: a report with the identifier of a study or patient is about
all of theirs. Words are nobody's business but the learner's: no message, log or name of a file holds any.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from domains.errors import ConfigError
from domains.store.clips import Span

LEVELS = ("clip", "keystep", "abstract")
WHOLE: Span = (0.0, math.inf)


@dataclass(frozen=True)
class Said:
    """One text, and what it is about. rows: of the manifest, one, or all recordings of a study. start, end: seconds; WHOLE: all of it."""

    rows: tuple[int, ...]
    start: float
    end: float
    words: str
    source: str
    level: str


class Texts:
    """Texts of a prepared folder, in order of recording and time. Cheap to send to loader processes.

    starts, ends (n,) float64: seconds, WHOLE for whole recordings. levels (n,) int64: place in LEVELS. sources: their names; source (n,) int64: place
    in them. numbers (n,) int64, 0 or more: the same for the same words. passed: what was passed over, and how often.
    """

    def __init__(self, said: Iterable[Said], passed: Counter[str] | None = None) -> None:
        order = sorted(
            said, key=lambda one: (one.rows, one.start, one.end, one.source, LEVELS.index(one.level), one.words)
        )
        self.passed = passed or Counter()
        self.starts = np.array([one.start for one in order], np.float64)
        self.ends = np.array([one.end for one in order], np.float64)
        self.levels = np.array([LEVELS.index(one.level) for one in order], np.int64)
        self.sources = sorted({one.source for one in order})
        self.source = np.array([self.sources.index(one.source) for one in order], np.int64)
        self.numbers = np.array([number_of(one.words) for one in order], np.int64)
        self._words = pa.array([one.words for one in order], pa.large_string())
        self._rows = pa.array([one.rows for one in order], pa.large_list(pa.int64()))

    def __len__(self) -> int:
        return len(self.starts)

    def words(self, index: int) -> str:
        """Of text `index`."""
        words: str = self._words[index].as_py()
        return words

    def rows(self, index: int) -> list[int]:
        """The recordings that it is about."""
        rows: list[int] = self._rows[index].as_py()
        return rows

    def span(self, index: int) -> Span | None:
        """From when to when (s); None for whole recordings."""
        start, end = float(self.starts[index]), float(self.ends[index])
        return None if math.isinf(end) else (start, end)

    @cached_property
    def by_row(self) -> dict[int, NDArray[np.int64]]:
        """Row -> the texts about it, in order."""
        found: dict[int, list[int]] = defaultdict(list)
        for index in range(len(self)):
            for row in self.rows(index):
                found[row].append(index)
        return {row: np.array(texts, np.int64) for row, texts in found.items()}

    def about(self, row: int) -> NDArray[np.int64]:
        """Texts about a recording, in order of time; none for a silent one."""
        return self.by_row.get(row, np.empty(0, np.int64))

    def fingerprint(self) -> str:
        """Which texts these are: 16 hexadecimal digits, from which no word can be told."""
        digest = hashlib.blake2b(digest_size=8)
        for values in (self.numbers, self.starts, self.ends, self.levels, self.source):
            digest.update(values.tobytes())
        digest.update(np.concatenate([self._rows.flatten().to_numpy(), [len(self)]]).tobytes())
        return digest.hexdigest()

    def summary(self) -> dict[str, object]:
        """Counts, without a word: texts, recordings with one, by level and by number of sources, what was passed over."""
        levels = Counter(LEVELS[level] for level in self.levels.tolist())
        return {
            "texts": len(self),
            "recordings": len(self.by_row),
            "levels": {level: levels[level] for level in LEVELS if levels[level]},
            "sources": len(self.sources),
            "passed_over": dict(sorted(self.passed.items())),
        }


def number_of(words: str) -> int:
    """A number in [0, 2**63) that is the same for the same words, whatever stands between them."""
    plain = " ".join(words.split()).casefold()
    return int.from_bytes(hashlib.blake2b(plain.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Asked:
    """The texts that an objective asks for, of each sample.

    what: `sample`, the text whose time the sample is; `beside`, texts of its level by other sources that overlap it in time;
    `below`, texts of a finer level within its time, in their order; `after`, the next texts of its level by its source, in their order.
    count: how many; where there are fewer, the rest is missing. Of more, some are drawn (`after`: the first).
    levels, sources: names of those that count, () for all. What `sample` allows is what there are samples of.
    views: clips that are drawn in the time of each of these texts, one a text; where a text is missing, in the sample's.
    """

    what: Literal["sample", "beside", "below", "after"] = "sample"
    count: int = 1
    levels: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    views: tuple[str, ...] = ()

    def allowed(self, texts: Texts) -> NDArray[np.bool_]:
        """(n,): which texts are of these levels and sources. Raises ConfigError for a source that there is not."""
        good = np.ones(len(texts), bool)
        if self.levels:
            good &= np.isin(texts.levels, [LEVELS.index(level) for level in self.levels])
        if self.sources:
            if unknown := [name for name in self.sources if name not in texts.sources]:
                do = f"The sources of the texts are: {', '.join(texts.sources)}"
                raise ConfigError(f"no text is of the source '{unknown[0]}'", do=do)
            good &= np.isin(texts.source, [texts.sources.index(name) for name in self.sources])
        return good


def pick(
    texts: Texts, anchor: int, row: int, asked: Asked, allowed: NDArray[np.bool_], random: np.random.Generator
) -> list[int]:
    """The texts that `asked` names beside the text `anchor` of a sample of recording `row`, at most `asked.count`, in order of time. allowed:
    what `asked.allowed` says."""
    if asked.what == "sample":
        return [anchor]
    others = texts.about(row)
    others = others[allowed[others]]
    start, end = texts.starts[anchor], texts.ends[anchor]
    if asked.what == "after":  # in order of time, as `about` has them
        good = (texts.source[others] == texts.source[anchor]) & (texts.levels[others] == texts.levels[anchor])
        following: list[int] = others[good & (texts.starts[others] > start)][: asked.count].tolist()
        return following
    middle = (texts.starts[others] + np.minimum(texts.ends[others], np.finfo(np.float64).max)) / 2
    if asked.what == "beside":
        good = (texts.source[others] != texts.source[anchor]) & (texts.levels[others] == texts.levels[anchor])
        starts, ends = texts.starts[others], texts.ends[others]
        overlap = np.minimum(ends, end) - np.maximum(starts, start)
        good &= (overlap > 0) | (
            (overlap == 0) & ((ends == starts) | (end == start))
        )  # to touch is not to overlap, but for single moments
    else:
        good = (texts.levels[others] < texts.levels[anchor]) & (middle >= start) & (middle <= end)
        finest_above = texts.levels[others][good].max(initial=-1)  # of a step its moments, of the whole its steps
        good &= texts.levels[others] == finest_above
    found = others[good & (others != anchor)]
    if len(found) > asked.count:
        found = np.sort(random.permutation(found)[: asked.count])
    picked: list[int] = found.tolist()
    return picked
