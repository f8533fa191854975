"""Spans become targets at moments, from a data set's own table or a lab's, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_factory import make_prepared

from domains.base import TaskSettings
from domains.errors import ConfigError, DataError
from domains.store.labels import read_labels
from domains.store.moments import UNLABELLED, MomentLabels, Stretch, moments, read_moments

PHASE = TaskSettings(kind="phases", column="phase", classes=("rest", "cut", "close"))
TOOL = TaskSettings(kind="presence", column="tool", classes=("hook", "clip"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("moments") / "prepared", videos=3, patients=3, fps=10.0).prepared


def table(folder: Path, header: str, *lines: str) -> Path:
    path = folder / "spans.csv"
    path.write_text("\n".join((header, *lines)) + "\n")
    return path


def test_moments_are_seconds_and_the_frame_on_show():
    times, frames = moments(75, 25.0, 1.0)
    assert times.tolist() == [0, 1, 2]
    assert frames.tolist() == [0, 25, 50]
    assert moments(76, 25.0, 1.0)[1].tolist() == [0, 25, 50, 75]  # a frame that begins at 3 s is there
    times, frames = moments(30, 29.97, 10.0)
    assert times[-1] == pytest.approx(1.0)
    assert frames.tolist() == [int(t * 29.97) for t in times]  # never one that is not on show yet
    assert moments(3, 1.0, 2.0)[1].tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(DataError, match="frame rate is not known"):
        moments(10, None, 1.0)


def test_phases_hold_from_their_start_up_to_their_end_and_gaps_are_unlabelled():
    said = [Stretch(0.0, 2.0, "rest", ""), Stretch(2.0, 3.0, "cut", ""), Stretch(4.5, 5.2, "close", "")]
    labels = MomentLabels(PHASE, {0: said}, PHASE.classes)
    assert labels.targets(0, np.arange(7.0)).tolist() == [0, 0, 1, UNLABELLED, UNLABELLED, 2, UNLABELLED]
    tenths = np.arange(60) / 10
    assert labels.targets(0, tenths)[[19, 20, 29, 30, 44, 45, 51, 52]].tolist() == [0, 1, 1, -1, -1, 2, 2, -1]


def test_two_phases_at_once_are_an_error_with_the_place():
    said = [Stretch(0.0, 3.0, "rest", "a:2"), Stretch(2.0, 4.0, "cut", "a:3")]
    with pytest.raises(DataError, match=r"a:3.*'cut' and 'rest' of 'phase' hold at once between 2 and 4 s"):
        MomentLabels(PHASE, {0: said}, PHASE.classes).targets(0, np.arange(5.0))


def test_of_presence_any_number_hold_at_once():
    said = [Stretch(0.0, 3.0, "hook", ""), Stretch(1.0, 2.0, "clip", "")]
    labels = MomentLabels(TOOL, {0: said}, TOOL.classes)
    assert labels.targets(0, np.arange(4.0)).tolist() == [[1, 0], [1, 1], [1, 0], [0, 0]]


def test_a_table_of_ones_own(prepared, tmp_path):
    one, two = prepared.video_id(0), prepared.video_id(2)
    path = table(
        tmp_path, "video_id,start,end,phase", f"{two},1,2,cut", f"{one},1.5,4,cut", f"{one},0,1.5,rest",
        "unknown,0,1,rest", f"{one},4,5,",
    )  # fmt: skip
    labels = read_moments(prepared, PHASE, path, None)
    assert labels.rows == [0, 2]
    assert labels.unmatched == 1
    assert labels.targets(0, np.arange(5.0)).tolist() == [0, 0, 1, 1, -1]
    assert labels.targets(2, np.arange(3.0)).tolist() == [-1, 1, -1]


def test_one_table_of_several_labels_and_classes_as_found(prepared, tmp_path):
    one = prepared.video_id(1)
    lines = (f"{one},0,2,phase,rest", f"{one},1,3,tool,scissors", f"{one},2,3,tool,hook", f"{one},3,4,tool,none")
    path = table(tmp_path, "video_id;start;end;label;value".replace(";", ","), *lines)
    open_ended = TaskSettings(kind="presence", column="tool")
    labels = read_moments(prepared, open_ended, path, None)
    assert labels.classes == ("hook", "scissors")
    assert labels.targets(1, np.arange(4.0)).tolist() == [[0, 0], [0, 1], [1, 1], [0, 0]]
    with pytest.raises(DataError, match="no line has the label 'phases'"):
        read_moments(prepared, TaskSettings(kind="phases", column="phases"), path, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{one},2,1,rest", "not after 'start' 2"),
        ("{one},x,1,rest", "'start' is not a time in seconds: 'x'"),
        ("{one},-1,1,rest", "'start' is not a time in seconds: '-1'"),
        ("{one},0,1,cat", "'cat' is no class of 'phase'. Did you mean 'cut'"),
    ],
)
def test_a_table_that_cannot_be_used_says_the_line(prepared, tmp_path, line, said):
    path = table(tmp_path, "video_id,start,end,phase", line.format(one=prepared.video_id(0)))
    with pytest.raises(DataError) as error:
        read_moments(prepared, PHASE, path, None)
    assert f"{path}:2" in str(error.value)
    assert said.split(".")[0] in str(error.value)


def test_a_patient_with_several_recordings_names_no_time(tmp_path):
    prepared, _ = make_prepared(tmp_path / "prepared", videos=4, patients=2)
    path = table(tmp_path, "patient,start,end,phase", f"{prepared.patients[0]},0,1,rest")
    with pytest.raises(DataError, match="names 2 recordings"):
        read_moments(prepared, PHASE, path, None)


def test_without_spans_it_is_said_what_to_give(prepared, tmp_path):
    with pytest.raises(ConfigError, match=r"no spans of 'phase'.*--labels spans\.csv"):
        read_moments(prepared, PHASE, None, None)
    with pytest.raises(ConfigError, match="label of moments, not of whole recordings"):
        read_labels(tmp_path / "labels.csv", PHASE, prepared, None)


def test_what_a_task_of_moments_declares():
    with pytest.raises(ValueError, match="for tasks of kind presence"):
        TaskSettings(kind="phases", column="phase", nothing=("none",))
    with pytest.raises(ValueError, match="class 'a,b' has not the 3 parts"):
        TaskSettings(kind="presence", column="triplet", classes=("a,b",), parts=("i", "v", "t"))
    assert [TaskSettings(kind=kind, column="x").of_moments for kind in ("regression", "classification", "phases", "presence")] == [
        False, False, True, True,
    ]  # fmt: skip


def test_the_surgical_domain_and_its_phantom_declare_moments():
    from domains.base import load_domain
    from domains.surgical.phantom import about

    tasks = load_domain("surgical").tasks
    assert {name: task.kind for name, task in tasks.items()} == {
        "phase": "phases",
        "tool": "presence",
        "triplet": "presence",
    }
    assert tasks["triplet"].nothing == ("null_verb", "null_target")  # a key called `null` would be none at all in YAML
    declared = {name: TaskSettings.model_validate(task) for name, task in about()["tasks"].items()}
    assert (declared["phase"].kind, declared["triplet"].parts) == ("phases", ("instrument", "verb", "target"))
