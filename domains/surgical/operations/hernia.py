"""Repair of an inguinal hernia from within (TAPP). Durations and shares are of the size that is usual; no data set was counted."""

from __future__ import annotations

import numpy as np

from domains.surgical.operation import Operation
from domains.surgical.operations.groin import CLOSURE, FIXATION, OPENING, PLACEMENT, REDUCTION, Groin
from domains.surgical.procedure import Procedure

INSPECTION = "HerniaInspection"
SECONDS = {INSPECTION: 130, OPENING: 380, REDUCTION: 720, PLACEMENT: 260, FIXATION: 200, CLOSURE: 400}
GLUED = 0.15  # share of repairs whose mesh is not tacked
TOOLS: dict[str, dict[str, tuple[float, float, float]]] = {
    INSPECTION: {"Grasper": (0.6, 0.2, 1)},
    OPENING: {"Grasper": (0.85, 0, 1), "Scissors": (0.6, 0, 1), "Hook": (0.3, 0.2, 1), "Bipolar": (0.06, 0.3, 1)},
    REDUCTION: {"Grasper": (0.95, 0, 1), "Hook": (0.3, 0, 1), "Bipolar": (0.12, 0.2, 1), "Irrigator": (0.06, 0.4, 1)},
    PLACEMENT: {"Grasper": (0.95, 0, 1)},
    FIXATION: {"Grasper": (0.6, 0, 1), "Clipper": (0.85, 0.05, 1)},
    CLOSURE: {"Grasper": (0.95, 0, 1), "Scissors": (0.15, 0.8, 1)},
}
ACTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "Grasper": {
        INSPECTION: ("grasper,retract,gut",),
        OPENING: ("grasper,retract,flap",),
        REDUCTION: ("grasper,retract,hernia_sac", "grasper,dissect,spermatic_cord"),
        PLACEMENT: ("grasper,pack,mesh",),
        FIXATION: ("grasper,grasp,mesh",),
        CLOSURE: ("grasper,grasp,peritoneum",),
    },
    "Hook": {OPENING: ("hook,cut,peritoneum",), "": ("hook,dissect,hernia_sac",)},
    "Bipolar": {"": ("bipolar,coagulate,blood_vessel",)},
    "Scissors": {"": ("scissors,cut,peritoneum",)},
    "Clipper": {"": ("clipper,clip,mesh_edge",)},
    "Irrigator": {"": ("irrigator,aspirate,fluid",)},
}
GAZE = {
    INSPECTION: (295, 205, 0.97), OPENING: (285, 160, 1.25), REDUCTION: (300, 225, 1.5), PLACEMENT: (295, 200, 1.1), FIXATION: (295, 185, 1.3),
    CLOSURE: (285, 180, 1.2),
}  # fmt: skip
SAID: dict[str, tuple[str, ...]] = {
    INSPECTION: ("here is the hernia beside the vessels", "we have a first look at the groin and its hernia"),
    OPENING: ("now we open the peritoneum above the hernia", "I cut the peritoneum from the side to the middle"),
    REDUCTION: ("now the sac comes back and the cord stays", "we take the hernia sac off the cord"),
    PLACEMENT: ("the mesh comes in and we spread it", "please give me the mesh"),
    FIXATION: ("we fix the mesh with some tacks", "now the tacker on the upper edge of the mesh"),
    CLOSURE: ("we close the peritoneum over the mesh", "now a running suture of the flap"),
}  # fmt: skip
SPOKEN: dict[str, tuple[str, ...]] = {
    "grasper,retract,gut": ("with the grasper I push the bowel aside",),
    "grasper,retract,flap": ("the grasper pulls the flap down", "I hold the edge of the peritoneum with the grasper"),
    "grasper,retract,hernia_sac": ("the grasper pulls the hernia sac back", "I pull at the sac with the grasper"),
    "grasper,dissect,spermatic_cord": ("with the graspers I push the cord off the sac",),
    "grasper,pack,mesh": ("the grasper spreads the mesh over the gap", "I unroll the mesh with the grasper"),
    "grasper,grasp,mesh": ("the grasper holds the mesh in its place",),
    "grasper,grasp,peritoneum": ("the grasper takes the needle through the peritoneum", "one more stitch through the flap"),
    "hook,cut,peritoneum": ("the hook cuts the peritoneum",),
    "hook,dissect,hernia_sac": ("the hook frees the hernia sac",),
    "bipolar,coagulate,blood_vessel": ("the bipolar coagulates this small vessel",),
    "scissors,cut,peritoneum": ("the scissors open the peritoneum", "now the scissors along the peritoneum"),
    "clipper,clip,mesh_edge": ("a tack into the edge of the mesh", "the tacker fixes the mesh"),
    "irrigator,aspirate,fluid": ("suction please there is fluid",),
}  # fmt: skip
STEPS: dict[str, str] = {
    INSPECTION: "Inspection: the groin is inspected and the gap of the hernia is found.",
    OPENING: "Opening of the peritoneum: a flap is cut above the hernia and taken down.",
    REDUCTION: "Reduction of the sac: the hernia sac is separated from the spermatic cord and pulled back.",
    PLACEMENT: "Placement of the mesh: a mesh is brought in and spread over the gap.",
    FIXATION: "Fixation of the mesh: tacks hold the mesh.",
    CLOSURE: "Closure of the peritoneum: the flap is sewn over the mesh.",
}


def draw_order(rng: np.random.Generator) -> list[str]:
    """Phases as they come."""
    tacked = [FIXATION] if rng.random() >= GLUED else []
    return [INSPECTION, OPENING, REDUCTION, PLACEMENT, *tacked, CLOSURE]


def told(procedure: Procedure) -> list[str]:
    """What an author writes of the whole."""
    tacked = any(one.value == FIXATION for one in procedure.phases)
    held = "fixed with tacks" if tacked else "left without tacks"
    return [
        f"The peritoneum is opened, the sac is reduced, a mesh is spread over the gap and {held}, and the flap is sewn."
    ]


HERNIA = Operation(
    name="hernia_repair",
    title="Laparoscopic repair of an inguinal hernia.",
    seconds=SECONDS,
    order=draw_order,
    tools=TOOLS,
    actions=ACTIONS,
    long=(REDUCTION,),
    cleaning="",
    gaze=GAZE,
    opening=SAID,
    spoken=SPOKEN,
    steps=STEPS,
    told=told,
    field=Groin,
)
