"""Methods of pretraining: one file each, its YAML beside it."""

from __future__ import annotations

from domains.errors import ConfigError
from domains.schema import nearest
from recipes.objective import Objective
from recipes.pretrain.coclr import CoCLR
from recipes.pretrain.crossvideomae import CrossVideoMAE
from recipes.pretrain.cvrl import CVRL
from recipes.pretrain.discovr import DISCOVR
from recipes.pretrain.dsm import DSM
from recipes.pretrain.everest import EVEREST
from recipes.pretrain.iic import IIC
from recipes.pretrain.marlin import MARLIN
from recipes.pretrain.mme import MME
from recipes.pretrain.moco import MoCo
from recipes.pretrain.simclr import SimCLR
from recipes.pretrain.smile import SMILE
from recipes.pretrain.vicmae import ViCMAE
from recipes.pretrain.videomae import VideoMAE
from recipes.pretrain.vididi import ViDiDi
from recipes.pretrain.vthcl import VTHCL

METHODS: list[type[Objective]] = [
    DISCOVR,
    VideoMAE,
    SimCLR,
    EVEREST,
    ViCMAE,
    CrossVideoMAE,
    MARLIN,
    MME,
    SMILE,
    MoCo,
    CVRL,
    VTHCL,
    IIC,
    DSM,
    CoCLR,
    ViDiDi,
]


def method(name: str) -> type[Objective]:
    """The method `name`. Raises ConfigError with the nearest name."""
    for candidate in METHODS:
        if candidate.name == name:
            return candidate
    raise ConfigError(f"no method '{name}'", do=nearest(name, [candidate.name for candidate in METHODS]))
