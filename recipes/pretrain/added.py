"""Pretext tasks as methods by themselves, and added to any other method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

from torch import nn

from recipes.encoders.aligned import Alignment
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Clip, Losses, Objective, Progress
from recipes.parts.pretext import Pretext, PretextSettings
from recipes.parts.sensed import Sensed


class Alone(Objective):
    """A pretext task as the only thing that a run minimises; `alone` makes a method of one."""

    kind: ClassVar[type[Pretext]]
    settings: PretextSettings

    def __init__(self, encoder: VideoEncoder, settings: PretextSettings) -> None:
        super().__init__(encoder, settings)
        self.pretext = self.kind(encoder, settings)
        self.views = self.pretext.views

    def forward(self, batch: Batch) -> Losses:
        """See the task."""
        losses: Losses = self.pretext(self.encoder, batch)
        return losses


def alone(kind: type[Pretext]) -> type[Objective]:
    """The method that is this pretext task and nothing else."""
    about = {"kind": kind, "name": kind.name, "paper": kind.paper, "Settings": kind.Settings, "views": kind.views}
    return type(kind.__name__, (Alone,), {**about, "__doc__": kind.__doc__, "__module__": __name__})


class WithPretext(Objective):
    """A method and the pretext tasks that are added to it, over one encoder.

        loss = loss of the method + sum over tasks of weight x loss of the task

    Multi-task self-supervision: TaCo (Bai et al., 2020) and PCL (Tao et al., 2021) are this with a contrast as the method. Each task has clips of
    its own, drawn where the method's first view looks: the same time, crop and light ("on the same clips"), played as the task has it. The method's
    own view stays as it is: asking a contrast not to see what the task asks to tell would set the one against the other.

    Whatever is logged of a task carries its name; the method's own loss is `loss_<method>`. No `Contrast`, whatever the method is: the tasks' heads
    look at the whole batch (`Pretext.read`), so that it cannot be taken in pieces.
    """

    def __init__(self, main: Objective, added: Mapping[str, tuple[float, Pretext]]) -> None:
        """added: name -> (weight, task). Raises nothing; names and weights are checked where they are read."""
        nn.Module.__init__(self)
        self.main, self.settings = main, main.settings
        self.name, self.paper = main.name, main.paper  # type: ignore[misc]  # a run is of the method that it adds to
        self.weights = {name: weight for name, (weight, _) in added.items()}
        self.added = nn.ModuleDict({name: pretext for name, (_, pretext) in added.items()})
        first = next(iter(main.views))
        self.adapts, self.asks_encoder, self.lighter = main.adapts, main.asks_encoder, main.lighter  # type: ignore[misc]
        self.views, self.labelled = dict(main.views), main.labelled
        self.texts, self.silent, self.shares = main.texts, main.silent, main.shares
        self.together, self.acts, self.signals = main.together, main.acts, main.signals  # type: ignore[misc]
        for name, pretext in self.tasks():
            self.views |= beside(first, name, pretext.views)

    @property
    def encoder(self) -> VideoEncoder:  # type: ignore[override]
        """The method's, and so the tasks' too."""
        return self.main.encoder

    @property
    def text(self) -> TextEncoder | None:  # type: ignore[override]
        """The method's text tower."""
        return self.main.text

    def tasks(self) -> Iterator[tuple[str, Pretext]]:
        """Name and task, in the order that they were added."""
        for name, pretext in self.added.items():
            assert isinstance(pretext, Pretext)
            yield name, pretext

    def forward(self, batch: Batch) -> Losses:
        """The losses of the method and of every task."""
        return self.joined(
            self.main(batch), {name: task(self.encoder, own(batch, name)) for name, task in self.tasks()}
        )

    def joined(self, main: Losses, tasks: Mapping[str, Losses]) -> Losses:
        """Their sum, and everything that either logs."""
        loss = main["loss"]
        figures = {f"loss_{self.name}": loss.detach(), **{key: value for key, value in main.items() if key != "loss"}}
        for name, losses in tasks.items():
            loss = loss + self.weights[name] * losses["loss"]
            figures |= {f"{name}_{key}": value.detach() for key, value in losses.items()}
        return {"loss": loss, **figures}

    def stage(self, progress: Progress) -> Progress:
        """The method's."""
        return self.main.stage(progress)

    def before_step(self, progress: Progress) -> None:
        """The method's schedules."""
        self.main.before_step(progress)

    def after_step(self, progress: Progress) -> None:
        """The method's averages."""
        self.main.after_step(progress)

    def final_encoder(self) -> VideoEncoder:
        """The method's."""
        return self.main.final_encoder()

    def final_head(self) -> nn.Linear | None:
        """The method's."""
        return self.main.final_head()

    def final_alignment(self) -> Alignment | None:
        """The method's."""
        return self.main.final_alignment()

    def final_sensed(self) -> Sensed | None:
        """The method's."""
        return self.main.final_sensed()


def add(main: Objective, added: Mapping[str, tuple[float, Pretext]]) -> Objective:
    """`main` with pretext tasks, name -> (weight, task); itself where there are none."""
    if not added:
        return main
    return WithPretext(main, added)


def beside(first: str, name: str, views: Mapping[str, Clip]) -> dict[str, Clip]:
    """A task's views under names of their own, `<task>.<view>`; those that look anywhere look where the method's view `first` does."""

    def renamed(other: str | None) -> str | None:
        return None if other is None else f"{name}.{other}"

    found = {}
    for view, clip in views.items():
        moved = replace(clip, near=renamed(clip.near), like=renamed(clip.like))
        found[f"{name}.{view}"] = replace(moved, near=first, within=0.0, like=first) if clip.near is None else moved
    return found


def own(batch: Batch, name: str) -> Batch:
    """What a task sees of a batch: its own clips, under the names that it knows."""
    prefix = f"{name}."
    clips = {view.removeprefix(prefix): clip for view, clip in batch.clips.items() if view.startswith(prefix)}
    return Batch(clips, batch.seeds, batch.targets, batch.index)
