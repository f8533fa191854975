"""Which way a clip goes: a small adapter over the features of its frames that turns around when time does."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from domains.schema import Strict
from recipes.encoders.positions import sincos_table


class TrajectorySettings(Strict):
    """The shape of a `Trajectory`. features: channels of a frame's features; width: of the blocks, and of each half of what it says."""

    features: PositiveInt
    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt


class Trajectory(nn.Module):
    """Features of frames in order (B, t, features) -> (B, 2 * width): what stays, and where it goes.

        y       = g(f), g a small transformer over time                                        (B, t, width)
        stays   = mean over t of y_t,     goes = sum over t of u_t y_t / sum over t of u_t^2,     u_t from -1 to 1
        both averaged with those of the clip backwards, whose `goes` changes its sign

    The least-squares line through y: where its middle is, and its slope. By its make and whatever its weights, of a clip played backwards `stays` is
    the same and `goes` the opposite: two actions that are each other's reverse lie on two sides of the origin. A clip that stands still goes nowhere.

    What it reads of a frame is how far it is from the clip's mean, every channel in multiples of how much it usually changes (`spread`, which the
    method that trains it keeps).
    """

    spread: Tensor

    def __init__(self, settings: TrajectorySettings) -> None:
        super().__init__()
        self.settings = settings
        inner = settings.width
        self.enter = nn.Linear(settings.features, inner)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(inner, settings.heads, 4 * inner, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(settings.depth)
        )
        self.norm = nn.LayerNorm(inner)
        self.leave = nn.Linear(inner, inner)
        self.register_buffer("spread", torch.zeros(settings.features))

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        return torch.cat(self.halves(self.changes(frames)), dim=-1)

    def changes(self, frames: Tensor) -> Tensor:
        """What is read of frames (B, t, features): the same shape, fp32."""
        rows = frames.float()
        return (rows - rows.mean(dim=1, keepdim=True)) / self.spread.clamp_min(1e-6)

    def halves(self, changes: Tensor) -> tuple[Tensor, Tensor]:
        """(stays, goes), each (B, width), of what `changes` says."""
        hidden = self.enter(torch.cat([changes, changes.flip(1)]))
        hidden = hidden + sincos_table(changes.shape[1], self.settings.width).to(hidden)
        for block in self.blocks:
            hidden = block(hidden)
        points = self.leave(self.norm(hidden)).float()
        places = steps(changes.shape[1], points.device)
        middle, slope = points.mean(dim=1), (points * places).sum(dim=1) / places.square().sum().clamp_min(1)
        (there, back), (forwards, backwards) = middle.chunk(2), slope.chunk(2)
        return (there + back) / 2, (forwards - backwards) / 2


def steps(frames: int, device: torch.device) -> Tensor:
    """u: (frames, 1) from -1 to 1."""
    return torch.linspace(-1, 1, frames, device=device).unsqueeze(1)
