"""Recordings of one moment, next to each other: which frames and targets they hold, and what they follow from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from views_factory import CAMERAS, Camera, make_views, second_of

from domains.base import AugmentPolicies, ClipSettings
from domains.errors import ConfigError, DataError
from domains.store.clips import Clip
from domains.store.prepared import Prepared
from domains.store.views import moments_of, read_views
from recipes.training.data import collate
from recipes.training.together import TogetherData

CLIP = ClipSettings(frames=8, size=16, rate=4)  # 2 s
PLAIN = {"clip": Clip(augment="none")}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return make_views(tmp_path_factory.mktemp("views") / "prepared")


def stream(prepared: Prepared, **options: object) -> TogetherData:
    clip = options.pop("clip", CLIP)
    rows = options.pop("rows", range(len(prepared)))
    return TogetherData(prepared, rows, PLAIN, clip, AugmentPolicies(), **options)  # type: ignore[arg-type]


def groups(data: TogetherData, epoch: int = 0) -> list[list[dict]]:
    """Samples of an epoch, in runs of one moment."""
    found: list[list[dict]] = []
    for position in range(epoch * len(data), (epoch + 1) * len(data)):
        sample = data[position]
        if found and found[-1][0]["targets"]["moment"] == sample["targets"]["moment"]:
            found[-1].append(sample)
        else:
            found.append([sample])
    return found


def test_cameras_of_a_moment_show_the_same_second(prepared: Prepared) -> None:
    """To within half a frame of the slower camera (4 a second: 0.125 s), and the rounding of greys; drift of 2% would be 0.8 s after 40."""
    data = stream(prepared)
    for group in groups(data):
        shown = np.stack([second_of(sample["views"]["clip"].frames) for sample in group])  # (cameras, T)
        assert np.abs(shown - shown.mean(0)).max() < 0.25
        assert np.diff(shown, axis=1).mean() == pytest.approx(
            0.25, abs=0.02
        )  # 4 frames a second, whatever was recorded


def test_recordings_of_a_moment_follow_each_other_once(prepared: Prepared) -> None:
    data = stream(prepared)
    found = groups(data)
    moments = [group[0]["targets"]["moment"] for group in found]
    assert len(set(moments)) == len(moments) == len(data.moments)  # none is cut in two
    seen = [(sample["targets"]["moment"], sample["row"]) for group in found for sample in group]
    assert sorted(seen) == sorted((number, row) for number, moment in enumerate(data.moments) for row in moment.rows)
    sizes = {len(group) for group in found}
    assert sizes == {2, 4, 5}  # who comes later, or leaves, is not padded
    later = groups(data, epoch=1)
    assert [g[0]["row"] for g in later] != [g[0]["row"] for g in found]
    assert not {g[0]["targets"]["moment"] for g in later} & set(moments)  # another epoch is another moment


def test_targets_name_teams_cameras_and_who_stands_beside(prepared: Prepared) -> None:
    data, teams = stream(prepared), {}
    for group in groups(data):
        for sample in group:
            camera, targets = CAMERAS[sample["row"] % len(CAMERAS)], sample["targets"]
            event = sample["row"] // len(CAMERAS)
            assert bool(targets["exo"]) is camera.exo
            assert (targets["team"] == -1) == (camera.team == "")
            if camera.team:
                assert teams.setdefault((event, camera.team), int(targets["team"])) == targets["team"]
        assert len({int(sample["targets"]["camera"]) for sample in group}) == len(group)
    assert len(set(teams.values())) == 4  # red of one event is not red of another
    batch = collate([data[position] for position in range(6)])["targets"]
    assert {name: str(values.dtype) for name, values in batch.items()} == {
        "moment": "torch.int64", "team": "torch.int64", "camera": "torch.int64", "exo": "torch.bool",
    }  # fmt: skip


def test_a_sample_follows_from_its_position_alone(prepared: Prepared) -> None:
    one, other = stream(prepared), stream(prepared)
    for position in (len(one) + 3, 2, 3 * len(one) - 1):  # in no order, as processes and resumed runs ask
        left, right = one[position], other[position]
        assert np.array_equal(left["views"]["clip"].frames, right["views"]["clip"].frames)
        assert (left["seed"], left["row"], left["targets"]) == (right["seed"], right["row"], right["targets"])
    assert one.fingerprint() == other.fingerprint()
    assert one.fingerprint() != stream(prepared, rows=range(5)).fingerprint()
    assert one.fingerprint() != stream(prepared, synchronous=False).fingerprint()


def test_the_control_shows_each_recording_at_another_moment(prepared: Prepared) -> None:
    data = stream(prepared, synchronous=False)
    apart = []
    for group in groups(data):
        moment = data.moments[int(group[0]["targets"]["moment"]) % len(data.moments)]
        middles = [float(second_of(sample["views"]["clip"].frames).mean()) for sample in group]
        for middle in middles:
            assert not moment.start <= middle <= moment.end
        apart += [abs(a - b) for a in middles for b in middles if a != b]
        assert len(group) == len(moment.rows)
    assert min(apart) > 1.0
    with pytest.raises(DataError, match="no event is long enough"):
        stream(prepared, synchronous=False, clip=ClipSettings(frames=100, size=16, rate=4))


def test_draws_of_a_moment_are_moments_of_their_own(prepared: Prepared) -> None:
    data = stream(prepared, clips_per_video=2)
    found = groups(data)
    assert len({int(group[0]["targets"]["moment"]) for group in found}) == 2 * len(data.moments) == len(found)


def test_withheld_stretches_are_of_no_moment(tmp_path: Path) -> None:
    cameras = (Camera("a", outside=(100, 200)), Camera("b"), Camera("c", offset=None))  # a: hidden from 10 to 20 s
    prepared = make_views(tmp_path / "prepared", events=1, cameras=cameras)
    moments = moments_of(prepared, read_views(prepared), range(3), 2.0)
    assert [(round(m.start), round(m.end)) for m in moments] == [
        (0, 4),
        (4, 8),
        (20, 24),
        (24, 28),
        (28, 32),
        (32, 36),
        (36, 40),
    ]
    assert all(moment.rows == (0, 1) for moment in moments)  # a camera without a clock is in none


def test_moments_that_the_data_set_names_are_taken(tmp_path: Path) -> None:
    named = (("red", 5.0, 10.0), ("blue", 5.0, 10.0), ("red", 22.5, 27.5), ("blue", 22.5, 27.5))
    prepared = make_views(tmp_path / "prepared", events=1, moments=named)
    moments = moments_of(prepared, read_views(prepared), range(5), 2.0)
    assert [(m.start, m.end, m.rows) for m in moments] == [(5.0, 10.0, (0, 1, 2, 3)), (22.5, 27.5, (0, 1, 2))]


def test_what_cannot_be_learned_from_is_one_line(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no two recordings show the same event"):
        stream(prepared, rows=[0, 5])  # one of each event
    alone = make_views(tmp_path / "alone", events=1, cameras=(Camera("a", offset=None), Camera("b", offset=None)))
    with pytest.raises(DataError, match="known clock"):
        stream(alone)
    with pytest.raises(ConfigError, match="different frame rates"):
        stream(prepared, clip=ClipSettings(frames=8, size=16, stride=2))
