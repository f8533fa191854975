"""A small tower for what a wearable measures: acceleration and turning of a wrist, or any other numbers over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from domains.errors import ConfigError

LAYERS, KERNEL = 3, 5


class SignalTower(nn.Module):
    """Numbers over time (B, T, channels), NaN where nothing was measured -> (B, 2 * width): the mean over time of what three strided convolutions
    make of them, and how much that changes (the 1D-CNN of IMU2CLIP, Moon et al., 2022, without its recurrent layer).

    Any T will do. Values are taken as sign(x) log(1 + |x|), so that gravity does not drown a gesture and units hardly matter; a second channel of
    each says where something was measured.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.convolutions = nn.ModuleList(
            nn.Conv1d(2 * channels if number == 0 else width, width, KERNEL, stride=2, padding=KERNEL // 2)
            for number in range(LAYERS)
        )
        self.norm = nn.LayerNorm(2 * width)

    def forward(self, signal: Tensor) -> Tensor:
        """See the class. Raises ConfigError for another number of channels."""
        if signal.shape[-1] != self.channels:
            what = f"the signal has {signal.shape[-1]} channels, and objective.channels is {self.channels}"
            raise ConfigError(what, do=f"Set objective.channels={signal.shape[-1]}")
        known = ~signal.isnan()
        values = torch.where(known, signal, 0.0)
        hidden = torch.cat([values.sign() * values.abs().log1p(), known.to(values.dtype)], dim=-1).transpose(1, 2)
        for convolution in self.convolutions:
            hidden = nn.functional.gelu(convolution(hidden))
        over_time = hidden.float().var(dim=2, correction=0).clamp_min(1e-12).sqrt()
        said: Tensor = self.norm(torch.cat([hidden.float().mean(dim=2), over_time], dim=1))
        return said
