"""What a run started from: the generic encoder that its result is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from domains.errors import ModelError
from domains.schema import parse, read_yaml
from recipes.config import RunConfig
from recipes.encoders import open_encoder
from recipes.encoders.base import Geometry, VideoEncoder
from recipes.encoders.loading import RANDOM, SHIPPED, TINY, TINY_RANDOM, shipped_weights
from recipes.encoders.text import TEXT
from recipes.runs.metrics import read_json
from recipes.runs.run import CONFIG, ENVIRONMENT, is_run
from recipes.runs.status import RECORD


@dataclass(frozen=True)
class Start:
    """The encoder that a run began with.

    name: as the run was given it. init_from: the run whose weights it took, "" for its own. seed: that random weights
    follow from. task: whose labels the run learned from, "" for pretraining. teacher: the encoder that told it what to say (`objective.teacher`), ""
    for none but its own. text: its text tower, which may be of another run; "" for none.
    """

    name: str
    seed: int
    task: str
    run: Path
    init_from: str = ""
    teacher: str = ""
    text: str = ""

    @property
    def random(self) -> bool:
        """Whether that encoder's weights were drawn at random."""
        return self.name in RANDOM

    @property
    def recorded_weights(self) -> str:
        """Which weights of a built-in encoder the run began with; "" where it has none on record, of the time when there were others."""
        return str(read_json(self.run / ENVIRONMENT).get("built_in_weights", {}).get(self.name, ""))

    @property
    def title(self) -> str:
        """Short name: the last part of a path or hub name."""
        return Path(self.name).name

    @property
    def row(self) -> str:
        """What its row of a table is called."""
        return f"unadapted ({self.title}, random weights)" if self.random else f"generic ({self.title})"

    def open(self, geometry: Geometry, *, online: bool = False) -> VideoEncoder:
        """The start encoder, seeing clips of the same geometry as the run's result. Raises ModelError where it is
        gone.
        """
        if self.name in SHIPPED and self.recorded_weights != shipped_weights()[self.name]:
            what = f"it started from {self.title} with the weights of another version of vfm, which are not those of this one"
            raise ModelError(
                what, where=self.run, do="Compare without it (leave generic out of --baselines), or adapt again"
            )
        try:
            start = open_encoder(self.name, frames=geometry.frames, size=geometry.size, online=online, seed=self.seed)
        except ModelError as error:
            what = f"the encoder it started from cannot be opened ({error.what})"
            raise ModelError(what, where=self.run, do="Compare without it: leave generic out of --baselines") from None
        start.set_geometry(start.geometry.model_copy(update={"keep": geometry.keep}))
        return start


def start_of(encoder: str | Path) -> Start | None:
    """The start of a run folder; None for anything else (a plain encoder folder, a hub name)."""
    run = Path(encoder)
    if not is_run(run):
        return None
    config = parse(RunConfig, read_yaml(run / CONFIG), run / CONFIG)
    teacher = str(config.objective.get("teacher") or "")
    start, name, text = config.encoder, config.encoder.name, config.text.name if (run / TEXT).is_dir() else ""
    if name == TINY and read_json(run / RECORD).get("random_start"):
        name = TINY_RANDOM  # a run of the time when vfm-tiny had no weights
    return Start(name, config.train.seed, config.task.name, run, start.init_from or "", teacher, text)
