"""Layouts against the real annotations of CholecT50, AutoLaparo and EPIC-KITCHENS-100 in ../shared/data."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from layout_factory import TRIPLET_WIDTHS, table, touch, write

from domains.layouts import Layout, open_layout

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = [pytest.mark.shared, pytest.mark.skipif(not DATA.is_dir(), reason=f"no sample files at {DATA}")]
REAL, EPIC = DATA / "surgical" / "annotations", DATA / "ego" / "epic100"


@pytest.fixture
def real_triplets(tmp_path: Path) -> Layout:
    """The real annotation of one video of CholecT50, in the layout of CholecT45."""
    for label in TRIPLET_WIDTHS:
        (tmp_path / label).mkdir()
        shutil.copy(REAL / f"cholect50_{label}" / "VID14.txt", tmp_path / label)
    return open_layout(touch(tmp_path, "data/VID14/000000.png"))


def test_triplets_are_made_of_the_components_that_are_on(real_triplets: Layout) -> None:
    """Names and numbers of the 100 triplets agree with the other three tables in every second."""

    def seconds(label: str) -> dict[int, set[str]]:
        on: dict[int, set[str]] = {}
        for span in real_triplets.spans(label):
            for second in range(int(span.start), int(span.end)):
                on.setdefault(second, set()).add(span.value)
        return on

    triplets = seconds("triplet")
    assert len(triplets) > 1000
    for index, label in enumerate(("instrument", "verb", "target")):
        made = {second: {value.split(",")[index] for value in values} for second, values in triplets.items()}
        assert made == seconds(label), label


def test_it_is_a_procedure_of_cholec80(real_triplets: Layout, tmp_path: Path) -> None:
    (recording,) = real_triplets.recordings()
    assert (recording.group, recording.splits["fold1"]) == ("cholec80/14", "test")
    assert max(span.end for span in real_triplets.spans("instrument")) <= 1709


def test_autolaparo(tmp_path: Path) -> None:
    """The real phases 1-7 of two videos; neither has the first phase."""
    for number in (1, 2):
        lines = (REAL / "autolaparo_csvs" / f"{number:02d}.csv").read_text().splitlines()[1:]
        rows = [line.split("_")[1].replace(".png,", "\t") for line in lines]
        write(tmp_path, {f"labels/label_{number:02d}.txt": table("Frame\tPhase", *rows)})
        touch(tmp_path, f"videos/{number:02d}.mp4")
    spans = [span for span in open_layout(tmp_path).spans("phase") if span.recording == "videos/01.mp4"]
    assert (spans[0].start, spans[0].value) == (0.0, "Dividing Ligament and Peritoneum")
    assert (spans[-1].end, spans[-1].value) == (6386.0, "Washing")
    assert sum(span.end - span.start for span in spans) == 6386
    assert sum(span.end - span.start for span in spans if span.value == "Washing") == 602


def test_the_real_tables_of_epic_kitchens(tmp_path: Path) -> None:
    (tmp_path / "epic-kitchens-100-annotations").symlink_to(EPIC)
    with (EPIC / "EPIC_100_validation.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    people = {row["video_id"]: row["participant_id"] for row in rows}
    touch(tmp_path, *(f"{person}/videos/{video}.MP4" for video, person in people.items()))
    layout = open_layout(tmp_path)
    assert layout.name == "epic-kitchens-100"
    tasks = layout.tasks()
    assert (len(tasks["verb"].classes), len(tasks["noun"].classes)) == (97, 300)
    assert len(list(layout.recordings())) == len(people) == 138
    assert {r.group for r in layout.split("unseen")["val"]} == {"epic-kitchens-100/P18", "epic-kitchens-100/P32"}
    spans, texts = list(layout.spans("verb")), list(layout.texts())
    assert len(spans) == len(texts) == len(rows) == 9668
    assert (spans[0].value, spans[0].start, spans[0].end, texts[0].text) == ("take", 0.0, 1.89, "take plate")
    slow = next(span for span in spans if span.moment == "P09_07_10")  # 29.97 fps, though its frames count 60 a second
    rate = next(r.fps for r in layout.recordings() if r.path == slow.recording)
    assert (slow.start, rate) == (32.59, pytest.approx(29.97, abs=1e-3))
    assert layout.missing() == []
