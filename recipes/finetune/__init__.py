"""Learning a task from labelled recordings."""

from importlib import resources
from pathlib import Path

from domains.schema import parse, read_yaml
from recipes.config import Layer, RunConfig, yaml_layer

__all__ = ["clip_of_run", "defaults"]


def defaults(*, of_moments: bool = False, of_studies: bool = False, mode: str | None = None) -> Layer:
    """What `vfm finetune` starts from: the layer above the schema's defaults. of_moments: for a task of moments (phases, presence); of_studies: for
    one answer to all clips of a study. mode: `encoder.mode` that is asked for; of studies there are other ones for an encoder that learns."""
    of_study = "study.yaml" if mode in (None, "frozen") else "study_clips.yaml"
    name = "temporal.yaml" if of_moments else of_study if of_studies else "finetune.yaml"
    return yaml_layer(Path(str(resources.files("recipes.finetune").joinpath(name))), name)


def clip_of_run(encoder: str) -> Layer | None:
    """The clips that a run's encoder was adapted to, which its fine-tuning keeps to; None for what is no run."""
    file = Path(encoder) / "config.resolved.yaml"
    if not file.is_file():
        return None
    clip = parse(RunConfig, read_yaml(file), file).clip
    return Layer(f"run {Path(encoder).name}", {"clip": clip.model_dump()})
