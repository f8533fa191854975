"""Coloured noise: white noise of which some frequencies are kept."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from recipes.parts import draws

Colour = Literal["red", "green", "blue"]


def coloured_noise(
    seeds: Tensor, shape: tuple[int, ...], colour: Colour, sigmas: tuple[float, float], *, name: str = ""
) -> Tensor:
    """Filtered white noise (B, *shape), fp32, on the CPU, of mean 0 and deviation 1 in each sample; periodic in every direction.

    With G_s white noise under a Gaussian of deviation s (in elements, the same in every direction), s < S of `sigmas`:
    red: G_S, large smooth patches; green: G_s - G_S, patches of one size; blue: G_0 - G_S, neighbours differ (Hinojosa et al., ColorMAE, ECCV 2024;
    over space and time: Bhowmik et al., Structured-Noise Masked Modeling, 2025). A sample's noise follows from its own seed and `name`.
    """
    white = torch.stack(
        [torch.from_numpy(random.standard_normal(shape, "float32")) for random in draws.generators(seeds, name)]
    )
    axes = tuple(range(1, len(shape) + 1))
    square = torch.zeros(())  # of the frequency, in cycles an element
    for axis, length in enumerate(shape):
        along = torch.fft.fftfreq(length).square()
        square = square + along.view(-1, *[1] * (len(shape) - 1 - axis))
    fine, coarse = ((-2 * (torch.pi * sigma) ** 2 * square).exp() for sigma in sigmas)
    kept = {"red": coarse, "green": fine - coarse, "blue": 1 - coarse}[colour]
    kept = kept.clone()
    kept[(0,) * len(shape)] = 0  # the mean
    noise = torch.fft.ifftn(torch.fft.fftn(white, dim=axes) * kept, dim=axes).real
    return noise / noise.square().mean(dim=axes, keepdim=True).sqrt().clamp_min(1e-12)
