"""What all tests of recipes have in common."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterator[None]:
    """Runs leave no curves: drawing them takes as long as a small run itself. That they are drawn: test_runs_reading.py, vfm_cli/test_cli.py."""
    with pytest.MonkeyPatch.context() as patch:
        if "recipes.jobs.pretrain" in sys.modules:  # else nobody here runs one
            patch.setattr("recipes.jobs.pretrain.draw_curves", lambda *_: None)
        yield
