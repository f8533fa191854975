"""Samples that are texts, with what another camera of the event shows at the moment of their clip."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from text_factory import small_text
from views_factory import Camera, make_views, second_of

from domains.base import AugmentPolicies, ClipSettings
from domains.errors import ConfigError, DataError
from domains.store.clips import Clip
from domains.store.prepared import Prepared
from domains.store.text_tables import read_texts
from domains.store.texts import Asked
from recipes.objective import FOREVER
from recipes.parts.alignment import same_time
from recipes.training.data import StreamSampler, batches_of, collate, make_loader
from recipes.training.texts import TextData

CLIP = ClipSettings(frames=8, size=16, rate=4)  # 2 s
VIEWS = {"clip": Clip(augment="none"), "camera": Clip(augment="none", across="clip")}
SAID = (3.0, 9.0, 15.0, 30.0)  # seconds of the recording at which a text of a second begins


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Two events, five cameras each (see `views_factory`): c's clock drifts, d leaves half-way."""
    return make_views(tmp_path_factory.mktemp("cameras") / "prepared")


def write_said(prepared: Prepared, path: Path, whole: bool = False) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "start", "end", "text"])
        for row in range(len(prepared)):
            for number, start in enumerate(SAID):
                if start + 1 < prepared.length(row) / prepared.fps(row):  # type: ignore[operator]
                    writer.writerow([prepared.video_id(row), start, start + 1, f"said {row} {number}"])
            if whole:
                writer.writerow([prepared.video_id(row), "", "", f"all of {row}"])
    return path


def stream(prepared: Prepared, folder: Path, views: dict[str, Clip] | None = None, **options: object) -> TextData:
    rows = options.pop("rows", range(len(prepared)))
    texts = read_texts([write_said(prepared, folder / "said.csv", bool(options.pop("whole", False)))], prepared, None)
    return TextData(
        prepared, rows, views or VIEWS, options.pop("clip", CLIP), AugmentPolicies(), texts=texts, asked={"text": Asked()},  # type: ignore[arg-type]
        reader=small_text().reader, **options,  # type: ignore[arg-type]
    )  # fmt: skip


def test_another_camera_shows_the_same_second_of_the_event(prepared: Prepared, tmp_path: Path) -> None:
    data, met = stream(prepared, tmp_path), set()
    for position in range(2 * len(data)):
        sample = data[position]
        own, other = (second_of(sample["views"][name].frames) for name in ("clip", "camera"))
        assert not sample["targets"]["camera_missing"]
        assert (
            abs(other.mean() - own.mean()) < 0.3
        )  # half a frame of 4 a second, drift over 2 s, and the rounding of greys
        met.add(sample["row"])
    assert met == set(range(10))


def test_where_the_only_other_camera_has_left_there_is_none(prepared: Prepared, tmp_path: Path) -> None:
    """a looks on for 40 s, d for 20: what a's wearer says at 30 has no other camera; d's clips all have a."""
    data, met = stream(prepared, tmp_path, rows=[0, 3]), set()
    for position in range(4 * len(data)):
        sample = data[position]
        own, other, missing = (
            *(sample["views"][n].frames for n in ("clip", "camera")),
            bool(sample["targets"]["camera_missing"]),
        )
        assert missing == (second_of(own).mean() > 25)
        assert other.shape == own.shape
        assert other.any() != missing
        met.add((sample["row"], missing))
    assert met == {(0, False), (0, True), (3, False)}


def test_the_other_camera_is_of_the_same_event_and_not_the_own(prepared: Prepared, tmp_path: Path) -> None:
    data, drawn = stream(prepared, tmp_path), []
    whole = type(prepared).frames

    def watched(self: Prepared, row: int, indices: list[int]) -> np.ndarray:
        drawn.append(row)
        return whole(self, row, indices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Prepared, "frames", watched)
        pairs = set()
        for position in range(4 * len(data)):
            drawn.clear()
            sample = data[position]
            if not sample["targets"]["camera_missing"]:
                own, other = drawn
                assert own == sample["row"]
                assert own // 5 == other // 5
                assert own != other
                pairs.add((own % 5, other % 5))
    assert len(pairs) > 15  # of 20 ordered ones


def test_only_recordings_that_are_learned_from_are_shown(prepared: Prepared, tmp_path: Path) -> None:
    data = stream(prepared, tmp_path, rows=[0, 1, 7])
    assert data.others is not None
    assert {row: data.others.of(row) for row in (0, 1, 7)} == {0: [1], 1: [0], 7: []}
    for position in range(len(data)):
        sample = data[position]
        if sample["row"] == 7:
            assert sample["targets"]["camera_missing"]


def test_loader_processes_draw_the_same_cameras(prepared: Prepared, tmp_path: Path) -> None:
    found = []
    for workers in (0, 2):
        loader = make_loader(stream(prepared, tmp_path), StreamSampler(4, 1, 0, 1, 0, 5), workers, pin=False)
        with batches_of(loader) as batches:
            found.append(torch.cat([batch["views"]["camera"]["frames"] for batch in batches]))
    assert found[0].equal(found[1])


def test_the_control_shows_another_time(prepared: Prepared, tmp_path: Path) -> None:
    data, there = stream(prepared, tmp_path, synchronous=False), 0
    for position in range(2 * len(data)):
        sample = data[position]
        if not sample["targets"]["camera_missing"]:
            there += 1
            own, other = (second_of(sample["views"][name].frames).mean() for name in ("clip", "camera"))
            assert abs(own - other) > 1.7  # a clip's length, less what rounding and clocks make of it
    assert there > len(data)
    assert data.fingerprint() != stream(prepared, tmp_path).fingerprint()


def test_times_that_overlap_are_those_of_the_event(prepared: Prepared, tmp_path: Path) -> None:
    """What b says at its second 3 (1.75 of the event) and what a says at 3 do not overlap; e at 9 (5.5) and b at ... do by the event's clock."""
    data = stream(prepared, tmp_path, whole=True)
    facts = {data.texts.words(data.anchors[where]): data.facts(where) for where in range(data.count)}

    def of(name: str) -> dict[str, np.ndarray]:
        return facts[name]

    assert of("said 0 0")["span"].tolist() == [3000, 4000]
    assert of("said 1 0")["span"].tolist() == [1750, 2750]  # offset 1.25
    start, end = of("said 2 0")["span"].tolist()
    assert (start, end) == (round(5000 / 1.02), round(6000 / 1.02))  # offset -2, drift 2%
    assert of("said 0 0")["about"].tolist() == of("said 3 1")["about"].tolist() == [0, 1, 2, 3, 4]
    assert of("all of 6")["about"].tolist() == [5, 6, 7, 8, 9]
    assert of("all of 6")["span"].tolist() == [-FOREVER, FOREVER]
    names = ["said 0 0", "said 1 0", "said 4 1", "said 5 0", "all of 3"]  # e at 9: second 5.5
    row = torch.tensor([0, 1, 4, 5, 3])
    about, span = (torch.from_numpy(np.stack([of(name)[key] for name in names])) for key in ("about", "span"))
    apart = same_time(row, about, span)
    assert apart[0].tolist() == [True, False, False, False, True]
    assert apart[3].tolist() == [False, False, False, True, False]  # another event
    plain = stream(prepared, tmp_path, views={"clip": Clip(augment="none")})
    assert plain.others is None
    assert plain.facts(0)["about"].tolist() == [plain.recordings[0][0]]


def test_without_another_camera_it_is_one_line(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"wants another camera of the same moment, and no two show the same event"):
        stream(prepared, tmp_path, rows=[0, 5])
    apart = (Camera("a", end=10.0), Camera("b", offset=-11.0))
    with pytest.raises(DataError, match="no two show the same event on a known clock"):
        stream(make_views(tmp_path / "apart", events=1, cameras=apart), tmp_path)
    with pytest.raises(ConfigError, match=r"clip\.rate is null"):
        stream(prepared, tmp_path, clip=ClipSettings(frames=8, size=16, stride=1))
    found = stream(prepared, tmp_path)
    batch = collate([found[position] for position in range(4)])
    assert batch["targets"]["camera_missing"].dtype == torch.bool
