"""Texts of recordings: read from tables and from public data sets, and drawn beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_factory import make_prepared

from domains.errors import ConfigError, DataError
from domains.store.annotated import TEXT_SCHEMA, TEXTS
from domains.store.prepared import Prepared
from domains.store.text_tables import read_texts
from domains.store.texts import Asked, Texts, pick

SECRET = "Mrs Haldane"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Six recordings of three patients, 1.6 s each."""
    return make_prepared(tmp_path_factory.mktemp("texts") / "prepared", videos=6, patients=3).prepared


def table(folder: Path, *lines: Sequence[object], columns: str = "video_id,start,end,text,source,level", name: str = "said") -> Path:  # fmt: skip
    path = folder / f"{name}.csv"
    path.write_text("\n".join([columns, *(",".join(f'"{cell}"' for cell in line) for line in lines)]) + "\n")
    return path


def test_narrations(prepared: Prepared, tmp_path: Path) -> None:
    one, two = prepared.video_id(4), prepared.video_id(1)
    lines = [
        (one, 0.5, 1.0, "later", "", ""),
        (two, 0.1, 0.2, "first", "whisper", "keystep"),
        (one, 0, 2.2, "sooner, and longer", "", "abstract"),  # ends 0.6 s late: by ear
        (two, "", "", "all of it", "", ""),
        (two, 1, 1, "   ", "", ""),
        ("nobody", 0, 1, "of whom?", "", ""),
    ]
    texts = read_texts([table(tmp_path, *lines, name="aws")], prepared, None)
    found = [(texts.rows(i), texts.span(i), texts.words(i), texts.sources[texts.source[i]]) for i in range(len(texts))]
    assert found == [
        ([1], None, "all of it", "aws"),
        ([1], (0.1, 0.2), "first", "whisper"),
        ([4], (0.0, 1.6), "sooner, and longer", "aws"),
        ([4], (0.5, 1.0), "later", "aws"),
    ]
    assert texts.levels.tolist() == [2, 1, 2, 0]
    assert texts.about(4).tolist() == [2, 3]
    assert texts.about(0).tolist() == []
    assert texts.passed == {"empty": 1, "of no recording here": 1}
    summary = {
        "texts": 4, "recordings": 2, "levels": {"clip": 1, "keystep": 1, "abstract": 2}, "sources": 2,
        "passed_over": {"empty": 1, "of no recording here": 1},
    }  # fmt: skip
    assert texts.summary() == summary


def test_a_report_is_about_all_recordings_of_its_patient(prepared: Prepared, tmp_path: Path) -> None:
    patients = prepared.patients
    path = table(tmp_path, (patients[0], "normal\nsize"), (patients[1], "Normal  SIZE"), columns="patient_id,text")
    texts = read_texts([path], prepared, None)
    assert [texts.rows(i) for i in range(2)] == [[0, 3], [1, 4]]
    assert texts.numbers[0] == texts.numbers[1] >= 0  # the same words
    assert texts.levels.tolist() == [2, 2]
    assert texts.by_row.keys() == {0, 3, 1, 4}


def test_several_tables_and_caption_filters(prepared: Prepared, tmp_path: Path) -> None:
    columns = "video_id,start,end,text,is_descriptive,is_surgical"
    video = prepared.video_id(0)
    one = table(
        tmp_path, (video, 0, 1, "a", 1, "yes"), (video, 0, 1, "b", 0, 1), (video, 0, 1, "c", "True", ""),
        columns=columns, name="one",
    )  # fmt: skip
    two = table(tmp_path, (video, 0, 1, "d", "t", "Y"), columns=columns, name="two")
    texts = read_texts([one, two], prepared, None, keep=("is_descriptive", "is_surgical"))
    assert [texts.words(i) for i in range(len(texts))] == ["a", "d"]
    assert texts.sources == ["one", "two"]
    assert texts.passed == {"filtered": 2}
    assert len(read_texts([table(tmp_path, (video, "a"), columns="recording,text")], prepared, None)) == 1
    path = table(tmp_path, (video, 0, 1, SECRET, "perhaps", 1), columns=columns, name="two")
    with pytest.raises(DataError, match=r"two.csv:2: 'is_descriptive' is neither yes nor no"):
        read_texts([path], prepared, None, keep=("is_descriptive",))


def test_which_texts_they_are(prepared: Prepared, tmp_path: Path) -> None:
    line = (prepared.video_id(0), 0, 1, "a", "x", "clip")
    prints = {
        read_texts([table(tmp_path, other)], prepared, None).fingerprint()
        for other in (line, (*line[:3], "b", "x", "clip"), (*line[:2], 1.5, "a", "x", "clip"), (*line[:5], "keystep"))
    }
    assert len(prints) == 4
    assert read_texts([table(tmp_path, line)], prepared, None).fingerprint() in prints


BAD = {
    "no text": ("video_id,start,end,words", ["{id}", 0, 1, SECRET], r"no column 'text' \(columns: video_id, start, end, words\)"),
    "no identifier": ("who,text", ["{id}", SECRET], r"no column names the recording \(columns: who, text\).*file_name"),
    "half a time": ("video_id,start,text", ["{id}", 0, SECRET], r"a column 'start' and no 'end'"),
    "no number": ("video_id,start,end,text", ["{id}", "0:01", 2, SECRET], r"said.csv:2: start and end are not both a number"),
    "backwards": ("video_id,start,end,text", ["{id}", 1, 0.5, SECRET], r"said.csv:2: the text is from 1 to 0.5 s"),
    "before": ("video_id,start,end,text", ["{id}", -1, 0.5, SECRET], r"the text is from -1 to 0.5 s"),
    "beyond": ("video_id,start,end,text", ["{id}", 1.7, 2, SECRET], r"said.csv:2: .* from 1.7 to 2 s, and its recording ends at 1.6 s"),
    "far beyond": ("video_id,start,end,text", ["{id}", 1, 20, SECRET], r"from 1 to 20 s, and its recording ends at 1.6 s"),
    "level": ("video_id,start,end,text,level", ["{id}", 0, 1, SECRET, SECRET], r"the level of the text is none that vfm knows.*clip, keystep"),
    "nobody": ("video_id,text", ["stranger", SECRET], r"0 of 1 rows match any of 6 recordings"),
    "empty": ("video_id,text", ["{id}", " "], r"no line with words is left \(1 empty\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused_and_never_with_words(case: str, prepared: Prepared, tmp_path: Path) -> None:
    columns, line, message = BAD[case]
    cells = [str(cell).format(id=prepared.video_id(0)) for cell in line]
    with pytest.raises(DataError, match=message) as error:
        read_texts([table(tmp_path, cells, columns=columns)], prepared, None)
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)


def test_other_refusals(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such text file"):
        read_texts([tmp_path / "nothing.csv"], prepared, None)
    with pytest.raises(DataError, match=r"no texts, and none came with the recordings.*--text"):
        read_texts([], prepared, None)
    timeless = make_prepared(tmp_path / "timeless", videos=1, patients=1, fps=None).prepared
    path = table(tmp_path, (timeless.video_id(0), 0, 1, "a", "", ""), (timeless.video_id(0), "", "", "b", "", ""))
    with pytest.raises(DataError, match=r"said.csv:2: .*the frame rate of its recording is not known"):
        read_texts([path], timeless, None)


def test_texts_that_came_with_a_data_set(tmp_path: Path) -> None:
    made = make_prepared(tmp_path / "prepared", videos=2, patients=2).prepared
    first, second = made.video_id(0), made.video_id(1)
    rows = [
        (first, 0.0, 0.5, "takes a knife", "narration"), (second, 0.2, 1.9, "cuts", "narration"),
        (second, 1.7, 1.9, "too late", "narration"), (first, 0.0, 1.0, " ", "narration"),
    ]  # fmt: skip
    columns = [list(column) for column in zip(*rows, strict=True)]
    schema = pa.schema([TEXT_SCHEMA.field(name) for name in ("video_id", "start", "end", "text", "source")])
    pq.write_table(pa.table(columns, schema=schema), made.folder / TEXTS)
    texts = read_texts([], made, None)
    assert [(texts.words(i), texts.span(i)) for i in range(len(texts))] == [("takes a knife", (0.0, 0.5)), ("cuts", (0.2, 1.6))]  # fmt: skip
    assert texts.levels.tolist() == [0, 0]
    assert texts.passed == {"outside the recording": 1, "empty": 1}


# --- which texts stand beside which


@pytest.fixture(scope="module")
def told(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Texts:
    video, other = prepared.video_id(0), prepared.video_id(1)
    lines = [
        (video, 0.0, 0.4, "a0", "a", "clip"), (video, 0.5, 0.9, "a1", "a", "clip"), (video, 1.0, 1.4, "a2", "a", "clip"),
        (video, 0.3, 0.6, "b0", "b", "clip"), (video, 0.7, 0.8, "b1", "b", "clip"), (video, 0.8, 1.1, "c0", "c", "clip"),
        (video, 0.0, 0.8, "step0", "a", "keystep"), (video, 0.8, 1.6, "step1", "a", "keystep"), (video, "", "", "whole", "a", "abstract"),
        (other, 0.5, 0.9, "elsewhere", "b", "clip"),
    ]  # fmt: skip
    return read_texts([table(tmp_path_factory.mktemp("told"), *lines)], prepared, None)


def picked(texts: Texts, words: str, asked: Asked, seed: int = 0) -> list[str]:
    anchor = next(i for i in range(len(texts)) if texts.words(i) == words)
    found = pick(texts, anchor, 0, asked, asked.allowed(texts), np.random.default_rng(seed))
    return [texts.words(i) for i in found]


def test_beside_a_text_are_those_of_others_at_its_time(told: Texts) -> None:
    beside = Asked("beside", count=5)
    assert picked(told, "a1", beside) == ["b0", "b1", "c0"]
    assert picked(told, "a2", beside) == ["c0"]
    assert picked(told, "b1", beside) == ["a1"]  # c0 begins as b1 ends
    assert picked(told, "a1", Asked("beside", count=5, sources=("b",))) == ["b0", "b1"]
    assert picked(told, "step0", beside) == []
    assert picked(told, "a1", Asked()) == ["a1"]


def test_below_a_text_is_the_next_finer_level_in_order(told: Texts) -> None:
    below = Asked("below", count=9)
    assert picked(told, "whole", below) == ["step0", "step1"]
    assert picked(told, "step0", below) == ["a0", "b0", "a1", "b1"]
    assert picked(told, "a0", below) == []
    assert picked(told, "step0", Asked("below", count=9, sources=("a",))) == ["a0", "a1"]


def test_of_more_than_asked_some_are_drawn(told: Texts) -> None:
    two = Asked("beside", count=2)
    drawn = {tuple(picked(told, "a1", two, seed)) for seed in range(20)}
    assert drawn == {("b0", "b1"), ("b0", "c0"), ("b1", "c0")}
    assert picked(told, "a1", two, 3) == picked(told, "a1", two, 3)


def test_sources_and_levels_by_name(told: Texts) -> None:
    allowed = Asked(levels=("keystep", "abstract"), sources=("a",)).allowed(told)
    assert [told.words(i) for i in np.flatnonzero(allowed)] == ["step0", "whole", "step1"]
    with pytest.raises(ConfigError, match=r"no text is of the source 'aws'.*a, b, c"):
        Asked(sources=("aws",)).allowed(told)
