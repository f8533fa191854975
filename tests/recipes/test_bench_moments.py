"""`vfm bench` of tasks of moments: as `vfm evaluate` asks them, beside tasks of recordings, and nothing read twice."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from objective_factory import SMALL
from procedure_factory import make_procedures

from domains.base import ClipSettings, Domain, load_domain
from domains.errors import ConfigError, StorageError
from domains.store.manifest import frame_file
from domains.store.prepared import Prepared
from domains.store.splits import choose_patients
from recipes.bench import bench as module
from recipes.bench import kept
from recipes.bench.bench import bench
from recipes.bench.kept import Kept
from recipes.bench.outcome import Outcome
from recipes.bench.page import table_of
from recipes.bench.plan import Plan
from recipes.bench.tasks import MomentTask, read_tasks, wanted_of
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.evaluate.pixels import pixel_features
from recipes.evaluate.questions import Asking, Unit
from recipes.jobs.instants import Asked, evaluate_moments
from recipes.training.reporter import SilentReporter

CLIP = ClipSettings(frames=4, size=32, rate=2)  # 2 s
RECIPES = {"contrast": "simclr", "pixels-only": "videomae"}


def domain() -> Domain:
    """Echo's, whose tasks the folder's own come before."""
    echo = load_domain("echo")
    return echo.model_copy(update={"clip": CLIP})


@pytest.fixture(scope="module", autouse=True)
def few_strengths() -> Iterator[None]:
    """See test_bench.py."""
    with pytest.MonkeyPatch.context() as patch:
        for place in ("linear", "instants"):
            patch.setattr(f"recipes.evaluate.{place}.INVERSE_STRENGTHS", np.array([0.01, 1.0]))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Prepared]:
    """Six procedures with an official split: two of them are its test part."""
    root = tmp_path_factory.mktemp("bench")
    prepared = make_procedures(root / "prepared", videos=6)
    info = json.loads((prepared.folder / "prepared.json").read_text())
    info["layout"]["splits"] = {"official": "as published"}
    (prepared.folder / "prepared.json").write_text(json.dumps(info))
    parts = ["train"] * 3 + ["val"] + ["test"] * 2
    lines = [f"{prepared.video_id(row)},{part}" for row, part in enumerate(parts)]
    (prepared.folder / "splits.csv").write_text("\n".join(["video_id,official", *lines]) + "\n")
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "patch_size": 16,
    }
    fresh_videomae(Geometry(frames=4, size=32, rate=2), seed=0, tubelet_size=2, **small).save(root / "encoder")
    for name, method in RECIPES.items():
        about = {"method": method, "objective": SMALL[method], "train": {"batch_size": 4}}
        (root / f"{name}.yaml").write_text(json.dumps(about))
    return root, Prepared.open(prepared.folder)


def plan_of(made: tuple[Path, Prepared], **changes: object) -> Plan:
    root, prepared = made
    values: dict[str, Any] = {
        "domain": "echo", "data": str(prepared.folder), "fingerprint": prepared.fingerprint(), "encoder": str(root / "encoder"),
        "recipes": [str(root / f"{name}.yaml") for name in RECIPES], "seeds": 1, "budget": 0.1, "device": "CPU", "tasks": ["phase", "tool"],
        "labels": None, "protocols": ["linear", "knn"], "fractions": [1.0], "folds": 3, "split": "", "clips": 1, "every": 3.0,
        "settings": ["data.workers=0", "train.precision=fp32"],
    }  # fmt: skip
    return Plan(**{**values, **changes})


@pytest.fixture(scope="module")
def done(made: tuple[Path, Prepared], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    out = tmp_path_factory.mktemp("out") / "bench"
    return out, bench(plan_of(made), out, domain(), reporter=SilentReporter())


def test_phases_and_tools_are_asked_of_every_recipe(done: tuple[Path, Outcome]) -> None:
    out, outcome = done
    assert not outcome.failed()
    assert list(outcome.rows)[:3] == ["pixels", "random", "generic"]
    assert {Path(name).stem for name in outcome.recipes} == set(RECIPES)
    asked = [
        (question.title, metric.name) for question, metric in zip(outcome.questions, outcome.headline, strict=True)
    ]
    assert asked == [("phase, linear", "top1"), ("phase, knn", "top1"), ("tool, linear", "map"), ("tool, knn", "map")]
    assert outcome.units[0] == (18, "moments")  # three phases of six procedures
    assert table_of(outcome, 0)[0] == "phase, linear: 18 moments, 6 procedures"
    assert any(
        note == "tool: clips of 4 frames at 2 a second, 3 s apart; what is there in the clip's middle"
        for note in outcome.notes
    )
    written = json.loads((out / "results.json").read_text())
    assert (written["questions"][0]["moments"], written["questions"][0]["patients"]) == (18, 6)
    head = next(csv.reader((out / "results.csv").read_text().splitlines()))
    assert head[3] == "phase, linear: top-1 (%)"


@pytest.mark.parametrize("protocol", ["linear", "knn"])
@pytest.mark.parametrize("task", ["phase", "tool"])
def test_the_unadapted_encoder_and_pixels_have_the_figures_of_vfm_evaluate(
    made: tuple[Path, Prepared], done: tuple[Path, Outcome], task: str, protocol: str
) -> None:
    root, prepared = made
    asking = Asking(every=3.0 if task == "tool" else None)
    alone = evaluate_moments(protocol, root / "encoder", prepared, None, task, asking, folds=3, baselines=("pixels",))
    _, outcome = done
    number = [question.title for question in outcome.questions].index(f"{task}, {protocol}")
    for name in ("pixels", "generic"):
        here, there = outcome.answers[name, number].figure, alone.line(name).figures[alone.headline.name]
        assert (here.value, here.low, here.high) == pytest.approx((there.value, there.low, there.high))


def test_killed_with_a_task_added_it_reads_what_is_not_there(
    made: tuple[Path, Prepared], done: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, whole = done
    out = tmp_path / "bench"
    shutil.copytree(first, out)
    shutil.rmtree(out / "features")
    monkeypatch.setattr(module, "make_trial", lambda *_, **__: pytest.fail("made again"))
    read: list[list[tuple[int, float]]] = []
    real, fails_at = kept.read_units, 0

    def counted(prepared: Prepared, units: Sequence[Unit], *rest: Any) -> Any:
        if fails_at and len(read) + 1 == fails_at:
            raise StorageError("the disk is gone")
        read.append([(unit.row, float(unit.starts[0])) for unit in units])
        return real(prepared, units, *rest)

    monkeypatch.setattr(kept, "read_units", counted)
    bench(plan_of(made, tasks=["phase"], every=None), out, domain(), reporter=SilentReporter())
    assert [len(places) for places in read] == [18] * 3  # baselines together, and each recipe
    of_phases = set(read[0])
    read.clear()
    fails_at = 3
    with pytest.raises(StorageError, match="the disk is gone"):
        bench(plan_of(made), out, domain(), reporter=SilentReporter())
    assert len(read) == 2  # the last recipe's are not there
    fails_at = 0
    again = bench(plan_of(made), out, domain(), reporter=SilentReporter())
    assert len(read) == 3
    assert read[0] == read[1] == read[2]
    assert not of_phases & set(read[0])
    assert again.to_dict() == whole.to_dict()
    bench(plan_of(made), out, domain(), reporter=SilentReporter())
    bench(plan_of(made, every=6.0), out, domain(), reporter=SilentReporter())  # every other clip
    assert len(read) == 3


def test_what_cannot_be_read_is_asked_of_nobody_and_not_tried_again(
    tmp_path: Path, made: tuple[Path, Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = make_procedures(tmp_path / "prepared", videos=3)
    damaged = frame_file(prepared.folder, prepared.video_id(0))
    damaged.write_bytes(bytes(damaged.stat().st_size))
    task = read_tasks(prepared, plan_of(made, tasks=["tool"]), CLIP, None)["tool"]
    wanted = wanted_of([task], 1, CLIP)

    def look() -> Kept:
        opened = nullcontext(({"pixels": pixel_features}, CLIP))
        return kept.keep(tmp_path, ["pixels"], lambda: opened, prepared, wanted)["pixels"]

    first = look()
    assert {row for row, _ in wanted.moments} == {0, 1, 2}
    asked, (features,) = task.asked_of([first])
    assert isinstance(asked, Asked)
    assert {unit.row for unit in asked.units} == {1, 2}
    assert features.shape == (len(asked.every), 512)
    monkeypatch.setattr(kept, "read_units", lambda *_: pytest.fail("read again"))
    assert task.asked_of([look()])[1][0].tolist() == features.tolist()


def test_tasks_of_recordings_stand_beside_them_and_a_share_of_the_labels_is_of_patients(
    made: tuple[Path, Prepared], done: tuple[Path, Outcome], tmp_path: Path
) -> None:
    _, prepared = made
    first, _ = done
    out = tmp_path / "bench"
    shutil.copytree(first, out)
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["video_id,ef", *(f"{prepared.video_id(row)},{40 + 5 * row}" for row in range(6))]))
    plan = plan_of(made, tasks=["ef", "tool"], labels=str(labels), fractions=[0.5, 1.0], protocols=["knn"])
    outcome = bench(plan, out, domain(), reporter=SilentReporter())
    assert [question.title for question in outcome.questions] == [
        "ef, knn", "ef, knn, 50% of the labels", "tool, knn", "tool, knn, 50% of the labels",
    ]  # fmt: skip
    assert [counted for _, counted in outcome.units] == ["videos", "videos", "moments", "moments"]
    assert outcome.answers["generic", 3].whole is not None
    assert outcome.answers["generic", 3].figure.value != outcome.answers["generic", 2].figure.value


def test_labels_of_patients_that_were_not_chosen_change_nothing(made: tuple[Path, Prepared]) -> None:
    _, prepared = made
    plan = plan_of(made, tasks=["tool"], split="official")
    task = read_tasks(prepared, plan, CLIP, None)["tool"]
    assert isinstance(task, MomentTask)
    asked = task.asked
    assert {unit.row for unit in asked.units} == {4, 5}  # the test part
    taught = [who for who, tested in zip(asked.patients, asked.tested, strict=True) if not tested]
    chosen = choose_patients(taught, 0.5, 1)
    assert len(chosen) == 2
    features = np.random.default_rng(0).normal(size=(len(asked.every), 5))
    said = asked.predict("knn", features, fraction=0.5, seed=1)[asked.tested]
    left_out = np.array([who not in chosen for who in asked.patients]) & ~asked.tested
    other = np.where(left_out[:, None], 100.0, features)
    assert asked.predict("knn", other, fraction=0.5, seed=1)[asked.tested] == pytest.approx(said)
    assert asked.predict("knn", other)[asked.tested] != pytest.approx(said)


def test_an_encoder_of_other_clips_sees_the_same_middles() -> None:
    made, fps = ClipSettings(frames=5, size=16, rate=5), 10.0  # every second frame: 0 2 4 6 8 after the start
    assert kept.shift(fps, made, made) == 0
    assert kept.shift(fps, made, ClipSettings(frames=3, size=16, rate=5)) == 2  # 2 4 6
    assert kept.shift(fps, made, ClipSettings(frames=4, size=16, rate=2.5)) == -2  # -2 2 6 10


def test_what_cannot_be_asked_is_said_before_anything_is_trained(made: tuple[Path, Prepared], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--every is of tasks of what is there"):
        bench(plan_of(made, tasks=["phase"]), tmp_path / "out", domain(), reporter=SilentReporter())
    assert not (tmp_path / "out").exists()
