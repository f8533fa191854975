"""Retrieval: ranks and chance by hand, what is right for whom, and the job on recordings with reports."""

from __future__ import annotations

import csv
import json
import math
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aligned_factory import fitted, write_aligned
from store_factory import Made, make_prepared

from domains.base import ClipSettings
from domains.errors import ConfigError, DataError
from domains.store.clips import clips_from, evaluation_clips, frame_indices, spread_starts, starts_within
from domains.store.manifest import frame_file
from domains.store.texts import Asked
from recipes.evaluate.retrieval import METRICS, Ranked, pairs_of, rank, ranks, weighted_median
from recipes.jobs.retrieval import embed_pairs, retrieval

WORDS = {"A2C": "Two chamber view.", "A4C": "four chamber view", "PLAX": "long axis view of the heart"}
ALL = (0.0, math.inf)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_prepared(tmp_path_factory.mktemp("data") / "prepared", videos=12, patients=6, frames=30)


@pytest.fixture(scope="module")
def views(made: Made) -> list[str]:
    return [line["view"] for line in csv.DictReader(made.labels.open())]


@pytest.fixture(scope="module")
def run(made: Made, views: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    aligned = fitted(made.prepared, {row: WORDS[view] for row, view in enumerate(views)})
    return write_aligned(tmp_path_factory.mktemp("run") / "aligned", aligned)


def reports(made: Made, views: list[str], folder: Path) -> Path:
    path = folder / "reports.csv"
    lines = [f'{made.prepared.video_id(row)},"{WORDS[view]}"' for row, view in enumerate(views)]
    path.write_text("\n".join(["video_id,text", *lines, f"{made.prepared.video_id(0)},"]) + "\n")
    return path


def test_ranks_are_means_over_all_orders_of_equals() -> None:
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    for right in ([0], [1], [1, 2], [4], [1, 4], [0, 1]):
        places = []
        for order in permutations(range(5)):  # stable sort of every order: equals in every order
            ranked = sorted(order, key=lambda item: -scores[item])
            places.append(min(ranked.index(item) for item in right) + 1)
        assert rank(scores, np.array(right)) == pytest.approx(np.mean(places))


def test_a_gallery_of_equals_has_the_median_rank_of_chance() -> None:
    found = ranks(np.ones((4, 1)), np.ones((9, 1)), [np.array([k]) for k in range(4)])
    assert found.tolist() == [5.0] * 4
    chance = Ranked.chance(9, [np.array([k]) for k in range(4)])
    assert chance.ranks.tolist() == [5.0] * 4
    assert chance.hits[1] == pytest.approx(np.full(4, 1 / 9))
    assert chance.hits[5] == pytest.approx(np.full(4, 5 / 9))
    assert chance.hits[10].tolist() == [1.0] * 4
    several = Ranked.chance(6, [np.array([0, 1])])
    assert several.hits[5][0] == 1.0
    assert several.hits[1][0] == pytest.approx(2 / 6)
    best = np.mean([min(order.index(0), order.index(1)) + 1 for order in permutations(range(6))])
    assert several.ranks[0] == pytest.approx(best)


def test_hits_and_medians_under_weights() -> None:
    ranked = Ranked.of(np.array([1.0, 2.5, 7.0, 20.0]))
    by_name = {m.name: ranked.scorer()(m, np.array([[1.0, 1, 1, 1], [0, 0, 2, 1]])) for m in METRICS}
    assert by_name["recall_1"].tolist() == [0.25, 0]
    assert by_name["recall_5"].tolist() == [0.5, 0]
    assert by_name["recall_10"] == pytest.approx([0.75, 2 / 3])
    assert by_name["median_rank"].tolist() == [np.median([1, 2.5, 7, 20]), np.median([7, 7, 20])]
    draw = np.random.default_rng(0)
    values, weights = draw.permutation(9).astype(float), draw.integers(0, 4, (20, 9)).astype(float)
    expected = [np.median(np.repeat(values, row.astype(int))) for row in weights]
    assert weighted_median(values, values, weights).tolist() == expected


def test_the_same_words_are_one_text_and_overlapping_stretches_share_theirs() -> None:
    """Recording 0: two people of nearly the same stretch (1 and 2), one of another (3); recording 1 has text 1 as well."""
    moments = [(0, 0.0, 4.0), (0, 1.0, 5.0), (0, 5.0, 9.0), (1, 0.0, 4.0), (1, *ALL)]
    pairs = pairs_of([*moments, (0, 0.0, 4.0)], [1, 2, 3, 1, 4, 5])
    assert pairs.moments == tuple(moments)
    assert pairs.texts.tolist() == [0, 1, 2, 4, 5]
    assert pairs.said.tolist() == [[0, 0], [1, 1], [2, 2], [3, 0], [4, 3], [0, 4]]
    assert [right.tolist() for right in pairs.texts_of] == [[0, 1, 4], [0, 1, 4], [2], [0], [3]]
    assert [right.tolist() for right in pairs.moments_of] == [[0, 1, 3], [0, 1], [2], [4], [0, 1]]


def test_clips_of_a_span_lie_in_it_and_of_none_over_the_video(made: Made, tmp_path: Path) -> None:
    clip, data = (
        ClipSettings(frames=4, size=32, rate=12.5),
        made.prepared,
    )  # 6 native frames from the first to the last, of 30
    assert starts_within(data, 0, clip, 3, (0.2, 0.8)).tolist() == [5, 9.5, 14]
    assert starts_within(data, 0, clip, 2, (0.6, 0.68)).tolist() == [13, 13]  # shorter than a clip: about its middle
    assert starts_within(data, 0, clip, 1, (1.1, 1.2)).tolist() == [23]  # the last that fits
    assert starts_within(data, 0, clip, 2, ALL).tolist() == spread_starts(data, 0, clip, 2).tolist() == [0, 23]
    untimed = make_prepared(tmp_path / "untimed", videos=1, patients=1, frames=30, fps=None).prepared
    with pytest.raises(DataError, match="frame rate is not known"):
        starts_within(untimed, 0, clip, 2, (0.0, 1.0))
    starts = np.array([3.0, 11.0])
    seen = clips_from(made.prepared, 0, clip, starts)
    one = made.prepared.frames(0, frame_indices(30, 25.0, clip, 11.0).tolist())
    assert seen.shape == (2, 4, 32, 32, 1)
    assert abs(seen[1].mean() - one.mean()) < 2
    even = evaluation_clips(made.prepared, 0, clip, 3)
    assert np.array_equal(even, clips_from(data, 0, clip, spread_starts(data, 0, clip, 3)))


def test_reports_are_found_both_ways(made: Made, views: list[str], run: Path, tmp_path: Path) -> None:
    found = retrieval(run, made.prepared, texts=[reports(made, views, tmp_path)], draws=100, out=tmp_path / "out")
    assert [line.name for line in found.lines] == [
        "clip_to_text_unaligned", "clip_to_text_chance", "clip_to_text",
        "text_to_clip_unaligned", "text_to_clip_chance", "text_to_clip",
    ]  # fmt: skip
    clip, text = (found.line(name) for name in ("clip_to_text", "text_to_clip"))
    assert clip.figures["recall_1"].value > 0.9
    assert text.figures["recall_1"].value > 0.9
    assert clip.figures["median_rank"].value == 1
    assert found.line("clip_to_text_chance").figures["recall_1"].value == pytest.approx(1 / 3)
    of_view = [views.count(view) for view in views]
    assert found.line("text_to_clip_chance").figures["recall_1"].value == pytest.approx(np.mean(of_view) / 12)
    assert "clip to text: aligned beats clip to text: unaligned" in found.verdict()
    assert "12 clips, 3 texts, 6 patients" in found.size
    lines = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert len(lines) == 24
    assert {line["question"] for line in lines} == {"clip to text", "text to clip"}
    written = (tmp_path / "out" / "predictions.csv").read_text() + (tmp_path / "out" / "evaluation.json").read_text()
    assert not any(words in written for words in WORDS.values())  # a report may name somebody
    assert (
        json.loads((tmp_path / "out" / "evaluation.json").read_text())["rows"][0]["figures"]["recall_10"]["value"]
        == 1.0
    )
    assert found.notes[0] == "1 line of the texts was passed over: empty"


def test_baselines_and_sources_are_those_asked_for(made: Made, views: list[str], run: Path, tmp_path: Path) -> None:
    path = reports(made, views, tmp_path)
    found = retrieval(run, made.prepared, texts=[path], baselines=(), draws=10)
    assert [line.name for line in found.lines] == ["clip_to_text", "text_to_clip"]
    with pytest.raises(ConfigError, match="no text is of the source 'asr'"):
        retrieval(run, made.prepared, texts=[path], sources=("asr",))
    with pytest.raises(DataError, match="no text is of the recordings, levels and sources"):
        retrieval(run, made.prepared, texts=[path], levels=("keystep",))
    with pytest.raises(ConfigError, match="no baseline 'common'"):
        retrieval(run, made.prepared, texts=[path], baselines=("common",))
    with pytest.raises(DataError, match="no texts, and none came with the recordings"):
        retrieval(run, made.prepared)


def test_a_recording_that_cannot_be_read_is_in_no_gallery(views: list[str], run: Path, tmp_path: Path) -> None:
    made = make_prepared(tmp_path / "prepared", videos=12, patients=6, frames=30)
    frame_file(made.prepared.folder, made.prepared.video_id(3)).write_bytes(b"")
    found = retrieval(run, made.prepared, texts=[reports(made, views, tmp_path)], draws=10, clips=1)
    assert [failure.video_id for failure in found.excluded] == [made.prepared.video_id(3)]
    assert "11 clips, 3 texts" in found.size


def test_a_study_is_the_mean_of_its_recordings(made: Made, tmp_path: Path) -> None:
    prepared = made.prepared
    patients = prepared.column("study")  # two recordings each
    said = {study: f"heart {'abcdef'[place]}" for place, study in enumerate(dict.fromkeys(patients))}
    aligned = write_aligned(
        tmp_path / "aligned", fitted(prepared, {row: said[study] for row, study in enumerate(patients)})
    )
    table = tmp_path / "reports.csv"
    table.write_text("study,text\n" + "".join(f"{study},{words}\n" for study, words in said.items()))
    found = retrieval(aligned, prepared, texts=[table], studies=True, draws=10, out=tmp_path / "out")
    assert found.asked == ("study_to_text", "text_to_study")
    assert "6 studies, 6 texts, 6 patients" in found.size
    assert found.line("study_to_text").figures["recall_1"].value == 1
    assert found.line("text_to_study_chance").figures["recall_1"].value == pytest.approx(1 / 6)
    lines = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert [line["study"] for line in lines if line["question"] == "study to text"] == list(said)
    asked: dict[str, Any] = {
        "texts": [table], "asked": Asked(), "fresh": 1, "split": "", "clips": 2, "key": None, "domain": None, "online": False, "progress": None,
    }  # fmt: skip
    whole, single = (embed_pairs(aligned, prepared, studies=studies, **asked) for studies in (True, False))
    of = {
        prepared.video_id(row): vector for (row, _, _), vector in zip(single.pairs.moments, single.shown, strict=True)
    }
    rows = [row for row, study in enumerate(patients) if study == patients[0]]
    assert len(rows) == 2
    by_hand = np.mean([of[prepared.video_id(row)] for row in rows], axis=0)
    np.testing.assert_allclose(whole.shown[0], by_hand, atol=1e-6)
    table.write_text(f"video_id,start,end,text\n{prepared.video_id(0)},0,0.5,heart\n")
    with pytest.raises(DataError, match="and about a whole study"):
        retrieval(aligned, prepared, texts=[table], studies=True)


def test_a_study_of_which_a_recording_cannot_be_read_is_the_others(run: Path, tmp_path: Path) -> None:
    prepared = make_prepared(tmp_path / "prepared", videos=12, patients=6, frames=30).prepared
    for row in (0, 1, 7):  # of study 0 the first recording, of study 1 both
        frame_file(prepared.folder, prepared.video_id(row)).write_bytes(b"")
    table = tmp_path / "reports.csv"
    studies = list(dict.fromkeys(prepared.column("study")))
    table.write_text("study,text\n" + "".join(f"{study},heart {study}\n" for study in studies))
    found = retrieval(run, prepared, texts=[table], studies=True, draws=10, clips=1)
    assert len(found.excluded) == 3
    assert "5 studies, 5 texts, 5 patients" in found.size
