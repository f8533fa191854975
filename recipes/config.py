"""The whole schema of a run, and how its layers are put together.

Precedence, lowest first: defaults < recipe < domain < the user's YAML < the command line. `resolve` remembers where every value came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from domains.base import AugmentPolicies, ClipSettings, RegionMapSettings
from domains.errors import ConfigError
from domains.schema import Strict, nearest, parse, read_yaml, submodel
from recipes.monitor import MonitorSettings


class LoRASettings(Strict):
    """Low-rank adaptation (Hu et al., ICLR 2022) by peft."""

    rank: PositiveInt = Field(8, description="r; more can learn more and overfits sooner")
    alpha: PositiveFloat = Field(16.0, description="scale; the update is alpha / r times the product")
    dropout: float = Field(0.0, ge=0, lt=1)


class EncoderSettings(Strict):
    """Which encoder, and what of it is trained."""

    name: str = Field("vfm-tiny", description="vfm-tiny, vfm-small, a local folder (also a vfm run), or a hub name")
    init_from: str | None = Field(None, description="a run or folder whose weights it takes, and nothing else")
    frames: PositiveInt | None = Field(None, description="frames it sees; null: the clip's. Positions are interpolated")
    size: PositiveInt | None = Field(None, description="pixels it sees; null: the clip's")
    mode: Literal["full", "lora", "last_k", "frozen"] = Field("full", description="what is trained of it")
    last_k: NonNegativeInt = Field(2, description="blocks trained in mode last_k, counted from the top")
    lora: LoRASettings = LoRASettings()
    keep_tokens: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of a clip's tokens that fine-tuning and evaluation encode, those that change most (EVEREST); null: as it was saved",
    )
    checkpointing: bool = Field(
        False,
        description="recompute activations in the backward pass: memory of one block instead of all, a third more time",
    )


class SourceSettings(Strict):
    """A second, labelled folder, for methods that adapt between domains (comix)."""

    path: str = Field("", description="a prepared folder, or its URL")
    task: str = Field("", description="what its labels say: a task of its data set or domain, with classes")
    labels: str = Field("", description="CSV with the labels; empty: those that came with a public data set")
    split: str = Field("", description="learn only from the training part of this official split; empty: from all")


class DataSettings(Strict):
    """What a run learns from."""

    path: str = Field("", description="a prepared folder, its URL, or 'phantom'")
    split: str = Field(
        "", description="pretraining: learn only from the training part of this official split; empty: from everything"
    )
    source: SourceSettings = SourceSettings()
    workers: NonNegativeInt = Field(1, description="loader processes; 0 decodes in the training process")
    clips_per_video: PositiveInt = Field(1, description="clips drawn from each video in an epoch")
    synchronous: bool = Field(
        True,
        description="recipes that learn from several cameras at one moment; false: each at another moment, a control that tells whether it matters",
    )
    max_failures: float = Field(0.05, ge=0, le=1, description="share of unreadable samples at which a run stops")


class TextSettings(Strict):
    """Words beside the recordings, and the tower that reads them: for recipes that align the two (clip, surgvlp, ...)."""

    files: tuple[str, ...] = Field(
        (),
        description="CSVs with a column that names the recording, text, and optionally start, end (s), source, level; empty: the texts that came "
        "with the recordings",
    )
    keep: tuple[str, ...] = Field(
        (), description="columns of those files that must say yes, e.g. is_descriptive; all other lines are left out"
    )
    name: str = Field("vfm-tiny-text", description="vfm-tiny-text, a local folder (also a vfm run), or a hub name")
    mode: Literal["full", "lora", "last_k", "frozen"] = Field("full", description="what is trained of the text tower")
    last_k: NonNegativeInt = Field(2, description="blocks trained in mode last_k, counted from the top")
    lora: LoRASettings = LoRASettings()
    pooling: Literal["auto", "mean", "cls", "last4", "eos"] = Field(
        "auto",
        description="one vector of a section's tokens: their mean, the first one (BERT's CLS), the sum of the last four layers, then the mean "
        "(SurgVLP), or the last one (CLIP's end of text); auto: as it was saved, else eos for CLIP and mean for all others",
    )
    length: PositiveInt | None = Field(
        None, description="tokens of a section at most; null: as many as the tower takes"
    )
    sections: PositiveInt | None = Field(
        None, description="sections of a long text that are read, and averaged; null: as it was saved, else 4"
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="within the tower; BERT was trained with 0.1. With 0, two processes learn what one does",
    )
    lr_scale: PositiveFloat = Field(1.0, description="learning rate of the tower, as a multiple of optim.lr")


class OptimSettings(Strict):
    """AdamW with linear warm-up and cosine decay."""

    lr: PositiveFloat = Field(5e-4, description="peak learning rate")
    final_lr: NonNegativeFloat = Field(1e-6, description="learning rate at the last step")
    encoder_lr: PositiveFloat | None = Field(
        None,
        description="factor on the learning rate of the encoder's own weights; null: 0.2 for an encoder that has learned (docs/results-first.md), 1 "
        "for random weights and for adapters",
    )
    encoder_begin: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the run in which heads learn alone, before the own weights of an encoder that has learned begin; random weights and "
        "adapters begin at once",
    )
    warmup: float = Field(0.1, ge=0, le=1, description="share of all steps with rising learning rate")
    weight_decay: NonNegativeFloat = Field(0.05, description="not applied to biases and norms")
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: PositiveFloat | None = Field(
        1.0, description="gradients are clipped to this norm before the step; null: never"
    )


class TrainSettings(Strict):
    """The loop."""

    epochs: PositiveFloat = Field(20.0, description="passes over the data; ignored where steps is set")
    steps: PositiveInt | None = Field(None, description="optimiser steps")
    batch_size: PositiveInt = Field(16, description="samples of one process in one forward pass")
    accumulate: PositiveInt = Field(1, description="forward passes in one optimiser step")
    piece: PositiveInt | None = Field(
        None,
        description="gradient caching of contrastive methods, and of studies whose encoder learns: samples (of studies: clips) in memory at once; "
        "gradients stay those of the whole batch_size",
    )
    shard: bool = Field(
        False,
        description="several processes: each keeps a part of weights, gradients and optimiser states (FSDP2), not all",
    )
    seed: NonNegativeInt = 0
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on a GPU that has it, else fp32")
    compile: bool = Field(
        False,
        description="on a GPU: blocks through torch.compile; a minute to begin with, then a tenth quicker, with other rounding",
    )
    profile: NonNegativeInt = Field(
        0, description="steps whose time is taken apart, from the fourth on; 0: none (vfm pretrain --profile)"
    )
    save_every: PositiveInt = Field(200, description="steps between checkpoints; the last step is always saved")
    keep: PositiveInt = Field(2, description="newest checkpoints kept")
    keep_every: PositiveInt | None = Field(None, description="checkpoints of every n-th step kept as well; null: none")
    keep_best: NonNegativeInt = Field(0, description="checkpoints that are best by best_by kept as well")
    best_by: str = Field("loss", description="a logged figure; least is best, with + before it the largest: +rankme")
    log_every: PositiveInt = Field(10, description="steps between lines of metrics.jsonl")
    monitor_every: PositiveInt = Field(50, description="steps between looks at RankMe, entropies, spread (monitor.*)")


class TemporalSettings(Strict):
    """Tasks of moments (phases, presence): how whole procedures are read, and the temporal head over them."""

    head: Literal["causal", "offline"] = Field(
        "causal", description="causal: knows what has been so far, as during an operation; offline: also what follows"
    )
    rate: PositiveFloat = Field(1.0, description="moments a second that are described, learned from and predicted")
    stages: PositiveInt = Field(2, description="each refines what the one before it says")
    layers: PositiveInt = Field(
        9, description="of a stage; the l-th looks 2^l moments away: 9 see 17 minutes at 1 a second"
    )
    width: PositiveInt = Field(64, description="channels within a stage")
    smooth: NonNegativeFloat = Field(
        0.15, description="weight of the penalty on answers that jump from moment to moment"
    )
    smooth_limit: PositiveFloat = Field(
        4.0, description="jumps of a log-probability beyond this cost no more: changes are allowed"
    )
    window: PositiveInt = Field(
        4096, description="moments of a procedure learned from at once; what is longer is cut out of it"
    )
    absent: Literal["dropped", "called", "zero"] = Field(
        "dropped",
        description="phases that a procedure has not: left out; 0 where they were called; always 0 (docs/phases.md)",
    )
    relaxed: NonNegativeFloat = Field(
        0.0,
        description="phases: also give figures that forgive the neighbouring phase within this many seconds of a change; 0: strict only",
    )
    features: str = Field(
        "", description="folder in which descriptions of moments are kept; empty: features, beside the run"
    )


class StudySettings(Strict):
    """Tasks of whole studies (task.level=study): how their clips are read together."""

    views: Literal["auto", "probe", "labels", "none"] = Field(
        "auto",
        description="which view a clip is of: as a probe of the training patients' labels tells it, as the label table says, or not told; "
        "auto: probe where there are labels of views, else none",
    )
    view_task: str = Field("view", description="the task of the domain whose classes are the views")
    width: PositiveInt = Field(32, description="channels of a clip within the head")
    attention: PositiveInt = Field(16, description="hidden channels of the attention over clips")
    clips: PositiveInt = Field(
        32, description="clips of a study learned from at once, drawn anew every epoch; predictions are of all"
    )
    drop: float = Field(
        0.2, ge=0, lt=1, description="share of a study's clips that is left out in training: studies lack views"
    )
    features: str = Field(
        "", description="folder in which descriptions of recordings are kept; empty: features, beside the run"
    )


class TaskRunSettings(Strict):
    """Fine-tuning: which task of the domain, learned from which labels."""

    name: str = Field("", description="a task of the domain, e.g. ef or view")
    level: Literal["recording", "study"] = Field(
        "recording", description="what has one answer: each recording by itself, or all clips of a study together"
    )
    labels: str = Field("", description="CSV with the labels; empty: those that came with a public data set")
    split: str = Field(
        "", description="an official split of a public data set, e.g. official; empty: patients are split into folds"
    )
    label_fraction: float = Field(1.0, gt=0, le=1, description="share of the training patients whose labels are used")
    folds: PositiveInt = Field(
        5, description="patients are split into this many parts; one is held out for the test, one for validation"
    )
    fold: NonNegativeInt = Field(0, description="which part is the test")
    loss: Literal["huber", "l1"] = Field(
        "huber", description="regression: Huber with delta one deviation, or absolute error"
    )
    balance: bool = Field(
        False, description="classification, phases, presence: classes count inversely to how often they occur"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="before the head")
    lr_head: PositiveFloat = Field(1e-3, description="learning rate of the new head")
    clips_per_video: PositiveInt = Field(3, description="clips averaged for one prediction at test time")
    temporal: TemporalSettings = TemporalSettings()
    study: StudySettings = StudySettings()


class RunConfig(Strict):
    """One run of `vfm pretrain` or `vfm finetune`."""

    method: str = Field("", description="name of the pretraining method; set by the recipe")
    objective: dict[str, Any] = Field(
        default_factory=dict, description="settings of the method, checked by the method's own schema"
    )
    pretext: dict[str, Any] = Field(
        default_factory=dict,
        description="pretext tasks that are added to the method: name -> weight, or a section of weight and the task's own settings",
    )
    domain: str = Field("echo", description="a shipped domain, or a YAML of your own")
    encoder: EncoderSettings = EncoderSettings()
    data: DataSettings = DataSettings()
    clip: ClipSettings = ClipSettings()
    augment: AugmentPolicies = AugmentPolicies()
    region_map: RegionMapSettings = RegionMapSettings()
    text: TextSettings = TextSettings()
    optim: OptimSettings = OptimSettings()
    train: TrainSettings = TrainSettings()
    monitor: MonitorSettings = MonitorSettings()
    task: TaskRunSettings = TaskRunSettings()


@dataclass(frozen=True)
class Layer:
    """One source of settings: where it is from, as a person would say it, and nested values."""

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Resolved:
    """A validated run and the origin of every value (dotted key -> layer)."""

    config: RunConfig
    origins: dict[str, str] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, Any, str]]:
        """(dotted key, value, origin) in schema order."""
        return [
            (key, value, self.origins.get(key, "default"))
            for key, value in flatten(self.config.model_dump(mode="json"))
        ]

    def to_yaml(self) -> str:
        """YAML that gives this same run when passed as `--config`."""
        return yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mapping -> (dotted key, leaf) pairs."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else [(prefix + key, value)]
    return rows


def parse_assignments(words: Sequence[str]) -> dict[str, Any]:
    """`["optim.lr=1e-4", "train.steps=100"]` -> nested values; the right side is YAML. Raises ConfigError."""
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{word}' is not key=value", where="command line", do="For example: optim.lr=1e-4")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"the value of '{key}' is not valid YAML: {text}", where="command line") from None
        set_key(values, key, as_number(value))
    return values


def as_number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as a string; people mean a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def set_key(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set `a.b.c` in nested dicts."""
    *path, last = dotted.split(".")
    for part in path:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"'{dotted}': '{part}' is given a value and sections at once", where="command line")
        values = inner
    values[last] = value


def resolve(layers: Sequence[Layer]) -> Resolved:
    """Merge `layers` (lowest first) over the defaults and validate.

    Each layer is checked by itself, so that an error names the file or the command line it came from. Raises ConfigError.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        _check_keys(RunConfig, layer.values, layer.origin)
        _merge(merged, layer.values, layer.origin, origins, "")
        parse(RunConfig, merged, layer.origin)
    return Resolved(parse(RunConfig, merged, layers[-1].origin if layers else "defaults"), origins)


def _check_keys(model: type[Strict], values: Mapping[str, Any], where: str, prefix: str = "") -> None:
    from domains.schema import keys_of

    for key, value in values.items():
        if key not in model.model_fields:
            known = [prefix + name for name in keys_of(model)] if prefix else list(keys_of(RunConfig))
            raise ConfigError(f"unknown key '{prefix}{key}'", where=where, do=nearest(prefix + key, known))
        inner = submodel(model.model_fields[key].annotation)
        if inner is not None:
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"'{prefix}{key}' is a section",
                    where=where,
                    do=f"Set one of its keys, e.g. {prefix}{key}.{next(iter(inner.model_fields))}",
                )
            _check_keys(inner, value, where, f"{prefix}{key}.")


def _merge(base: dict[str, Any], over: Mapping[str, Any], origin: str, origins: dict[str, str], prefix: str) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and value:
            inner = base.get(key)
            if not isinstance(inner, dict):  # a section in place of a number: pretext.order.clips=4 after order: 0.5
                inner = base[key] = {}
                origins.pop(prefix + key, None)
            _merge(inner, value, origin, origins, f"{prefix}{key}.")
        else:
            base[key] = value
            origins[prefix + key] = origin


def recipe_names() -> list[str]:
    """Recipes that ship with vfm: one YAML beside each method. Found as files: importing the methods would import torch."""
    return sorted(path.stem for path in (Path(__file__).parent / "pretrain").glob("*.yaml"))


def recipe_yaml(name_or_path: str) -> Path:
    """The YAML of a shipped recipe or of a file of one's own. Raises ConfigError with the nearest name."""
    if name_or_path in recipe_names():
        return Path(__file__).parent / "pretrain" / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return path
    raise ConfigError(f"no recipe '{name_or_path}'", do=nearest(name_or_path, recipe_names()))


def yaml_layer(path: Path, origin: str | None = None) -> Layer:
    """A YAML file as a layer; numbers such as 1e-4 are numbers."""

    def numbers(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: numbers(value) for key, value in node.items()}
        return [numbers(item) for item in node] if isinstance(node, list) else as_number(node)

    return Layer(origin or str(path), numbers(read_yaml(path)))
