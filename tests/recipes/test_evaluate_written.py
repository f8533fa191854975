"""Descriptions of whole procedures: causal clips, written once, gone on with, and never mistaken for another encoder's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from procedure_factory import make_procedures

import recipes.evaluate.written as written_module
from domains.base import ClipSettings
from domains.errors import ConfigError, DataError
from domains.store.clips import clips_until, evaluation_clips
from domains.store.manifest import frame_file
from domains.store.prepared import Prepared
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.evaluate.momentary import frequencies, linear_probe, sample
from recipes.evaluate.procedures import ProcedureData, spread_of
from recipes.evaluate.written import Pace, digest_of, fingerprint, write_descriptions
from recipes.finetune.temporal import DESCRIPTIONS, INSIDE, TRUTH

CLIP = ClipSettings(frames=4, size=32, rate=4.0)
SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 16, "tubelet_size": 2}


def encoder(seed: int = 0):
    return fresh_videomae(Geometry(frames=4, size=32, rate=4.0), seed=seed, hidden_size=16, **SMALL)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Prepared:
    return make_procedures(tmp_path_factory.mktemp("procedures") / "prepared", videos=3)


def test_a_clip_ends_at_its_moment(prepared):
    ends = np.array([0, 2, 40])
    clips = clips_until(prepared, 0, CLIP, ends)
    shown = prepared.frames(0, [0, 0, 0, 0, 0, 0, 1, 2, 37, 38, 39, 40])
    np.testing.assert_array_equal(clips.reshape(-1, 32, 32, 1), shown)
    slow = ClipSettings(frames=3, size=32, rate=3.0)  # 4 / 3 native frames apart: rounded, and never past the end
    found = clips_until(prepared, 0, slow, np.array([9]))[0]
    np.testing.assert_array_equal(found, prepared.frames(0, [6, 8, 9]))
    assert evaluation_clips(prepared, 0, CLIP, 1).shape == clips[:1].shape


def test_nothing_of_the_future_is_in_a_description(prepared, tmp_path, monkeypatch):
    before, _ = write_descriptions(encoder(), prepared, [0], CLIP, 1.0, tmp_path / "before")
    real, moment = Prepared.frames, 12  # at 4 frames a second: frame 48 and those before it are known then

    def frames(self, index, indices):
        found = real(self, index, indices).copy()
        found[np.asarray(indices) > 4 * moment] = 255 - found[np.asarray(indices) > 4 * moment]
        return found

    monkeypatch.setattr(Prepared, "frames", frames)
    after, _ = write_descriptions(encoder(), prepared, [0], CLIP, 1.0, tmp_path / "after")
    same = (before.read(0) == after.read(0)).all(axis=1)
    assert same[: moment + 1].all()
    assert not same[moment + 1 :].any()


def test_written_is_what_the_encoder_says_of_each_clip(prepared, tmp_path):
    model = encoder().eval()
    written, failed = write_descriptions(model, prepared, [1], CLIP, 2.0, tmp_path)
    times, ends = written.moments(1)
    assert failed == ()
    assert times[1] == 0.5
    assert ends[1] == 2
    table = written.read(1)
    assert isinstance(table, np.memmap)
    assert table.shape == (len(times), 32)
    from recipes.training.data import plain_pixel_values

    clips = clips_until(prepared, 1, CLIP, ends[[0, 7, len(ends) - 1]])
    with torch.no_grad():
        direct = model.describe(plain_pixel_values(torch.from_numpy(clips), model.geometry, torch.device("cpu")))
    np.testing.assert_allclose(table[[0, 7, -1]], direct.numpy(), atol=1e-5)


def test_what_is_there_is_not_described_again_and_another_encoder_has_its_own(prepared, tmp_path, monkeypatch):
    asked = []
    real = written_module._clips
    monkeypatch.setattr(written_module, "_clips", lambda *rest: asked.append(rest[1]) or real(*rest))
    first, _ = write_descriptions(encoder(), prepared, [0, 1], CLIP, 1.0, tmp_path)
    write_descriptions(encoder(), prepared, [1, 2], CLIP, 1.0, tmp_path)
    assert asked == [0, 1, 2]
    other, _ = write_descriptions(encoder(seed=1), prepared, [0], CLIP, 1.0, tmp_path)
    slower, _ = write_descriptions(encoder(), prepared, [0], CLIP, 0.5, tmp_path)
    closer, _ = write_descriptions(encoder(), prepared, [0], CLIP.model_copy(update={"rate": 2.0}), 1.0, tmp_path)
    assert len({one.folder for one in (first, other, slower, closer)}) == 4
    assert json.loads((first.folder / "about.json").read_text())["encoder"] == fingerprint(encoder())
    half = encoder()
    half.model.half()
    assert fingerprint(half) != fingerprint(encoder())


def test_a_killed_run_goes_on_in_the_middle_of_a_recording(prepared, tmp_path, monkeypatch):
    whole, _ = write_descriptions(encoder(), prepared, [0], CLIP, 1.0, tmp_path / "whole")
    monkeypatch.setattr(written_module, "KEEP", 0.0)
    monkeypatch.setattr(written_module, "BATCH", 5)
    real, begun = written_module._clips, []

    def clips(prepared, row, clip, ends, first):
        begun.append(first)
        for start, found in real(prepared, row, clip, ends, first):
            if start >= 20 and len(begun) == 1:
                raise KeyboardInterrupt
            yield start, found

    monkeypatch.setattr(written_module, "_clips", clips)
    with pytest.raises(KeyboardInterrupt):
        write_descriptions(encoder(), prepared, [0], CLIP, 1.0, tmp_path / "killed")
    again, _ = write_descriptions(encoder(), prepared, [0], CLIP, 1.0, tmp_path / "killed")
    assert begun == [0, 20]
    np.testing.assert_allclose(again.read(0), whole.read(0), atol=1e-6)
    assert sorted(path.suffix for path in again.folder.iterdir()) == [".json", ".npy"]


def test_a_damaged_recording_is_named_and_the_others_are_written(tmp_path):
    prepared = make_procedures(tmp_path / "prepared", videos=2)
    frame_file(prepared.folder, prepared.video_id(0)).write_bytes(b"no pictures")
    written, (failure,) = write_descriptions(encoder(), prepared, [0, 1], CLIP, 1.0, tmp_path / "features")
    assert failure.video_id == prepared.video_id(0)
    assert len(written.read(1)) == len(written.moments(1)[0])
    with pytest.raises(DataError, match="cannot be read"):
        written.read(0)


def test_two_runs_do_not_write_the_same_descriptions_at_once(prepared, tmp_path, monkeypatch):
    def taken(self):
        raise ConfigError("another run is going on in this folder")

    monkeypatch.setattr(written_module.FolderLock, "take", taken)
    with pytest.raises(ConfigError, match="another run"):
        write_descriptions(encoder(), prepared, [0], CLIP, 1.0, tmp_path)


def test_a_long_job_says_how_long_it_will_take(monkeypatch):
    now, said = [0.0], []
    monkeypatch.setattr(written_module.time, "perf_counter", lambda: now[0])
    pace = Pace(1000, lambda *what: said.append(what))
    pace.skip(200)
    for _ in range(40):
        now[0] += 1.0
        pace.add(10)
    assert said[0] == (250, 1000, 75.0)  # 50 in 5 s: 750 more take 75 s
    assert [one[0] for one in said] == [250, 400, 600]  # at 5, 20 and 40 s: ever more seldom


def test_a_sample_is_a_procedure_filled_up_or_a_stretch_of_it(prepared, tmp_path):
    written, _ = write_descriptions(encoder(), prepared, [0, 1, 2], CLIP, 1.0, tmp_path)
    truths = {row: np.arange(len(written.moments(row)[0])) for row in range(3)}
    whole = ProcedureData(written, truths, 4096, seed=3)
    longest = max(len(truth) for truth in truths.values())
    for position in range(3):
        sample_ = whole[position]
        row, told = sample_["row"], sample_["targets"]
        count = len(truths[row])
        assert told[DESCRIPTIONS].shape == (longest, 32)
        np.testing.assert_array_equal(told[DESCRIPTIONS][:count], written.read(row))
        assert told[TRUTH].tolist() == [*range(count), *[-1] * (longest - count)]
        assert told[INSIDE].sum() == count
    short = ProcedureData(written, truths, 10, seed=3)
    drawn = [short[position]["targets"] for position in range(60)]
    assert all(one[INSIDE].all() for one in drawn)
    starts = {int(one[TRUTH][0]) for one in drawn}
    assert len(starts) > 10
    assert all((np.diff(one[TRUTH]) == 1).all() for one in drawn)
    np.testing.assert_array_equal(
        short[7]["targets"][TRUTH], ProcedureData(written, truths, 10, seed=3)[7]["targets"][TRUTH]
    )
    mean, deviation = spread_of(written, [0, 2])
    both = np.concatenate([written.read(0), written.read(2)])
    np.testing.assert_allclose(mean, both.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(deviation, both.std(axis=0), rtol=1e-3, atol=1e-5)


def test_baselines_that_know_no_time(prepared, tmp_path):
    written, _ = write_descriptions(encoder(), prepared, [0, 1, 2], CLIP, 1.0, tmp_path)
    bright = {row: (written.read(row)[:, 0] > np.median(written.read(row)[:, 0])).astype(np.int64) for row in range(3)}
    bright[0][:4] = -1
    described, truth = sample(written, bright, 30)
    assert len(described) == len(truth) == 30
    assert (truth >= 0).all()
    assert frequencies([np.array([0, 0, 2, -1])], 3).tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    assert frequencies([np.array([[1, 0], [1, 1], [-1, -1]])], 2).tolist() == [1, 0.5]
    probe = linear_probe(written, {0: bright[0], 1: bright[1]}, {2: bright[2]}, 2)
    said = probe(np.asarray(written.read(2)))
    np.testing.assert_allclose(said.sum(axis=1), 1)
    assert (said.argmax(axis=1) == bright[2]).mean() > 0.75
    both = {row: np.stack([values.clip(0), 1 - values.clip(0)], axis=1) for row, values in bright.items()}
    ridge = linear_probe(written, {0: both[0], 1: both[1]}, {2: both[2]}, 2)(np.asarray(written.read(2)))
    assert ((ridge[:, 0] > ridge[:, 1]) == (both[2][:, 0] == 1)).mean() > 0.75


def test_a_digest_is_of_weights_and_words_but_for_what_is_left_out() -> None:
    one, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    assert digest_of(one) == digest_of(one) != digest_of(other)
    assert digest_of(one, "a") != digest_of(one, "b")
    other.weight.data.copy_(one.weight)
    assert digest_of(one, but=[one.bias]) == digest_of(other, but=[other.bias]) != digest_of(one)
