"""A collection that is stopped or killed while it is embedded: the same call goes on, and nothing half-written bears its name."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from collection_factory import Embedded, collected, said
from store_factory import make_prepared

from domains.base import ClipSettings, StoreSettings
from domains.errors import ConfigError, DataError, MediaError, StorageError
from domains.store.manifest import frame_file
from domains.store.prepared import Prepared
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.evaluate import collecting, towers
from recipes.evaluate.collecting import Stretches, write_collection
from recipes.evaluate.collection import About, Collection
from recipes.jobs.search import embed

ABOUT = About(
    format=1, vfm="0", model="m", fingerprint="f", words=True, width=3, data="d", domain="echo", key=None, store=StoreSettings(),
    clip=ClipSettings(frames=4, size=32, rate=4.0, stride=2), every=None, vectors=0, recordings=0, content="c",
)  # fmt: skip
OTHER = ABOUT.model_copy(update={"fingerprint": "g"})
FILES = {"about.json", "vectors.npy", "moments.parquet"}


def recording(number: int, clips: int, lost: bool = False) -> Embedded:
    starts = np.arange(clips) * 1.0
    vectors = np.random.default_rng(number).normal(size=(clips, 3))
    stretches = Stretches(f"v{number}", starts * 4, starts, starts + 1)
    return stretches, MediaError(f"v{number}", "damaged") if lost else vectors


FOUND = [recording(0, 3), recording(1, 2, lost=True), recording(2, 5), recording(3, 1)]


@pytest.fixture
def reference(tmp_path: Path) -> dict[str, bytes]:
    collected(tmp_path / "reference", ABOUT, FOUND)
    return contents(tmp_path / "reference")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def killed_at(line: int, work: Callable[[], object]) -> bool:
    """`work` in a process of its own, killed as it comes to the line-th line of collecting.py; whether it came that far."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    passed = 0

    def lines(frame, event, _):
        nonlocal passed
        if event == "line":
            passed += 1
            if passed == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return lines

    try:
        sys.settrace(lambda frame, *_: lines if frame.f_code.co_filename == collecting.__file__ else None)
        work()
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize("replacing", [False, True])
def test_killed_at_any_line_the_same_call_goes_on(
    replacing: bool, reference: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "KEEP", 0.0)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a kill is no power cut, and it takes long
    line, ended, written = 0, 0, False
    while True:
        line += 1 if written and ended < 9 else 11  # every line takes a minute; those about the renaming count most
        folder = tmp_path / f"{line}"
        if replacing:
            collected(folder, OTHER, [recording(7, 2)])
        before = contents(folder) if replacing else {}
        if not killed_at(line, lambda folder=folder: collected(folder, ABOUT, FOUND, overwrite=replacing)):
            break
        if folder.exists():
            Collection.open(folder)  # the old one or the new one, and whole
            now = {name: held for name, held in contents(folder).items() if name in FILES}
            assert now in (before, reference)
            ended += now == reference
        asked: list[int] = []
        draft = folder.with_name(f"{line}.partial")
        kept, written = (draft / "done.json").exists(), (draft / "about.json").exists() or ended > 0
        write_collection(
            folder, ABOUT, [one for one, _ in FOUND], lambda skip, asked=asked: asked.append(skip) or said(FOUND, skip),
            overwrite=replacing,
        )  # fmt: skip
        assert not (kept and 0 in asked)  # what was kept is not embedded again
        assert contents(folder) == reference
        assert not draft.exists()
    assert line > 150
    assert ended > 8


def test_what_is_there_is_counted_and_one_that_is_whole_is_not_embedded_again(
    reference: dict[str, bytes], tmp_path: Path
) -> None:
    assert "damaged" in Collection.open(tmp_path / "reference").about.left_out["v1"]
    notes: list[str] = []
    planned = [one for one, _ in FOUND]

    def stopped(skip: int):
        for number, piece in enumerate(said(FOUND, skip)):
            if number == 3:
                raise KeyboardInterrupt
            yield piece

    with pytest.raises(KeyboardInterrupt):
        write_collection(tmp_path / "index", ABOUT, planned, stopped, note=notes.append)
    assert not (tmp_path / "index").exists()
    with pytest.raises(DataError, match="no embedded collection"):
        Collection.open(tmp_path / "index.partial")
    skipped: list[int] = []
    rest = lambda skip: skipped.append(skip) or said(FOUND, skip)  # noqa: E731
    about = write_collection(tmp_path / "index", ABOUT, planned, rest, note=notes.append)
    assert skipped == [5]
    assert contents(tmp_path / "index") == reference
    assert write_collection(tmp_path / "index", ABOUT, planned, rest, note=notes.append) == about
    assert skipped == [5]
    assert notes == ["5 of 11 clips are embedded already: going on", "all of it is embedded already"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"fingerprint": "g"}, "another model"),
        ({"every": 2.5}, "no --every"),
        ({"clip": ClipSettings(frames=8)}, "another --domain"),
        ({"content": "d"}, "other recordings"),
    ],
)
def test_another_model_or_other_data_are_refused_in_a_line(changed: dict, words: str, tmp_path: Path) -> None:
    planned, asked = [one for one, _ in FOUND], ABOUT.model_copy(update=changed)

    def stopped(skip: int):
        yield next(said(FOUND, skip))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_collection(tmp_path / "index", ABOUT, planned, stopped)
    with pytest.raises(ConfigError, match=f"begun with {words}.*overwrite"):
        collected(tmp_path / "index", asked, FOUND)
    collected(tmp_path / "index", asked, FOUND[2:], overwrite=True)
    assert Collection.open(tmp_path / "index").about.vectors == 6
    words = "--every 2.5" if "every" in changed else words
    with pytest.raises(ConfigError, match=f"something already, made with {words}"):
        collected(tmp_path / "index", ABOUT, FOUND)


def test_what_somebody_else_put_there_stays(tmp_path: Path) -> None:
    (tmp_path / "index.partial").mkdir()
    (tmp_path / "index.partial" / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="no embedded collection"):
        collected(tmp_path / "index", ABOUT, FOUND, overwrite=True)
    assert (tmp_path / "index.partial" / "thesis.txt").read_text() == "x"


def test_a_full_disk_is_a_line_and_the_same_call_goes_on(
    reference: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(collecting.pq, "ParquetWriter", full)
        with pytest.raises(StorageError, match=r"No space left.*goes on"):
            collected(tmp_path / "index", ABOUT, FOUND)
    asked = lambda skip: pytest.fail("all of it was embedded")  # noqa: E731
    write_collection(tmp_path / "index", ABOUT, [one for one, _ in FOUND], asked)
    assert contents(tmp_path / "index") == reference


def test_a_killed_embedding_of_a_model_is_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_prepared(tmp_path / "prepared", videos=3, patients=3, frames=90, size=32)
    frame_file(made.prepared.folder, made.prepared.video_id(1)).write_bytes(b"")
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 16}
    fresh_videomae(Geometry(frames=4, size=32, rate=12.5), seed=0, hidden_size=16, tubelet_size=2, **small).save(
        tmp_path / "encoder"
    )
    monkeypatch.setattr(collecting, "KEEP", 0.0)
    monkeypatch.setattr(towers, "AT_ONCE", 4)
    told: list[tuple[int, int]] = []

    def embedded(name: str, progress=None) -> About:
        data = Prepared.open(made.prepared.folder)
        return embed(tmp_path / "encoder", data, tmp_path / name, every=0.2, progress=progress, note=notes.append)

    notes: list[str] = []
    whole = embedded("whole")
    assert whole.recordings == 2
    assert list(whole.left_out) == [made.prepared.video_id(1)]
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    else:
        embedded("killed", lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done > total / 2 else None)
        os._exit(1)
    assert not (tmp_path / "killed").exists()
    again = embedded("killed", lambda done, total: told.append((done, total)))
    assert notes[0].endswith("clips are embedded already: going on")
    planned = whole.vectors * 3 // 2
    assert told[-1][0] == told[-1][1] < planned / 2
    assert told[-1][1] + int(notes[0].split()[0]) == planned
    assert again == whole
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
