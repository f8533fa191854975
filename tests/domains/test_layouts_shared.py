"""Layouts against the real annotations of Cholec80, CholecT50, AutoLaparo, MultiBypass140 and EPIC-KITCHENS-100 in ../shared/data."""

from __future__ import annotations

import csv
import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from layout_factory import TRIPLET_WIDTHS, table, touch, write

from domains.base import ClipSettings, load_domain
from domains.layouts import Layout, open_layout
from domains.layouts.cholec import PHASES
from domains.layouts.tables import seconds
from domains.prepare.ingest import prepare
from domains.store.annotated import task_of
from domains.store.clips import clips_from
from domains.store.moments import read_moments
from domains.store.prepared import Prepared
from domains.surgical.operations.cholecystectomy import ENDINGS, SECONDS
from recipes.evaluate.questions import Asking, units_of

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
    # Published: 97 verbs and 300 nouns; of the validation part 78 and 211 occur, in 1352 actions.
    found = {label: {span.value for span in layout.spans(label)} for label in ("verb", "noun", "action")}
    assert {label: len(values) for label, values in found.items()} == {"verb": 78, "noun": 211, "action": 1352}
    assert layout.notes() == [
        note for note in layout.notes() if note.what.startswith(("no EPIC_100", "participants on more"))
    ]


PHASE_NUMBERS = dict(zip("1234567", PHASES, strict=True))  # of PeskaVLP's tables


def real_phases(number: int) -> list[str]:
    """The phase of every second of a video of Cholec80."""
    lines = (REAL / "cholec80_csvs" / f"video{number:02d}.csv").read_text().splitlines()[1:]
    return [PHASE_NUMBERS[line.rsplit(",", 1)[1]] for line in lines]


def test_cholec80(tmp_path: Path) -> None:
    """Two real videos, every frame of every second written down as the data set does; one cleans before it packs."""
    for number in (41, 80):
        rows = (
            f"{25 * second + frame}\t{name}" for second, name in enumerate(real_phases(number)) for frame in range(25)
        )
        write(tmp_path, {f"phase_annotations/video{number}-phase.txt": table("Frame\tPhase", *rows)})
        touch(tmp_path, f"videos/video{number}.mp4")
    spans = [span for span in open_layout(tmp_path).spans("phase") if span.recording == "videos/video41.mp4"]
    lengths = [(span.value, span.end - span.start) for span in spans]
    assert lengths == [
        ("Preparation", 319), ("CalotTriangleDissection", 1247), ("ClippingCutting", 172), ("GallbladderDissection", 918),
        ("CleaningCoagulation", 137), ("GallbladderPackaging", 181), ("GallbladderRetraction", 129),
    ]  # fmt: skip


def test_the_phantoms_phases_last_as_long_as_real_ones() -> None:
    """Its medians lie between the shortest and the longest of five real operations, which come in orders that it knows."""
    found: dict[str, list[int]] = {}
    for number in (1, 2, 3, 41, 80):
        seconds = real_phases(number)
        for name in PHASES:
            found.setdefault(name, []).append(seconds.count(name))
        order = [name for name, before in zip(seconds, ["", *seconds], strict=False) if name != before]
        assert order[:4] == list(PHASES[:4])
        assert tuple(order[4:]) in {ending for _, ending in ENDINGS}
    assert all(min(found[name]) <= SECONDS[name] <= max(found[name]) for name in PHASES)


def test_multibypass_as_annotations_of_ones_own(tmp_path: Path) -> None:
    """Three real bypass operations with views of the room, in milliseconds, turned into the tables of `annotated`."""
    lines, out, steps = [], 0.0, 0
    for path in sorted((REAL / "multibypass140").glob("*.json")):
        told = json.loads(path.read_text())
        name = f"videos/{path.stem}"
        for one in told["phases"]:
            start, end, value = one["start"] / 1000, one["end"] / 1000, one["label_name"]
            label = value if value in ("out_of_body", "severe_index") else "phase"
            out += (end - start) * (label == "out_of_body")
            lines.append(f"{name},{start},{end},{label},{value}")
        steps += len(told["steps"])
        lines += [f"{name},{one['start'] / 1000},{one['end'] / 1000},step,{one['label_name']}" for one in told["steps"]]
        touch(tmp_path, name)
    write(tmp_path, {
        "dataset.yaml": "title: Bypass\ndomain: surgical\n", "spans.csv": table("recording,start,end,label,value", *lines),
        "recordings.csv": table("recording", *(f"videos/BBP0{n}.mp4" for n in (1, 2, 3))),
    })  # fmt: skip
    layout = open_layout(tmp_path)
    assert layout.notes() == []
    assert set(layout.span_labels) == {"phase", "out_of_body", "severe_index", "step"}
    assert out > 60
    assert sum(span.end - span.start for span in layout.spans("out_of_body")) == pytest.approx(out)
    assert len(list(layout.spans("step"))) == steps == 101
    first = next(layout.spans("phase"))
    assert (first.recording, first.start, first.end, first.value) == (
        "videos/BBP01.mp4",
        13.301,
        1371.912,
        "preparation",
    )


VIDEO = "P09_07"


def test_clips_of_epic_lie_where_its_timestamps_say(tmp_path: Path) -> None:
    """The real actions of a video of 29.97 frames a second whose table counts frames of another rate, on a stand-in that shows its second as grey."""
    rows = [row for row in csv.DictReader((EPIC / "EPIC_100_validation.csv").open()) if row["video_id"] == VIDEO]
    about = next(row for row in csv.DictReader((EPIC / "EPIC_100_video_info.csv").open()) if row["video_id"] == VIDEO)
    length, fps = float(about["duration"]), Fraction(about["fps"]).limit_denominator(1001)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "epic-kitchens-100-annotations").symlink_to(EPIC)
    path = tmp_path / "set" / f"{rows[0]['participant_id']}/videos/{VIDEO}.MP4"
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = 32
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "4", "preset": "ultrafast"}
        for number in range(int(length * fps)):
            grey = round(20 + 200 * float(number / fps) / length)
            for packet in stream.encode(
                av.VideoFrame.from_ndarray(np.full((32, 32, 3), grey, np.uint8), format="rgb24")
            ):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    layout = open_layout(tmp_path / "set")
    prepare(
        tmp_path / "set",
        tmp_path / "prepared",
        load_domain("egocentric").changed({"store": {"size": 32}}),
        key=bytes(32),
        layout=layout,
    )
    prepared = Prepared.open(tmp_path / "prepared")
    assert prepared.fps(0) == 10.0  # of 29.97 in the file
    labels, clip = (
        read_moments(prepared, task_of(prepared, "egocentric", "verb"), None, None),
        ClipSettings(frames=4, size=32, rate=4),
    )
    assert labels.task.opposites[0] == ("open", "close")
    units, _ = units_of(prepared, labels, clip, Asking(), {0: 0})
    assert len(units) == len(rows)
    told = sorted(
        (seconds(row["start_timestamp"], ""), seconds(row["stop_timestamp"], ""), int(row["verb_class"]))
        for row in rows
    )
    for unit, (start, stop, verb) in zip(units, told, strict=True):
        shown = (clips_from(prepared, 0, clip, unit.starts)[0].mean((1, 2, 3)) - 20) / 200 * length
        assert shown.mean() == pytest.approx(
            (start + stop) / 2, abs=0.7
        )  # of a grey level 0.2 s, of a frame 0.1 s, held at either end
        assert unit.truth == verb
