"""MME: predict how hidden parts of a clip move and change shape."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings
from recipes.parts.decoder import DecoderSettings, TokenDecoder
from recipes.parts.hog import oriented_gradients
from recipes.parts.masking import MaskSettings, draw_masks
from recipes.parts.trajectories import clip_motion, grey, look_up, places, trace

BINS = 9


class MME(Objective):
    """Masked motion encoding (Sun et al., CVPR 2023).

        loss = weight_position mean (p' - p)^2 + weight_shape mean (s' - s)^2      over hidden tokens,   (p', s') = decoder(encoder(x_visible))
            p: steps (L x 2) of the trajectories that start at 2 x 2 points of the token's patch in its first frame
            s: histograms of oriented gradients (L x 9) at the points that a trajectory passes, which is how its shape changes

    Trajectories are followed through `density` times as many frames as the encoder sees: what happened between its frames is to be anticipated.

    Conventions of ours: points are followed by block matching of the clip itself, on the device, in place of a flow network's tracks from disk; past
    its end they stand. Steps are counted in units of the clip's own root mean square step, so that slow clips count as fast ones. The
    authors' script subtracts from each step the mean of the patch's four points, which takes away how the patch itself moves; here it stays.
    Histograms, of length one, are multiplied by 3 (the root of 9 bins), so that both targets vary by about one.
    """

    class Settings(MaskSettings, DecoderSettings, ObjectiveSettings):
        """Settings of MME; the defaults are those of the authors' script."""

        mask_ratio: float = Field(0.7, gt=0, lt=1, description="share of tokens hidden")
        steps: PositiveInt = Field(4, description="L, steps that each point is followed")
        density: PositiveInt = Field(
            2,
            description="frames decoded for each that the encoder sees; needs recordings of that many times clip.rate",
        )
        reach: PositiveInt = Field(4, description="pixels searched from frame to frame; cost grows with its square")
        weight_position: NonNegativeFloat = Field(0.5, description="of p; needs weight_position or weight_shape")
        weight_shape: NonNegativeFloat = Field(0.5, description="of s")
        decoder_depth: PositiveInt = Field(1, description="blocks of the decoder")

    name = "mme"
    paper = "Sun et al., Masked Motion Encoding for Self-Supervised Video Representation Learning, CVPR 2023"
    views: Mapping[str, Clip] = {"clip": Clip(augment="weak", rate=0.5, length=2.0)}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        s, side = settings, encoder.patch[1]
        self.views = {"clip": Clip(augment="weak", rate=1 / s.density, length=float(s.density))}
        self.points = 4 if side % 2 == 0 else 1  # of each patch
        self.decoder = TokenDecoder.of(s, encoder.width, encoder.tokens, self.points * s.steps * (2 + BINS))

    def forward(self, batch: Batch) -> Losses:
        """clip (B, T density, 3, H, W) -> the loss, its parts, and how far points move from frame to frame, in pixels."""
        s, dense = self.settings, batch["clip"]
        clip = dense[:, :: s.density]
        masks = draw_masks(s, batch.seeds, clip, self.encoder.grid, self.encoder.patch)
        visible, hidden = masks.visible[:, 0], masks.hidden[:, 0]
        predicted = self.decoder(self.encoder(clip, visible), visible, hidden).float()
        position, shape, moved = self.targets(dense)
        wanted = hidden.unsqueeze(-1)
        position, shape = (each.gather(1, wanted.expand(-1, -1, each.shape[-1])) for each in (position, shape))
        steps, shapes = predicted.split([position.shape[-1], shape.shape[-1]], dim=-1)
        loss_position, loss_shape = F.mse_loss(steps, position), F.mse_loss(shapes, shape)
        return {
            "loss": s.weight_position * loss_position + s.weight_shape * loss_shape,
            "loss_position": loss_position.detach(),
            "loss_shape": loss_shape.detach(),
            "motion": moved,
        }

    @torch.no_grad()
    def targets(self, dense: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """dense (B, T density, 3, H, W) -> p (B, N, L x 2 x points), s (B, N, L x 9 x points), and the mean root mean square step ()."""
        s, (t, h, w), (tubelet, side) = self.settings, self.encoder.grid, self.encoder.patch
        motion, spacing = clip_motion(dense, side, s.reach)
        apart = tubelet * s.density  # frames from the start of one tubelet's trajectories to the next
        moves = F.pad(motion, (0, 0, 0, 0, 0, 0, 0, s.steps)).unfold(1, s.steps, apart).movedim(-1, 2).flatten(0, 1)
        start = places(h * side // spacing, w * side // spacing, spacing, dense.device)
        track = trace(moves, start.expand(len(moves), -1, -1, -1), spacing)
        position = track.diff(dim=1).unflatten(0, (-1, t))
        step = position.square().mean(dim=(1, 2, 3, 4, 5), keepdim=True)

        scale = 2 if spacing % 2 == 0 and spacing > 4 else 1
        shapes = oriented_gradients(grey(dense, scale), spacing // scale, BINS)
        shapes = torch.cat([shapes, shapes[:, -1:].expand(-1, s.steps - 1, -1, -1, -1)], dim=1)
        passed = shapes.unfold(1, s.steps, apart).movedim(-1, 2).flatten(0, 1)
        followed = torch.stack(
            [look_up(passed[:, number], track[:, number], spacing) for number in range(s.steps)], dim=1
        ).unflatten(0, (-1, t))
        normal = position / step.add(0.01).sqrt()  # a tenth of a pixel: what hardly moves is not blown up
        return self.by_token(normal), self.by_token(followed * BINS**0.5), step.sqrt().mean()

    def by_token(self, values: Tensor) -> Tensor:
        """values (B, t, L, F, h', w') at the points -> (B, t * h * w, points * L * F)."""
        _, h, w = self.encoder.grid
        cells = values.unflatten(-1, (w, -1)).unflatten(-3, (h, -1))  # B, t, L, F, h, k, w, k
        return cells.permute(0, 1, 4, 6, 2, 3, 5, 7).flatten(4).flatten(1, 3)
