"""In which order files run, and how they are dealt out to processes."""

from __future__ import annotations

from typing import Any

import pytest

# Files that take longest begin first, so that no process ends with one of them while the other has nothing left to do.
FIRST = (
    "test_pretrain_every", "test_training_kills", "test_signals", "test_training_machines", "test_training_sharded", "test_slurm",
    "test_docs_commands", "test_echo_phantom",
)  # fmt: skip
PAGES = "::test_commands_run["


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of files; within a file it stays."""
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As --dist loadfile: a file goes to one process, which makes its fixtures once. But in the order above, and of the documentation's commands
    each page by itself: together they would take longer than any other file."""
    from xdist.scheduler import LoadFileScheduling

    class Dealt(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if PAGES in nodeid else super()._split_scope(nodeid)

    config.option.loadscopereorder = False
    return Dealt(config, log)
