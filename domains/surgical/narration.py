"""What is said and written about a procedure: a surgeon who narrates, two transcribers who mishear, key steps and an abstract.

The surgeon says what is seen, now and then something else, and rarely at the very moment. `asr_a` takes sentences whole and is good; `asr_b` cuts
them elsewhere, comes late and mishears more. Both know few surgical words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from domains.surgical import procedure as script
from domains.surgical.procedure import Procedure, Stretch

WORDS = 2.6  # a second
SAID = 0.75  # probability that an act is spoken of
ASIDE = 0.12  # probability that something else is said after a sentence

OPENING: dict[str, tuple[str, ...]] = {
    script.PREPARATION: ("we have a first look around the abdomen and find the gallbladder", "the trocars are in and I grasp the gallbladder"),
    script.CALOT: ("now we start the dissection of the calot triangle", "I open the peritoneum in front of the calot triangle"),
    script.CLIPPING: ("both structures are free so now we clip and cut them", "this is the critical view and we can clip"),
    script.DISSECTION: ("now I take the gallbladder off the liver bed", "we go on with the dissection of the gallbladder from the liver"),
    script.PACKAGING: ("please give me the bag for the gallbladder", "the gallbladder is free and goes into the bag"),
    script.CLEANING: ("we clean up and check the liver bed for bleeding", "now some irrigation and coagulation"),
    script.RETRACTION: ("the bag comes out through the umbilical trocar", "we pull the bag out now"),
}  # fmt: skip
SPOKEN: dict[str, tuple[str, ...]] = {
    "grasper,grasp,gallbladder": ("the grasper takes the gallbladder at the fundus",),
    "grasper,retract,omentum": ("with the grasper I push the omentum down",),
    "grasper,retract,gallbladder": ("the grasper pulls the gallbladder up for exposure", "I keep the gallbladder under tension with the grasper"),
    "grasper,grasp,specimen_bag": ("the grasper holds the specimen bag open", "I take the bag with the grasper"),
    "grasper,pack,gallbladder": ("the grasper puts the gallbladder into the bag",),
    "grasper,retract,liver": ("the grasper lifts the liver",),
    "hook,dissect,cystic_duct": ("with the hook I dissect around the cystic duct", "the hook frees the cystic duct"),
    "hook,dissect,cystic_artery": ("here the hook is behind the cystic artery", "I dissect the cystic artery with the hook"),
    "hook,cut,peritoneum": ("the hook cuts the peritoneum",),
    "hook,dissect,gallbladder": ("the hook dissects the gallbladder from the liver", "small strokes with the hook between gallbladder and liver"),
    "hook,dissect,cystic_plate": ("the hook follows the cystic plate",),
    "hook,dissect,omentum": ("I take the fat down with the hook",),
    "bipolar,coagulate,blood_vessel": ("the bipolar coagulates this small vessel",),
    "bipolar,coagulate,cystic_plate": ("some bipolar on the cystic plate",),
    "bipolar,coagulate,liver": ("the bipolar stops the oozing from the liver bed",),
    "scissors,cut,cystic_duct": ("the scissors cut the cystic duct between the clips",),
    "scissors,cut,cystic_artery": ("now the scissors on the cystic artery",),
    "clipper,clip,cystic_duct": ("a clip on the cystic duct", "the clipper goes around the cystic duct"),
    "clipper,clip,cystic_artery": ("the clipper closes on the cystic artery",),
    "irrigator,irrigate,liver": ("we rinse the liver bed with the irrigator",),
    "irrigator,aspirate,fluid": ("suction please there is fluid", "the irrigator sucks the blood away"),
    "": ("there is the specimen bag",),
}  # fmt: skip
ASIDES = (
    "can we have the light a little lower", "is the next patient here already", "a bit more gas please", "yes that is fine",
    "I was taught to do this in another way", "thank you very much for watching", "what time is it now",
)  # fmt: skip
SOUNDS = {
    "cystic": "sistic", "calot": "carlo", "gallbladder": "gold bladder", "trocar": "tracker", "peritoneum": "paradigm", "omentum": "momentum",
    "bipolar": "by polar", "coagulates": "calculates", "coagulation": "regulation", "hook": "look", "clip": "click", "clipper": "slipper",
    "grasper": "grass per", "irrigator": "irritator", "liver": "lever", "artery": "artistry", "duct": "duck", "plate": "place", "bed": "bad",
    "oozing": "using", "fundus": "fungus", "scissors": "seasons", "specimen": "spaceman", "dissect": "dialect", "bag": "back",
}  # fmt: skip
STEPS: dict[str, str] = {
    script.PREPARATION: "Preparation: the abdomen is inspected and the gallbladder is exposed.",
    script.CALOT: "Dissection of Calot's triangle: the hook opens the peritoneum and frees the cystic duct and the cystic artery from fat.",
    script.CLIPPING: "Clipping and cutting: clips are placed on the cystic duct and artery, and scissors divide them.",
    script.DISSECTION: "Gallbladder dissection: the hook separates the gallbladder from the liver bed.",
    script.PACKAGING: "Packaging: the gallbladder is placed into the specimen bag.",
    script.CLEANING: "Cleaning and coagulation: the field is rinsed and sucked dry, and bleeding of the liver bed is coagulated.",
    script.RETRACTION: "Retraction: the specimen bag is pulled out through the trocar.",
}


@dataclass(frozen=True)
class Words:
    """A text about start to end (s); source: who wrote it down; level: clip, keystep or abstract."""

    start: float
    end: float
    text: str
    source: str
    level: str


def narrate(procedure: Procedure, rng: np.random.Generator, *, silent: bool) -> list[Words]:
    """All texts about a procedure, in order of source and time. silent: nobody speaks and nobody writes."""
    if silent:
        return []
    said = list(_speech(procedure, rng))
    written = [Words(one.start, one.end, step_text(procedure, one), "surgeon", "keystep") for one in procedure.phases]
    whole = Words(0.0, procedure.seconds, abstract(procedure), "surgeon", "abstract")
    heard = [*_hear_a(said, rng), *_hear_b(said, rng)]
    return [*_within(heard, procedure.seconds), *written, whole]


def _speech(procedure: Procedure, rng: np.random.Generator) -> Iterator[tuple[float, float, str]]:
    """(start, end, sentence): one voice, sentence after sentence."""
    cues = [(one.start, str(rng.choice(OPENING[one.value]))) for one in procedure.phases]
    cues += [(act.start, str(rng.choice(SPOKEN[act.action]))) for act in procedure.acts if rng.random() < SAID]
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


def step_text(procedure: Procedure, phase: Stretch) -> str:
    """What an author writes of one stretch of a phase."""
    text = STEPS[phase.value]
    if any(phase.start <= time < phase.end and much > 0.5 for time, much in procedure.bleeding):
        text += " Bleeding occurs."
    if (
        any(act.tool == "Bipolar" and phase.start <= act.start < phase.end for act in procedure.acts)
        and phase.value != script.CLEANING
    ):
        text += " The bipolar forceps are used."
    return text


def abstract(procedure: Procedure) -> str:
    """What an author writes of the whole."""
    names = [one.value for one in procedure.phases]
    bleeding = sum(much for _, much in procedure.bleeding)
    parts = ["Laparoscopic cholecystectomy."]
    if names.count(script.CALOT) > 1:
        parts.append("Calot's triangle is dissected in two steps.")
    parts.append(
        "The cystic duct and artery are clipped and divided, and the gallbladder is dissected from the liver bed and retrieved in a bag."
    )
    parts.append(
        "There is considerable bleeding."
        if bleeding > 1.2
        else "There is minor bleeding."
        if bleeding > 0
        else "There is no bleeding."
    )
    if script.CLEANING not in names:
        parts.append("No irrigation is needed.")
    elif names[-1] == script.CLEANING:
        parts.append("The field is cleaned again after the retrieval.")
    if _cleanings(procedure):
        parts.append("The lens is cleaned during the operation.")
    return " ".join(parts)
