"""Samples that are texts: which clips and words they hold, and what they follow from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from store_factory import Made, make_prepared
from text_factory import WORDS, small_text, write_narrations

from domains.base import AugmentPolicies, ClipSettings
from domains.errors import ConfigError, DataError
from domains.store.clips import Clip
from domains.store.text_tables import read_texts
from domains.store.texts import Asked
from recipes.objective import FOREVER, Words
from recipes.training.broken import joined
from recipes.training.data import collate, to_batch
from recipes.training.texts import TextData

CLIP = ClipSettings(frames=4, size=16, stride=2, rate=None)
SAMPLE = {"text": Asked()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Six recordings of three patients, 40 frames at 25 a second, frame n of grey level n where it is looked at (see `placed`)."""
    made = make_prepared(tmp_path_factory.mktemp("texts") / "prepared", videos=6, patients=3, size=32)
    write_narrations(made.labels, made.prepared.folder.parent / "said.csv")
    return made


def stream(made: Made, asked: dict[str, Asked], **options: object) -> TextData:
    texts = options.pop("texts", None) or read_texts([made.prepared.folder.parent / "said.csv"], made.prepared, None)
    views = options.pop("views", {"clip": Clip(augment="none")})
    rows = options.pop("rows", range(len(made.prepared)))
    return TextData(
        made.prepared, rows, views, CLIP, AugmentPolicies(), texts=texts, asked=asked, reader=small_text().reader, **options  # type: ignore[arg-type]
    )  # fmt: skip


def frames_met(data: TextData, position: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Native frames that a sample decodes."""
    met: list[int] = []
    whole = type(data.prepared).frames

    def watched(self: object, row: int, indices: list[int]) -> object:
        met.extend(indices)
        return whole(self, row, indices)  # type: ignore[arg-type]

    monkeypatch.setattr(type(data.prepared), "frames", watched)
    data[position]
    monkeypatch.undo()
    return met


def read(words: dict[str, torch.Tensor]) -> list[str]:
    """Tokens back into words."""
    return [" ".join(WORDS[t] for t in text.flatten().tolist() if t > 3) for text in words["tokens"]]


def test_a_sample_is_a_text_and_a_clip_of_its_time(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    data = stream(made, SAMPLE)
    assert len(data) == 6 * 6  # four moments, a step and the whole, of each
    seen = set()
    for position in range(len(data)):
        _, where, _ = data.place(position)
        sample, anchor = data[position], data.anchors[where]
        span, (words,) = data.texts.span(anchor), read(sample["texts"]["text"])
        assert words == data.texts.words(anchor)
        assert sample["row"] in data.texts.rows(anchor)
        assert sample["texts"]["text"]["numbers"].tolist() == [data.texts.numbers[anchor]]
        assert sample["targets"]["level"] == data.texts.levels[anchor]
        assert sample["targets"]["about"].tolist() == [sample["row"]]
        told = (0, FOREVER) if span is None else tuple(round(1000 * second) for second in span)
        assert tuple(sample["targets"]["span"]) == told
        frames = frames_met(data, position, monkeypatch)
        if span is not None:
            assert span[0] * 25 - 0.5 <= min(frames)
            assert max(frames) <= span[1] * 25 + 0.5
        seen.add((anchor, min(frames)))
    assert len({anchor for anchor, _ in seen}) == len(data)  # every text once in an epoch
    assert len({start for _, start in seen}) > 8  # anywhere within


def test_a_moment_that_is_shorter_than_a_clip_is_in_its_middle(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    path = tmp_path / "short.csv"
    video = made.prepared.video_id(0)
    path.write_text(f"video_id,start,end,text\n{video},0.8,0.8,a ring\n{video},0,0.04,beats\n")
    data = stream(made, SAMPLE, texts=read_texts([path], made.prepared, None))
    found = {data.texts.words(data.anchors[data.place(p)[1]]): frames_met(data, p, monkeypatch) for p in range(2)}
    assert found == {"a ring": [17, 19, 21, 23], "beats": [0, 2, 4, 6]}  # 7 frames about frame 20; not before the first


def test_a_sample_follows_from_seed_epoch_and_text_alone(made: Made) -> None:
    one, again = stream(made, SAMPLE, seed=3), stream(made, SAMPLE, seed=3)
    assert all(one[p]["seed"] == again[p]["seed"] for p in (40, 0, 7))
    for position in (0, 50):
        assert np.array_equal(one[position]["views"]["clip"].frames, again[position]["views"]["clip"].frames)
    fewer = stream(
        made, {"text": Asked(levels=("keystep",))}, seed=3
    )  # other texts change nothing of a text's own samples
    seeds = {one.texts.words(one.anchors[one.place(p)[1]]) + str(one[p]["row"]): one[p]["seed"] for p in range(len(one))}  # fmt: skip
    for position in range(len(fewer)):
        sample, words = fewer[position], fewer.texts.words(fewer.anchors[fewer.place(position)[1]])
        assert seeds[words + str(sample["row"])] == sample["seed"]
    assert len({one[p]["seed"] for p in range(2 * len(one))}) == 2 * len(one)  # two epochs, all differ
    assert one.fingerprint() == again.fingerprint() != fewer.fingerprint()


def test_a_report_meets_the_clips_of_its_study_in_turn(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "reports.csv"
    patients = made.prepared.patients
    path.write_text("patient,text\n" + "".join(f"{patient},a ring that beats\n" for patient in patients[:3]))
    data = stream(made, SAMPLE, texts=read_texts([path], made.prepared, None))
    assert len(data) == 3  # a sample is a report
    met = [data[position]["row"] for position in range(60)]
    assert set(met) == set(range(6))
    for position in range(3):
        assert data[position]["row"] in (about := data[position]["targets"]["about"].tolist())
        assert about == [about[0], about[0] + 3]
    for epoch in range(20):
        assert sorted(row % 3 for row in met[3 * epoch : 3 * epoch + 3]) == [0, 1, 2]  # each patient once
    only = stream(made, SAMPLE, rows=[0, 4], texts=data.texts)  # a split
    assert sorted({only[position]["row"] for position in range(20)}) == [0, 4]
    assert only.rows == [0, 4]


def test_several_transcripts_and_missing_ones(made: Made) -> None:
    asked = {"a": Asked(levels=("clip",), sources=("one",)), "b": Asked("beside", count=3)}
    data = stream(made, asked)
    assert len(data) == 12
    batch = to_batch(collate([data[p] for p in range(12)]), small_geometry(), torch.device("cpu"))
    assert batch.texts["a"].tokens.shape[:2] == (12, 1)
    assert batch.texts["b"].tokens.shape[:2] == (12, 3)
    assert batch.texts["b"].present.sum(dim=1).tolist() == [1] * 12  # the other transcriber's, whose time overlaps
    assert bool((batch.texts["b"].tokens[:, 1:] == -1).all())
    part = batch.pieces(5)[1]
    assert part.texts["b"].numbers.equal(batch.texts["b"].numbers[5:10])


def test_views_of_steps_look_when_the_steps_are(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"whole": Asked(levels=("keystep",)), "steps": Asked("below", count=2, sources=("one",), views=("first", "second"))}  # fmt: skip
    views = {name: Clip(augment="none") for name in ("clip", "first", "second")}
    data = stream(made, asked, views=views)
    sample = data[0]
    assert sample["texts"]["steps"]["numbers"].min() >= 0
    moments = [i for i in data.texts.about(sample["row"]) if data.texts.levels[i] == 0 and data.texts.source[i] == 0]
    spans = data.spans(data.anchors[data.place(0)[1]], {"whole": [], "steps": moments})
    assert spans == {"clip": (0.0, 1.6), "first": (0.0, 0.7), "second": (0.8, 1.5)}


def test_silent_recordings_are_samples_where_that_is_wanted(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text(f"video_id,text\n{made.prepared.video_id(1)},a ring\n")
    texts = read_texts([path], made.prepared, None)
    assert len(stream(made, SAMPLE, texts=texts)) == 1
    data = stream(made, SAMPLE, texts=texts, silent=True)
    assert len(data) == 6
    levels = [int(data[p]["targets"]["level"]) for p in range(6)]
    assert sorted(levels) == [-1] * 5 + [2]
    silent = data[levels.index(-1)]
    assert silent["texts"]["text"]["numbers"].tolist() == [-1]
    assert bool((silent["texts"]["text"]["tokens"] == -1).all())


def test_what_is_rare_is_met_again_until_it_has_its_share(made: Made, tmp_path: Path) -> None:
    """Six recordings: six moments of one, a title of another, four silent."""
    path = tmp_path / "few.csv"
    one, other = made.prepared.video_id(0), made.prepared.video_id(1)
    lines = [f"{one},{n / 10},{n / 10 + 0.1},a ring,clip" for n in range(6)]
    path.write_text("\n".join(["video_id,start,end,text,level", *lines, f"{other},,,a title,abstract"]) + "\n")
    texts = read_texts([path], made.prepared, None)
    data = stream(made, SAMPLE, texts=texts, silent=True, shares={"abstract": 0.25, "silent": 0.25})
    levels = Counter(int(data[place]["targets"]["level"]) for place in range(len(data)))
    assert levels == {0: 6, 2: 3, -1: 4}  # 4 of 11 are silent as it is; 1 title of 10 + 1 becomes a quarter of 13
    names = [data.name(where) for where in range(data.count)]
    assert len(set(names)) == len(names)  # and so every time has its own draws
    assert names[:11] == [stream(made, SAMPLE, texts=texts, silent=True).name(where) for where in range(11)]
    half = stream(made, SAMPLE, texts=texts, silent=True, shares={"abstract": 0.4, "silent": 0.4})
    found = Counter(half.anchors)
    assert (found[-1], found[6], half.count) == (12, 12, 30)
    alone = stream(made, {"text": Asked(levels=("abstract",))}, texts=texts, shares={"abstract": 0.25})
    assert alone.count == 1


def test_what_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no text is of the source 'three'.*one, two"):
        stream(made, {"text": Asked(sources=("three",))})
    path = tmp_path / "one.csv"
    path.write_text(f"video_id,start,end,text\n{made.prepared.video_id(1)},0,1,a ring\n")
    texts = read_texts([path], made.prepared, None)
    with pytest.raises(DataError, match=r"no text of the levels and sources.*there are 1, of level clip"):
        stream(made, {"text": Asked(levels=("abstract",))}, texts=texts)
    with pytest.raises(DataError, match=r"several transcripts.*all texts are of one source.*--recipe clip"):
        stream(made, {**SAMPLE, "b": Asked("beside")}, texts=texts)
    with pytest.raises(DataError, match=r"several levels.*all are of one"):
        stream(made, {**SAMPLE, "b": Asked("below")}, texts=texts)


def test_tokens_of_several_processes_are_joined_as_they_are() -> None:
    """Each process fills its texts up to its own longest."""
    short, long = torch.ones(2, 1, 1, 3, dtype=torch.int64), torch.ones(2, 1, 2, 5, dtype=torch.int64)
    both = joined([{"tokens": short}, {"tokens": long}])["tokens"]
    assert both.shape == (4, 1, 2, 5)
    assert both[0].flatten().tolist() == [1, 1, 1, -1, -1, -1, -1, -1, -1, -1]
    text = small_text().eval()
    assert text(short).equal(text(both[:2]))
    assert Words(both, torch.zeros(4, 1))[1:3].tokens.equal(both[1:3])


def small_geometry() -> object:
    from recipes.encoders.base import Geometry

    return Geometry(frames=4, size=16)
