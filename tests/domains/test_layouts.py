"""What holds for every data set: detection, the interface, notes, and groups that must not stand on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest
from layout_factory import FACTORIES, cholec80, cholect50, echonet_dynamic, touch, write

from domains.errors import ConfigError, DataError
from domains.layouts import LAYOUTS, Recording, check_disjoint, detect, layout_names, open_layout
from domains.layouts.tables import Frame, read_table, runs


def test_names_are_those_of_the_list() -> None:
    assert layout_names() == list(FACTORIES) == [layout.name for layout in LAYOUTS]


@pytest.mark.parametrize("name", FACTORIES)
def test_detected_alone_and_read_whole(name: str, tmp_path: Path) -> None:
    root = FACTORIES[name](tmp_path)
    assert detect(root) == name
    layout = open_layout(root)
    assert layout.name == name
    recordings = list(layout.recordings())
    assert recordings
    assert all((root / recording.path).exists() and "/" in recording.group for recording in recordings)
    tasks = layout.tasks()
    spans = [span for label in layout.span_labels for span in layout.spans(label)]
    assert {span.recording for span in spans} <= {recording.path for recording in recordings}
    for span in spans:
        assert 0 <= span.start < span.end
        assert span.label not in tasks or not tasks[span.label].classes or span.value in tasks[span.label].classes
    for recording in recordings:
        assert set(recording.splits) <= set(layout.split_names)
        assert set(recording.splits.values()) <= {"train", "val", "test"}
        for label in recording.labels.keys() & tasks.keys():
            task, value = tasks[label], recording.labels[label]
            assert value in task.classes if task.kind == "classification" and task.classes else True
            if task.range and isinstance(value, float):
                assert task.range[0] <= value <= task.range[1]
    assert all(note.count >= 1 for note in layout.notes())


@pytest.mark.parametrize("name", FACTORIES)
def test_a_folder_without_tables_is_one_line_that_names_the_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=str(tmp_path)) as caught:
        list(open_layout(tmp_path, name).recordings())
    assert "\n" not in str(caught.value)


def test_ones_own_folder_is_none(tmp_path: Path) -> None:
    touch(tmp_path, "videos/a.mp4", "study/1.dcm", "labels/notes.txt", "data/VID01/000000.png")
    write(tmp_path, {"labels/label_01.txt": "0 0.5 0.5 0.1 0.1\n"})  # boxes
    write(tmp_path, {"FileList.csv": "file_name,ef\na,50\n", "labels.csv": "video,label\na,1\n"})
    assert detect(tmp_path) is None
    with pytest.raises(DataError, match=r"no data set that is known.*cholec80"):
        open_layout(tmp_path)


def test_one_view_of_echonet_pediatric_is_not_echonet_dynamic(tmp_path: Path) -> None:
    root = FACTORIES["echonet-pediatric"](tmp_path)
    assert detect(root / "A4C") is None


def test_a_path_that_leads_out_is_refused(tmp_path: Path) -> None:
    root = FACTORIES["mimic-iv-echo"](tmp_path / "m")
    table = root / "echo-record-list.csv"
    touch(tmp_path, "other.dcm")
    write(root, {table.name: table.read_text().replace("files/p10/p10009999/s95555555/95555555_0001", "../other")})
    with pytest.raises(DataError, match=r"echo-record-list\.csv:4: the path of a recording leads out"):
        list(open_layout(root).recordings())


def test_two_data_sets_in_one_folder_must_be_named(tmp_path: Path) -> None:
    cholect50(cholec80(tmp_path))
    with pytest.raises(DataError, match="looks like cholec80 and cholect50"):
        detect(tmp_path)
    assert open_layout(tmp_path, "cholec80").title == "Cholec80"


def test_unknown_name_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no layout 'cholec81'\. Did you mean 'cholec80'"):
        open_layout(tmp_path, "cholec81")
    for name in (None, "cholec80"):
        with pytest.raises(DataError, match="no such folder"):
            open_layout(tmp_path / "nowhere", name)


def test_unknown_split_and_label(tmp_path: Path) -> None:
    layout = open_layout(echonet_dynamic(tmp_path))
    with pytest.raises(DataError, match=r"no split 'oficial'\. Did you mean 'official'"):
        layout.split("oficial")
    with pytest.raises(DataError, match="no spans of 'phase'"):
        layout.spans("phase")
    with pytest.raises(DataError, match="MIMIC-IV-ECHO has no official split"):
        open_layout(FACTORIES["mimic-iv-echo"](tmp_path / "m")).split()


def test_groups_on_both_sides_are_named() -> None:
    left = [Recording("a", f"g/{number}") for number in range(8)]
    right = [Recording("b", f"g/{number}") for number in range(1, 9)]
    check_disjoint(left, [Recording("c", "g/20")])
    with pytest.raises(DataError, match=r"7 groups stand on both sides: g/1, g/2, g/3, g/4, g/5 and 2 more"):
        check_disjoint(left, [], right)


def test_named_twice_alike_is_a_note_and_otherwise_an_error(tmp_path: Path) -> None:
    root = echonet_dynamic(tmp_path)
    text = (root / "FileList.csv").read_text()
    line = text.splitlines()[1]
    write(root, {"FileList.csv": text + line + "\n"})
    layout = open_layout(root)
    assert [recording.path for recording in layout.recordings()] == ["Videos/0XAAA.avi", "Videos/0XBBB.avi"]
    assert {note.what: note.count for note in layout.notes()}["named twice"] == 1
    write(root, {"FileList.csv": text + line.replace("TRAIN", "TEST").replace("55.5", "56") + "\n"})
    with pytest.raises(DataError, match=r"FileList.csv:5: the recording of .*:2 again, with other splits, labels"):
        list(open_layout(root).recordings())


def test_runs_by_hand() -> None:
    frames = [Frame("t:1", 0, ("a",)), Frame("t:2", 1, ("a", "b")), Frame("t:3", 2, ("b",)), Frame("t:4", 5, ("b",))]
    spans = runs("r", "x", frames, 2.0)
    assert [(s.value, s.start, s.end) for s in spans] == [("a", 0.0, 1.0), ("b", 0.5, 1.5), ("b", 2.5, 3.0)]
    with pytest.raises(DataError, match="t:9: frame 3 after frame 3"):
        runs("r", "x", [Frame("t:8", 3, ()), Frame("t:9", 3, ())], 1.0)


def test_tables_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("Name , EF\n a,x\nb\n")
    rows = read_table(path, ["name", "ef"])
    row = next(rows)
    assert (row.text("name"), row.where) == ("a", f"{path}:2")
    with pytest.raises(DataError, match=r"t.csv:2: 'ef' is not a number: 'x'"):
        row.number("ef")
    with pytest.raises(DataError, match=r"t.csv:3: 1 cells where the header has 2"):
        next(rows)
    with pytest.raises(DataError, match=r"no column 'EFF' \(columns: Name, EF\). Did you mean 'EF'"):
        next(read_table(path, ["EFF"]))
    path.write_bytes(b"Name\n\xff\xfe\n")
    with pytest.raises(DataError, match="cannot be read as a table"):
        list(read_table(path, ["Name"]))
