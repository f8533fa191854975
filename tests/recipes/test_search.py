"""An embedded collection: what is written, found, refused, and drawn."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from aligned_factory import GEOMETRY, axis, fitted, write_aligned
from collection_factory import Embedded, collected
from source_factory import cine, write_avi
from store_factory import Made, make_prepared

from domains.base import ClipSettings, StoreSettings, load_domain
from domains.errors import ConfigError, DataError, ModelError
from domains.prepare.ingest import prepare
from domains.store.clips import spread_starts, starts_every
from domains.store.manifest import frame_file
from domains.store.prepared import Prepared
from recipes.encoders.videomae import fresh_videomae
from recipes.evaluate.collecting import Stretches
from recipes.evaluate.collection import About, Collection, Hit
from recipes.jobs.search import Query, embed, moment, search

WORDS = {"A2C": "two chamber view", "A4C": "four chamber view", "PLAX": "long axis view of the heart"}
ABOUT = About(
    format=1, vfm="0", model="m", fingerprint="f", words=True, width=2, data="d", domain="echo", key=None, store=StoreSettings(),
    clip=ClipSettings(frames=4, size=32, rate=4.0, stride=2), every=None, vectors=0, recordings=0,
)  # fmt: skip


def stretches(video_id: str, angles: list[float], fps: float | None = 4.0) -> Embedded:
    """Vectors at so many degrees from the first axis, one a second."""
    turned = np.deg2rad(angles)
    starts = np.arange(len(angles)) * 1.0 if fps else np.full(len(angles), np.nan)
    frames = np.arange(len(angles)) * 4.0
    return Stretches(video_id, frames, starts, starts + 1), np.stack([np.cos(turned), np.sin(turned)], axis=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_prepared(tmp_path_factory.mktemp("data") / "prepared", videos=6, patients=3, frames=60)


@pytest.fixture(scope="module")
def run(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    views = [line["view"] for line in csv.DictReader(made.labels.open())]
    aligned = fitted(made.prepared, {row: WORDS[view] for row, view in enumerate(views)}, clips=6)
    return write_aligned(tmp_path_factory.mktemp("run") / "aligned", aligned)


@pytest.fixture(scope="module")
def index(made: Made, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "index"
    embed(run, made.prepared.folder, folder, every=0.4)
    return folder


def test_search_is_exact_and_the_best_stands_for_its_neighbours(tmp_path: Path) -> None:
    found = [stretches("a", [0, 2, 4, 80, 6]), stretches("b", [1, 60]), stretches("c", [3, 5, 7], fps=None)]
    about = collected(tmp_path / "index", ABOUT, found)
    assert (about.vectors, about.recordings) == (10, 3)
    collection = Collection.open(tmp_path / "index")
    query = axis([[1.0, 0.0]])[0]

    def hits(count: int, apart: float | None) -> list[tuple[str, float]]:
        return [(hit.video_id, hit.frame) for hit in collection.search(query, count, apart)]

    assert hits(10, 0.0)[:4] == [("a", 0), ("b", 0), ("a", 4), ("c", 0)]
    assert len(hits(10, 0.0)) == 9  # of c, whose seconds are not known, two that overlap are one
    assert hits(3, 1.5) == [("a", 0), ("b", 0), ("c", 0)]
    assert hits(9, 1.5)[3:] == [("a", 8), ("a", 16), ("c", 8)]
    assert hits(4, 100.0) == [("a", 0), ("b", 0), ("c", 0), ("c", 8)]
    assert hits(3, None) == [("a", 0), ("b", 0), ("a", 4)]  # one second apart, and one second long: they only touch
    best = collection.search(query, 1)[0]
    assert best == Hit("a", 0.0, 0.0, 1.0, 1.0)
    assert collection.search(query, 4, 100.0)[2].start is None


def test_few_are_found_among_many_neighbours(tmp_path: Path) -> None:
    many = [stretches("a", list(np.linspace(0, 1, 400))), stretches("b", [50.0]), stretches("c", [70.0])]
    collected(tmp_path / "index", ABOUT, many)
    collection = Collection.open(tmp_path / "index")
    assert [hit.video_id for hit in collection.search(axis([[1.0, 0.0]])[0], 3, 1e6)] == ["a", "b", "c"]


def test_a_text_finds_its_recordings(made: Made, run: Path, index: Path, tmp_path: Path) -> None:
    views = {line["video_id"]: line["view"] for line in csv.DictReader(made.labels.open())}
    for view, words in WORDS.items():
        hits = search(index, Query(text=words), count=3)
        assert views[hits[0].video_id] == view
        assert hits[0].similarity > 0.9
        assert hits[0].similarity >= hits[1].similarity >= hits[2].similarity
    hits = search(index, Query(text=WORDS["A2C"]), count=4, picture=tmp_path / "strip.png")
    picture = cv2.imread(str(tmp_path / "strip.png"))
    size = made.prepared.size
    assert picture.shape == (4 * (size + 14 + 6) + 6, 4 * size + 12, 3)
    first = made.prepared.frames(made.prepared.index_of(hits[0].video_id), [round(hits[0].frame)])[0]
    assert np.array_equal(picture[6 : 6 + size, 6 : 6 + size], np.repeat(first, 3, axis=-1))


def test_what_an_index_holds(made: Made, index: Path) -> None:
    collection = Collection.open(index)
    assert collection.about.words
    assert collection.about.recordings == 6
    assert (collection.about.domain, collection.about.every) == ("echo", 0.4)
    assert np.linalg.norm(collection.vectors, axis=1) == pytest.approx(np.ones(len(collection.vectors)), abs=1e-6)
    clip = collection.about.clip
    assert starts_every(made.prepared, 0, clip, 0.4).tolist() == [0, 10, 20, 30, 40, 50]
    assert starts_every(made.prepared, 0, clip, None).tolist() == [0, 8, 16, 24, 32, 40, 48]
    assert len(collection.vectors) == 36
    assert {path.name for path in index.iterdir()} == {"about.json", "vectors.npy", "moments.parquet"}


def test_clips_that_meet_withheld_frames_are_not_embedded(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = ClipSettings(frames=4, size=32, rate=12.5)  # 6 native frames from the first to the last, of 60
    monkeypatch.setattr(Prepared, "outside", lambda self, index: np.array([[12, 22], [48, 60]]))
    assert starts_every(made.prepared, 0, clip, 0.4).tolist() == [0, 30, 40]
    assert spread_starts(made.prepared, 0, clip, 3).tolist() == [0, 26, 41]  # evenly were 0, 26.5 and 53
    monkeypatch.setattr(Prepared, "outside", lambda self, index: np.array([[0, 60]]))
    assert starts_every(made.prepared, 0, clip, 0.4).tolist() == []


def test_a_clip_of_the_collection_finds_itself(made: Made, index: Path) -> None:
    who = made.prepared.video_id(4)
    hits = search(index, Query(clip=who, start=0.8), count=1)
    assert (hits[0].video_id, hits[0].frame) == (who, 20)
    assert hits[0].similarity == pytest.approx(1.0, abs=1e-5)
    assert moment(hits[0]) == "0:00.8-0:01.1"
    with pytest.raises(DataError, match=r"2.4 s long, and 9 s is not in it"):
        search(index, Query(clip=who, start=9.0))
    with pytest.raises(DataError, match="neither a file nor the pseudonym"):
        search(index, Query(clip="nobody"))


def test_a_file_that_nobody_prepared_finds_the_recording_that_was_made_of_it(tmp_path: Path) -> None:
    """With an encoder that knows no words; the picture is found, cut and scaled as when it was prepared."""
    for number in range(2):
        write_avi(tmp_path / "studies" / f"{number}.avi", cine(24, seed=number))
    prepare(tmp_path / "studies", tmp_path / "prepared", load_domain("echo"), key=b"k" * 32, workers=1)
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "patch_size": 8,
        "tubelet_size": 2,
    }
    fresh_videomae(GEOMETRY, seed=0, **small).save(tmp_path / "encoder")
    about = embed(tmp_path / "encoder", tmp_path / "prepared", tmp_path / "index", every=0.2)
    assert not about.words
    assert about.left_out == {}
    collection = Collection.open(tmp_path / "index")
    found = [
        search(tmp_path / "index", Query(clip=str(tmp_path / "studies" / f"{number}.avi"), start=0.4), count=1)[0]
        for number in range(2)
    ]
    assert len({hit.video_id for hit in found}) == 2
    assert [hit.frame for hit in found] == [10, 10]
    assert min(hit.similarity for hit in found) > 0.999
    assert len(collection.vectors) == about.vectors
    with pytest.raises(ConfigError, match="encoder knows no words"):
        search(tmp_path / "index", Query(text="a ring"))


def test_vectors_of_two_models_are_not_compared(made: Made, run: Path, index: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    assert search(index, Query(text="view"), model=other, count=1)  # the same weights, elsewhere
    shape = json.loads((other / "alignment.json").read_text())
    write_aligned(tmp_path / "anew", fitted(made.prepared, {0: "two chamber view", 1: "the heart"}))
    shutil.copy(tmp_path / "anew" / "alignment.safetensors", other / "alignment.safetensors")
    assert shape["outputs"] == 8
    with pytest.raises(ModelError, match="its weights are not those that embedded"):
        search(index, Query(text="view"), model=other)


def test_what_cannot_be_looked_for(index: Path, run: Path, made: Made, tmp_path: Path) -> None:
    for query in (Query(), Query(text="a", clip="b")):
        with pytest.raises(ConfigError, match="a text or for an example"):
            search(index, query)
    with pytest.raises(ConfigError, match="without a word"):
        search(index, Query(text="  "))
    with pytest.raises(DataError, match="no embedded collection"):
        search(tmp_path, Query(text="a"))
    with pytest.raises(ConfigError, match="something already"):
        embed(run, made.prepared, index)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="no embedded collection"):
        embed(run, made.prepared, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_an_index_that_was_not_finished_is_not_there_and_a_damaged_one_says_so(run: Path, tmp_path: Path) -> None:
    made = make_prepared(tmp_path / "prepared", videos=2, patients=2, frames=30)
    for row in range(2):
        frame_file(made.prepared.folder, made.prepared.video_id(row)).write_bytes(b"")
    with pytest.raises(DataError, match="none of 2 recordings could be read"):
        embed(run, made.prepared, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    assert not (tmp_path / "index.partial").exists()
    collected(tmp_path / "index", ABOUT, [stretches("a", [0.0, 1.0])])
    about = json.loads((tmp_path / "index" / "about.json").read_text())
    (tmp_path / "index" / "about.json").write_text(json.dumps({**about, "vectors": 3}))
    with pytest.raises(DataError, match="different lengths"):
        Collection.open(tmp_path / "index")
