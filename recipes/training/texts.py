"""Samples that are texts: what was said, and the clip of the time that it is about."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from domains.base import AugmentPolicies, ClipSettings, RegionMapSettings
from domains.errors import DataError
from domains.store.actions import Actions
from domains.store.clips import Clip, DrawnClip, Span, draw_views, frame_step, frames_of, generator, sample_seed
from domains.store.prepared import Prepared
from domains.store.texts import LEVELS, Asked, Texts, pick
from domains.store.views import OtherCameras, read_views
from recipes.encoders.text import Reader, padded
from recipes.objective import ABOUT, EXO, FOREVER, LEVEL, NOUNS, SPAN, VERBS
from recipes.training.data import ClipData
from recipes.training.measured import MISSING
from recipes.training.together import clip_seconds

SILENT = -1  # level of a sample that nobody said anything of


class TextData(ClipData):
    """Samples of a stream (see `ClipData`) that are texts, each with the clips of its time; `clips_per_video` draws of each text make an epoch.

    A text about several recordings (the report of a study) is one sample, whose recording, or recordings (`Clip.recording`), are drawn anew every
    time: no two samples of an epoch have the same report. With `silent`, recordings without a text are samples too. What is rarer in an epoch than
    `shares` says is met several times in it, each time with draws of its own.

    texts: all of them; rows: the recordings to learn from; asked: the texts of a sample, by name, one of them `sample`; reader: what makes tokens of
    words; shares: least share of the samples, by level of their texts or "silent", together less than 1; actions: their acts, for a method that asks.
    Raises ConfigError for a source that there is not, DataError where no text is left, or where there are none to stand beside or below others.

    Of views that are `Clip.across` another: a clip of one of the other cameras of the event that show all of that moment, drawn at random; where
    there is none they are blank, and the target `NAME_missing` says so. Times that overlap are then those of the event, whichever camera they are of.
    synchronous False is the control: the other camera at another time of the event. Raises ConfigError where clips have no rate in seconds,
    DataError where no two cameras of an event ever look on together.
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
        shares: Mapping[str, float] | None = None,
        actions: Actions | None = None,
        synchronous: bool = True,
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
        self.synchronous = synchronous
        self.others = other_cameras(prepared, rows, views, clip)
        if silent:
            quiet = [row for row in rows if not len(texts.about(row))]
            self.anchors += [SILENT] * len(quiet)
            self.recordings += [[row] for row in quiet]
        self.again = self.repeat(shares or {})
        self.most = max((len(self.about(about)) for about in self.recordings), default=1)
        met = sorted({row for about in self.recordings for row in about})
        if any(one.parts for one in self.asked.values()) and any(not prepared.fps(row) for row in met):
            what = "the frame rate of a recording is not known, and the method wants clips of it in their order"
            raise DataError(what, where=prepared.place, do="Prepare it with one, or use --recipe clip")
        super().__init__(
            prepared, met, views, clip, policies, seed=seed, clips_per_video=clips_per_video, regions=regions
        )

    @property
    def count(self) -> int:
        """Texts (and silent recordings), as often as they are met in an epoch."""
        return len(self.anchors)

    def repeat(self, shares: Mapping[str, float]) -> list[int]:
        """Adds what is rarer than its share once more, and again, in order; of each sample, how often it was there before (n,)."""
        kinds = ["silent" if one == SILENT else LEVELS[self.texts.levels[one]] for one in self.anchors]
        places = {kind: [where for where, own in enumerate(kinds) if own == kind] for kind in dict.fromkeys(kinds)}
        rare = {kind: shares[kind] for kind in places if len(places) > 1 and shares.get(kind, 0) > 0}
        again = [0] * len(kinds)
        # a kind that has its share anyway takes none of the rest's: without it the others are looked at once more
        while rare:
            others = sum(len(found) for kind, found in places.items() if kind not in rare)
            whole = others / (1 - sum(rare.values())) if others else len(kinds)
            enough = [kind for kind, share in rare.items() if len(places[kind]) >= share * whole]
            if not enough:
                break
            rare = {kind: share for kind, share in rare.items() if kind not in enough}
        for kind, share in rare.items():
            found = places[kind]
            for number in range(len(found), round(share * whole)):
                self.anchors.append(self.anchors[found[number % len(found)]])
                self.recordings.append(self.recordings[found[number % len(found)]])
                again.append(number // len(found))
        return again

    def fingerprint(self) -> str:
        """Of the recordings and the texts."""
        acts = "" if self.actions is None else f" {self.actions.tagged} {sorted(self.exo)}"
        others = "" if self.others is None else f" {self.others.fingerprint()} {self.synchronous}"
        both = f"{super().fingerprint()} {self.texts.fingerprint()} {self.count}{acts}{others}".encode()
        return hashlib.blake2b(both, digest_size=8).hexdigest()

    def name(self, where: int) -> str:
        """What a sample is called: the same whatever other samples there are."""
        first, anchor = self.prepared.video_id(self.recordings[where][0]), self.anchors[where]
        again = f" {self.again[where]}" if self.again[where] else ""
        if anchor == SILENT:
            return first + again
        span = f"{self.texts.starts[anchor]:.3f}/{self.texts.ends[anchor]:.3f}"
        return f"{first}/{span}/{self.texts.numbers[anchor]}{again}"

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
        views: dict[str, DrawnClip] = {}
        for place, own in enumerate(self.taken(row, where, number)):
            shown = {title: view for title, view in self.views.items() if view.recording == place and not view.across}
            spans = self.spans(anchor, picked, own)
            views |= draw_views(
                self.prepared, own, shown, self.clip, self.policies, self.seed, epoch, draw, regions=self.regions,
                spans={title: span for title, span in spans.items() if title in shown}, sample=name,
            )  # fmt: skip
        targets = self.facts(where)
        for title, view in self.views.items():
            if view.across:
                found = self.across(title, row, views[view.across], epoch, draw, name)
                targets[MISSING.format(title)] = np.bool_(found is None)
                views[title] = blank(views[view.across], frames_of(self.clip, view.length)) if found is None else found
        if self.actions is not None:
            verbs, nouns = self.actions.places(anchor)
            targets |= {VERBS: np.array(verbs), NOUNS: np.array(nouns), EXO: np.bool_(row in self.exo)}
        return {
            "views": views,
            "seed": number,
            "targets": targets,
            "texts": {title: self.words(picked[title], asked.count) for title, asked in self.asked.items()},
        }

    def across(self, title: str, row: int, own: DrawnClip, epoch: int, draw: int, name: str) -> DrawnClip | None:
        """What another camera of the event of recording `row` shows at the moment of a clip of it; None where there is none."""
        view, fps = self.views[title], self.prepared.fps(row)
        assert self.others is not None
        assert view.across is not None
        if not fps:
            return None
        at = self.views[view.across]
        middle = own.start + frame_step(fps, self.clip, at.rate) * (frames_of(self.clip, at.length) - 1) / 2
        seconds = clip_seconds(self.clip, {title: view})
        random = generator(sample_seed(self.seed, epoch, name, draw), f"camera of {title}")
        if self.synchronous:
            able = self.others.at(row, middle / fps, seconds)
        else:
            able = self.others.elsewhere(row, middle / fps, seconds, random)
        if not able:
            return None
        other, second = able[int(random.integers(len(able)))]
        return draw_views(
            self.prepared, other, {title: replace(view, across=None)}, self.clip, self.policies, self.seed, epoch, draw, regions=self.regions,
            spans={title: (second, second)}, sample=name,
        )[title]  # fmt: skip

    def about(self, recordings: Sequence[int]) -> list[int]:
        """The recordings that show what a text about some is about: all those of the event, of one on its clock, where other cameras are asked."""
        shared = self.others.of_event(recordings[0]) if self.others is not None and len(recordings) == 1 else []
        return [*shared] or [*recordings]

    def facts(self, where: int) -> dict[str, Any]:
        """What a method is told of a sample beside its clips and words: level, time, and the recordings that it is about."""
        anchor, own = self.anchors[where], self.recordings[where]
        span, about = None if anchor == SILENT else self.texts.span(anchor), self.about(own)
        if span is not None and self.others is not None and len(own) == 1 and own[0] in self.others.usable:
            view = self.others.usable[own[0]]  # one moment has one time, whichever camera it is told of
            span = view.of_event(span[0]), view.of_event(span[1])
        always = [0 if self.others is None else -FOREVER, FOREVER]
        when = always if span is None else [round(1000 * second) for second in span]
        return {
            LEVEL: np.int64(SILENT if anchor == SILENT else self.texts.levels[anchor]),
            SPAN: np.array(when, np.int64),
            ABOUT: np.array([*about, *[-1] * (self.most - len(about))], np.int64),
        }

    def taken(self, row: int, where: int, number: int) -> list[int]:
        """The recordings that the views of a sample are from (`Clip.recording`), its own `row` first."""
        count = 1 + max((view.recording for view in self.views.values()), default=0)
        if count == 1:
            return [row]
        others = [other for other in self.recordings[where] if other != row]
        order = [row, *generator(number, "recordings").permutation(np.array(others, np.int64)).tolist()]
        return [order[place % len(order)] for place in range(count)]

    def spans(self, anchor: int, picked: Mapping[str, Sequence[int]], row: int = 0) -> dict[str, Span]:
        """When the clips of a sample of recording `row` are from: that of its own text, its share of that, or that of the text that a view belongs
        to."""
        own = None if anchor == SILENT else self.texts.span(anchor)
        found = {} if own is None else dict.fromkeys(self.views, own)
        for title, asked in self.asked.items():
            start, end = own or (0.0, self.prepared.length(row) / (self.prepared.fps(row) or 1.0))
            each = (end - start) / max(1, len(asked.parts))
            found |= {view: (start + n * each, start + (n + 1) * each) for n, view in enumerate(asked.parts)}
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


def other_cameras(
    prepared: Prepared, rows: Sequence[int], views: Mapping[str, Clip], clip: ClipSettings
) -> OtherCameras | None:
    """The other cameras of events, for a method that asks for them. Raises ConfigError, DataError."""
    asking = {title: view for title, view in views.items() if view.across}
    if not asking:
        return None
    seconds, others = clip_seconds(clip, asking), OtherCameras(prepared, rows)
    if not others.any(seconds):
        what = "the method wants another camera of the same moment, and no two show the same event on a known clock"
        do = "Leave 'camera' out of objective.modalities, or prepare a data set with events and cameras (docs/egocentric.md)"
        raise DataError(what, where=prepared.place, do=do)
    return others


def blank(like: DrawnClip, frames: int) -> DrawnClip:
    """A clip of nothing, of the size and channels of another."""
    return DrawnClip(np.zeros((frames, *like.frames.shape[1:]), np.uint8), flip=False, brightness=0.0, contrast=1.0)


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
