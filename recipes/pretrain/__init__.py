"""Methods of pretraining: one file each, its YAML beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, NonNegativeFloat

from domains.errors import ConfigError
from domains.schema import Strict, nearest, parse
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Objective
from recipes.parts.pretext import Pretext, PretextSettings
from recipes.pretrain.added import add, alone
from recipes.pretrain.advise import ADVISE
from recipes.pretrain.byol import BYOL
from recipes.pretrain.cecl import CECL
from recipes.pretrain.chirality import Chirality
from recipes.pretrain.clip import CLIP
from recipes.pretrain.cmc import CMC
from recipes.pretrain.coclr import CoCLR
from recipes.pretrain.comix import CoMix
from recipes.pretrain.cpnet import CPNet
from recipes.pretrain.crossvideomae import CrossVideoMAE
from recipes.pretrain.cvrl import CVRL
from recipes.pretrain.dino import DINO
from recipes.pretrain.discovr import DISCOVR
from recipes.pretrain.dsm import DSM
from recipes.pretrain.egoexonce import EgoExoNCE
from recipes.pretrain.egonce import EgoNCE
from recipes.pretrain.everest import EVEREST
from recipes.pretrain.hecvl import HecVL
from recipes.pretrain.iic import IIC
from recipes.pretrain.imu import IMUVideo
from recipes.pretrain.marlin import MARLIN
from recipes.pretrain.mme import MME
from recipes.pretrain.moco import MoCo
from recipes.pretrain.oddoneout import OddOneOut
from recipes.pretrain.ophclip import OphCLIP
from recipes.pretrain.order import Order
from recipes.pretrain.peskavlp import PeskaVLP
from recipes.pretrain.previps import PreViPS
from recipes.pretrain.procedure import Procedure
from recipes.pretrain.rspnet import RSPNet
from recipes.pretrain.salt import SALT
from recipes.pretrain.scale import SCALE
from recipes.pretrain.simclr import SimCLR
from recipes.pretrain.smile import SMILE
from recipes.pretrain.statistics import Statistics
from recipes.pretrain.surgvlp import SurgVLP
from recipes.pretrain.swav import SwAV
from recipes.pretrain.tt import TT
from recipes.pretrain.vicmae import ViCMAE
from recipes.pretrain.videomae import VideoMAE
from recipes.pretrain.vididi import ViDiDi
from recipes.pretrain.vjepa import VJEPA
from recipes.pretrain.vthcl import VTHCL

# Each is a method by itself, and can be added to any other (`pretext` in the settings of a run).
PRETEXTS: list[type[Pretext]] = [RSPNet, TT, Order, OddOneOut, CPNet, Statistics]

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
    *(alone(kind) for kind in PRETEXTS),
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
    CoMix,
    CLIP,
    SurgVLP,
    HecVL,
    PeskaVLP,
    OphCLIP,
    CECL,
    EgoNCE,
    CMC,
    EgoExoNCE,
    Chirality,
    IMUVideo,
    PreViPS,
    Procedure,
]


def method(name: str) -> type[Objective]:
    """The method `name`. Raises ConfigError with the nearest name."""
    for candidate in METHODS:
        if candidate.name == name:
            return candidate
    raise ConfigError(f"no method '{name}'", do=nearest(name, [candidate.name for candidate in METHODS]))


def pretext(name: str) -> type[Pretext]:
    """The pretext task `name`. Raises ConfigError with the nearest name."""
    for candidate in PRETEXTS:
        if candidate.name == name:
            return candidate
    raise ConfigError(f"no pretext task '{name}'", where="pretext", do=nearest(name, [kind.name for kind in PRETEXTS]))


class Weight(Strict):
    """How much an added pretext task counts."""

    weight: NonNegativeFloat = Field(description="of its loss, beside the method's own; 0 takes the task away")


def added_tasks(said: Mapping[str, Any], to: str) -> dict[str, tuple[float, PretextSettings]]:
    """The `pretext` section of a run, added to the method `to`: name -> (weight, its settings), without those of weight 0.

    said: name -> a weight, or a section of a weight and the task's own settings. Raises ConfigError.
    """
    tasks: dict[str, tuple[float, PretextSettings]] = {}
    for name, value in said.items():
        kind, where = pretext(name), f"pretext.{name}"
        if name == to:
            raise ConfigError(f"'{name}' is the method itself", where="pretext", do="Leave it out")
        values = dict(value) if isinstance(value, Mapping) else {"weight": value}
        if "weight" not in values:
            raise ConfigError(f"'{where}' has no weight", do=f"Say how much it counts: {where}.weight=0.5")
        weight = parse(Weight, {"weight": values.pop("weight")}, where).weight
        settings = parse(kind.Settings, values, f"{where} ({kind.name})")
        if weight > 0:
            tasks[name] = weight, settings
    return tasks


def build_method(
    name: str,
    values: Mapping[str, Any],
    added: Mapping[str, Any],
    encoder: VideoEncoder,
    where: str = "",
    *,
    text: TextEncoder | None = None,
) -> Objective:
    """The method `name` with its settings `values` around an encoder, and the pretext tasks `added` to it (a run's `pretext` section).

    text: the tower of a method that learns from texts. New parts draw from torch's generator, the method's own first: they are the same with tasks
    and without. Raises ConfigError.
    """
    kind = method(name)
    tasks = added_tasks(added, name)
    settings = parse(kind.Settings, values, where or f"objective ({name})")
    main = kind(encoder, settings) if text is None else kind(encoder, settings, text)  # type: ignore[call-arg]
    return add(main, {task: (weight, pretext(task)(encoder, own)) for task, (weight, own) in tasks.items()})
