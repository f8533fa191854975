"""Learning a task from labelled recordings."""

from importlib import resources
from pathlib import Path

from recipes.config import Layer, yaml_layer

__all__ = ["defaults"]


def defaults() -> Layer:
    """What `vfm finetune` starts from: the layer above the schema's defaults."""
    return yaml_layer(Path(str(resources.files("recipes.finetune").joinpath("finetune.yaml"))), "finetune.yaml")
