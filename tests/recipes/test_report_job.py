"""Evaluations that share features, and their page."""

from __future__ import annotations

import pytest
from store_factory import make_prepared

from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.jobs.report import evaluate_and_report

SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 16, "tubelet_size": 2}


@pytest.mark.parametrize(
    ("asked", "folders"),
    [([("knn", "view")], ["."]), ([("linear", "ef"), ("knn", "view")], ["linear-ef", "knn-view"])],
)
def test_predictions_lie_where_they_are_said_to_and_the_page_shows_every_task(tmp_path, asked, folders):
    prepared, labels = make_prepared(tmp_path / "prepared", videos=18, patients=6)
    fresh_videomae(Geometry(frames=4, size=32, rate=12.5), seed=0, hidden_size=16, **SMALL).save(tmp_path / "encoder")
    page = tmp_path / "report.html"
    found = evaluate_and_report(
        asked,
        tmp_path / "encoder",
        prepared.folder,
        labels,
        page,
        title="A page",
        folds=3,
        clips=1,
        out=tmp_path / "out",
    )
    assert [(one.protocol, one.task) for one in found] == asked
    for folder in folders:
        assert (tmp_path / "out" / folder / "predictions.csv").is_file()
    text = page.read_text(encoding="utf-8")
    assert text.count('class="verdict') == len(asked) + 1  # and the box around them
    assert "A page" in text
