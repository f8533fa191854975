"""Removal of the appendix: laparoscopic appendectomy with clips. Durations and shares are of the size that is usual; no data set was counted."""

from __future__ import annotations

import numpy as np

from domains.surgical.operation import Operation, draw_ending
from domains.surgical.operations.appendix import DIVISION, MESENTERY, PACKAGING, RETRACTION, Appendix
from domains.surgical.procedure import Procedure

EXPOSURE, CLEANING = "AppendixExposure", "PelvisCleaning"
SECONDS = {EXPOSURE: 260, MESENTERY: 620, DIVISION: 260, PACKAGING: 90, CLEANING: 220, RETRACTION: 80}
# What follows the division, and how often.
ENDINGS = (
    (0.5, (PACKAGING, CLEANING, RETRACTION)),
    (0.3, (CLEANING, PACKAGING, RETRACTION)),
    (0.2, (PACKAGING, RETRACTION)),
)
TOOLS: dict[str, dict[str, tuple[float, float, float]]] = {
    EXPOSURE: {"Grasper": (0.85, 0.1, 1), "Irrigator": (0.1, 0.4, 1)},
    MESENTERY: {"Grasper": (0.85, 0, 1), "Bipolar": (0.55, 0, 1), "Hook": (0.3, 0.1, 1), "Scissors": (0.2, 0.3, 1)},
    DIVISION: {"Grasper": (0.8, 0, 1), "Clipper": (0.8, 0.05, 0.6), "Scissors": (0.7, 0.6, 0.95)},
    PACKAGING: {"Grasper": (0.85, 0, 1), "SpecimenBag": (0.95, 0.2, 1)},
    CLEANING: {"Irrigator": (0.75, 0, 1), "Grasper": (0.4, 0, 1), "Bipolar": (0.15, 0.2, 0.9)},
    RETRACTION: {"Grasper": (0.8, 0, 1), "SpecimenBag": (0.9, 0, 0.85)},
}
ACTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "Grasper": {
        EXPOSURE: ("grasper,retract,caecum", "grasper,retract,gut"),
        PACKAGING: ("grasper,grasp,specimen_bag", "grasper,pack,appendix"),
        CLEANING: ("grasper,retract,gut",),
        RETRACTION: ("grasper,grasp,specimen_bag",),
        "": ("grasper,retract,appendix",),
    },
    "Hook": {"": ("hook,dissect,mesoappendix",)},
    "Bipolar": {
        MESENTERY: ("bipolar,coagulate,mesoappendix", "bipolar,coagulate,appendicular_artery"),
        "": ("bipolar,coagulate,caecum",),
    },
    "Scissors": {DIVISION: ("scissors,cut,appendix",), "": ("scissors,cut,mesoappendix",)},
    "Clipper": {"": ("clipper,clip,appendix",)},
    "Irrigator": {
        CLEANING: ("irrigator,irrigate,pelvis", "irrigator,aspirate,fluid"),
        "": ("irrigator,aspirate,fluid",),
    },
}
GAZE = {
    EXPOSURE: (270, 215, 0.97), MESENTERY: (265, 265, 1.4), DIVISION: (220, 265, 1.75), PACKAGING: (285, 240, 1.05), CLEANING: (305, 290, 1.2),
    RETRACTION: (275, 170, 0.98),
}  # fmt: skip
OPENING: dict[str, tuple[str, ...]] = {
    EXPOSURE: ("we look for the caecum and follow the taenia to the appendix", "the bowel goes aside and here is the appendix"),
    MESENTERY: ("now we take down the mesoappendix", "I start with the mesentery of the appendix close to the wall"),
    DIVISION: ("the base is free so we clip and cut the appendix", "now clips on the base of the appendix"),
    PACKAGING: ("please give me the bag for the appendix", "the appendix is free and goes into the bag"),
    CLEANING: ("we rinse the pelvis and look at the stump", "now some irrigation down in the pelvis"),
    RETRACTION: ("the bag with the appendix comes out through the trocar", "we pull the bag out now"),
}  # fmt: skip
SPOKEN: dict[str, tuple[str, ...]] = {
    "grasper,retract,caecum": ("the grasper lifts the caecum",),
    "grasper,retract,gut": ("with the grasper I push the small bowel aside",),
    "grasper,retract,appendix": ("the grasper holds the appendix up at its tip", "I keep the appendix under tension with the grasper"),
    "grasper,grasp,specimen_bag": ("the grasper holds the specimen bag open", "I take the bag with the grasper"),
    "grasper,pack,appendix": ("the grasper puts the appendix into the bag",),
    "hook,dissect,mesoappendix": ("with the hook I go through the mesoappendix",),
    "bipolar,coagulate,mesoappendix": ("the bipolar seals the mesoappendix step by step", "some bipolar on the mesentery"),
    "bipolar,coagulate,appendicular_artery": ("the bipolar closes the appendicular artery",),
    "bipolar,coagulate,caecum": ("the bipolar stops the oozing at the stump",),
    "scissors,cut,mesoappendix": ("the scissors cut what is sealed of the mesoappendix",),
    "scissors,cut,appendix": ("the scissors cut the appendix between the clips", "now the scissors on the base of the appendix"),
    "clipper,clip,appendix": ("a clip on the base of the appendix", "the clipper closes on the appendix"),
    "irrigator,irrigate,pelvis": ("we rinse the pelvis with the irrigator",),
    "irrigator,aspirate,fluid": ("suction please there is fluid", "the irrigator sucks the pus away"),
    "": ("there is the specimen bag",),
}  # fmt: skip
STEPS: dict[str, str] = {
    EXPOSURE: "Exposure: the bowel is moved aside and the appendix is found at the caecum.",
    MESENTERY: "Dissection of the mesoappendix: the mesentery and its artery are coagulated and cut.",
    DIVISION: "Division of the appendix: clips close the base, and scissors divide the appendix.",
    PACKAGING: "Packaging: the appendix is placed into the specimen bag.",
    CLEANING: "Cleaning: the pelvis is rinsed and sucked dry.",
    RETRACTION: "Retraction: the bag with the appendix is pulled out through the trocar.",
}


def draw_order(rng: np.random.Generator) -> list[str]:
    """Phases as they come."""
    return [EXPOSURE, MESENTERY, DIVISION, *draw_ending(ENDINGS, rng)]


def told(procedure: Procedure) -> list[str]:
    """What an author writes of the whole."""
    return [
        "The mesoappendix is coagulated and cut, the base is closed with clips, and the appendix is retrieved in a bag."
    ]


APPENDECTOMY = Operation(
    name="appendectomy",
    title="Laparoscopic appendectomy.",
    seconds=SECONDS,
    order=draw_order,
    tools=TOOLS,
    actions=ACTIONS,
    long=(MESENTERY,),
    cleaning=CLEANING,
    gaze=GAZE,
    opening=OPENING,
    spoken=SPOKEN,
    steps=STEPS,
    told=told,
    field=Appendix,
)
