"""The `monitor` section of a run: what watches it, and when it raises an alarm."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from domains.schema import Strict


class AlarmSettings(Strict):
    """What every alarm has."""

    action: Literal["warn", "stop"] = Field(
        "warn", description="stop: save a checkpoint and leave with exit code 7, after which --resume goes on"
    )
    patience: PositiveInt = Field(1, description="looks in a row beyond the limit before it is raised")


class Falling(AlarmSettings):
    """A figure that must not fall far."""

    drop: float | None = Field(0.3, gt=0, lt=1, description="least share of its first value; null: whatever")
    minimum: NonNegativeFloat | None = Field(None, description="least value; null: whatever")


class FallingEntropy(Falling):
    """Falls with the spread, and faster: no alarm unless one is asked for."""

    drop: float | None = Field(None, gt=0, lt=1, description="least share of its first value; null: whatever")


class Least(AlarmSettings):
    """A figure that must not be small."""

    minimum: float | None = Field(None, description="least value; null: whatever")


class UsageAlarm(Least):
    """Clusters or outputs that are hardly used. It takes a while until they are."""

    minimum: float | None = Field(0.1, description="least entropy, as a share of the largest; null: whatever")
    patience: PositiveInt = Field(3, description="looks in a row beyond the limit before it is raised")


class Most(AlarmSettings):
    """A figure that must not be large."""

    maximum: PositiveFloat | None = Field(None, description="largest value; null: whatever")


class KnnSettings(Strict):
    """Online kNN: labels are looked at while the run trains, never learned from; the run's record says so."""

    task: str = Field("", description="a task of the data set or the domain; empty: no labels are looked at")
    labels: str = Field("", description="CSV with the labels; empty: those that came with a public data set")
    every: PositiveInt = Field(200, description="steps between two looks")
    videos: PositiveInt = Field(256, description="recordings looked at, of whole patients")

    @model_validator(mode="after")
    def _task_of_labels(self) -> KnnSettings:
        if self.labels and not self.task:
            raise ValueError("labels are given and no task: set monitor.knn.task as well (--knn-task)")
        return self


class MonitorSettings(Strict):
    """Figures that watch a run (docs/pretrain.md says what each is), and their alarms; `train.monitor_every` says how often."""

    clips: PositiveInt = Field(64, ge=4, description="recordings, always the same, whose features are looked at")
    rankme: Falling = Falling()
    deviation: Falling = Falling()
    feature_entropy: FallingEntropy = FallingEntropy()
    prototype_entropy: UsageAlarm = UsageAlarm()
    output_entropy: UsageAlarm = UsageAlarm()
    agreement: Least = Least()
    grad_norm: Most = Field(Most(), description="before clipping; the largest since the last line of the log")
    knn: KnnSettings = KnnSettings()
