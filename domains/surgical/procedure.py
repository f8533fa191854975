"""What happened in an operation: phases, what each tool did and when, bleeding, and when the endoscope was outside."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stretch:
    """From start up to end (s), something holds. value: a phase, a place outside ("trocar", "room"), a kind of event."""

    start: float
    end: float
    value: str


@dataclass(frozen=True)
class Act:
    """A tool in view from start up to end (s). action: instrument,verb,target ("" for the bag)."""

    start: float
    end: float
    tool: str
    action: str
    phase: str


@dataclass(frozen=True)
class Procedure:
    """What happens, in order of time. outside: where the endoscope is not in the body; bleeding: when it begins, and how much there is."""

    phases: tuple[Stretch, ...]
    acts: tuple[Act, ...]
    outside: tuple[Stretch, ...]
    bleeding: tuple[tuple[float, float], ...] = field(default=())

    @property
    def seconds(self) -> float:
        return self.phases[-1].end

    def phase_at(self, time: float) -> Stretch:
        """The phase at a time; the last one after the end."""
        return next((one for one in self.phases if one.start <= time < one.end), self.phases[-1])

    def progress(self, phase: str, time: float) -> float:
        """How much of all stretches of a phase is over, in [0, 1]; 0 where there is none."""
        spans = [one for one in self.phases if one.value == phase]
        total = sum(one.end - one.start for one in spans)
        gone = sum(min(max(time - one.start, 0.0), one.end - one.start) for one in spans)
        return gone / total if total else 0.0

    def outside_at(self, time: float) -> Stretch | None:
        """The stretch outside of the body that a time lies in."""
        return next((one for one in self.outside if one.start <= time < one.end), None)
