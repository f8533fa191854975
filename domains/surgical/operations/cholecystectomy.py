"""Removal of the gallbladder: laparoscopic cholecystectomy.

Durations, order and tools follow what is published of Cholec80 (Twinanda et al., IEEE TMI 2017): medians of the phases in `SECONDS`, orders in
`ENDINGS`, shares of time in `TOOLS`.
"""

from __future__ import annotations

import numpy as np

from domains.layouts.cholec import PHASES
from domains.surgical.operation import Operation, draw_ending
from domains.surgical.operations.gallbladder import Gallbladder
from domains.surgical.procedure import Procedure

PREPARATION, CALOT, CLIPPING, DISSECTION, PACKAGING, CLEANING, RETRACTION = PHASES
SECONDS = {PREPARATION: 100, CALOT: 800, CLIPPING: 150, DISSECTION: 740, PACKAGING: 85, CLEANING: 150, RETRACTION: 75}
# What follows the dissection of the gallbladder, and how often: cleaning comes before, after, twice or not at all.
ENDINGS = (
    (0.45, (PACKAGING, CLEANING, RETRACTION)),
    (0.20, (CLEANING, PACKAGING, RETRACTION)),
    (0.15, (PACKAGING, RETRACTION)),
    (0.10, (PACKAGING, CLEANING, RETRACTION, CLEANING)),
    (0.10, (PACKAGING, RETRACTION, CLEANING)),
)
AGAIN = 0.12  # probability that after the first clips the triangle is dissected further
# Share of the time of a phase that a tool is in view, and the part of the phase in which it comes at all.
TOOLS: dict[str, dict[str, tuple[float, float, float]]] = {
    PREPARATION: {"Grasper": (0.6, 0.1, 1), "Hook": (0.05, 0.5, 1), "Bipolar": (0.03, 0.5, 1)},
    CALOT: {"Grasper": (0.8, 0, 1), "Hook": (0.75, 0, 1), "Bipolar": (0.07, 0.2, 1), "Irrigator": (0.04, 0.3, 1)},
    CLIPPING: {"Grasper": (0.75, 0, 1), "Clipper": (0.8, 0.05, 0.55), "Scissors": (0.75, 0.55, 0.9), "Hook": (0.3, 0.85, 1)},
    DISSECTION: {"Grasper": (0.85, 0, 1), "Hook": (0.8, 0, 1), "Bipolar": (0.08, 0.2, 1), "Irrigator": (0.05, 0.3, 1)},
    PACKAGING: {"Grasper": (0.85, 0, 1), "SpecimenBag": (0.95, 0.2, 1)},
    CLEANING: {"Irrigator": (0.65, 0, 1), "Bipolar": (0.4, 0.1, 0.9), "Grasper": (0.4, 0, 1)},
    RETRACTION: {"Grasper": (0.8, 0, 1), "SpecimenBag": (0.9, 0, 0.85)},
}  # fmt: skip
# Instrument, verb, target of CholecT50 that a tool stands for; the bag is none.
ACTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "Grasper": {
        PREPARATION: ("grasper,grasp,gallbladder", "grasper,retract,omentum"),
        PACKAGING: ("grasper,grasp,specimen_bag", "grasper,pack,gallbladder"),
        CLEANING: ("grasper,retract,liver",),
        RETRACTION: ("grasper,grasp,specimen_bag",),
        "": ("grasper,retract,gallbladder",),
    },
    "Hook": {
        CALOT: ("hook,dissect,cystic_duct", "hook,dissect,cystic_artery", "hook,cut,peritoneum"),
        DISSECTION: ("hook,dissect,gallbladder", "hook,dissect,cystic_plate"),
        "": ("hook,dissect,omentum",),
    },
    "Bipolar": {
        CALOT: ("bipolar,coagulate,blood_vessel",),
        DISSECTION: ("bipolar,coagulate,cystic_plate",),
        "": ("bipolar,coagulate,liver",),
    },
    "Scissors": {"": ("scissors,cut,cystic_duct", "scissors,cut,cystic_artery")},
    "Clipper": {"": ("clipper,clip,cystic_duct", "clipper,clip,cystic_artery")},
    "Irrigator": {
        CLEANING: ("irrigator,irrigate,liver", "irrigator,aspirate,fluid"),
        "": ("irrigator,aspirate,fluid",),
    },
}
# Where the camera looks in each phase: x, y of the field, zoom.
GAZE = {
    PREPARATION: (285, 205, 0.95), CALOT: (225, 235, 1.45), CLIPPING: (205, 250, 1.8),
    DISSECTION: (295, 205, 1.25), PACKAGING: (285, 250, 1.05), CLEANING: (310, 190, 1.3),
    RETRACTION: (295, 170, 0.98),
}  # fmt: skip
OPENING: dict[str, tuple[str, ...]] = {
    PREPARATION: ("we have a first look around the abdomen and find the gallbladder", "the trocars are in and I grasp the gallbladder"),
    CALOT: ("now we start the dissection of the calot triangle", "I open the peritoneum in front of the calot triangle"),
    CLIPPING: ("both structures are free so now we clip and cut them", "this is the critical view and we can clip"),
    DISSECTION: ("now I take the gallbladder off the liver bed", "we go on with the dissection of the gallbladder from the liver"),
    PACKAGING: ("please give me the bag for the gallbladder", "the gallbladder is free and goes into the bag"),
    CLEANING: ("we clean up and check the liver bed for bleeding", "now some irrigation and coagulation"),
    RETRACTION: ("the bag comes out through the umbilical trocar", "we pull the bag out now"),
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
STEPS: dict[str, str] = {
    PREPARATION: "Preparation: the abdomen is inspected and the gallbladder is exposed.",
    CALOT: "Dissection of Calot's triangle: the hook opens the peritoneum and frees the cystic duct and the cystic artery from fat.",
    CLIPPING: "Clipping and cutting: clips are placed on the cystic duct and artery, and scissors divide them.",
    DISSECTION: "Gallbladder dissection: the hook separates the gallbladder from the liver bed.",
    PACKAGING: "Packaging: the gallbladder is placed into the specimen bag.",
    CLEANING: "Cleaning and coagulation: the field is rinsed and sucked dry, and bleeding of the liver bed is coagulated.",
    RETRACTION: "Retraction: the specimen bag is pulled out through the trocar.",
}


def draw_order(rng: np.random.Generator) -> list[str]:
    """Phases as they come."""
    order = [PREPARATION] if rng.random() < 0.95 else []
    order += [CALOT, CLIPPING]
    if rng.random() < AGAIN:
        order += [CALOT, CLIPPING]
    return [*order, DISSECTION, *draw_ending(ENDINGS, rng)]


def told(procedure: Procedure) -> list[str]:
    """What an author writes of the whole."""
    names = [one.value for one in procedure.phases]
    twice = ["Calot's triangle is dissected in two steps."] if names.count(CALOT) > 1 else []
    return [
        *twice,
        "The cystic duct and artery are clipped and divided, and the gallbladder is dissected from the liver bed and retrieved in a bag.",
    ]


CHOLECYSTECTOMY = Operation(
    name="cholecystectomy",
    title="Laparoscopic cholecystectomy.",
    seconds=SECONDS,
    order=draw_order,
    tools=TOOLS,
    actions=ACTIONS,
    long=(CALOT, DISSECTION),
    cleaning=CLEANING,
    gaze=GAZE,
    opening=OPENING,
    spoken=SPOKEN,
    steps=STEPS,
    told=told,
    field=Gallbladder,
)
