"""What is on the walls and floors of the phantom's rooms: small pictures that repeat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domains.egocentric.house import ROOMS

SIZE = 32  # pixels of a cell's wall or floor, each way
Paper = NDArray[np.float32]

WALLS = {
    "kitchen": ("tiles", (236, 236, 228), (150, 170, 180)), "pantry": ("planks", (176, 122, 70), (120, 78, 42)),
    "bathroom": ("tiles", (120, 196, 206), (230, 246, 248)), "office": ("stripes", (206, 206, 190), (150, 140, 110)),
    "hall": ("brick", (176, 84, 62), (206, 196, 180)), "workshop": ("brick", (128, 132, 138), (84, 86, 92)),
    "bedroom": ("dots", (170, 140, 200), (236, 220, 246)), "lounge": ("stripes", (150, 40, 60), (206, 150, 70)),
    "nursery": ("dots", (250, 220, 120), (236, 96, 96)), "doorway": ("plain", (222, 216, 206), (200, 190, 180)),
}  # fmt: skip
FLOORS = {
    "kitchen": ("checks", (232, 232, 232), (60, 60, 66)), "pantry": ("planks", (140, 96, 56), (112, 74, 42)),
    "bathroom": ("tiles", (214, 232, 236), (120, 160, 170)), "office": ("plain", (110, 120, 130), (100, 110, 120)),
    "hall": ("checks", (190, 150, 110), (150, 110, 80)), "workshop": ("plain", (120, 116, 110), (110, 106, 100)),
    "bedroom": ("planks", (200, 160, 110), (170, 132, 86)), "lounge": ("plain", (96, 40, 44), (86, 34, 38)),
    "nursery": ("dots", (130, 190, 120), (110, 170, 100)), "doorway": ("planks", (120, 100, 80), (100, 84, 66)),
}  # fmt: skip


def _pattern(kind: str) -> NDArray[np.bool_]:
    """(SIZE, SIZE): where the second colour is."""
    y, x = np.mgrid[:SIZE, :SIZE]
    if kind == "tiles":
        return (y % 8 == 0) | (x % 8 == 0)
    if kind == "brick":
        return (y % 8 == 0) | ((x + 8 * (y // 8 % 2)) % 16 == 0)
    if kind == "planks":
        return x % 8 == 0
    if kind == "stripes":
        return x // 4 % 2 == 0
    if kind == "dots":
        return (x % 16 - 8) ** 2 + (y % 16 - 8) ** 2 < 16
    if kind == "checks":
        return (x // 16 + y // 16) % 2 == 0
    return np.zeros((SIZE, SIZE), bool)


def papers(table: dict[str, tuple[str, tuple[int, int, int], tuple[int, int, int]]], rng: np.random.Generator) -> Paper:
    """(rooms + 1, SIZE, SIZE, 3) in [0, 255]: of every room, then of doorways; colours a little other in every house."""
    found = []
    for name in (*ROOMS, "doorway"):
        kind, first, second = table[name]
        tint = rng.uniform(-10, 10, 3)
        where = _pattern(kind)[..., None]
        picture = np.where(where, np.array(second) + tint, np.array(first) + tint)
        grain = rng.normal(0, 4, (SIZE, SIZE, 1))
        found.append(np.clip(picture + grain, 0, 255))
    return np.stack(found).astype(np.float32)
