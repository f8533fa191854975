"""What an adapted encoder is measured against: pixels, the same architecture with random weights, and the encoder that
it started from.
"""

from __future__ import annotations

import copy

import torch

from domains.errors import ConfigError
from domains.schema import nearest
from recipes.encoders.added import ADDED
from recipes.encoders.base import VideoEncoder

BASELINES = ("pixels", "random", "generic")
RANDOM_SEED = 7_919  # far from the seeds that people give to runs, so that it is no run's own start


def check_baselines(names: tuple[str, ...]) -> None:
    """Raises ConfigError for a name that is no baseline."""
    for name in names:
        if name not in BASELINES:
            raise ConfigError(f"no baseline '{name}'", do=nearest(name, list(BASELINES)))


def random_like(encoder: VideoEncoder, seed: int = RANDOM_SEED) -> VideoEncoder:
    """An encoder of the same architecture and geometry with freshly drawn weights; the caller's random state is left
    alone.
    """
    twin = copy.deepcopy(encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(encoder.model)(encoder.model.config)
        for name in ADDED:
            if (module := getattr(twin, name)) is not None:
                setattr(twin, name, type(module)(module.settings).to(next(module.parameters()).device))
    twin.model.load_state_dict(fresh.state_dict())
    return twin
