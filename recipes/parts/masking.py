"""The one mask parameter of masked methods: which tokens the student sees."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, field_validator
from torch import Tensor

from domains.schema import Strict
from recipes.parts.masks import Masks, motion_masks, noise_masks, random_masks, running_cells, tube_masks
from recipes.parts.noise import Colour


class MaskSettings(Strict):
    """How tokens are hidden; a part of the settings of every method that reconstructs clips."""

    mask: Literal["tube", "random", "noise", "motion"] = Field(
        "tube",
        description="tube: the same places in every frame; random: any tokens; noise: where coloured noise is low; motion: tubes that follow motion",
    )
    mask_ratio: float = Field(0.9, gt=0, lt=1, description="share of tokens hidden")
    noise_colour: Colour = Field(
        "green", description="mask noise: red, large smooth patches; green, patches of one size; blue, scattered"
    )
    noise_sigmas: tuple[float, float] = Field(
        (0.75, 1.5), description="mask noise: the filter's two deviations, in tokens, the smaller first"
    )
    motion_reach: PositiveInt = Field(
        8, description="mask motion: pixels searched from a tubelet to the next; cost grows with its square"
    )

    @field_validator("noise_sigmas")
    @classmethod
    def _rising(cls, sigmas: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= sigmas[0] < sigmas[1]:
            raise ValueError("needs two numbers of at least 0, the smaller first")
        return sigmas


def draw_masks(
    settings: MaskSettings,
    seeds: Tensor,
    clip: Tensor,
    grid: tuple[int, int, int],
    patch: tuple[int, int],
    *,
    name: str = "",
) -> Masks:
    """The masks that `settings` ask for, on the clip's device: visible (B, 1, V) and hidden (B, 1, N - V), rising.

    seeds (B,); clip (B, T, C, H, W), read by `motion` alone; patch (tubelet, pixels). A sample's mask follows from its own seed, and clip.
    """
    s, ratio = settings, settings.mask_ratio
    if s.mask == "motion":
        return motion_masks(seeds, clip, grid, patch, ratio, s.motion_reach, name=name)
    if s.mask == "noise":
        masks = noise_masks(seeds, grid, ratio, s.noise_colour, s.noise_sigmas, name=name)
    elif s.mask == "random":
        masks = random_masks(seeds, grid, ratio, name=name)
    else:
        masks = tube_masks(seeds, grid, ratio, name=name)
    return Masks(*(part.to(clip.device, non_blocking=True) for part in (masks.visible, masks.hidden)))


def share_of(settings: MaskSettings, seeds: Tensor, hidden: Tensor, grid: tuple[int, int, int], share: float) -> Tensor:
    """`running_cells` of what `draw_masks` hid (B, H): as many in every frame where the mask has as many in every frame."""
    return running_cells(seeds, hidden, grid, share, each_frame=settings.mask in ("tube", "motion"))
