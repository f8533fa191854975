"""What the generic encoder learns: to tell how a scene moves and what is where, and to know it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from domains.generic.samples import PACES
from domains.generic.textures import TEXTURES
from domains.generic.truth import FACTS
from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch, Clip, Losses, Objective, ObjectiveSettings
from recipes.parts.contrast import agreement, nt_xent
from recipes.parts.heads import mlp
from recipes.parts.masks import tube_masks
from recipes.parts.precision import as_they_are
from recipes.parts.standardise import BatchStandardise

VIEWS = ("first", "second")
SIDE, MAPS = 16, 4  # cells along the side of a coarse picture; pictures of a clip
FLOOR, TYPICAL = (
    0.01,
    0.1,
)  # of a change from frame to frame, in deviations of the brightness: less is noise; about the middle


class Generic(Objective):
    """Contrast, motion, change, facts and coarse pictures of drawn scenes, from the visible tokens of a tube mask.

    L = w_c NT-Xent(z, z') + w_f [ Huber(flow) + BCE(front) ] + w_s [ Huber(facts) + CE(pace) + CE(backwards) + CE(swapped) + CE(texture) ]
        + w_p [ missed(pictures) + missed(course) + missed(change) ] + w_a alike,   missed(y) = |y - W x|^2 / var(y)

    z = head(s) of the two clips of a scene (Chen et al., ICML 2020); s = `encoder.statistics` of the visible tokens
    From each visible token itself, by a linear layer: flow, the true motion of what it shows, in quarter patches a frame; front, whether that is in
        front of the background (motion of synthetic things, as in SMILE, Thoker et al., CVPR 2025); change, how much its cells change
    From s, by linear layers, standardised over the batch as a probe does, so that what they need is linear there: facts, pace, backwards, swapped,
        texture; pictures of the whole clip in 16 x 16 cells (`coarse_pictures`) and the course of its change over time (`course_of`).
        A mean over tokens forgets where and when things happen unless it is made to remember.
    alike: neighbours by s are neighbours by what the clips show, and by how it changes (`alike_loss`)
    """

    class Settings(ObjectiveSettings):
        """Settings of the generic encoder's training."""

        mask_ratio: float = Field(0.5, ge=0, lt=1, description="share of places hidden in every frame")
        temperature: PositiveFloat = Field(0.2, description="tau of the contrast")
        head_hidden: PositiveInt = Field(512, description="hidden width of the contrast's head")
        head_outputs: PositiveInt = Field(128, description="width of z")
        weight_contrast: NonNegativeFloat = Field(0.2, description="w_c")
        weight_flow: NonNegativeFloat = Field(0.5, description="w_f")
        weight_facts: NonNegativeFloat = Field(0.5, description="w_s")
        weight_told: NonNegativeFloat = Field(1.0, description="w_p")
        weight_alike: NonNegativeFloat = Field(0.0, description="w_a")

    name = "generic"
    paper = "drawn scenes whose motion is known; see recipes/generic"
    views: Mapping[str, Clip] = {name: Clip() for name in VIEWS}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings) -> None:
        super().__init__(encoder, settings)
        width = encoder.width
        self.head = mlp(2 * width, settings.head_hidden, settings.head_outputs)
        self.local = nn.Linear(width, 4)
        self.even = BatchStandardise()
        self.facts = nn.Linear(2 * width, len(FACTS))
        self.pictures = nn.Linear(2 * width, MAPS * SIDE * SIDE)
        self.course = nn.Linear(2 * width, encoder.geometry.frames - 1)
        for layer in (self.pictures, self.course):
            nn.init.zeros_(layer.weight)  # else so many random outputs are most of the loss at first
        counts = {"pace": len(PACES), "backwards": 2, "swapped": 2, "texture": len(TEXTURES)}
        self.kinds = nn.ModuleDict({name: nn.Linear(2 * width, count) for name, count in counts.items()})

    def forward(self, batch: Batch) -> Losses:
        """first, second (B, T, 3, H, W) and what is true of them -> the loss and its parts."""
        s = self.settings
        read: dict[str, Tensor] = {}
        parts: dict[str, list[Tensor]] = {
            name: [] for name in ("flow", "facts", "pictures", "course", "change", "alike")
        }
        for view in VIEWS:
            masks = tube_masks(batch.seeds, self.encoder.grid, s.mask_ratio, name=view)
            visible = masks.visible[:, 0].to(batch[view].device)
            tokens = self.encoder(batch[view], visible)
            read[view] = self.encoder.statistics(tokens)
            told = {**self.of_tokens(tokens, visible, batch, view), **self.of_clips(read[view], batch, view)}
            for name, loss in told.items():
                parts[name].append(loss)
        z = {view: self.head(read[view]) for view in VIEWS}
        shown = {"contrast": nt_xent(z["first"], z["second"], s.temperature)}
        shown |= {name: torch.stack(of_views).mean() for name, of_views in parts.items()}
        weights = {
            "contrast": s.weight_contrast, "flow": s.weight_flow, "facts": s.weight_facts, "alike": s.weight_alike,
            **dict.fromkeys(("pictures", "course", "change"), s.weight_told),
        }  # fmt: skip
        return {
            "loss": torch.stack([weight * shown[name] for name, weight in weights.items()]).sum(),
            **{f"loss_{name}": value.detach() for name, value in shown.items()},
            "agreement": agreement(z["first"], z["second"]),
        }

    def of_tokens(self, tokens: Tensor, visible: Tensor, batch: Batch, view: str) -> Losses:
        """flow (with front) and change, of each visible token."""
        with as_they_are(tokens):
            told = F.linear(tokens.float(), self.local.weight, self.local.bias)
            flow = batch.targets[f"flow_{view}"].float().gather(1, visible.unsqueeze(-1).expand(-1, -1, 2))
            front = batch.targets[f"front_{view}"].float().gather(1, visible)
            change = change_of(cells_of(batch[view]), self.encoder.grid).gather(1, visible)
            moves = F.smooth_l1_loss(told[..., :2], flow, beta=0.25)
            in_front = F.binary_cross_entropy_with_logits(told[..., 2], front)
            return {"flow": moves + 0.25 * in_front, "change": missed(told[..., 3], change)}

    def of_clips(self, read: Tensor, batch: Batch, view: str) -> Losses:
        """facts, pictures and course, from the statistics (B, 2 D) of clips."""
        with as_they_are(read):
            even, cells = self.even(read.float()), cells_of(batch[view])
            pictures = F.linear(even, self.pictures.weight, self.pictures.bias).unflatten(1, (MAPS, -1))
            course = F.linear(even, self.course.weight, self.course.bias)
            shown, changing = coarse_pictures(cells), course_of(cells)
            return {
                "facts": self.facts_loss(even, batch.targets, view),
                "pictures": missed(pictures, shown),
                "course": missed(course, changing),
                "alike": alike_loss(read.float(), shown, changing),
            }

    def facts_loss(self, even: Tensor, targets: Mapping[str, Tensor], view: str) -> Tensor:
        """What is true of a whole clip, from its standardised statistics (B, 2 D)."""
        loss = F.smooth_l1_loss(F.linear(even, self.facts.weight, self.facts.bias), targets[f"facts_{view}"].float())
        for name, layer in self.kinds.items():
            assert isinstance(layer, nn.Linear)
            loss = loss + 0.25 * F.cross_entropy(F.linear(even, layer.weight, layer.bias), targets[name])
        return loss


class Beside(Generic):
    """A generic encoder and others, by name, that learn beside it from the same drawn scenes: drawing takes many times what a GPU needs to learn from
    them. L = sum of each one's L: none learns from another; only the norm at which gradients are clipped is that of all. Its views, frames and
    patches are the others' too.
    """

    def __init__(self, encoder: VideoEncoder, settings: Generic.Settings, others: Mapping[str, Generic]) -> None:
        super().__init__(encoder, settings)
        self.others = nn.ModuleDict(dict(others))

    @property
    def learners(self) -> dict[str, Generic]:
        """The others, by name."""
        return {name: other for name, other in self.others.items() if isinstance(other, Generic)}

    @property
    def encoders(self) -> tuple[VideoEncoder, ...]:
        """Of all."""
        return self.encoder, *(other.encoder for other in self.learners.values())

    def forward(self, batch: Batch) -> Losses:
        """As of `Generic`; the parts of the others under `NAME_...`."""
        losses = super().forward(batch)
        for name, other in self.learners.items():
            found = other(batch)
            losses["loss"] = losses["loss"] + found.pop("loss")
            losses |= {f"{name}_{part}": value for part, value in found.items()}
        return losses


def missed(told: Tensor, wanted: Tensor) -> Tensor:
    """How much is not told, a number: 1 where the mean is said every time, 0 where all is told. (B, maps, n) of several maps: the mean over them."""
    over = (0, 2) if wanted.ndim == 3 else (0, 1)
    return ((told - wanted).square().mean(dim=over) / wanted.var(dim=over, correction=0).clamp_min(1e-6)).mean()


def alike_loss(read: Tensor, pictures: Tensor, course: Tensor) -> Tensor:
    """Of statistics (B, 2 D), their first half shall be alike where the mean pictures are, and the second, what changes over time, where the changes
    are: the other pictures (B, MAPS, n) and the course (B, T - 1)."""
    (mean, *changes), (pooled, over_time) = pictures.unbind(1), read.chunk(2, dim=1)
    return (unlike(pooled, [mean]) + unlike(over_time, [*changes, course])) / 2


def unlike(read: Tensor, wanted: Sequence[Tensor]) -> Tensor:
    """1 - r, a number: r, how well the cosines of a clip's statistics (B, D) with those of all others follow how alike they are in what is wanted,
    (B, n) each; the mean over clips of Pearson's coefficient.

    What is wanted of each kind counts the same: standardised over the batch, all its values as one. Neighbours of features are then neighbours
    in these (similarity-preserving distillation, Tung and Mori, ICCV 2019, with statistics of the clip as the teacher).
    """
    with torch.no_grad():
        centred = [values.float() - values.float().mean(dim=0) for values in wanted]
        each = [values / values.norm().clamp_min(1e-6) for values in centred]
        alike = off_diagonal(cosines(torch.cat(each, dim=1)))
    told = off_diagonal(cosines(read))
    told, alike = told - told.mean(dim=1, keepdim=True), alike - alike.mean(dim=1, keepdim=True)
    return 1 - F.cosine_similarity(told, alike, dim=1).mean()


def cosines(rows: Tensor) -> Tensor:
    """(B, D) -> (B, B)."""
    unit = F.normalize(rows, dim=1)
    return unit @ unit.T


def off_diagonal(square: Tensor) -> Tensor:
    """(B, B) -> (B, B - 1), without the diagonal."""
    count = len(square)
    return square.flatten()[1:].view(count - 1, count + 1)[:, :-1].reshape(count, count - 1)


def cells_of(clip: Tensor) -> Tensor:
    """(B, T, C, H, W) -> (B, T, SIDE * SIDE): the brightness of cells. Noise of single pixels is gone from them."""
    return F.adaptive_avg_pool2d(clip.float().mean(dim=2), SIDE).flatten(2)


def coarse_pictures(cells: Tensor) -> Tensor:
    """(B, T, n) -> (B, MAPS, n): mean, deviation over time, late half minus early half, and mean change from frame to frame."""
    early, late = cells.tensor_split(2, dim=1)
    steps = cells.diff(dim=1).abs()
    found = (cells.mean(dim=1), cells.std(dim=1, correction=0), late.mean(dim=1) - early.mean(dim=1), steps.mean(dim=1))
    return torch.stack(found, dim=1)


def course_of(cells: Tensor) -> Tensor:
    """(B, T, n) -> (B, T - 1): logarithm of how much the picture changes from each frame to the next."""
    return ((cells.diff(dim=1).abs().mean(dim=2) + FLOOR) / TYPICAL).log()


def change_of(cells: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """(B, T, SIDE * SIDE) -> (B, t * h * w): logarithm of how much a token's cells change from frame to frame, from the one before its tubelet on."""
    t, h, w = grid
    steps = cells.diff(dim=1, prepend=cells[:, :1]).abs().unflatten(2, (SIDE, SIDE))
    change = F.adaptive_avg_pool3d(steps.unsqueeze(1), (t, h, w)).flatten(1)
    return ((change + FLOOR) / TYPICAL).log()
