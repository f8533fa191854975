"""Egocentric data sets, in miniature and against the real tables of EPIC-KITCHENS-100."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from layout_factory import PLAYERS, egoclip, epic_kitchens, touch, write, x_ego

from domains.errors import DataError
from domains.layouts import Layout, check_disjoint, open_layout

ANNOTATIONS = "epic-kitchens-100-annotations"


def whats(layout: Layout) -> dict[str, int]:
    return {note.what: note.count for note in layout.notes()}


def change(root: Path, name: str, old: str, new: str) -> Layout:
    text = (root / name).read_text()
    assert old in text
    write(root, {name: text.replace(old, new, 1)})
    return open_layout(root)


def test_epic_is_located_by_timestamps_and_read_by_class(tmp_path: Path) -> None:
    layout = open_layout(epic_kitchens(tmp_path))
    train, _, unseen = layout.recordings()
    assert (train.path, train.group, train.fps) == (
        "P01/videos/P01_01.MP4",
        "epic-kitchens-100/P01",
        pytest.approx(29.97, abs=1e-3),
    )
    assert unseen.fps is None
    verbs = list(layout.spans("verb"))
    assert [(s.value, s.start, s.end) for s in verbs] == [
        ("put", 62.5, 64.0),
        ("take", 0.0, 1.89),
        ("wash", 3600.0, 3602.0),
    ]
    assert [s.value for s in layout.spans("noun")] == ["cup", "tap", "spoon"]
    assert [s.value for s in layout.spans("action")] == ["put,cup", "take,tap", "wash,spoon"]
    assert verbs[0].moment == "P01_01_0"
    texts = list(layout.texts())
    assert (texts[0].text, texts[0].start, texts[0].end) == ("put cup, down", 62.5, 64.0)
    assert layout.tasks()["noun"].classes == ("tap", "spoon", "cup")  # not the 305 of v2


def test_epic_splits(tmp_path: Path) -> None:
    layout = open_layout(epic_kitchens(tmp_path))
    train, val, unseen = layout.recordings()
    official, apart = layout.split(), layout.split("unseen")
    assert official == {"train": [train], "val": [val, unseen]}
    assert apart == {"train": [train], "val": [unseen]}
    with pytest.raises(DataError, match="epic-kitchens-100/P01"):
        check_disjoint(*official.values())
    check_disjoint(*apart.values())
    notes = whats(layout)
    assert notes["participants on more than one side of the official split 'official'"] == 1
    assert notes["no EPIC_100_test_timestamps.csv: no 'test'"] == 1


def test_epic_missing_video_and_test_table(tmp_path: Path) -> None:
    root = epic_kitchens(tmp_path)
    header = (
        "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame"
    )
    row = "P02_01_0,P02,P02_01,,00:00:01.00,00:00:02.00,60,120"
    write(root, {f"{ANNOTATIONS}/EPIC_100_test_timestamps.csv": f"{header}\n{row}\n"})
    (root / "P01/videos/P01_01.MP4").unlink()
    touch(root, "P02/videos/P02_01.MP4", "P03/videos/P03_01.MP4")
    layout = open_layout(root)
    assert layout.missing() == ["P01/videos/P01_01.MP4"]
    assert layout.unlisted() == ["P03/videos/P03_01.MP4"]
    assert [recording.path for recording in layout.split()["test"]] == ["P02/videos/P02_01.MP4"]
    assert [span.value for span in layout.spans("verb")] == ["take", "wash"]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("train", "00:01:02.50", "62.5", r"train.csv:2: '62.5' is not hours:minutes:seconds"),
        ("train", "down,1,cup", "down,3,cup", r"train.csv:2: 'verb_class' has an unknown class 3. Known: 0 to 2"),
        ("train", "noun_class,", "nounclass,", r"no column 'noun_class' \(columns: narration_id, participant_id"),
        ("verb_classes", "1,put", "2,put", r"verb_classes.csv:3: class 2 where 1 should be"),
        ("validation", "P01,P01_11", "P01,P01_01", r"validation.csv:2: a video of the part 'train' again in 'val'"),
    ],
)
def test_epic_mistakes(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    layout = change(epic_kitchens(tmp_path), f"{ANNOTATIONS}/EPIC_100_{name}.csv", old, new)
    with pytest.raises(DataError, match=message):
        list(layout.spans("verb"))


def test_epic_action_that_ends_before_it_starts(tmp_path: Path) -> None:
    layout = change(epic_kitchens(tmp_path), f"{ANNOTATIONS}/EPIC_100_train.csv", "00:01:04.00", "00:01:01.00")
    assert len(list(layout.spans("verb"))) == 2
    assert whats(layout)["an action that ends before it starts"] == 1


def test_egoclip_is_separated_by_tabs(tmp_path: Path) -> None:
    layout = open_layout(egoclip(tmp_path))
    (recording,) = layout.recordings()
    assert (recording.path, recording.group) == ("v2/full_scale/u1.mp4", "ego4d/u1")
    assert layout.missing() == ["u2.mp4"]
    assert [(t.text, t.start, t.end) for t in layout.texts()] == [
        ("#C C picks a cup, slowly", 2.97, 3.72), ("#C C looks around", 0.0, 0.6),
    ]  # fmt: skip
    assert [s.value for s in layout.spans("noun")] == ["192", "115", "115"]
    (verb,) = layout.spans("verb")
    assert (verb.value, verb.moment) == ("93", "u1/narration_pass_1/0")
    assert whats(layout) == {
        "lines with too few or too many cells": 1, "named by a table, not on disk": 1, "no 'tag_verb'": 1,
        "a clip that starts before 0: starts at 0": 1, "a clip that ends before it starts": 1,
    }  # fmt: skip


def test_egoclip_mistakes(tmp_path: Path) -> None:
    root = egoclip(tmp_path)
    layout = change(root, "egoclip.csv", "[93]", "93;4")
    with pytest.raises(DataError, match=r"egoclip.csv:2: 'tag_verb' is no list of numbers: '93;4'"):
        list(layout.spans("verb"))
    layout = change(root, "egoclip.csv", "2.97", "")
    with pytest.raises(DataError, match=r"egoclip.csv:2: 'clip_start' is empty"):
        list(layout.texts())


def test_x_ego_views_are_synchronous(tmp_path: Path) -> None:
    layout = open_layout(x_ego(tmp_path))
    recordings = {(r.event.rsplit("/", 1)[-1], r.camera): r for r in layout.recordings()}
    assert len(recordings) == 4
    first = recordings["round_01", PLAYERS[0]]
    assert (first.path, first.event) == (f"dust2/video_306x306_4fps/m1/{PLAYERS[0]}/round_01.mp4", "dust2/m1/round_01")
    assert (first.group, first.splits, first.offset) == ("x-ego/m1", {"official": "train"}, 0.25)
    assert recordings["round_02", PLAYERS[2]].offset is None
    spans = list(layout.spans("team"))
    assert [(s.value, s.start, s.end, s.moment) for s in spans[:2]] == [("ct", 10.25, 15.25, "dust2/team/0")] * 2
    assert {s.recording for s in spans[:2]} == {recordings["round_01", player].path for player in PLAYERS[:2]}
    assert layout.missing() == [f"dust2/video_306x306_4fps/m1/{PLAYERS[1]}/round_02.mp4"]
    assert whats(layout) == {
        "named by a table, not on disk": 1, "no time offset: no spans": 1, "a moment before the video starts": 1,
        "matches on more than one side of the official split 'official'": 1,
    }  # fmt: skip


def test_x_ego_tasks(tmp_path: Path) -> None:
    layout = open_layout(x_ego(tmp_path))
    assert layout.span_labels == ("team", "enemy_location_5s")
    assert {name: task.kind for name, task in layout.tasks().items()} == {
        "team": "phases",
        "enemy_location_5s": "presence",
    }
    spans = list(layout.spans("enemy_location_5s"))
    assert [(s.value, s.start, s.end) for s in spans] == [("1", 10.25, 15.25), ("2", 10.25, 15.25)]  # 640 ticks at 64
    layout = change(tmp_path, "dust2/labels/all_tasks/enemy_location_5s.csv", ",0,1,1", ",0.5,1,1")
    assert list(layout.spans("enemy_location_5s")) == []
    assert whats(layout)["'enemy_location_5s' has several quantities, not classes"] == 1


def test_x_ego_nobody_is_an_answer_and_views_have_teams(tmp_path: Path) -> None:
    layout = change(x_ego(tmp_path), "dust2/labels/all_tasks/enemy_location_5s.csv", ",0,1,1", ",0,0,0")
    assert [span.value for span in layout.spans("enemy_location_5s")] == [""]
    teams = {(one.camera, one.event[-2:]): one.team for one in layout.recordings()}
    assert {key: team for key, team in teams.items() if team} == {
        (PLAYERS[0], "01"): "ct", (PLAYERS[1], "01"): "ct", (PLAYERS[0], "02"): "t", (PLAYERS[2], "02"): "t",
    }  # fmt: skip


def test_x_ego_mistakes(tmp_path: Path) -> None:
    root = x_ego(tmp_path)
    contrastive = "dust2/labels/contrastive.csv"
    good = (root / contrastive).read_text()
    layout = change(root, contrastive, PLAYERS[0], "7.65611980000e+16")
    with pytest.raises(DataError, match=r"contrastive.csv:2: 'teammate_0_id' was saved as a rounded number"):
        list(layout.recordings())
    write(root, {contrastive: good.replace("m1,2,3", "m1,1,3")})
    with pytest.raises(DataError, match=r"contrastive.csv:3: a round of the part 'train' again in 'test'"):
        list(open_layout(root).recordings())
    write(root, {contrastive: good.replace("m1,2,3", "m1,2,4")})
    with pytest.raises(DataError, match=r"contrastive.csv:3: 'teammate_3_id' is empty though the player is alive"):
        list(open_layout(root).recordings())
    write(root, {contrastive: good, "dust2/time_offset.json": json.dumps({"m1": {PLAYERS[0]: {"round_1": 0.2}}})})
    with pytest.raises(DataError, match=r"time_offset.json: not match -> player -> round -> offset_sec"):
        list(open_layout(root).recordings())
    (root / "dust2/time_offset.json").unlink()
    with pytest.raises(DataError, match=r"time_offset.json: no such table"):
        list(open_layout(root).recordings())
