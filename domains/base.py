"""A domain: what one kind of recording is, declared in YAML. A lab adds its own with `--domain ./ours.yaml` and no code."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from domains.errors import ConfigError
from domains.schema import Strict, nearest, parse, read_yaml


class ClipSettings(Strict):
    """Geometry of the clips that an encoder sees."""

    frames: PositiveInt = Field(16, description="frames in a clip")
    size: PositiveInt = Field(112, description="height and width in pixels")
    rate: PositiveFloat | None = Field(
        None, description="frames a second that a clip samples; needs a known frame rate"
    )
    stride: PositiveInt = Field(
        3, description="native frames between two of a clip where the frame rate is unknown, or rate is null"
    )


class TemporalDrop(Strict):
    """Frequencies in time that some clips lose (FreqAug, Kim et al., AAAI 2023); the defaults are the paper's."""

    probability: float = Field(0.0, ge=0, le=1, description="share of clips that lose them; 0: none")
    band: Literal["low", "high"] = Field(
        "low", description="low: what hardly changes, so that motion is left; high: what changes fastest"
    )
    cutoff: float = Field(0.1, gt=0, le=0.5, description="cycles a frame (of the clip); low is below, high from there")


class SpatialDrop(TemporalDrop):
    """The same in the picture."""

    band: Literal["low", "high"] = Field("low", description="low: what is wide and flat; high: edges and texture")
    cutoff: float = Field(0.01, gt=0, le=0.5, description="cycles a pixel, in any direction")


class AugmentSettings(Strict):
    """One augmentation policy. The same transform in every frame of a clip."""

    crop_scales: tuple[float, ...] = Field(
        (1.0,), description="side of the square crop relative to the frame; one is drawn"
    )
    flip: float = Field(0.0, ge=0, le=1, description="probability of a left-right flip")
    brightness: float = Field(0.0, ge=0, le=1, description="largest additive change, of full scale")
    contrast: float = Field(0.0, ge=0, le=1, description="largest relative change of contrast about the clip's mean")
    temporal_drop: TemporalDrop = TemporalDrop()
    spatial_drop: SpatialDrop = SpatialDrop()

    @field_validator("crop_scales")
    @classmethod
    def _scales(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if not scales or any(not 0.1 <= scale <= 1 for scale in scales):
            raise ValueError("needs one or more numbers between 0.1 and 1")
        return scales


class AugmentPolicies(Strict):
    """`weak` and `strong` are names that an objective's views refer to; `none` (centre, whole frame) always exists."""

    weak: AugmentSettings = AugmentSettings()
    strong: AugmentSettings = AugmentSettings()


class StoreSettings(Strict):
    """The form in which frames are kept for training."""

    size: PositiveInt = Field(144, description="side of the stored square frame in pixels")
    rate: PositiveFloat | None = Field(
        None,
        description="frames a second that are stored, each the one on screen at its time; null: all. For hours of video",
    )
    fit: Literal["pad", "crop"] = Field(
        "pad", description="how a rectangle becomes the square: black bars, or the centre"
    )
    quality: int = Field(92, ge=50, le=100, description="JPEG quality of stored frames")
    grey: bool = Field(False, description="keep luminance only (a third of the bytes to decode)")


class RegionSettings(Strict):
    """Where the picture is; everything outside is blanked before anything is written."""

    policy: Literal["ultrasound", "endoscope", "whole"] = Field(
        "whole",
        description="ultrasound: regions sequence, else what moves; endoscope: what is lit within the black border; whole: the frame is all picture",
    )
    min_fraction: float = Field(0.03, gt=0, le=1, description="smallest part of the frame that counts as a picture")
    blank: tuple[tuple[float, float, float, float], ...] = Field(
        (),
        description="boxes x0, y0, x1, y1 in shares of the frame that are blanked in every frame: head-up displays, clocks",
    )
    text: Literal["exclude", "keep"] = Field(
        "exclude",
        description="recordings with text drawn inside the picture; keep: where signs and books may be in view",
    )

    @field_validator("blank")
    @classmethod
    def _boxes(
        cls, boxes: tuple[tuple[float, float, float, float], ...]
    ) -> tuple[tuple[float, float, float, float], ...]:
        if any(not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1) for x0, y0, x1, y1 in boxes):
            raise ValueError("a box is x0, y0, x1, y1 with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1")
        return boxes


class RegionMapSettings(Strict):
    """Where in the picture something is, for recipes that hide some regions first (marlin)."""

    source: Literal["none", "picture", "motion", "map", "folder"] = Field(
        "none",
        description="none: such recipes are refused; picture: what is not black; motion: within it what moves most; map: one PNG for all recordings; "
        "folder: VIDEO_ID.png for each",
    )
    path: str = Field(
        "", description="map: the PNG; folder: the folder. 0 outside the picture, 1 picture, 2-255 regions"
    )
    moving: float = Field(0.25, gt=0, lt=1, description="motion: share of the picture that counts as moving")

    @model_validator(mode="after")
    def _path(self) -> RegionMapSettings:
        if self.source in ("map", "folder") and not self.path:
            raise ValueError(f"source: {self.source} needs a path")
        return self


Kind = Literal["regression", "classification", "phases", "presence"]
OF_MOMENTS = ("phases", "presence")


class TaskSettings(Strict):
    """A task that labels of this domain can define: of whole recordings, or of every moment of them (spans)."""

    kind: Kind = Field(
        description="of a recording: regression (a number), classification (one class); of each moment: phases (one class at a time), "
        "presence (any number at once: tools, action triplets)"
    )
    column: str = Field(description="name of the label column, or of the spans")
    aliases: tuple[str, ...] = Field((), description="other names of that column in public data sets")
    unit: str = Field("", description="unit of a regression target, for tables and plots")
    classes: tuple[str, ...] = Field((), description="class names in order; empty: those found in the labels")
    range: tuple[float, float] | None = Field(None, description="values outside are label errors")
    parts: tuple[str, ...] = Field(
        (), description="presence: what class names are made of, joined by commas, e.g. instrument, verb, target"
    )
    nothing: tuple[str, ...] = Field(
        (), description="presence: classes, or words of parts, that stand for nothing and are scored apart"
    )
    opposites: tuple[tuple[str, str], ...] = Field(
        (), description="phases: pairs of classes that are each other's reverse, e.g. [open, close]"
    )

    @model_validator(mode="after")
    def _parts(self) -> TaskSettings:
        if (self.parts or self.nothing) and self.kind != "presence":
            raise ValueError("'parts' and 'nothing' are for tasks of kind presence")
        if self.opposites and self.kind != "phases":
            raise ValueError("'opposites' is for tasks of kind phases")
        if self.classes and (odd := [name for pair in self.opposites for name in pair if name not in self.classes]):
            raise ValueError(f"'{odd[0]}' of the opposites is no class")
        if self.parts and (odd := [name for name in self.classes if len(name.split(",")) != len(self.parts)]):
            raise ValueError(f"class '{odd[0]}' has not the {len(self.parts)} parts")
        return self

    @property
    def of_moments(self) -> bool:
        """Whether its labels are spans: they hold from one time to another, not for a whole recording."""
        return self.kind in OF_MOMENTS


class Domain(Strict):
    """A declared domain. See domains/echo/domain.yaml for a commented example."""

    name: str
    title: str
    about: str = ""
    min_frames: PositiveInt = Field(8, description="a recording with fewer is set aside as a still")
    colour_doppler: Literal["exclude", "keep"] = Field(
        "keep", description="ultrasound only: what happens to colour Doppler cines"
    )
    out_of_body: Literal["keep", "exclude", "blur"] = Field(
        "keep",
        description="endoscopy only: frames that do not surely show the inside of a body; exclude: stored blank, no clip is drawn there; "
        "blur: stored as patches of colour",
    )
    region: RegionSettings = RegionSettings()
    region_map: RegionMapSettings = RegionMapSettings()
    store: StoreSettings = StoreSettings()
    clip: ClipSettings = ClipSettings()
    augment: AugmentPolicies = AugmentPolicies()
    recipe: str = Field("videomae", description="the recipe that `vfm pretrain --domain` starts from")
    tasks: dict[str, TaskSettings] = Field(default_factory=dict)
    prompts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    run: dict[str, Any] = Field(
        default_factory=dict, description="run settings that this domain changes, e.g. optim: {lr: ...}"
    )

    @model_validator(mode="after")
    def _colour(self) -> Domain:
        if self.out_of_body != "keep" and self.store.grey:
            raise ValueError(f"out_of_body: {self.out_of_body} tells tissue by its colour: it needs store.grey: false")
        return self

    def changed(self, values: Mapping[str, Any]) -> Domain:
        """The domain with other values of some keys; those of sections are merged. Raises ConfigError for a key that there is not."""
        own = self.model_dump(exclude_unset=True)
        for key, value in values.items():
            own[key] = {**own.get(key, {}), **value} if isinstance(value, Mapping) else value
        return parse(Domain, own, self.name)

    def run_layer(self) -> dict[str, Any]:
        """What the domain says of a run: one layer of the run's configuration."""
        return {
            **self.run,
            "clip": self.clip.model_dump(exclude_unset=True),
            "augment": self.augment.model_dump(exclude_unset=True),
            "region_map": self.region_map.model_dump(exclude_unset=True),
        }

    def task(self, name: str) -> TaskSettings:
        """The declared task `name`; raises ConfigError with the nearest name."""
        if name not in self.tasks:
            raise ConfigError(f"domain '{self.name}' has no task '{name}'", do=nearest(name, list(self.tasks)))
        return self.tasks[name]


def domain_names() -> list[str]:
    """Names of the domains that ship with vfm."""
    root = resources.files("domains")
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.joinpath("domain.yaml").is_file())


def domain_yaml(name_or_path: str) -> Path:
    """The YAML of a shipped domain or of a file of one's own. Raises ConfigError with the nearest name."""
    if name_or_path in domain_names():
        return Path(str(resources.files("domains").joinpath(name_or_path, "domain.yaml")))
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        return path
    raise ConfigError(
        f"no domain '{name_or_path}'",
        do=nearest(name_or_path, domain_names()) + " A file of your own: --domain ./ours.yaml",
    )


def load_domain(name_or_path: str) -> Domain:
    """A shipped domain by name, or one declared in a YAML file."""
    path = domain_yaml(name_or_path)
    domain = parse(Domain, read_yaml(path), path)
    at = domain.region_map.path
    if not at:
        return domain
    regions = domain.region_map.model_copy(update={"path": str(path.parent.absolute() / at)})  # as the YAML sees it
    return domain.model_copy(update={"region_map": regions})
