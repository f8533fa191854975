"""Clips without some of their frequencies, in time or in the picture: FreqAug (Kim et al., AAAI 2023), on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from domains.store.clips import EVERYTHING


def keep_frequencies(clips: Tensor, temporal: Tensor, spatial: Tensor) -> Tensor:
    """Normalised clips (B, T, C, H, W), changed in place where they lose anything; the others stay as they are, to the bit.

    temporal, spatial (B, 2) on the CPU: frequencies [least, below) that each clip keeps, in cycles a frame and a pixel; `EVERYTHING` for those that
    lose none. The filters are ideal and wrap around. A clip that loses the lowest is left with mean 0, which on the scale of normalised pixels is a
    picture's mean: that is why this comes after normalising.
    """
    for bands, keep in ((temporal, keep_temporal), (spatial, keep_spatial)):
        rows = (bands != torch.tensor(EVERYTHING, dtype=bands.dtype)).any(dim=1).nonzero().squeeze(1)
        if len(rows):  # known on the CPU: nothing waits for the device
            there = rows.to(clips.device, non_blocking=True)
            clips.index_copy_(0, there, keep(clips.index_select(0, there), bands[rows]))
    return clips


def keep_temporal(clips: Tensor, bands: Tensor) -> Tensor:
    """clips (B, T, C, H, W) with the frequencies in time that bands (B, 2) keep."""
    frames = clips.shape[1]
    kept = within(torch.fft.rfftfreq(frames, dtype=bands.dtype), bands)  # B, T / 2 + 1
    spectrum = torch.fft.rfft(torch.eye(frames, dtype=bands.dtype), dim=0)
    filters = torch.fft.irfft(
        kept.unsqueeze(2) * spectrum, n=frames, dim=1
    )  # B, T, T: few numbers, and no FFT of pixels
    filters = filters.to(clips.dtype).to(clips.device, non_blocking=True)
    return torch.einsum("bst,btchw->bschw", filters, clips)


def keep_spatial(clips: Tensor, bands: Tensor) -> Tensor:
    """clips (B, T, C, H, W) with the frequencies in the picture, in any direction, that bands (B, 2) keep."""
    height, width = clips.shape[-2:]
    down, across = torch.fft.fftfreq(height, dtype=bands.dtype), torch.fft.rfftfreq(width, dtype=bands.dtype)
    kept = within(torch.hypot(down.unsqueeze(1), across), bands)  # B, H, W / 2 + 1
    spectrum = torch.fft.rfft2(clips) * kept.to(clips.device, non_blocking=True)[:, None, None]
    return torch.fft.irfft2(spectrum, s=(height, width))


def within(frequencies: Tensor, bands: Tensor) -> Tensor:
    """Which of frequencies (...) are in each of bands (B, 2): (B, ...) bool."""
    least, below = bands.view(-1, 2, *[1] * frequencies.ndim).unbind(dim=1)
    return (frequencies >= least) & (frequencies < below)
