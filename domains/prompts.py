"""What a class looks like, in words: prompts of a domain, or of a file of one's own.

CalotTriangleDissection:                       a class and its prompts, one or several (they are averaged)
  - the surgeon dissects the triangle of Calot
  - dissection of the hepatocystic triangle with the hook
phase:                                         or a task and its classes, where two tasks have a class of one name
  Preparation: trocars are placed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from domains.base import load_domain
from domains.errors import ConfigError
from domains.schema import nearest, read_yaml


def prompts_of(classes: Sequence[str], task: str, path: Path | None, domain: str) -> list[tuple[str, ...]]:
    """The prompts of each class, in order: of the file, else of the domain.

    Raises ConfigError for a class without one, naming the nearest key, and for what is no text.
    """
    where = path or f"domain '{domain}'"
    given: Mapping[str, Any] = read_yaml(path) if path is not None else load_domain(domain).prompts
    if isinstance(own := given.get(task), Mapping):
        given = own
    found = []
    for name in classes:
        if name not in given:
            close = nearest(name, [key for key in map(str, given) if key not in classes] or ["none"])
            do = f"Describe every class in a file: --prompts prompts.yaml. {close}" if path is None else close
            raise ConfigError(f"no prompt for class '{name}' of '{task}'", where=where, do=do)
        found.append(_texts(given[name], name, where))
    return found


def _texts(said: Any, name: str, where: str | Path) -> tuple[str, ...]:
    texts = (said,) if isinstance(said, str) else said
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
        raise ConfigError(f"the prompts of '{name}' are not a text or a list of texts", where=where)
    return tuple(texts)
