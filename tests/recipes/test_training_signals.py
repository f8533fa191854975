"""What was recorded beside a video, at the time of its clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from views_factory import make_views, second_of

from domains.base import AugmentPolicies, ClipSettings
from domains.errors import ConfigError, DataError
from domains.store.clips import Clip
from domains.store.prepared import Prepared
from domains.store.signals import read_table, write_signals
from recipes.training.data import ClipData, collate
from recipes.training.together import TogetherData

CLIP = ClipSettings(frames=8, size=16, rate=4)  # 2 s
PLAIN = {"clip": Clip(augment="none")}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return make_views(tmp_path_factory.mktemp("signals") / "prepared", events=1, signals=True)


def test_windows_are_of_the_time_of_the_clip(prepared: Prepared) -> None:
    data = ClipData(prepared, range(4), PLAIN, CLIP, AugmentPolicies(), signals=("imu", "pose"))
    for position in range(8):
        sample = data[position]
        shown, imu, pose = (
            second_of(sample["views"]["clip"].frames),
            sample["targets"]["imu"],
            sample["targets"]["pose"],
        )
        assert imu.shape == (40, 2)  # 20 a second
        assert imu.dtype == np.float32
        known = np.isfinite(imu[:, 1])  # a clip may end with the recording
        assert known.mean() > 0.9
        drift = 0.02 if sample["row"] == 2 else 0.0
        assert np.diff(imu[known, 1]).mean() * (1 + drift) == pytest.approx(0.05, abs=1e-3)
        assert imu[0, 1] == pytest.approx(shown[0], abs=0.3)  # half a frame of 4 a second, and the rounding of greys
        assert pose.shape == (8, 1, 2)
        assert np.allclose(pose[np.isfinite(pose[..., 0]), 1], 0.5)
        assert np.nanmax(np.abs(100 * pose[:, 0, 0] - shown)) < 0.35
        assert not sample["targets"]["imu_missing"]


def test_cameras_of_one_moment_feel_the_same_second(prepared: Prepared) -> None:
    data = TogetherData(prepared, range(5), PLAIN, CLIP, AugmentPolicies(), signals=("imu",))
    batch = collate([data[position] for position in range(len(data))])["targets"]
    moments, imu = batch["moment"], batch["imu"]
    for moment in moments.unique():
        middles = imu[(moments == moment) & ~batch["imu_missing"], 20, 1]
        middles = middles[~middles.isnan()]
        assert (middles.max() - middles.min()) < 0.3
    assert batch["imu_missing"].dtype == torch.bool
    assert imu[batch["imu_missing"]].isnan().all()
    assert batch["imu_missing"].any()  # of the camera that feels nothing


def test_signals_that_are_not_there_are_one_line(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no signal 'gaze' was recorded"):
        ClipData(prepared, range(4), PLAIN, CLIP, AugmentPolicies(), signals=("gaze",))
    with pytest.raises(ConfigError, match=r"clip\.rate is null"):
        ClipData(prepared, range(4), PLAIN, ClipSettings(frames=8, size=16), AugmentPolicies(), signals=("imu",))
    for name, text in (("back", "s,x\n1,2\n0,3\n"), ("words", "s,x\n0,up\n"), ("empty", "s,x\n"), ("alone", "s\n1\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match="not a signal"):
            read_table(tmp_path / name)
    (tmp_path / "one").write_text("s,x\n0,1\n1,\n")
    (tmp_path / "two").write_text("s,x,y\n0,1,2\n")
    assert np.isnan(read_table(tmp_path / "one").values[1, 0])
    with pytest.raises(DataError, match="2 channels, where other recordings have 1"):
        write_signals(tmp_path, tmp_path, {"a": {"imu": "one"}, "b": {"imu": "two"}})
