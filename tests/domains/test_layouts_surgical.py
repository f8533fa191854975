"""Surgical data sets, in miniature and against real annotations: seconds by hand, the traps, one line a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from layout_factory import (
    autolaparo,
    cholec80,
    cholect45,
    cholect50,
    heichole,
    jigsaws,
    table,
    touch,
    vector,
    video,
    write,
)  # fmt: skip

from domains.errors import DataError
from domains.layouts import Layout, check_disjoint, open_layout
from domains.layouts.cholec import FOLDS, INSTRUMENTS, TARGETS, TRIPLETS, VERBS, fold_parts


def told(layout: Layout, label: str, path: str = "") -> list[tuple[str, float, float]]:
    """(value, start, end) of the spans of one recording, or of all."""
    return [(span.value, span.start, span.end) for span in layout.spans(label) if path in {"", span.recording}]


def whats(layout: Layout) -> dict[str, int]:
    return {note.what: note.count for note in layout.notes()}


def change(root: Path, name: str, old: str, new: str) -> Layout:
    text = (root / name).read_text()
    assert old in text
    write(root, {name: text.replace(old, new, 1)})
    return open_layout(root)


def test_cholec80_counts_frames_at_25_a_second(tmp_path: Path) -> None:
    layout = open_layout(cholec80(tmp_path))
    assert [recording.path for recording in layout.recordings()] == [f"videos/video{n}.mp4" for n in (12, 45, 79)]
    assert told(layout, "phase", "videos/video12.mp4") == [
        ("Preparation", 0.0, 2.0), ("CalotTriangleDissection", 2.0, 4.0),
    ]  # fmt: skip
    assert told(layout, "tool", "videos/video12.mp4") == [
        ("Hook", 1.0, 2.0), ("Grasper", 1.0, 3.0), ("SpecimenBag", 3.0, 4.0),
    ]  # fmt: skip
    assert layout.missing() == layout.unlisted() == []
    assert layout.notes() == []


def test_cholec80_splits(tmp_path: Path) -> None:
    layout = open_layout(cholec80(tmp_path, range(1, 81)))
    sizes = {name: {part: len(held) for part, held in layout.split(name).items()} for name in layout.split_names}
    assert sizes == {"40/40": {"train": 40, "test": 40}, "40/8/32": {"train": 40, "val": 8, "test": 32}}
    assert [r.path for r in layout.split("40/8/32")["val"]] == [f"videos/video{n}.mp4" for n in range(41, 49)]
    for name in layout.split_names:
        check_disjoint(*layout.split(name).values())


def test_cholec80_missing_video_and_table(tmp_path: Path) -> None:
    root = cholec80(tmp_path)
    (root / "videos/video12.mp4").unlink()
    (root / "tool_annotations/video45-tool.txt").unlink()
    touch(root, "videos/video03.mp4", "videos/extra.mp4")
    layout = open_layout(root)
    assert layout.missing() == ["videos/video12.mp4"]
    assert layout.unlisted() == ["videos/extra.mp4"]
    assert {span.recording for span in layout.spans("phase")} == {"videos/video45.mp4", "videos/video79.mp4"}
    notes = whats(layout)
    assert notes["no table of 'tool'"] == 2
    assert notes["no table of 'phase'"] == 1
    assert notes["on disk, named by no table"] == 1


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "phase",
            "Preparation",
            "Preparatoin",
            r"-phase.txt:2: 'Phase' has an unknown class 'Preparatoin'. Did you mean",
        ),
        ("phase", "Frame\tPhase", "Frame\tPhases", r"no column 'Phase' \(columns: Frame, Phases\)"),
        ("phase", "3\tPreparation", "2\tPreparation", r"-phase.txt:5: frame 2 after frame 2"),
        ("phase", "3\tPreparation", "x\tPreparation", r"-phase.txt:5: 'Frame' is not a number: 'x'"),
        ("tool", "25\t1", "25\t2", r"-tool.txt:3: '2' where there should be 0 or 1"),
        ("tool", "SpecimenBag", "Bag", r"no column 'SpecimenBag' \(columns: Frame, Grasper, Bipolar"),
    ],
)
def test_cholec80_mistakes(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    layout = change(cholec80(tmp_path), f"{name}_annotations/video12-{name}.txt", old, new)
    with pytest.raises(DataError, match=message):
        list(layout.spans(name))


def test_a_gap_in_the_frames_ends_a_span(tmp_path: Path) -> None:
    layout = change(cholec80(tmp_path, [12]), "phase_annotations/video12-phase.txt", "10\tPreparation\n", "")
    assert told(layout, "phase")[:2] == [("Preparation", 0.0, 0.4), ("Preparation", 11 / 25, 2.0)]


def test_cholect45(tmp_path: Path) -> None:
    layout = open_layout(cholect45(tmp_path))
    one, two = layout.recordings()
    assert (one.path, one.media, one.fps, one.group) == ("data/VID12", "frames", 1.0, "cholec80/12")
    retract, dissect = "grasper,retract,gallbladder", "hook,dissect,gallbladder"
    assert told(layout, "triplet", one.path) == [(retract, 1.0, 4.0), (dissect, 2.0, 4.0)]
    assert told(layout, "instrument", two.path) == [("grasper", 1.0, 4.0), ("hook", 2.0, 4.0)]
    assert (one.splits["fold4"], one.splits["fold5"], two.splits["fold1"]) == ("test", "val", "test")
    assert layout.unlisted() == []  # pictures belong to their folder
    layout = change(tmp_path, "triplet/VID12.txt", "0,0,0", "0,0")
    with pytest.raises(DataError, match=r"VID12.txt:1: 99 columns of classes where there should be 100"):
        list(layout.spans("triplet"))


def test_folds_of_cholect50_and_cholect45() -> None:
    videos = [video for fold in FOLDS for video in fold]
    assert len(set(videos)) == 50
    assert {video for video in videos if video > 80} == {92, 96, 103, 110, 111}
    parts = {video: fold_parts(video, videos) for video in videos}
    assert [video for video in videos if parts[video]["fold1"] == "val"] == [1, 56, 4, 13, 92]
    assert [video for video in videos if parts[video]["fold5"] == "val"] == [75, 22, 49, 12, 110]
    held = [video for video in videos if video <= 80]
    fewer = {video: fold_parts(video, held) for video in held}
    assert [video for video in held if fewer[video]["fold5"] == "val"] == [27, 65, 75, 22, 49, 12][1:]
    for fold in range(1, 6):
        sizes = [sum(part[f"fold{fold}"] == name for part in fewer.values()) for name in ("train", "val", "test")]
        assert sizes == [31, 5, 9]
    assert fold_parts(3, videos) == {}


def test_a_number_without_a_split_is_noted(tmp_path: Path) -> None:
    layout = open_layout(cholect45(tmp_path, [12, 92]))
    assert whats(layout) == {"a number that the official splits do not have": 1}


def test_cholect50(tmp_path: Path) -> None:
    layout = open_layout(cholect50(tmp_path))
    first, last = layout.recordings()
    assert (first.path, first.group, last.group) == ("videos/VID12", "cholec80/12", "cholect50/111")
    assert told(layout, "triplet", first.path) == [("grasper,retract,gallbladder", 1.0, 3.0)]  # "10" stands before "2"
    assert told(layout, "verb", first.path) == [("retract", 1.0, 3.0)]
    assert told(layout, "phase", first.path) == [
        ("Preparation", 0.0, 1.0), ("CalotTriangleDissection", 1.0, 3.0), ("Preparation", 10.0, 11.0),
    ]  # fmt: skip


def test_cholect50_phases_go_by_name_and_scores_are_not_read(tmp_path: Path) -> None:
    root = cholect50(tmp_path, [12])
    swapped = {"4": "gallbladder-extraction", "6": "gallbladder-packaging"}
    content = json.loads((root / "labels/VID12.json").read_text())
    content["categories"]["phase"] |= swapped
    content["annotations"] = {"0": [vector(17, 0, 1, 0, 4)]}
    write(root, {"labels/VID12.json": json.dumps(content)})
    assert told(open_layout(root), "phase") == [("GallbladderRetraction", 0.0, 1.0)]
    del content["categories"]
    write(root, {"labels/VID12.json": json.dumps(content)})
    assert told(open_layout(root), "phase") == [("GallbladderPackaging", 0.0, 1.0)]


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({"3": [vector(100, 0, 1, 0, 1)]}, r"VID12.json: frame 3: triplet has an unknown class 100. Known: 0 to 99"),
        ({"3": [[17, 0, 1]]}, r"VID12.json: frame 3: 3 numbers where there should be 15"),
        ({"x": []}, r"VID12.json: the frame is not a number: 'x'"),
        ([], r"VID12.json: no 'annotations' of frames"),
    ],
)
def test_cholect50_mistakes(tmp_path: Path, annotations: object, message: str) -> None:
    root = write(cholect50(tmp_path, [12]), {"labels/VID12.json": json.dumps({"annotations": annotations})})
    with pytest.raises(DataError, match=message):
        list(open_layout(root).spans("triplet"))
    write(root, {"labels/VID12.json": '{"annotations": {\n"0": [}'})
    with pytest.raises(DataError, match=r"VID12.json:2: not valid JSON"):
        list(open_layout(root).spans("triplet"))


def test_a_split_across_cholec80_and_cholect50_does_not_leak_unseen(tmp_path: Path) -> None:
    videos = open_layout(cholec80(tmp_path / "a", [12, 45])).split("40/40")
    triplets = open_layout(cholect50(tmp_path / "b", [12, 111])).split("fold4")
    assert [recording.group for recording in triplets["test"]] == ["cholec80/12"]
    with pytest.raises(DataError, match="1 groups stand on both sides: cholec80/12"):
        check_disjoint(videos["train"], triplets["test"])
    check_disjoint(videos["test"], triplets["test"])
    same = open_layout(cholect45(tmp_path / "c", [12])).recordings()
    with pytest.raises(DataError, match="cholec80/12"):
        check_disjoint(same, triplets["test"])


@pytest.mark.parametrize("first", [0, 1])
def test_autolaparo_finds_out_how_phases_and_frames_count(tmp_path: Path, first: int) -> None:
    layout = open_layout(autolaparo(tmp_path, first))
    assert told(layout, "phase", "videos/01.mp4") == [
        ("Dividing Ligament and Peritoneum", 0.0, 2.0), ("Washing", 2.0, 3.0),
    ]  # fmt: skip
    assert told(layout, "phase", "videos/02.mp4")[0] == ("Preparation", 0.0, 2.0)
    parts = [(recording.path, recording.splits["official"]) for recording in layout.recordings()]
    assert parts == [("videos/01.mp4", "train"), ("videos/02.mp4", "train"), ("videos/15.mp4", "test")]


def test_autolaparo_that_cannot_be_told(tmp_path: Path) -> None:
    root = autolaparo(tmp_path, 1)
    for number in (1, 2, 15):
        write(root, {f"labels/label_{number:02d}.txt": table("Frame\tPhase", "1\t2", "2\t3")})
    with pytest.raises(DataError, match="labels: phases may count from 0 or from 1"):
        list(open_layout(root).spans("phase"))
    write(root, {"labels/label_01.txt": table("Frame\tPhase", "1\t0", "2\t7")})
    with pytest.raises(DataError, match="labels: phases 0 and 7 are both used"):
        list(open_layout(root).spans("phase"))
    write(root, {"labels/label_01.txt": table("Frame\tPhase", "0\t1")})
    with pytest.raises(DataError, match=r"label_01.txt:2: frame 0; AutoLaparo counts from 1"):
        list(open_layout(root).spans("phase"))
    write(root, {"labels/label_01.txt": table("Frame\tPhase", "1\t7", "2\t9")})
    with pytest.raises(DataError, match=r"label_01.txt:3: 'Phase' has an unknown class 8. Known: 0 to 6"):
        list(open_layout(root).spans("phase"))


def test_heichole_counts_at_the_rate_of_each_video(tmp_path: Path) -> None:
    layout = open_layout(heichole(tmp_path))
    slow, fast = "Videos/Hei-Chole1.mp4", "Videos/Hei-Chole16.mp4"
    assert told(layout, "phase", slow) == [("Preparation", 0.0, 0.08), ("CalotTriangleDissection", 0.08, 0.12)]
    assert told(layout, "phase", fast) == [("Preparation", 0.0, 0.04), ("CalotTriangleDissection", 0.04, 0.06)]
    assert told(layout, "instrument", slow) == [("grasper", 0.0, 0.04), ("undefined instrument shaft", 0.04, 0.12)]
    assert told(layout, "action", slow) == [("hold", 0.0, 0.08), ("grasp", 0.04, 0.08)]
    one, two = layout.recordings()
    assert one.labels == {
        "depth_perception": 5.0, "bimanual_dexterity": 5.0, "efficiency": 4.0, "tissue_handling": 3.0, "case_difficulty": 4.0,
    }  # fmt: skip
    assert (one.group, one.splits, two.labels) == ("heichole/1", {}, {})
    assert whats(layout) == {"no Hei-CholeN_Annotation_Skill.csv: no skill": 1}


def test_heichole_mistakes(tmp_path: Path) -> None:
    root = heichole(tmp_path)
    name = "Annotations/Instrument/Hei-Chole1_Annotation_Instrument.csv"
    write(root, {name: "0," + "0," * 9 + "1," + "0," * 10 + "0\n"})
    with pytest.raises(DataError, match=r"_Instrument.csv:1: a reserved category \(7 to 19\) is on"):
        list(open_layout(root).spans("instrument"))
    write(root, {"Annotations/Skill/Hei-Chole1_Annotation_Skill.csv": "5,5,4\n"})
    with pytest.raises(DataError, match=r"_Skill.csv:1: 3 numbers where there should be 5"):
        list(open_layout(root).recordings())
    write(root, {"Annotations/Skill/Hei-Chole1_Annotation_Skill.csv": "5,5,4,4,4\n"})
    video(root / "Videos/Hei-Chole1.mp4", 30)
    with pytest.raises(DataError, match=r"Hei-Chole1.mp4: the video has 30 frames a second"):
        list(open_layout(root).spans("phase"))


def test_jigsaws(tmp_path: Path) -> None:
    layout = open_layout(jigsaws(tmp_path))
    left, right, other = layout.recordings()
    assert left.labels["skill"] == "novice"
    assert (left.labels["grs"], left.labels["overall_performance"], left.labels["quality_of_final_product"]) == (
        13,
        3,
        2,
    )
    assert (left.event, left.camera, right.camera, left.offset) == ("Suturing_B001", "capture1", "capture2", 0.0)
    assert left.event == right.event != other.event
    assert told(layout, "gesture", right.path) == [("G1", 2.0, 4.0), ("G5", 4.0, 5.0)]
    assert told(layout, "gesture", other.path) == [("G11", 0.0, 1.0)]
    assert next(layout.texts()).text == "reaching for needle with right hand"
    assert layout.missing() == ["Suturing/video/Suturing_H002_capture2.avi"]
    assert whats(layout)["not in the meta file: no skill"] == 2
    parts = layout.split("out-H")
    assert [r.path for r in parts["test"]] == [other.path]
    check_disjoint(*parts.values())


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("transcriptions/Suturing_B001.txt", "G5", "G16", r"B001.txt:2: the gesture has an unknown class 'G16'"),
        ("transcriptions/Suturing_B001.txt", "61 120", "0 120", r"B001.txt:1: frames 0 to 120 are no stretch"),
        ("meta_file_Suturing.txt", "\t13", "", r"meta_file_Suturing.txt:1: 8 columns where there should be 9"),
        ("meta_file_Suturing.txt", "\tN\t", "\tX\t", r"meta_file_Suturing.txt:1: the skill has an unknown class 'X'"),
    ],
)
def test_jigsaws_mistakes(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    layout = change(jigsaws(tmp_path), f"Suturing/{name}", old, new)
    with pytest.raises(DataError, match=message):
        list(layout.spans("gesture"))


def test_there_are_a_hundred_triplets() -> None:
    assert len(set(TRIPLETS)) == 100
    assert (TRIPLETS[0], TRIPLETS[60], TRIPLETS[99]) == (
        "grasper,dissect,cystic_plate", "hook,dissect,gallbladder", "irrigator,null_verb,null_target",
    )  # fmt: skip
    for triplet in TRIPLETS:
        instrument, verb, target = triplet.split(",")
        assert (instrument in INSTRUMENTS, verb in VERBS, target in TARGETS) == (True, True, True)
