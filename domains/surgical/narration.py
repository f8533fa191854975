"""What is said and written about a procedure: a surgeon who narrates, two transcribers who mishear, key steps and an abstract.

The surgeon says what is seen, now and then something else, and rarely at the very moment. `asr_a` takes sentences whole and is good; `asr_b` cuts
them elsewhere, comes late and mishears more. Both know few surgical words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from domains.surgical.operation import Operation
from domains.surgical.procedure import Procedure, Stretch

WORDS = 2.6  # a second
SAID = 0.75  # probability that an act is spoken of
ASIDE = 0.12  # probability that something else is said after a sentence

ASIDES = (
    "can we have the light a little lower", "is the next patient here already", "a bit more gas please", "yes that is fine",
    "I was taught to do this in another way", "thank you very much for watching", "what time is it now",
)  # fmt: skip
SOUNDS = {
    "cystic": "sistic", "calot": "carlo", "gallbladder": "gold bladder", "trocar": "tracker", "peritoneum": "paradigm", "omentum": "momentum",
    "bipolar": "by polar", "coagulates": "calculates", "coagulation": "regulation", "hook": "look", "clip": "click", "clipper": "slipper",
    "grasper": "grass per", "irrigator": "irritator", "liver": "lever", "artery": "artistry", "duct": "duck", "plate": "place", "bed": "bad",
    "oozing": "using", "fundus": "fungus", "scissors": "seasons", "specimen": "spaceman", "dissect": "dialect", "bag": "back",
    "appendix": "index", "mesoappendix": "measure index", "caecum": "see come", "mesentery": "momentary", "pelvis": "elvis", "hernia": "her near",
    "sac": "sack", "mesh": "mash", "tacker": "tucker", "tack": "tick", "flap": "flat", "cord": "court",
}  # fmt: skip


@dataclass(frozen=True)
class Words:
    """A text about start to end (s); source: who wrote it down; level: clip, keystep or abstract."""

    start: float
    end: float
    text: str
    source: str
    level: str


def narrate(operation: Operation, procedure: Procedure, rng: np.random.Generator, *, silent: bool) -> list[Words]:
    """All texts about a procedure, in order of source and time. silent: nobody speaks and nobody writes."""
    if silent:
        return []
    said = list(_speech(operation, procedure, rng))
    steps = [(one, step_text(operation, procedure, one)) for one in procedure.phases]
    written = [Words(one.start, one.end, text, "surgeon", "keystep") for one, text in steps]
    whole = Words(0.0, procedure.seconds, abstract(operation, procedure), "surgeon", "abstract")
    heard = [*_hear_a(said, rng), *_hear_b(said, rng)]
    return [*_within(heard, procedure.seconds), *written, whole]


def _speech(operation: Operation, procedure: Procedure, rng: np.random.Generator) -> Iterator[tuple[float, float, str]]:
    """(start, end, sentence): one voice, sentence after sentence."""
    cues = [(one.start, str(rng.choice(operation.opening[one.value]))) for one in procedure.phases]
    cues += [
        (act.start, str(rng.choice(operation.spoken[act.action]))) for act in procedure.acts if rng.random() < SAID
    ]
    cues += [(time + 2, "there is some bleeding here") for time, much in procedure.bleeding if much > 0.5]
    cues += [(one.start, "the lens is dirty we go out and clean it") for one in _cleanings(procedure)]
    now = 0.0
    for time, sentence in sorted(cues):
        for text in (sentence, str(rng.choice(ASIDES))) if rng.random() < ASIDE else (sentence,):
            start = max(now, time + float(rng.normal(0.3, 0.8)))
            end = start + (len(text.split()) + 1) / WORDS
            if start - time > 6 or end > procedure.seconds:  # too late to say it
                break
            yield start, end, text
            now = end + float(rng.uniform(0.2, 0.8))


def _cleanings(procedure: Procedure) -> list[Stretch]:
    """The ways out of the body between the first and the last."""
    end = procedure.seconds
    return [
        one for before, one in zip((None, *procedure.outside), procedure.outside, strict=False)
        if one.value == "trocar" and (before is None or before.end < one.start) and one.start > 0 and one.end < end - 12
    ]  # fmt: skip


def _hear_a(said: list[tuple[float, float, str]], rng: np.random.Generator) -> Iterator[Words]:
    for start, end, text in said:
        if rng.random() < 0.93:
            shift = float(rng.normal(0, 0.3))
            yield _words(start + shift, end + shift, _mishear(text, 0.06, rng), "asr_a")


def _hear_b(said: list[tuple[float, float, str]], rng: np.random.Generator) -> Iterator[Words]:
    """Cuts every few words, whatever the sentence; late."""
    heard = []
    for start, end, text in said:
        words = text.split()
        each = (end - start) / len(words)
        heard += [(start + number * each, start + (number + 1) * each, word) for number, word in enumerate(words)]
    while heard:
        take = int(rng.integers(5, 12))
        piece, heard = heard[:take], heard[take:]
        gap = next((n for n in range(1, len(piece)) if piece[n][0] - piece[n - 1][1] > 2), len(piece))
        piece, heard = piece[:gap], [*piece[gap:], *heard]
        late = float(rng.normal(0.7, 0.5))
        if rng.random() < 0.92:
            text = _mishear(" ".join(word for _, _, word in piece), 0.16, rng)
            yield _words(piece[0][0] + late, piece[-1][1] + late, text, "asr_b")


def _within(heard: list[Words], seconds: float) -> Iterator[Words]:
    """A transcript ends with its recording, however late its words are."""
    for one in heard:
        if one.start < seconds - 0.1:
            yield replace(one, end=min(one.end, round(seconds, 2)))


def _words(start: float, end: float, text: str, source: str) -> Words:
    start = max(0.0, round(start, 2))
    return Words(start, max(round(end, 2), start + 0.1), text, source, "clip")


def _mishear(text: str, rate: float, rng: np.random.Generator) -> str:
    """Words that sound alike, and words that are lost or said twice; surgical words three times as often."""
    heard: list[str] = []
    for word in text.split():
        if rng.random() < (3 * rate if word in SOUNDS else rate / 2):
            if word in SOUNDS:
                heard.append(SOUNDS[word])
            elif rng.random() < 0.5:
                heard += [word, word]
        else:
            heard.append(word)
    return " ".join(heard) or text


def step_text(operation: Operation, procedure: Procedure, phase: Stretch) -> str:
    """What an author writes of one stretch of a phase."""
    text = operation.steps[phase.value]
    if any(phase.start <= time < phase.end and much > 0.5 for time, much in procedure.bleeding):
        text += " Bleeding occurs."
    if (
        any(act.tool == "Bipolar" and phase.start <= act.start < phase.end for act in procedure.acts)
        and phase.value != operation.cleaning
    ):
        text += " The bipolar forceps are used."
    return text


def abstract(operation: Operation, procedure: Procedure) -> str:
    """What an author writes of the whole."""
    names = [one.value for one in procedure.phases]
    bleeding = sum(much for _, much in procedure.bleeding)
    parts = [operation.title, *operation.told(procedure)]
    parts.append(
        "There is considerable bleeding."
        if bleeding > 1.2
        else "There is minor bleeding."
        if bleeding > 0
        else "There is no bleeding."
    )
    if operation.cleaning and operation.cleaning not in names:
        parts.append("No irrigation is needed.")
    elif names[-1] == operation.cleaning:
        parts.append("The field is cleaned again after the retrieval.")
    if _cleanings(procedure):
        parts.append("The lens is cleaned during the operation.")
    return " ".join(parts)
