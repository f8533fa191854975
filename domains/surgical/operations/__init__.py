"""The kinds of operations that the surgical phantom knows."""

from __future__ import annotations

from collections.abc import Sequence

from domains.errors import ConfigError
from domains.schema import nearest
from domains.surgical.operation import Operation
from domains.surgical.operations.appendectomy import APPENDECTOMY
from domains.surgical.operations.cholecystectomy import CHOLECYSTECTOMY
from domains.surgical.operations.hernia import HERNIA

OPERATIONS = {one.name: one for one in (CHOLECYSTECTOMY, APPENDECTOMY, HERNIA)}


def known_operations(names: Sequence[str]) -> list[Operation]:
    """Operations by name, each once. Raises ConfigError for one that is not known."""
    for name in names:
        if name not in OPERATIONS:
            raise ConfigError(f"the phantom knows no operation '{name}'", do=nearest(name, list(OPERATIONS)))
    return [OPERATIONS[name] for name in dict.fromkeys(names)]
