"""A data set of one's own: three tables and what they may hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from layout_factory import annotated, write

from domains.errors import ConfigError, DataError
from domains.layouts import detect, open_layout


def test_everything_that_the_tables_say(tmp_path: Path) -> None:
    layout = open_layout(annotated(tmp_path))
    (recording,) = layout.recordings()
    assert (recording.path, recording.group, recording.splits) == ("videos/a.mp4", "Ours/7", {"ours": "train"})
    assert (layout.title, layout.domain, layout.grouped_by, layout.split_names) == (
        "Ours",
        "surgical",
        "patients",
        ("ours",),
    )
    assert layout.span_labels == ("phase", "bleeding")
    assert [(s.value, s.start, s.end) for s in layout.spans("phase")] == [("first", 0, 2.5), ("second", 2.5, 4)]
    assert [(s.value, s.start, s.end) for s in layout.spans("bleeding")] == [("much", 1, 3)]
    assert [(t.text, t.start, t.end, t.source, t.level) for t in layout.texts()] == [
        ("the hook, here", 0.5, 2, "asr_a", "clip"), ("all of it", 0, 4, "surgeon", "abstract"),
    ]  # fmt: skip
    assert layout.missing() == ["videos/b.mp4"]
    assert {note.what: note.count for note in layout.notes()} == {
        "named by a table, not on disk": 1, "on disk, named by no table": 1, "a line about a recording that is not there": 2,
        "a line that starts before 0, or ends before it starts": 1, "a line of 'bleeding' without a value": 1,
    }  # fmt: skip


def test_one_table_is_enough(tmp_path: Path) -> None:
    root = annotated(tmp_path)
    for name in ("spans.csv", "texts.csv"):
        (root / name).unlink()
    write(root, {"recordings.csv": "recording\nvideos/a.mp4\n"})
    layout = open_layout(root)
    assert layout.span_labels == layout.split_names == ()
    assert list(layout.texts()) == []
    assert [one.group for one in layout.recordings()] == ["Ours/videos/a.mp4"]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "spans.csv",
            "phase,second",
            "phase,secnd",
            r"spans.csv:3: 'value' has an unknown class 'secnd'. Did you mean 'second'",
        ),
        ("spans.csv", "0,2.5", "0,x", r"spans.csv:2: 'end' is not a number: 'x'"),
        ("spans.csv", "label", "lable", r"no column 'label'"),
        ("texts.csv", "abstract", "whole", r"texts.csv:3: 'level' has an unknown class 'whole'"),
        ("recordings.csv", "train", "training set", r"recordings.csv:2: 'ours' has an unknown class 'training set'"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    root = annotated(tmp_path)
    write(root, {name: (root / name).read_text().replace(old, new, 1)})
    with pytest.raises(DataError, match=message):
        open_layout(root).notes()


def test_a_mistyped_key_and_a_missing_file(tmp_path: Path) -> None:
    root = annotated(tmp_path)
    write(root, {"dataset.yaml": "title: x\ndomain: surgical\ngroup_by: y\n"})
    with pytest.raises(ConfigError, match=r"unknown key 'group_by'. Did you mean 'grouped_by'"):
        open_layout(root)
    (root / "dataset.yaml").unlink()
    assert detect(root) is None
    with pytest.raises(DataError, match=r"dataset.yaml: no such file"):
        open_layout(root, "annotated")
