"""A few of the files that benchmarks/fuzz.py makes by the thousand."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_files_cost_nothing_but_themselves(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fuzz

    seeds = fuzz.make_seeds(tmp_path / "seeds")
    found = fuzz.fuzz(seeds, 64, seed, tmp_path, workers=1)
    assert found["lost"] == 0
    assert found["unexplained"] == 0
    outcomes = found["outcomes"]
    assert sum(outcomes.values()) == 64
    assert outcomes["usable"] < 60  # the mutations do damage
    assert found["mib"] < 1024
    assert not list(tmp_path.glob("lost-*"))


def test_the_seeds_themselves_are_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fuzz

    for number, path in enumerate(fuzz.make_seeds(tmp_path)):
        outcome = fuzz.examine(
            fuzz.Task(fuzz.Source(path, path.name), None, tmp_path, fuzz.ECHO, b"k" * 32), lambda: None
        )
        assert isinstance(outcome, fuzz.Usable), f"seed {number}: {outcome}"
