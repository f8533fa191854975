"""Volumes of 3D probes, prepared: the middle plane over time with its size, or a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from enhanced_factory import groups, write_enhanced
from source_factory import cine

from domains.base import load_domain
from domains.prepare.ingest import prepare
from domains.store.prepared import Prepared

PLANES, TIMES = 3, 16


def volume(path: Path, kind: str = "TISSUE_INTENSITY", seconds: float | None = 0.05, times: int = TIMES) -> Path:
    """A heart beats in the middle plane; in the others nothing moves."""
    moving = cine(times, overlay=False)[..., 0]
    frames, own = [], []
    for time in range(times):
        for plane in range(PLANES):
            frames.append(moving[time if plane == 1 else 0])
            own.append(
                groups(at=(0.0, 0.0, 0.8 * plane), seconds=None if seconds is None else seconds * time, kind=kind)
            )
    return write_enhanced(path, np.stack(frames), own, spacing=(0.4, 0.4))


def test_volumes_are_prepared_or_set_aside(tmp_path: Path) -> None:
    volume(tmp_path / "in" / "beating")
    volume(tmp_path / "in" / "one time", times=1)
    volume(tmp_path / "in" / "no time", seconds=None)
    volume(tmp_path / "in" / "flow", kind="FLOW_VELOCITY")
    result = prepare(tmp_path / "in", tmp_path / "out", load_domain("echo"), key=b"k" * 32)
    assert {one.source.name: one.category for one in result.excluded} == {
        "one time": "volume",
        "no time": "volume",
        "flow": "colour Doppler",
    }
    ((source, note),) = result.noted
    assert (source.name, note) == ("beating", "a volume over time: plane 2 of 3 is taken")
    row = Prepared.open(tmp_path / "out").row(0)
    assert (row.n_frames, row.fps, row.fps_source) == (TIMES, pytest.approx(20), "TemporalPositionTimeOffset")
    side = max(row.height, row.width) / load_domain("echo").store.size
    assert row.cm_per_pixel == pytest.approx(0.04 * side, rel=0.01)
    assert row.motion > 0.5
