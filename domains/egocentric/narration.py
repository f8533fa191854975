"""What annotators say of an action, in the manner of Ego4D: one of a few sentences, so that verbs and nouns come again and again."""

from __future__ import annotations

import numpy as np

VERBS: dict[str, tuple[str, ...]] = {
    "open": ("opens the {noun}", "opens the {noun} with her right hand", "pulls the {noun} open"),
    "close": ("closes the {noun}", "closes the {noun} again", "shuts the {noun}"),
    "pick up": ("picks up the {noun}", "picks the {noun} up", "takes the {noun}"),
    "put down": ("puts down the {noun}", "puts the {noun} down", "places the {noun}"),
    "turn on": ("turns on the {noun}", "turns the {noun} on", "switches on the {noun}"),
    "turn off": ("turns off the {noun}", "turns the {noun} off", "switches off the {noun}"),
    "push": ("pushes the {noun}", "pushes the {noun} to the wall", "moves the {noun} away"),
    "pull": ("pulls the {noun}", "pulls the {noun} closer", "drags the {noun} out"),
    "shake": ("shakes the {noun}", "shakes up the {noun}"),
    "stir": ("stirs the {noun}", "stirs in the {noun}"),
    "wipe": ("wipes the table with the {noun}", "wipes with the {noun}"),
    "read": ("reads the {noun}", "reads in the {noun}"),
    "hammer": ("hammers with the {noun}", "strikes with the {noun}"),
    "cut": ("cuts with the {noun}", "slices with the {noun}"),
    "drink": ("drinks from the {noun}", "has a sip from the {noun}"),
}  # fmt: skip
COLOURS = ("red", "blue", "green", "yellow")


def narrate(verb: str, noun: str, team: int, exo: bool, rng: np.random.Generator) -> str:
    """A sentence about the wearer ("#C C"), or, from beside, about a person by the colour of the shirt."""
    sentence = str(rng.choice(VERBS[verb])).format(noun=noun)
    who = f"the person in {COLOURS[team % len(COLOURS)]}" if exo else "#C C"
    return f"{who} {sentence}"
