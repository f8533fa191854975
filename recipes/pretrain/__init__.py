"""Methods of pretraining: one file each, its YAML beside it."""

from __future__ import annotations

from domains.errors import ConfigError
from domains.schema import nearest
from recipes.objective import Objective
from recipes.pretrain.advise import ADVISE
from recipes.pretrain.byol import BYOL
from recipes.pretrain.coclr import CoCLR
from recipes.pretrain.cvrl import CVRL
from recipes.pretrain.dino import DINO
from recipes.pretrain.discovr import DISCOVR
from recipes.pretrain.dsm import DSM
from recipes.pretrain.iic import IIC
from recipes.pretrain.moco import MoCo
from recipes.pretrain.salt import SALT
from recipes.pretrain.scale import SCALE
from recipes.pretrain.simclr import SimCLR
from recipes.pretrain.swav import SwAV
from recipes.pretrain.videomae import VideoMAE
from recipes.pretrain.vididi import ViDiDi
from recipes.pretrain.vjepa import VJEPA
from recipes.pretrain.vthcl import VTHCL

METHODS: list[type[Objective]] = [
    DISCOVR,
    VideoMAE,
    SimCLR,
    MoCo,
    CVRL,
    VTHCL,
    IIC,
    DSM,
    CoCLR,
    ViDiDi,
    BYOL,
    SwAV,
    DINO,
    VJEPA,
    SALT,
    SCALE,
    ADVISE,
]


def method(name: str) -> type[Objective]:
    """The method `name`. Raises ConfigError with the nearest name."""
    for candidate in METHODS:
        if candidate.name == name:
            return candidate
    raise ConfigError(f"no method '{name}'", do=nearest(name, [candidate.name for candidate in METHODS]))
