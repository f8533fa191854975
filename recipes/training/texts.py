"""Samples that are texts: what was said, and the clip of the time that it is about."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from domains.base import AugmentPolicies, ClipSettings, RegionMapSettings
from domains.errors import DataError
from domains.store.actions import Actions
from domains.store.clips import Clip, Span, draw_views, generator, sample_seed
from domains.store.prepared import Prepared
from domains.store.texts import LEVELS, Asked, Texts, pick
from domains.store.views import read_views
from recipes.encoders.text import Reader, padded
from recipes.objective import EXO, LEVEL, NOUNS, VERBS
from recipes.training.data import ClipData

SILENT = -1  # level of a sample that nobody said anything of


class TextData(ClipData):
    """Samples of a stream (see `ClipData`) that are texts, each with the clips of its time; `clips_per_video` draws of each text make an epoch.

    A text about several recordings (the report of a study) is one sample, whose recording is drawn anew every time: no two samples of an epoch have
    the same report. With `silent`, recordings without a text are samples too.

    texts: all of them; rows: the recordings to learn from; asked: the texts of a sample, by name, one of them `sample`; reader: what makes tokens of
    words; actions: their acts, for a method that asks. Raises ConfigError for a source that there is not, DataError where no text is left, or where
    there are none to stand beside or below others.
    """

    def __init__(
        self,
        prepared: Prepared,
        rows: Sequence[int],
        views: Mapping[str, Clip],
        clip: ClipSettings,
        policies: AugmentPolicies,
        *,
        texts: Texts,
        asked: Mapping[str, Asked],
        reader: Reader,
        silent: bool = False,
        actions: Actions | None = None,
        seed: int = 0,
        clips_per_video: int = 1,
        regions: RegionMapSettings | None = None,
    ) -> None:
        self.texts, self.asked, self.reader, self.actions = texts, dict(asked), reader, actions
        self.exo = {row for row, view in read_views(prepared).by_row.items() if view.exo} if actions is not None else ()
        self.allowed = {title: one.allowed(texts) for title, one in self.asked.items()}
        own = next(title for title, one in self.asked.items() if one.what == "sample")
        learned = set(rows)
        self.anchors: list[int] = []
        self.recordings: list[list[int]] = []  # of each sample, those that it may be drawn from
        for index in np.flatnonzero(self.allowed[own]).tolist():
            if about := [row for row in texts.rows(index) if row in learned]:
                self.anchors.append(index)
                self.recordings.append(about)
        check_texts(prepared, texts, self.asked, self.anchors)
        if silent:
            quiet = [row for row in rows if not len(texts.about(row))]
            self.anchors += [SILENT] * len(quiet)
            self.recordings += [[row] for row in quiet]
        met = sorted({row for about in self.recordings for row in about})
        super().__init__(
            prepared, met, views, clip, policies, seed=seed, clips_per_video=clips_per_video, regions=regions
        )

    @property
    def count(self) -> int:
        """Texts (and silent recordings)."""
        return len(self.anchors)

    def fingerprint(self) -> str:
        """Of the recordings and the texts."""
        acts = "" if self.actions is None else f" {self.actions.tagged} {sorted(self.exo)}"
        both = f"{super().fingerprint()} {self.texts.fingerprint()} {self.count}{acts}".encode()
        return hashlib.blake2b(both, digest_size=8).hexdigest()

    def name(self, where: int) -> str:
        """What a sample is called: the same whatever other samples there are."""
        first, anchor = self.prepared.video_id(self.recordings[where][0]), self.anchors[where]
        if anchor == SILENT:
            return first
        return f"{first}/{self.texts.starts[anchor]:.3f}/{self.texts.ends[anchor]:.3f}/{self.texts.numbers[anchor]}"

    def row(self, epoch: int, where: int, draw: int) -> int:
        """See `ClipData.row`: of a text about several recordings, one that is drawn."""
        about = self.recordings[where]
        if len(about) == 1:
            return about[0]
        random = generator(sample_seed(self.seed, epoch, self.name(where), draw), "recording")
        return about[int(random.integers(len(about)))]

    def read(self, row: int, epoch: int, where: int, draw: int) -> dict[str, Any]:
        """See `ClipData.read`; `texts` as well: name -> tokens (K, S, L) and numbers (K,)."""
        name, anchor = self.name(where), self.anchors[where]
        number = sample_seed(self.seed, epoch, name, draw)
        picked = {
            title: pick(self.texts, anchor, row, asked, self.allowed[title], generator(number, f"text {title}"))
            if anchor != SILENT
            else []
            for title, asked in self.asked.items()
        }
        views = draw_views(
            self.prepared, row, self.views, self.clip, self.policies, self.seed, epoch, draw, regions=self.regions,
            spans=self.spans(anchor, picked), sample=name,
        )  # fmt: skip
        targets: dict[str, Any] = {LEVEL: np.int64(SILENT if anchor == SILENT else self.texts.levels[anchor])}
        if self.actions is not None:
            verbs, nouns = self.actions.places(anchor)
            targets |= {VERBS: np.array(verbs), NOUNS: np.array(nouns), EXO: np.bool_(row in self.exo)}
        return {
            "views": views,
            "seed": number,
            "targets": targets,
            "texts": {title: self.words(picked[title], asked.count) for title, asked in self.asked.items()},
        }

    def spans(self, anchor: int, picked: Mapping[str, Sequence[int]]) -> dict[str, Span]:
        """When the clips of a sample are from: that of its own text, or of the text that a view belongs to."""
        own = None if anchor == SILENT else self.texts.span(anchor)
        found = {} if own is None else dict.fromkeys(self.views, own)
        for title, asked in self.asked.items():
            for view, index in zip(asked.views, picked[title], strict=False):
                if (span := self.texts.span(index)) is not None:
                    found[view] = span
        return found

    def words(self, indices: Sequence[int], count: int) -> dict[str, torch.Tensor]:
        """Tokens (count, S, L) of some texts and their numbers (count,); -1 for what is missing."""
        missing = count - len(indices)
        tokens = [
            *(self.reader.tokens(self.texts.words(index)) for index in indices),
            *([torch.full((1, 1), -1)] * missing),
        ]
        numbers = [*(int(self.texts.numbers[index]) for index in indices), *([-1] * missing)]
        return {"tokens": padded(tokens), "numbers": torch.tensor(numbers, dtype=torch.int64)}


def check_texts(prepared: Prepared, texts: Texts, asked: Mapping[str, Asked], anchors: Sequence[int]) -> None:
    """Raises DataError where nothing is left to learn from, or where texts that a method wants together are not there."""
    if not anchors:
        levels = ", ".join(LEVELS[level] for level in sorted(set(texts.levels.tolist())))
        what = f"no text of the levels and sources that are learned from (there are {len(texts)}, of level {levels})"
        raise DataError(what, where=prepared.place, do="Name others in the settings of the method, or give other texts")
    if len(texts.sources) < 2 and any(one.what == "beside" for one in asked.values()):
        what = "the method compares several transcripts of the same time, and all texts are of one source"
        raise DataError(
            what, where=prepared.place, do="Give one file a transcript (--text, several times), or use --recipe clip"
        )
    if len(set(texts.levels.tolist())) < 2 and any(one.what == "below" for one in asked.values()):
        what = "the method wants texts of several levels (clip, keystep, abstract), and all are of one"
        raise DataError(what, where=prepared.place, do="Give files with a column 'level', or use --recipe clip")
