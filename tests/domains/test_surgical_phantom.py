"""The surgical phantom: same seed, same bytes; labels that hold; a layout that prepare takes."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from domains.base import load_domain
from domains.errors import ConfigError
from domains.layouts import detect, open_layout
from domains.layouts.cholec import PHASES, TRIPLETS
from domains.layouts.cholec80 import TOOLS
from domains.media import open_reader
from domains.surgical.narration import abstract, narrate
from domains.surgical.operation import Operation
from domains.surgical.operations import OPERATIONS
from domains.surgical.operations import cholecystectomy as script
from domains.surgical.operations.cholecystectomy import CHOLECYSTECTOMY
from domains.surgical.phantom import FPS, about, kinds_of, make, spans_of, split, synthesise
from domains.surgical.procedure import Procedure, Stretch
from vfm_cli.commands.data import synth_surgical

PACE = 400.0  # a quarter of a minute an operation: no phase is shorter than two seconds


each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))


def drawn(seed: int, pace: float = 9.0, operation: Operation = CHOLECYSTECTOMY) -> Procedure:
    return operation.draw(np.random.default_rng(seed), pace)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "surgical"
    result = synthesise(folder, 2, seed=3, pace=PACE)
    assert result.procedures == 2
    return folder


def test_same_seed_same_bytes_whatever_the_workers(made: Path, tmp_path: Path) -> None:
    synthesise(tmp_path / "again", 2, seed=3, pace=PACE, workers=2)
    for path in sorted(made.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(made)).read_bytes(), path.name


def test_the_layout_is_found_and_its_times_fit_the_videos(made: Path) -> None:
    assert detect(made) == "annotated"
    layout = open_layout(made)
    assert layout.notes() == []
    assert layout.domain == "surgical"
    assert layout.tasks()["phase"].classes == PHASES
    for recording in layout.recordings():
        with open_reader(made / recording.path) as reader:
            seconds = len(reader) / FPS
            assert reader.fps == pytest.approx(FPS)
        phases = [span for span in layout.spans("phase") if span.recording == recording.path]
        assert phases[0].start == 0
        assert phases[-1].end == pytest.approx(seconds, abs=1 / FPS)
        assert all(one.end == two.start for one, two in pairwise(phases))
        assert all(
            0 <= text.start < text.end <= seconds + 3 for text in layout.texts() if text.recording == recording.path
        )


def test_phases_come_in_an_order_and_length_that_operations_have() -> None:
    procedures = [drawn(seed) for seed in range(200)]
    orders = [[one.value for one in each.phases] for each in procedures]
    for order in orders:
        assert order.index(script.CALOT) < order.index(script.CLIPPING) < order.index(script.DISSECTION)
        assert order.index(script.PACKAGING) < order.index(script.RETRACTION)
    assert 0.02 < np.mean([script.PREPARATION not in order for order in orders]) < 0.1
    assert 0.1 < np.mean([script.CLEANING not in order for order in orders]) < 0.2
    assert 0.05 < np.mean([order.count(script.CALOT) == 2 for order in orders]) < 0.2
    minutes = np.array([each.seconds for each in procedures]) * 9 / 60
    assert 30 < np.median(minutes) < 42
    calot = [each.progress(script.CALOT, 1e9) for each in procedures]
    assert calot == [1.0] * 200


@each_operation
def test_tools_are_where_they_belong(operation: Operation) -> None:
    classes = about([operation.name])["tasks"]
    assert tuple(classes["phase"]["classes"]) == operation.phases
    for seed in range(40):
        each = drawn(seed, operation=operation)
        assert {one.value for one in each.phases} <= set(operation.phases)
        for act in each.acts:
            assert act.tool in operation.tools[act.phase]
            assert each.outside_at((act.start + act.end) / 2) is None
            assert act.action in (*classes["triplet"]["classes"], "")
            assert (act.action == "") == (act.tool == "SpecimenBag")
            assert act.action in operation.spoken
    assert {tool for tools in operation.tools.values() for tool in tools} <= set(TOOLS)
    if operation is CHOLECYSTECTOMY:
        assert {tool for tools in operation.tools.values() for tool in tools} == set(TOOLS)
        assert tuple(classes["triplet"]["classes"]) == TRIPLETS


@each_operation
def test_every_phase_can_be_told_and_shown(operation: Operation) -> None:
    prompts = load_domain("surgical").prompts
    assert operation.name in prompts
    for phase in operation.phases:
        assert phase in prompts
        assert {phase} <= set(operation.steps) & set(operation.opening) & set(operation.gaze) & set(operation.tools)
    field = operation.field(np.random.default_rng(0))
    before = field.paint(field.state(lambda phase: 0.0, 0.0))
    seen = []
    for phase in operation.phases:  # one after the other, what is done stays
        done = set(operation.phases[: operation.phases.index(phase) + 1])
        state = field.state(lambda name, done=done: float(name in done), 0.0)
        seen.append(field.paint(state).astype(int))
        for act in (act for seed in range(5) for act in drawn(seed, operation=operation).acts if act.action):
            x, y = field.target(act, state)
            assert 0 <= x < before.shape[1]
            assert -60 <= y < before.shape[0]
    assert sum(np.abs(one - two).mean() > 0.3 for one, two in pairwise(seen)) >= 3


def test_several_operations_are_as_many_of_each_and_say_which(tmp_path: Path) -> None:
    parts = split(40, 3)
    kinds = kinds_of(parts, list(OPERATIONS), 3)
    for part in ("train", "val", "test"):
        counts = [
            sum(own == part and kind == name for own, kind in zip(parts, kinds, strict=True)) for name in OPERATIONS
        ]
        assert max(counts) - min(counts) <= 1
    assert kinds != kinds_of(parts, list(OPERATIONS), 4)
    synthesise(tmp_path / "mixed", 3, seed=3, operations=list(OPERATIONS), pace=PACE)
    layout = open_layout(tmp_path / "mixed")
    assert layout.tasks()["operation"].classes == tuple(OPERATIONS)
    spans = list(layout.spans("operation"))
    assert [one.start for one in spans] == [0, 0, 0]
    titles = {text.recording: text.text for text in layout.texts() if text.level == "abstract"}
    for one in spans:
        assert titles[one.recording].startswith(OPERATIONS[one.value].title)
    assert len(set(layout.tasks()["phase"].classes)) == sum(len(one.phases) for one in OPERATIONS.values())
    with pytest.raises(ConfigError, match=r"no operation 'apendectomy'.*'appendectomy'"):
        synthesise(tmp_path / "none", 3, operations=["apendectomy"])


def test_only_operations_that_end_with_cleaning_can_do_without_it() -> None:
    hernia = OPERATIONS["hernia_repair"]
    assert "irrigation" not in abstract(hernia, drawn(0, operation=hernia))  # it has no phase of cleaning


def test_the_command_names_every_operation() -> None:
    said = " ".join(option.help or "" for option in synth_surgical.params if option.name == "operations")
    assert all(name in said for name in OPERATIONS)


def test_an_operation_follows_from_its_seed_alone() -> None:
    frames = [next(iter(make(0, 1, PACE, operation)[1])) for operation in OPERATIONS.values() for _ in range(2)]
    assert all((frames[n] == frames[n + 1]).all() for n in (0, 2, 4))


def test_progress_counts_all_stretches_of_a_phase() -> None:
    phases = (Stretch(0, 10, script.CALOT), Stretch(10, 20, script.CLIPPING), Stretch(20, 50, script.CALOT))
    each = Procedure(phases, (), ())
    assert [each.progress(script.CALOT, time) for time in (5, 15, 35, 99)] == [0.125, 0.25, 0.625, 1.0]
    assert each.progress(script.CLEANING, 99) == 0
    assert each.phase_at(20).start == 20


def test_transcribers_disagree_in_words_and_times() -> None:
    said = [
        one
        for seed in range(8)
        for one in narrate(CHOLECYSTECTOMY, drawn(seed), np.random.default_rng(seed), silent=False)
    ]
    by_source = {source: [one for one in said if one.source == source] for source in ("asr_a", "asr_b", "surgeon")}
    assert {one.level for one in by_source["asr_a"]} == {"clip"}
    assert {one.level for one in by_source["surgeon"]} == {"keystep", "abstract"}
    assert not {one.text for one in by_source["asr_a"]} >= {one.text for one in by_source["asr_b"]}
    wrong = {
        source: sum("sistic" in one.text or "gold bladder" in one.text for one in by_source[source])
        for source in by_source
    }
    right = {
        source: sum("cystic" in one.text or "gallbladder" in one.text for one in by_source[source])
        for source in by_source
    }
    rate = {source: wrong[source] / (wrong[source] + right[source]) for source in by_source}
    assert rate["surgeon"] == 0 < rate["asr_a"] < rate["asr_b"]
    for seed in range(8):  # however late, a transcript ends with its recording
        heard = narrate(CHOLECYSTECTOMY, drawn(seed), np.random.default_rng(seed), silent=False)
        assert all(0 <= one.start < one.end <= drawn(seed).seconds + 0.01 for one in heard)
    assert narrate(CHOLECYSTECTOMY, drawn(0), np.random.default_rng(0), silent=True) == []


def test_an_abstract_says_what_happened() -> None:
    phases = tuple(
        Stretch(n * 20.0, n * 20.0 + 20, name)
        for n, name in enumerate((script.CALOT, script.CLIPPING, script.PACKAGING))
    )
    dry = Procedure(phases, (), ())
    assert "There is no bleeding. No irrigation is needed." in abstract(CHOLECYSTECTOMY, dry)
    cleaned = Procedure(
        phases,
        (),
        (Stretch(15, 17, "trocar"), Stretch(17, 22, "room"), Stretch(22, 24, "trocar")),
        ((3.0, 0.9), (9.0, 0.8)),
    )
    assert abstract(CHOLECYSTECTOMY, cleaned).endswith(
        "There is considerable bleeding. No irrigation is needed. The lens is cleaned during the operation."
    )


def test_parts_and_silence(tmp_path: Path) -> None:
    parts = split(20, 0)
    assert (parts.count("train"), parts.count("val"), parts.count("test")) == (12, 3, 5)
    assert parts != split(20, 1)
    synthesise(tmp_path / "few", 2, seed=1, pace=1000, silent=1)
    with (tmp_path / "few/texts.csv").open() as file:
        told = {row["recording"] for row in csv.DictReader(file)}
    assert len(told) == 1


def test_spans_tell_all_kinds() -> None:
    labels = {row[2] for seed in range(5) for row in spans_of(drawn(seed))}
    assert labels == {"phase", "tool", "triplet", "out_of_body"}
