"""Text in the picture is found by what it is, whatever it says; speckle, ticks and walls of the heart are not text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from once_factory import once
from source_factory import cine, region_item, sector_mask, write_dicom

from domains.base import Domain, RegionSettings
from domains.echo.phantom import synthesise
from domains.media import open_reader
from domains.prepare import classify, region
from domains.prepare.ingest import prepare
from domains.prepare.letters import find_rows
from domains.store.frames import Frames

FONTS = {  # font, scale, thickness, colour
    "small": (cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1, (255, 255, 255)),
    "yellow": (cv2.FONT_HERSHEY_DUPLEX, 0.5, 1, (255, 255, 0)),
    "grey": (cv2.FONT_HERSHEY_COMPLEX, 0.6, 1, (170, 170, 170)),
    "thick": (cv2.FONT_HERSHEY_SIMPLEX, 0.8, 2, (255, 255, 255)),
    "serif": (cv2.FONT_HERSHEY_TRIPLEX, 0.7, 1, (230, 230, 230)),
    "green": (cv2.FONT_HERSHEY_PLAIN, 0.9, 1, (0, 255, 0)),
}


@pytest.fixture(scope="module")
def cines(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Frames, np.ndarray]]:
    """Frames and region of phantom cines."""
    folder = once(tmp_path_factory, "four patients", lambda folder: synthesise(folder, 4, seed=5))
    found = []
    for path in sorted(folder.rglob("*.dcm")):
        try:
            with open_reader(path) as reader:
                if len(reader) < 8:
                    continue
                sample = reader.frames(np.linspace(0, len(reader) - 1, 24).round().astype(int).tolist())
                mask = region.find(sample, classify.read_regions(reader.header), 0.03).mask
        except Exception:  # the damaged files of the phantom
            continue
        found.append((sample if sample.shape[-1] == 3 else np.repeat(sample, 3, axis=-1), mask))
    assert len(found) >= 12
    return found


def drawn(sample: Frames, mask: np.ndarray, words: str, style: str, depth: float) -> Frames:
    """`words` across the middle of the region, as a machine draws them: before compression, in every frame."""
    font, scale, thickness, colour = FONTS[style]
    ys, xs = np.nonzero(mask)
    (width, _), _ = cv2.getTextSize(words, font, scale, thickness)
    at = (int(xs.mean()) - width // 2, int(np.percentile(ys, 100 * depth)))
    frames = []
    for frame in sample:
        marked = cv2.putText(frame.copy(), words, at, font, scale, colour, thickness, cv2.LINE_AA)
        _, jpeg = cv2.imencode(".jpg", marked, [cv2.IMWRITE_JPEG_QUALITY, 85])
        frames.append(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
    return np.stack(frames)


@pytest.mark.parametrize("style", FONTS)
def test_names_are_found_in_moving_tissue(cines: list[tuple[Frames, np.ndarray]], style: str) -> None:
    found = [
        bool(find_rows(drawn(sample, mask, words, style, depth), mask))
        for (sample, mask), words in zip(cines, ["DOE JANE", "Koch 1931", "12345678", "Ospedale"] * 8, strict=False)
        for depth in (0.3, 0.6)
    ]
    assert np.mean(found) >= (0.65 if style == "small" else 0.85), f"{sum(found)} of {len(found)}"


def test_a_picture_without_text_has_none(cines: list[tuple[Frames, np.ndarray]]) -> None:
    wrong = [number for number, (sample, mask) in enumerate(cines) if find_rows(sample, mask)]
    assert len(wrong) <= len(cines) // 20


def test_what_the_machine_writes_beside_the_sector_is_found_there(cines: list[tuple[Frames, np.ndarray]]) -> None:
    assert all(find_rows(sample, ~mask) for sample, mask in cines)


def still(draw: Callable[[np.ndarray], object]) -> Frames:
    """Noise that moves, with something drawn over it that does not."""
    rng = np.random.default_rng(0)
    frames = rng.integers(20, 90, (16, 120, 160, 1), np.uint8)
    for frame in frames:
        canvas = np.ascontiguousarray(frame[..., 0])
        draw(canvas)
        frame[..., 0] = canvas
    return frames


def test_a_row_is_measured_and_stands_where_it_was_drawn() -> None:
    frames = still(lambda c: cv2.putText(c, "HENRY", (30, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1))
    (row,) = find_rows(frames, np.ones((120, 160), bool))
    assert row.shapes == 5
    assert 28 <= row.box[0] <= 33
    assert 57 <= row.box[3] <= 63
    outside = np.ones((120, 160), bool)
    outside[40:70] = False
    assert find_rows(frames, outside) == []


def test_dark_letters_on_a_bright_ground_are_found() -> None:
    def label(canvas: np.ndarray) -> None:
        canvas[40:70, 10:150] = 235
        cv2.putText(canvas, "ROSSI M", (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 0, 1)

    assert find_rows(still(label), np.ones((120, 160), bool))


@pytest.mark.parametrize(
    "draw",
    [
        lambda c: cv2.line(c, (10, 60), (150, 60), 255, 1),
        lambda c: [cv2.line(c, (150, y), (156, y), 255, 1) for y in range(10, 110, 12)],
        lambda c: cv2.ellipse(c, (80, 60), (40, 25), 0, 0, 360, 255, 2),
        lambda c: cv2.putText(c, "5", (80, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1),
        lambda c: cv2.fillPoly(c, [np.array([[5, 5], [15, 5], [10, 15]])], 255),
    ],
    ids=["line", "ruler", "outline", "one digit", "focus mark"],
)
def test_marks_are_not_text(draw: Callable[[np.ndarray], object]) -> None:
    assert find_rows(still(draw), np.ones((120, 160), bool)) == []


def test_a_recording_with_a_name_in_its_sector_is_set_aside(tmp_path: Path) -> None:
    frames = cine(16, overlay=False)
    ys, xs = np.nonzero(sector_mask())
    marked = frames.copy()
    for frame in marked:
        place = (int(xs.mean()) - 40, int(ys.mean()))
        cv2.putText(frame, "DOE JANE", place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1)
    write_dicom(tmp_path / "in/plain.dcm", frames, [region_item()], PatientID="A")
    write_dicom(tmp_path / "in/marked.dcm", marked, [region_item()], PatientID="B")
    domain = Domain(name="echo", title="Echo", region=RegionSettings(policy="ultrasound"))
    result = prepare(tmp_path / "in", tmp_path / "out", domain, key=b"k" * 32)
    assert [(one.source.name, one.category) for one in result.excluded] == [("marked.dcm", "burned-in text")]
    keep = Domain(name="echo", title="Echo", region=RegionSettings(policy="ultrasound", text="keep"))
    assert prepare(tmp_path / "in", tmp_path / "kept", keep, key=b"k" * 32).videos == 2
