"""What Cholec80, CholecT45 and CholecT50 share: the procedures themselves, their phases, and the words of action
triplets.

CholecT45 and 45 of CholecT50's 50 videos are videos of Cholec80 under the same number. Hence one name for a procedure
in all three: a split across them that leaks is found by `check_disjoint`.
"""

from __future__ import annotations

from collections.abc import Iterable

# In order of the numbers 0 to 6 of CholecT50 and HeiChole. Code bases disagree on the numbers of Packaging and
# Retraction: only names are compared.
PHASES = (
    "Preparation", "CalotTriangleDissection", "ClippingCutting", "GallbladderDissection", "GallbladderPackaging",
    "CleaningCoagulation", "GallbladderRetraction",
)  # fmt: skip
# CholecT50's own names of the same phases, its misspelling included.
PHASES_T50 = dict(
    zip(
        (
            "preparation", "carlot-triangle-dissection", "clipping-and-cutting", "gallbladder-dissection",
            "gallbladder-packaging", "cleaning-and-coagulation", "gallbladder-extraction",
        ),
        PHASES,
        strict=True,
    )
) | {"calot-triangle-dissection": "CalotTriangleDissection"}  # fmt: skip

INSTRUMENTS = ("grasper", "bipolar", "hook", "scissors", "clipper", "irrigator")
VERBS = (
    "grasp", "retract", "dissect", "coagulate", "clip", "cut", "aspirate", "irrigate", "pack", "null_verb",
)  # fmt: skip
TARGETS = (
    "gallbladder", "cystic_plate", "cystic_duct", "cystic_artery", "cystic_pedicle", "blood_vessel", "fluid",
    "abdominal_wall_cavity", "liver", "adhesion", "omentum", "peritoneum", "gut", "specimen_bag", "null_target",
)  # fmt: skip
# The 100 triplets in order of their number: for each instrument and verb the targets. Those with null come last.
_TARGETS_OF = {
    "grasper": {
        "dissect": "cystic_plate gallbladder omentum",
        "grasp": "cystic_artery cystic_duct cystic_pedicle cystic_plate gallbladder gut liver omentum peritoneum "
        "specimen_bag",
        "pack": "gallbladder",
        "retract": "cystic_duct cystic_pedicle cystic_plate gallbladder gut liver omentum peritoneum",
    },
    "bipolar": {
        "coagulate": "abdominal_wall_cavity blood_vessel cystic_artery cystic_duct cystic_pedicle cystic_plate "
        "gallbladder liver omentum peritoneum",
        "dissect": "adhesion cystic_artery cystic_duct cystic_plate gallbladder omentum",
        "grasp": "cystic_plate liver specimen_bag",
        "retract": "cystic_duct cystic_pedicle gallbladder liver omentum",
    },
    "hook": {
        "coagulate": "blood_vessel cystic_artery cystic_duct cystic_pedicle cystic_plate gallbladder liver omentum",
        "cut": "blood_vessel peritoneum",
        "dissect": "blood_vessel cystic_artery cystic_duct cystic_plate gallbladder omentum peritoneum",
        "retract": "gallbladder liver",
    },
    "scissors": {
        "coagulate": "omentum",
        "cut": "adhesion blood_vessel cystic_artery cystic_duct cystic_plate liver omentum peritoneum",
        "dissect": "cystic_plate gallbladder omentum",
    },
    "clipper": {"clip": "blood_vessel cystic_artery cystic_duct cystic_pedicle cystic_plate"},
    "irrigator": {
        "aspirate": "fluid",
        "dissect": "cystic_duct cystic_pedicle cystic_plate gallbladder omentum",
        "irrigate": "abdominal_wall_cavity cystic_pedicle liver",
        "retract": "gallbladder liver omentum",
    },
}
TRIPLETS = tuple(
    f"{instrument},{verb},{target}"
    for instrument, verbs in _TARGETS_OF.items()
    for verb, targets in verbs.items()
    for target in targets.split()
) + tuple(f"{instrument},null_verb,null_target" for instrument in INSTRUMENTS)
# An instrument that does nothing to nothing; scored apart.
NULL = {"verb": ("null_verb",), "target": ("null_target",), "triplet": ("null_verb", "null_target")}
PARTS = {"triplet": ("instrument", "verb", "target")}
VOCABULARY = {"triplet": TRIPLETS, "instrument": INSTRUMENTS, "verb": VERBS, "target": TARGETS}

# The official five folds of CholecT50; without the five videos that are not of Cholec80 they are those of CholecT45.
FOLDS = (
    (79, 2, 51, 6, 25, 14, 66, 23, 50, 111),
    (80, 32, 5, 15, 40, 47, 26, 48, 70, 96),
    (31, 57, 36, 18, 52, 68, 10, 8, 73, 103),
    (42, 29, 60, 27, 65, 75, 22, 49, 12, 110),
    (78, 43, 62, 35, 74, 1, 56, 4, 13, 92),
)
FOLD_NAMES = tuple(f"fold{fold}" for fold in range(1, len(FOLDS) + 1))
VALIDATION = 5  # a fold validates on the last videos of its training folds, in the order above
CHOLEC80 = range(1, 81)


def procedure(number: int) -> str:
    """The group of a video: one name for one operation in all three data sets."""
    return f"cholec80/{number:02d}" if number in CHOLEC80 else f"cholect50/{number}"


def fold_parts(number: int, videos: Iterable[int]) -> dict[str, str]:
    """Fold -> part of one video, where the data set holds `videos` alone."""
    held = set(videos)
    if number not in held:
        return {}
    parts: dict[str, str] = {}
    for index, name in enumerate(FOLD_NAMES):
        rest = [video for other, fold in enumerate(FOLDS) if other != index for video in fold if video in held]
        if number in FOLDS[index]:
            parts[name] = "test"
        else:
            parts[name] = "val" if number in rest[-VALIDATION:] else "train"
    return parts
