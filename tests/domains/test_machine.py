"""How many cores there are is asked in one place, and a container's quota counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from domains import machine


@pytest.mark.parametrize(
    ("quota", "expected"), [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("", 8)]
)
def test_the_quota_of_a_container_limits_the_cores(
    quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(quota)
    assert machine.cores(tmp_path / "cpu.max") == expected
    assert machine.cores(tmp_path / "absent") == 8
