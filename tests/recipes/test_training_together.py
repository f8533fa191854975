"""Recordings of one moment, next to each other: which frames and targets they hold, and what they follow from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from views_factory import CAMERAS, Camera, make_views, second_of

from domains.base import AugmentPolicies, ClipSettings
from domains.errors import ConfigError, DataError
from domains.store.clips import Clip
from domains.store.prepared import Prepared
from domains.store.views import moments_of, read_views
from recipes.config import Layer, parse_assignments, resolve
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.jobs.pretrain import pretrain
from recipes.objective import Batch, Contrast, Losses
from recipes.pretrain import METHODS
from recipes.training.data import collate
from recipes.training.reporter import SilentReporter
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
    assert sizes == {4, 5}  # who comes later, or leaves, is not padded
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


class Groups(Contrast):
    """Recordings of one moment and team attract, all others repel: what is needed of a method to see the loop at work."""

    name = "groups"
    together = True
    views: ClassVar[dict[str, Clip]] = {"clip": Clip(augment="none")}  # type: ignore[misc]

    def embed(self, batch: Batch) -> dict[str, torch.Tensor]:
        targets = {name: batch.targets[name] for name in ("moment", "team")}
        return {"z": nn.functional.normalize(self.encoder.embed(batch["clip"]), dim=-1), **targets}

    def compare(self, embedded: Mapping[str, torch.Tensor]) -> Losses:
        z, moment, team = embedded["z"], embedded["moment"], embedded["team"]
        same = (moment[:, None] == moment) & (team[:, None] == team)
        return {"loss": -nn.functional.logsigmoid((2.0 * same - 1) * (10 * z @ z.T - 3)).mean()}


@pytest.fixture(scope="module")
def groups_run(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """pretrain(out, *assignments, **options) of `Groups` on the tiny store."""
    METHODS.append(Groups)
    folder = tmp_path_factory.mktemp("groups")
    geometry = Geometry(frames=4, size=16, rate=4)
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "patch_size": 8,
    }
    fresh_videomae(geometry, seed=0, tubelet_size=2, **small).save(folder / "encoder")

    def run(out: Path, *assignments: str, **options: object) -> Path:
        values = {
            "method": "groups", "encoder": {"name": str(folder / "encoder")}, "data": {"path": str(prepared.folder), "workers": 0},
            "clip": {"frames": 4, "size": 16, "rate": 4},
            "train": {"steps": 4, "batch_size": 6, "precision": "fp32", "log_every": 1, "save_every": 2, "keep": 9},
        }  # fmt: skip
        pretrain(
            resolve([Layer("test", values), Layer("line", parse_assignments(assignments))]),
            out,
            reporter=SilentReporter(),
            **options,
        )  # type: ignore[arg-type]
        return out

    yield run
    METHODS.remove(Groups)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_is_as_if_nothing_had_happened(groups_run: Callable[..., Path], tmp_path: Path) -> None:
    run = groups_run(tmp_path / "run")
    before = load_file(run / "checkpoints/step_00000004/objective.safetensors")
    groups_run(run, from_step=2)
    after = load_file(run / "checkpoints/step_00000004/objective.safetensors")
    assert all(before[key].equal(after[key]) for key in before)
    shutil.rmtree(run / "checkpoints/step_00000004")
    (run / "result.json").unlink(missing_ok=True)
    with pytest.raises(ConfigError):  # the control is another run
        groups_run(run, "data.synchronous=false", from_step=2)


def test_in_pieces_the_same_is_learned(groups_run: Callable[..., Path], tmp_path: Path) -> None:
    whole, pieces = (
        losses(groups_run(tmp_path / "whole", "train.steps=2")),
        losses(groups_run(tmp_path / "pieces", "train.piece=2", "train.steps=2")),
    )
    assert pieces == pytest.approx(whole, rel=1e-4)


def test_a_method_of_single_recordings_refuses_the_control(groups_run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"'simclr' does not learn from several cameras at one moment.*--recipe .*groups"
    ):
        groups_run(tmp_path / "run", "method=simclr", "data.synchronous=false")
