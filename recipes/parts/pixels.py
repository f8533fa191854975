"""The loss of masked autoencoders: predicted against true pixels of hidden patches."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from recipes.encoders.tokens import patches
from recipes.parts.precision import as_they_are

Over = Literal["channel", "patch"]

# Elements of a piece that is worked on at once: on a CPU it stays in the cache (four times as fast as the whole batch at
# once, which memory has to carry seven times), on a GPU temporaries stay small beside the prediction itself.
PIECE = {"cpu": 1 << 19, "cuda": 1 << 26}


def masked_pixel_loss(
    predicted: Tensor,
    clip: Tensor,
    hidden: Tensor,
    patch: tuple[int, int],
    normalise: bool = True,
    over: Over = "channel",
) -> Tensor:
    """Mean squared error over hidden patches, in fp32.

    predicted (B, H, C * tubelet * p * p), channels first in each patch; clip (B, T, C, height, width); hidden (B, H) positions; patch
    (tubelet, p). normalise: each patch has mean 0 and deviation 1, structure and not brightness. over: `channel`, each colour by itself:
    (x - mean) / (deviation + 1e-6) with the unbiased deviation, as VideoMAE's authors have it (Tong et al., NeurIPS 2022); `patch`, all colours
    together: (x - mean) / sqrt(variance + 1e-6), MAE's and MAE-ST's (Feichtenhofer et al., NeurIPS 2022). The clip has no gradient.
    """
    loss: Tensor = _PixelLoss.apply(predicted, clip.detach(), hidden, patch, normalise, over)
    return loss


def normalise_patches_(pixels: Tensor, over: Over = "channel", epsilon: float = 1e-6) -> Tensor:
    """Patches (..., C, p), changed in place, with mean 0 and deviation 1 in each channel of each patch, or in each patch; see
    `masked_pixel_loss`."""
    if over == "patch":
        together = pixels.flatten(-2)
        variance, mean = torch.var_mean(together, dim=-1, keepdim=True)
        together -= mean
        together /= (variance + epsilon).sqrt()
        return pixels.copy_(together.view(pixels.shape))
    pixels -= pixels.mean(dim=-1, keepdim=True)
    deviation = torch.linalg.vector_norm(pixels, dim=-1, keepdim=True) / (pixels.shape[-1] - 1) ** 0.5
    pixels /= deviation + epsilon
    return pixels


class _PixelLoss(torch.autograd.Function):
    """The gradient is made where the difference is at hand: targets are neither kept nor made twice."""

    @staticmethod
    def forward(
        ctx: Any, predicted: Tensor, clip: Tensor, hidden: Tensor, patch: tuple[int, int], normalise: bool, over: Over
    ) -> Tensor:
        channels, count = clip.shape[2], predicted.numel()
        exact = torch.promote_types(predicted.dtype, torch.float32)
        total = torch.zeros((), dtype=exact, device=predicted.device)
        slope = torch.empty_like(predicted) if ctx.needs_input_grad[0] else None
        per_clip = clip.shape[1:].numel()
        step = max(1, PIECE.get(predicted.device.type, PIECE["cuda"]) // per_clip)
        with as_they_are(predicted):
            for first in range(0, len(predicted), step):
                here = slice(first, first + step)
                # All patches, then whole rows of them: rows are copied as they lie, single patches of a clip pixel by pixel.
                every = patches(clip[here], *patch)
                wanted = hidden[here] + every.shape[1] * torch.arange(len(every), device=hidden.device).unsqueeze(1)
                target = every.flatten(0, 1).index_select(0, wanted.flatten()).to(exact)
                if normalise:
                    normalise_patches_(target.unflatten(-1, (channels, -1)), over)
                difference = predicted[here].flatten(0, 1) - target
                flat = difference.flatten()
                total += torch.dot(flat, flat)  # the sum of squares without a copy
                if slope is not None:
                    slope[here] = difference.mul_(2 / count).view_as(slope[here])
        if slope is not None:
            ctx.save_for_backward(slope)
        return total / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return slope * grads[0].to(slope.dtype), None, None, None, None, None
