"""Samples that belong together: recordings of one event at one moment, next to each other in the stream."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.base import AugmentPolicies, ClipSettings, RegionMapSettings
from domains.errors import ConfigError, DataError
from domains.store.clips import Clip, draw_views, generator, sample_seed
from domains.store.prepared import Prepared
from domains.store.views import moments_of, read_views
from recipes.objective import CAMERA, EXO, MOMENT, TEAM
from recipes.training.data import ClipData


class TogetherData(ClipData):
    """Samples of a stream (see `ClipData`), each one recording at one moment of its event; those of a moment follow each other.

    An epoch has every moment `clips_per_video` times, in an order of its own. Teams are as large as they are and nothing is padded: a batch is a
    number of recordings, and the moment at its end may go on in the next. The time of a moment's clips is drawn within it, once for all its
    recordings, and found in each by its own clock and frame rate, to within half a frame; every recording has its own crop and light.

    synchronous False is the control that tells whether the moment matters: the same groups, but each recording of a group is shown at another moment
    of the event, drawn at random, no two of them at the same one while there are enough.

    Targets: `moment`, the same for what was drawn as one moment; `team`, the same for recordings of one team of an event, -1 where unknown; `camera`,
    its number within the event (all int64); `exo`, bool.
    Raises ConfigError where clips have no rate in seconds, DataError where no two recordings share a moment (or, for the control, no event has two).
    """

    def __init__(
        self,
        prepared: Prepared,
        rows: Sequence[int],
        views: Mapping[str, Clip],
        clip: ClipSettings,
        policies: AugmentPolicies,
        *,
        synchronous: bool = True,
        seed: int = 0,
        clips_per_video: int = 1,
        regions: RegionMapSettings | None = None,
        signals: Sequence[str] = (),
    ) -> None:
        self.cameras, self.synchronous = read_views(prepared), synchronous
        self.seconds = clip_seconds(clip, views)
        self.moments = moments_of(prepared, self.cameras, rows, self.seconds)
        self.samples = [(number, row) for number, moment in enumerate(self.moments) for row in moment.rows]
        self._first = np.cumsum([0, *(len(moment.rows) for moment in self.moments)])  # sample that a moment begins with
        self._of_event: dict[str, list[int]] = {}
        for number, moment in enumerate(self.moments):
            self._of_event.setdefault(moment.event, []).append(number)
        if not synchronous and all(len(numbers) < 2 for numbers in self._of_event.values()):
            what = "no event is long enough for two moments, so that no recording could be shown at another"
            raise DataError(what, where=prepared.place, do="Leave data.synchronous out, or use shorter clips")
        met = sorted({row for _, row in self.samples})
        super().__init__(
            prepared,
            met,
            views,
            clip,
            policies,
            seed=seed,
            clips_per_video=clips_per_video,
            regions=regions,
            signals=signals,
        )

    @property
    def count(self) -> int:
        """Recordings of all moments."""
        return len(self.samples)

    def fingerprint(self) -> str:
        """Of recordings, moments and clocks."""
        both = f"{super().fingerprint()} {self.cameras.fingerprint(self.moments)} {self.synchronous}".encode()
        return hashlib.blake2b(both, digest_size=8).hexdigest()

    def place(self, position: int) -> tuple[int, int, int]:
        """See `ClipData.place`: moments are shuffled, and the recordings of each."""
        epoch, offset = divmod(position, len(self))
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self._shuffled(epoch))
        draw, where = divmod(int(self._order[1][offset]), self.count)
        return epoch, where, draw

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        random = np.random.default_rng([self.seed, epoch])
        order = []
        for one in random.permutation(len(self.moments) * self.clips_per_video).tolist():
            draw, number = divmod(one, len(self.moments))
            members = np.arange(self._first[number], self._first[number + 1])
            order.append(draw * self.count + random.permutation(members))
        return np.concatenate(order).astype(np.int64)

    def row(self, epoch: int, where: int, draw: int) -> int:
        """The manifest row of a sample."""
        return self.samples[where][1]

    def time(self, epoch: int, where: int, draw: int) -> float:
        """Second of the event at which the middle of a sample's clips lies."""
        number, row = self.samples[where]
        at = number if self.synchronous else self._elsewhere(epoch, number, draw)[row]
        moment = self.moments[at]
        random = generator(sample_seed(self.seed, epoch, moment.name(), draw), "moment")
        half = self.seconds / 2
        low, high = moment.start + half, moment.end - half
        return float(random.uniform(low, high)) if low < high else (moment.start + moment.end) / 2

    def _elsewhere(self, epoch: int, number: int, draw: int) -> dict[int, int]:
        """Row -> the other moment at which each recording of a group is shown."""
        moment = self.moments[number]
        random = generator(sample_seed(self.seed, epoch, moment.name(), draw), "elsewhere")
        order = [int(one) for one in random.permutation(self._of_event[moment.event]) if one != number]
        taken: dict[int, int] = {}
        for row in moment.rows:
            able = [one for one in order if row in self.moments[one].rows]
            free = [one for one in able if one not in taken.values()]
            # with one moment only there is no other: it stays, as it is in few of many events
            taken[row] = next(iter(free), able[int(random.integers(len(able)))] if able else number)
        return taken

    def name(self, where: int) -> str:
        """What a sample is called: the same whatever other samples there are."""
        number, row = self.samples[where]
        return f"{self.prepared.video_id(row)}/{self.moments[number].name()}"

    def read(self, row: int, epoch: int, where: int, draw: int) -> dict[str, Any]:
        """See `ClipData.read`."""
        name, view = self.name(where), self.cameras.by_row[row]
        at = view.own(self.time(epoch, where, draw))
        views = draw_views(
            self.prepared, row, self.views, self.clip, self.policies, self.seed, epoch, draw, regions=self.regions,
            spans=dict.fromkeys(self.views, (at, at)), sample=name,
        )  # fmt: skip
        number = (epoch * self.clips_per_video + draw) * len(self.moments) + self.samples[where][0]
        return {
            "views": views,
            "seed": sample_seed(self.seed, epoch, name, draw),
            "targets": {
                MOMENT: np.int64(number),
                TEAM: np.int64(self.cameras.teams[row]),
                CAMERA: np.int64(self.cameras.cameras[row]),
                EXO: np.bool_(view.exo),
                **self.measured.at(row, views),
            },
        }

    def said(self) -> str:
        """What a run says of them at its start."""
        sizes = [len(moment.rows) for moment in self.moments]
        how = "" if self.synchronous else "; control: each recording at another moment than the others of its group"
        return f"{len(self.moments)} moments of {len(self._of_event)} events, {min(sizes)} to {max(sizes)} recordings each{how}"


def clip_seconds(clip: ClipSettings, views: Mapping[str, Clip]) -> float:
    """Seconds that the longest of the views shows. Raises ConfigError where clips have no rate."""
    if clip.rate is None:
        what = "recordings of one moment may have different frame rates, and clip.rate is null"
        raise ConfigError(what, do="Set frames a second: clip.rate=4")
    return max(clip.frames * view.length * view.rate for view in views.values()) / clip.rate
