"""What was recorded beside a video, at the time of its clips."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from objective_factory import build
from views_factory import make_views, second_of

from domains.base import AugmentPolicies, AugmentSettings, ClipSettings
from domains.errors import ConfigError, DataError
from domains.store.clips import Clip
from domains.store.prepared import Prepared
from domains.store.signals import Signals, other_side, read_table, write_signals
from recipes.pretrain.previps import PreViPS
from recipes.training.data import ClipData, StreamSampler, batches_of, collate, make_loader
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


POINTS = {"left hand": (0.25, 0.25), "right hand": (0.75, 0.5), "nose": (0.5, 0.95)}


@pytest.fixture(scope="module")
def posed(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Recordings in which everybody holds still: three joints in shares of the frame."""
    folder = tmp_path_factory.mktemp("posed") / "prepared"
    prepared = make_views(folder, events=1, signals=True)
    header = ",".join(["seconds", *(f"{name} {axis}" for name in POINTS for axis in "xy")])
    line = ",".join(str(value) for point in POINTS.values() for value in point)
    (folder / "still.csv").write_text(f"{header}\n0,{line}\n100,{line}\n")
    write_signals(folder, folder, {prepared.video_id(row): {"pose": "still.csv"} for row in range(5)})
    return Prepared.open(folder)


def test_poses_are_where_the_clip_shows_them(posed: Prepared) -> None:
    views = {"clip": Clip(augment="strong")}
    policies = AugmentPolicies(strong=AugmentSettings(crop_scales=(1.0, 0.5), flip=0.5))
    data = ClipData(posed, range(5), views, CLIP, policies, signals=("pose",))
    met = set()
    for position in range(60):
        sample = data[position]
        drawn, pose = sample["views"]["clip"], sample["targets"]["pose"]
        x0, y0, x1, y1 = drawn.box
        names = ["right hand", "left hand", "nose"] if drawn.flip else list(POINTS)
        for place, name in enumerate(names):
            x, y = (POINTS[name][0] - x0) / (x1 - x0), (POINTS[name][1] - y0) / (y1 - y0)
            shown = 0 <= x <= 1 and 0 <= y <= 1
            expected = (1 - x if drawn.flip else x, y) if shown else (np.nan, np.nan)
            known = pose[:4, place]  # a clip may end with the recording
            np.testing.assert_allclose(known, np.broadcast_to(expected, known.shape), atol=1e-5)
            met.add((drawn.flip, x1 - x0, shown))
    assert met == {(flip, 1.0, True) for flip in (True, False)} | {
        (flip, 0.5, shown) for flip in (True, False) for shown in (True, False)
    }


def test_previps_reads_the_cells_of_the_crop(posed: Prepared) -> None:
    objective = build("previps", joints=3, bins=4, steps=2)
    assert isinstance(objective, PreViPS)
    policies = AugmentPolicies(weak=AugmentSettings(crop_scales=(0.5,), flip=0.5))
    data = TogetherData(posed, range(5), objective.views, CLIP, policies, signals=objective.signals)
    met = set()
    for position in range(40):
        sample = data[position]
        drawn = sample["views"]["clip"]
        tokens = objective.sensed.tower.tokens(torch.from_numpy(sample["targets"]["pose"])[None])[0, 0].tolist()
        x0, y0, _, _ = (
            drawn.box
        )  # of a stored frame of 16 pixels, so that nothing stands on a border of cells but by hand
        for place, (x, y) in enumerate(POINTS[name] for name in ("left hand", "right hand", "nose")):
            u, v = 2 * (x - x0), 2 * (y - y0)
            u = 1 - u if drawn.flip else u
            cell = (
                min(3, int(4 * v)) * 4 + min(3, int(4 * u))
                if 0 <= u <= 1 and 0 <= v <= 1
                else objective.sensed.tower.unseen
            )
            swapped = (1, 0, 2)[place] if drawn.flip else place
            assert tokens[swapped] == cell
            met.add(cell)
    assert objective.sensed.tower.unseen in met
    assert len(met) > 5


def test_loader_processes_place_poses_alike(posed: Prepared) -> None:
    views = {"clip": Clip(augment="strong")}
    policies = AugmentPolicies(strong=AugmentSettings(crop_scales=(0.75, 0.5), flip=0.5))
    found = []
    for workers in (0, 2):
        data = TogetherData(posed, range(5), views, CLIP, policies, signals=("pose",))
        loader = make_loader(data, StreamSampler(4, 1, 0, 1, 0, 6), workers, pin=False)
        with batches_of(loader) as batches:
            found.append(torch.cat([batch["targets"]["pose"] for batch in batches]))
    assert found[0].isnan().any()
    torch.testing.assert_close(found[0], found[1], equal_nan=True, rtol=0, atol=0)


def test_joints_change_sides_by_the_names_of_their_columns() -> None:
    named = [
        "Left Hand x",
        "Left Hand y",
        "nose x",
        "nose y",
        "Right Hand x",
        "Right Hand y",
        "left_ear x",
        "left_ear y",
    ]
    assert other_side(named).tolist() == [2, 1, 0, 3]  # there is no right ear
    assert other_side(["x0", "y0", "x1", "y1"]).tolist() == [0, 1]


def test_signals_of_an_earlier_version_have_no_names(posed: Prepared, tmp_path: Path) -> None:
    table = pq.read_table(posed.folder / "signals.parquet")
    folder = tmp_path / "earlier"
    shutil.copytree(posed.folder, folder)
    with pq.ParquetWriter(folder / "signals.parquet", table.drop_columns(["columns"]).schema) as writer:
        for row in range(len(table)):
            writer.write_table(table.drop_columns(["columns"]).slice(row, 1))
    earlier, now = (Signals(Prepared.open(place), "pose").of(0) for place in (folder, posed.folder))
    assert earlier is not None
    assert now is not None
    assert (earlier.columns, now.columns[0]) == ((), "left hand x")
    assert np.array_equal(earlier.values, now.values)
    policies = AugmentPolicies(strong=AugmentSettings(flip=1.0))
    data = ClipData(Prepared.open(folder), range(5), {"clip": Clip("strong")}, CLIP, policies, signals=("pose",))
    np.testing.assert_allclose(data[0]["targets"]["pose"][0], [[0.75, 0.25], [0.25, 0.5], [0.5, 0.95]], atol=1e-5)


def test_half_a_joint_is_one_line(posed: Prepared, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(posed.folder, folder)
    (folder / "odd.csv").write_text("s,x,y,z\n0,1,1,1\n")
    write_signals(folder, folder, {posed.video_id(0): {"pose": "odd.csv"}})
    with pytest.raises(DataError, match=r"poses have 3 columns.*a joint has two"):
        ClipData(Prepared.open(folder), range(5), PLAIN, CLIP, AugmentPolicies(), signals=("pose",))


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
