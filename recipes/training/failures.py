"""What ends a run before its time, in one line each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from torch.distributed import DistError

from domains.errors import TrainingError
from domains.remote.place import Place
from recipes.config import RunConfig
from recipes.objective import Objective
from recipes.parts.distributed import world_size
from recipes.training.memory import advice, is_out_of_memory

RESUME = "then --resume from the last checkpoint"


@contextlib.contextmanager
def others_live(run: Path) -> Iterator[None]:
    """The death of a loader process or of another rank, e.g. for lack of memory, is a TrainingError, wherever it shows."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            who, do = "a loader process", "Free memory or use fewer data.workers"
        elif world_size() > 1 and ("gloo" in str(error) or isinstance(error, DistError)):
            who, do = "another process of this run", "Free memory or use fewer processes"
        else:
            raise
        raise TrainingError(f"{who} was killed from outside", where=run, do=f"{do}, {RESUME}") from None


@contextlib.contextmanager
def in_one_line(run: Path, config: RunConfig, objective: Objective) -> Iterator[None]:
    """What the machine does to a run, as a TrainingError: others that die, and memory that ends."""
    try:
        with others_live(run):
            yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        what = f"out of memory at {config.train.batch_size} samples in a forward pass"
        do = f"{advice(config, objective)}; or let --batch-size auto find what fits"
        raise TrainingError(what, where=run, do=do) from None


def check_replaced(replaced: int, last: str, step: int, config: RunConfig, lost: bool, prepared: Place) -> None:
    """Too many unreadable samples end the run, and so does one that nothing readable replaces (`lost`). Raises TrainingError."""
    train = config.train
    seen = (step + 1) * train.batch_size * train.accumulate
    if lost or replaced > max(train.batch_size, config.data.max_failures * seen):
        what = f"{replaced} unreadable samples among the first {seen}; the last: {last}"
        raise TrainingError(
            what, where=prepared, do="Prepare the folder again, or raise data.max_failures; then --resume"
        )
