"""The page: whole, self-contained, honest, and safe against what labels and reasons may contain."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from store_factory import make_prepared

from domains.base import TaskSettings
from domains.errors import StorageError
from domains.store.labels import read_labels
from domains.store.manifest import frame_file
from domains.store.splits import patient_folds
from recipes.evaluate.compare import Labelled, compare
from recipes.evaluate.evaluation import Evaluation
from recipes.evaluate.features import Failure, Features
from recipes.report import maps as maps_module
from recipes.report.contents import Contents
from recipes.report.page import write_report
from recipes.report.training import place_free
from recipes.runs.metrics import read_metrics, series_of

VIEW = TaskSettings(kind="classification", column="view")
EF = TaskSettings(kind="regression", column="ef", unit="%")
HOSTILE = "<script>alert('x')</script>"


class Reader(HTMLParser):
    """Tags, attributes and text; fails on tags that do not close in order."""

    VOID = frozenset({"meta", "img", "br", "circle", "line", "polyline", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    prepared, labels = make_prepared(root / "prepared", videos=24, patients=8)
    with (prepared.folder / "excluded.csv").open("w", newline="") as handle:
        rows = [
            ["source", "category", "reason"],
            *[[f"s{i}", "still", "1 frame"] for i in range(5)],
            ["x", "unreadable", HOSTILE],
        ]
        csv.writer(handle).writerows(rows)
    Image.new("L", (3000, 600), 40).save(prepared.folder / "contact_sheet.png")
    run = root / "run"
    run.mkdir()
    lines = [
        {"step": s, "loss": 2.0 / s, "rankme": 8.0 if s < 6 else 5.0, "lr": 1e-3, "seconds": 90.0 * s}
        for s in range(1, 11)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 11, "lo')
    (run / "config.resolved.yaml").write_text("data: {path: /home/jane.doe/studies/prepared}\ntrain: {seed: 7}\n")
    (run / "env.json").write_text(json.dumps({"packages": {"torch": "2.13.0"}}))
    return root, prepared, labels, run


def evaluations(prepared, labels, failures=()):
    rng = np.random.default_rng(0)
    found = read_labels(labels, EF, prepared, None)
    patients, ef = tuple(found.patients), found.values.astype(float)
    ids = tuple(prepared.video_id(i) for i in range(24))
    features = {
        "pixels": np.column_stack([ef, rng.normal(size=24)]),
        "generic": rng.normal(size=(24, 3)),
        "adapted": np.column_stack([ef + rng.normal(0, 6, 24), rng.normal(size=(24, 2))]),
    }
    titles = {"pixels": "pixel statistics", "generic": f"generic ({HOSTILE})", "adapted": "adapted (echo)"}
    fold = patient_folds(patients, 4, 0)
    regression = Labelled("regression", ef, (), patients, patients, fold)
    views = read_labels(labels, VIEW, prepared, None)
    classes = Labelled("classification", views.values.astype(float), views.classes, patients, patients, fold)
    made = []
    for task, unit, labelled, protocol in (("ef", "%", regression, "linear"), ("view", "", classes, "knn")):
        rows = compare(protocol, features, labelled, "generic", titles=titles, draws=100)
        made.append(
            Evaluation(
                protocol, task, unit, labelled, ids, tuple(rows), "generic", 4, 3, 0, 100, excluded=tuple(failures)
            )
        )
    return made, {name: Features(np.arange(24), values) for name, values in features.items()}, titles


@pytest.fixture(scope="module")
def whole(made):
    root, prepared, labels, run = made
    found, features, titles = evaluations(prepared, labels, [Failure("abcdefgh", "frame 3 is damaged")])
    contents = Contents(
        prepared=prepared,
        title="DISCOVR on echo",
        run=run,
        evaluations=found,
        features=features,
        titles=titles,
        labels={"view": read_labels(labels, VIEW, prepared, None), "ef": read_labels(labels, EF, prepared, None)},
        units={"ef": "%"},
        phantom=True,
        notes=["The run was short"],
    )
    return contents, read(write_report(root / "out/report.html", contents))


def test_the_page_needs_nothing_but_itself_and_runs_nothing(whole):
    _, page = whole
    assert "script" not in {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href"):
            if value := attributes.get(name):
                assert value.startswith(("data:image/", "#")), (tag, value[:60])
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    style = page.text[: page.text.index("DISCOVR on echo", 20)]
    assert "url(" not in style
    assert "@import" not in style


def test_every_part_is_there_and_every_link_leads_to_one(whole):
    _, page = whole
    sections = [a["id"] for tag, a in page.tags if tag == "section"]
    assert sections == ["data", "aside", "training", "comparison", "trust", "map", "neighbours", "settings"]
    assert [a["href"] for tag, a in page.tags if tag == "a"] == [f"#{name}" for name in sections]


def test_what_went_in_and_what_was_set_aside(whole):
    _, page = whole
    assert "24 videos of 8 patients in 8 studies" in page.text
    assert "24 of 24 videos: A2C " in page.text
    assert re.search(r"still\s*5\s*1 frame \(5\)", page.text)
    assert HOSTILE in page.text  # as text, in the table of reasons
    assert "unreadable at evaluation" in page.text
    assert "frame 3 is damaged (1)" in page.text
    sheet = next(a["src"] for tag, a in page.tags if a.get("class") == "sheet")
    assert Image.open(io.BytesIO(base64.b64decode(sheet.split(",")[1]))).size == (1600, 320)


def test_the_comparison_shows_the_figures_with_their_intervals(whole):
    contents, page = whole
    for evaluation in contents.evaluations:
        for row in evaluation.rows:
            for metric in evaluation.metrics:
                value, interval = evaluation.interval(row.figures[metric.name], metric).replace("-", "−").split(" ", 1)
                assert f"{value}{interval}" in page.text, (evaluation.task, row.name, metric.name)
    labels = " ".join(str(a["aria-label"]) for tag, a in page.tags if tag == "svg")
    assert "MAE (%), lower is better: pixel statistics" in labels
    assert "difference from generic, same patients: pixel statistics" in labels


def test_the_page_says_how_far_to_trust_it(whole):
    contents, page = whole
    assert contents.evaluations[0].beaten_by_pixels
    trust = page.text[page.text.index("How far to trust this", 3000) :]
    for said in (
        "a phantom, drawn by vfm",
        "With 8 patients a bootstrap interval is somewhat too narrow",
        "Pixel statistics predict better than the encoder",
        "1 labelled video could not be read",
        "The run was short.",
        "hold patients out of pretraining",
    ):
        assert said in trust, said
    assert "Pixel statistics alone reach" in page.text


def test_settings_are_there_without_the_folders_of_people(whole):
    _, page = whole
    assert "jane.doe" not in page.text
    assert "…/prepared" in page.text
    assert "train.seed" in page.text
    assert "2.13.0" in page.text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/jane/runs/echo", "…/echo"),
        ("~/runs/echo", "…/echo"),
        ("../x/y.csv", "…/y.csv"),
        (r"C:\Users\jane\echo", "…/echo"),
        ("MCG-NJU/videomae-base", "MCG-NJU/videomae-base"),
        ("[0.9, 0.95]", "[0.9, 0.95]"),
        ("phantom", "phantom"),
    ],
)
def test_paths_are_shortened_and_hub_names_are_not(value, shown):
    assert place_free(value) == shown


def test_series_leave_out_clocks_and_repeats_of_held_figures(made):
    series = series_of(read_metrics(made[3]), least=2)
    assert set(series) == {"loss", "rankme"}
    assert series["loss"] == [(s, 2.0 / s) for s in range(1, 11)]
    assert series["rankme"] == [(1, 8.0), (6, 5.0)]


def test_alarms_and_labels_that_were_looked_at_are_told(whole, tmp_path):
    contents, page = whole
    assert "Alarm at step" not in page.text
    run = tmp_path / "run"
    run.mkdir()
    (run / "alarms.jsonl").write_text(json.dumps({"step": 40, "text": f"rankme is 1, below 2 {HOSTILE}"}) + "\n")
    (run / "seen.json").write_text(json.dumps({"looked": [{"task": "ef", "patients": ["a"]}]}))
    told = read(write_report(tmp_path / "page.html", dataclasses.replace(contents, run=run)))
    assert "Alarm at step 40: rankme is 1, below 2" in told.text
    assert "Labels of ef of 1 patient were looked at while it trained." in told.text
    assert "script" not in {tag for tag, _ in told.tags}


def test_neighbours_are_of_other_patients_nearest_first(whole, monkeypatch):
    contents, _ = whole
    shown = []
    monkeypatch.setattr(maps_module, "_figure", lambda c, index, similarity: shown.append((index, similarity)) or "")
    maps_module.neighbours(contents)
    values = contents.features["adapted"].values
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    groups = [shown[start : start + 6] for start in range(0, len(shown), 6)]
    assert len(groups) == 4
    classes = contents.labels["view"].values
    for near in groups:
        *near, (query, none) = near  # neighbours are drawn before the line that holds the query
        assert none is None
        cosine = unit @ unit[query]
        others = [i for i in range(24) if contents.prepared.patients[i] != contents.prepared.patients[query]]
        expected = sorted(others, key=lambda i: -cosine[i])[:5]
        assert [index for index, _ in near] == expected
        assert [s for _, s in near] == pytest.approx([cosine[i] for i in expected])
    assert {int(classes[group[-1][0]]) for group in groups} == {0, 1, 2}


def test_clips_move_and_a_damaged_one_is_said_to_be(tmp_path):
    prepared, labels = make_prepared(tmp_path / "prepared", videos=6, patients=6)
    views = read_labels(labels, VIEW, prepared, None)
    features = {"adapted": Features(np.arange(6), np.random.default_rng(0).normal(size=(6, 4)))}
    contents = Contents(prepared, "page", features=features, labels={"view": views})
    frame_file(prepared.folder, prepared.video_id(2)).write_bytes(b"")
    page = read(write_report(tmp_path / "r.html", contents))
    clips = [a["src"] for tag, a in page.tags if tag == "img" and str(a["src"]).startswith("data:image/webp")]
    with Image.open(io.BytesIO(base64.b64decode(clips[0].split(",")[1]))) as picture:
        assert picture.n_frames == 20
        assert picture.size == (112, 112)
    assert "cannot be read: frame" in page.text


def test_the_least_page_has_only_what_there_is(tmp_path):
    prepared, _ = make_prepared(tmp_path / "prepared", videos=2, patients=2)
    page = read(write_report(tmp_path / "r.html", Contents(prepared, f"A {HOSTILE}")))
    assert [a["id"] for tag, a in page.tags if tag == "section"] == ["data", "aside", "settings"]
    assert "Nothing: every file found was used." in page.text
    assert "phantom data" not in page.text


def test_a_page_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path):
    prepared, _ = make_prepared(tmp_path / "prepared", videos=2, patients=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="the report cannot be written"):
        write_report(tmp_path / "file/r.html", Contents(prepared, "x"))
    (tmp_path / "r.html").mkdir()
    with pytest.raises(StorageError):
        write_report(tmp_path / "r.html", Contents(prepared, "x"))
    assert not list(tmp_path.glob("*.tmp"))
