"""ViDiDi: a clip and its derivatives in time are views of one instance."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, PositiveFloat
from torch import Tensor

from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Contrast, Losses, ObjectiveSettings, Progress
from recipes.parts.branch import Branch
from recipes.parts.contrast import agreement, nt_xent
from recipes.parts.motion import derivative
from recipes.parts.projection import ProjectionSettings, projection_head
from recipes.parts.views import clips_of, with_more


class ViDiDi(Contrast):
    """Video time-differentiation for instance discrimination (Chen et al., 2024).

        loss = NT-Xent(z(d^m x), z(d^n x'); tau),   z = head(encoder(.)) (B, head_outputs)

        x, x': two clips of a recording;  d^n: the n-th derivative in time, d^0 x = x;  (m, n): a pair of orders, another one in every step

    One encoder reads all orders: what it says of a clip is drawn towards what it says of the change of another, in which still scenery is no more. In
    turn, step by step: (0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2), so that every order is met as often as every other.

    Conventions of ours: derivatives are differences of neighbouring frames, brought to one scale in each sample. The paper puts this on SimCLR, BYOL
    and VICReg; here it is SimCLR. All clips of a step are of one pair of orders: with several in one batch a stranger could be told by its order.
    """

    class Settings(ProjectionSettings, ObjectiveSettings):
        """Settings of ViDiDi; orders are the paper's, the rest is SimCLR's."""

        orders: int = Field(2, ge=1, le=2, description="highest derivative")
        temperature: PositiveFloat = Field(0.1, description="tau; lower looks at the nearest strangers only")

    name = "vididi"
    paper = "Chen et al., Unfolding Videos Dynamics via Taylor Expansion, arXiv:2409.02371, 2024"
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        longer = with_more(Clip(augment="strong"), encoder.geometry.frames, settings.orders)
        self.views = clips_of(2, longer)
        self.head = projection_head(encoder, settings)
        self.turns = [(low, high) for high in range(settings.orders + 1) for low in range(high + 1)]
        self.before_step(Progress(0, 1, 0.0))

    def before_step(self, progress: Progress) -> None:
        """The pair of orders whose turn it is."""
        self.pair = self.turns[progress.step % len(self.turns)]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """first, second (B, T + orders, 3, H, W) -> z of their derivatives of this step's orders (B, head_outputs)."""
        frames = self.encoder.geometry.frames
        branch = Branch(self.encoder, self.head, motion=self.settings.head_motion)
        return {
            view: branch(derivative(batch[view], order, frames))
            for view, order in zip(self.views, self.pair, strict=True)
        }

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """z of both -> the loss, and how alike they are."""
        first, second = embedded["first"], embedded["second"]
        return {"loss": nt_xent(first, second, self.settings.temperature), "agreement": agreement(first, second)}
