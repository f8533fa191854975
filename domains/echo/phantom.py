"""The echo phantom: studies of hearts that never were, as the DICOM files, labels, masks and reports that a hospital would have.

Same seed, same bytes, whatever the number of workers. No patient, no licence, no network.
"""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.echo import dicom_out
from domains.echo.heart import END_SYSTOLE, VIEWS, Patient, Scene, draw_patient
from domains.echo.imaging import Picture, Probe, Screen
from domains.echo.overlay import Labels, draw_ecg, stamp
from domains.errors import StorageError

REPORTS, CAPTIONS = ("study_id", "text"), ("file", "text")
SPOKEN = {
    "A4C": ("apical four chamber view", "four chamber view from the apex", "apical window, all four chambers"),
    "A2C": ("apical two chamber view", "two chamber view from the apex", "apical window, left atrium and ventricle"),
    "PLAX": ("parasternal long axis view", "long axis view, parasternal", "parasternal window, long axis"),
    "PSAX": ("parasternal short axis view", "short axis view, parasternal", "parasternal window, short axis"),
}
COLUMNS = ("file", "patient_id", "study_id", "view", "ef", "esv", "edv", "heart_rate")
SCREENS = ((300, 400), (272, 368), (320, 432))  # (height, width) in pixels, by vendor
FAMILY = (
    "Adler",
    "Brandt",
    "Castell",
    "Duarte",
    "Ekholm",
    "Farrow",
    "Grieg",
    "Haldane",
    "Ibsen",
    "Jansen",
    "Kovac",
    "Lindqvist",
)
GIVEN = ("Ada", "Bruno", "Clara", "Dario", "Edda", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Karin", "Louis")
HOSPITALS = ("St Anselm Hospital", "Harbour Clinic", "University Heart Centre")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PhantomResult:
    """What was written: patients, files (all kinds), cines with labels."""

    patients: int
    files: int
    labelled: int


@dataclass(frozen=True)
class Study:
    """What was written of one patient: number of files, and rows of labels.csv, reports.csv and captions.csv."""

    files: int
    rows: list[dict[str, Any]]
    report: dict[str, str]
    captions: list[dict[str, str]]


@dataclass(frozen=True)
class Cine:
    """A rendered recording: frames (T, H, W) uint8 without any overlay, frames a second, phase of each frame, the screen, and the left
    ventricle's masks (H, W) at the first end-diastole and end-systole."""

    frames: Picture
    fps: float
    phases: NDArray[np.float64]
    screen: Screen
    diastole: NDArray[np.bool_]
    systole: NDArray[np.bool_]


def render_cine(view: str, patient: Patient, rng: np.random.Generator, beats: float | None = None) -> Cine:
    """One B-mode cine of two to three beats; the number of frames says nothing of the ejection fraction."""
    height, width = SCREENS[patient.vendor]
    top = int(rng.integers(8, 16))
    screen = Screen(height, width, top, (height - top - 34) / patient.depth, patient.depth, patient.half_angle)
    probe = Probe(Scene(patient, view, rng), screen, rng)
    seconds = (beats or float(rng.uniform(2.0, 2.6))) * 60 / patient.heart_rate
    count = int(np.clip(round(seconds * patient.fps), 24, 90))
    phases = rng.random() + np.arange(count) * patient.heart_rate / 60 / patient.fps
    frames = np.stack([probe.render(float(np.mod(phase, 1.0))) for phase in phases])
    return Cine(frames, patient.fps, phases, screen, probe.cavity(0.0), probe.cavity(END_SYSTOLE))


def synthesise(
    out: str | Path, patients: int, seed: int = 0, *, workers: int = 1, progress: Progress | None = None
) -> PhantomResult:
    """Write `patients` studies below `out`: `<patient>/<study>/IM_0001.dcm` ..., labels.csv, masks/, reports/, and words to learn from: reports.csv
    (a study and its report) and captions.csv (a cine and what the examiner noted beside it).

    Each study has the four views (some twice), one still, for a third of the patients a colour Doppler loop, for some an M-mode still, and
    every eighth a truncated file and a text file that calls itself DICOM. progress(done, total) counts patients. Raises StorageError.
    """
    out = Path(out)
    tasks = [(str(out), seed, number) for number in range(patients)]
    done: list[Study] = []
    try:
        for folder in ("masks", "reports"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        if workers > 1:
            with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
                for study in pool.map(_write_study, tasks):
                    done.append(study)
                    if progress is not None:
                        progress(len(done), patients)
        else:
            for task in tasks:
                done.append(_write_study(task))
                if progress is not None:
                    progress(len(done), patients)
        _write_table(out / "labels.csv", COLUMNS, [row for study in done for row in study.rows])
        _write_table(out / "reports.csv", REPORTS, [study.report for study in done])
        _write_table(out / "captions.csv", CAPTIONS, [caption for study in done for caption in study.captions])
    except OSError as error:
        raise StorageError(f"the phantom cannot be written ({error.strerror})", where=out) from None
    return PhantomResult(patients, sum(study.files for study in done), sum(len(study.rows) for study in done))


def _write_table(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def make_study(seed: int, number: int, patient: Patient, rng: np.random.Generator) -> tuple[dicom_out.Study, Labels]:
    """Made-up identity of one patient: header values, and the texts that are burned into the pixels."""
    family, given = str(rng.choice(FAMILY)), str(rng.choice(GIVEN))
    identifier = f"MRN{int(rng.integers(10_000_000, 99_999_999))}"
    date = f"20{int(rng.integers(12, 24)):02d}{int(rng.integers(1, 13)):02d}{int(rng.integers(1, 29)):02d}"
    birth = f"{int(date[:4]) - patient.age:04d}{int(rng.integers(1, 13)):02d}{int(rng.integers(1, 29)):02d}"
    place = str(rng.choice(HOSPITALS))
    study = dicom_out.Study(
        patient_id=identifier, name=f"{family}^{given}", birth=birth, sex="F" if patient.female else "M", age=f"{patient.age:03d}Y",
        date=date, study_uid=dicom_out.uid("vfm phantom", seed, number), study_id=f"S{seed:03d}{number:05d}", institution=place,
        physician=f"Dr^{rng.choice(FAMILY)}", vendor=patient.vendor, heart_rate=round(patient.heart_rate),
    )  # fmt: skip
    return study, Labels(f"{family.upper()}, {given}", identifier, f"{date[6:]}.{date[4:6]}.{date[:4]}", place)


def _write_study(task: tuple[str, int, int]) -> Study:
    """All files of one patient."""
    cv2.setNumThreads(1)
    out, seed, number = Path(task[0]), task[1], task[2]
    rng = np.random.default_rng([seed, number])
    patient = draw_patient(rng)
    study, labels = make_study(seed, number, patient, rng)
    folder = out / f"P{number:04d}_{study.name.split('^')[0]}" / study.study_id
    folder.mkdir(parents=True, exist_ok=True)
    views = [*VIEWS, *(str(view) for view in rng.choice(VIEWS, size=int(rng.integers(0, 2)), replace=False))]
    rows: list[dict[str, Any]] = []
    tagged = bool(rng.random() < 0.85)  # older machines send no regions sequence
    instance = 0
    cine = None
    for view in views:
        instance += 1
        cine = render_cine(view, patient, rng)
        path = folder / f"IM_{instance:04d}.dcm"
        regions = [dicom_out.region(cine.screen, 1, 1)] if tagged else []
        dicom_out.write(
            path,
            decorate(cine, labels, view, patient.vendor),
            study,
            instance,
            fps=cine.fps,
            regions=regions,
            grey=bool(rng.random() < 0.2),
        )
        name = f"{study.study_id}_{instance:04d}"
        for when, mask in (("ED", cine.diastole), ("ES", cine.systole)):
            cv2.imwrite(str(out / "masks" / f"{name}_{when}.png"), mask.astype(np.uint8) * 255)
        rows.append(
            {
                "file": path.relative_to(out).as_posix(), "patient_id": study.patient_id, "study_id": study.study_uid, "view": view,
                "ef": f"{patient.ef:.2f}", "esv": f"{patient.esv:.2f}", "edv": f"{patient.edv:.2f}", "heart_rate": f"{patient.heart_rate:.1f}",
            }
        )  # fmt: skip
    assert cine is not None
    instance = _write_extras(folder, study, labels, patient, rng, instance, number)
    (out / "reports" / f"{study.study_id}.txt").write_text(report(patient, study.study_id), encoding="utf-8")
    words = np.random.default_rng([seed, number, len(SPOKEN)])  # its own: words change no picture
    captions = [{"file": row["file"], "text": caption(row["view"], patient, words)} for row in rows]
    told = "\n".join(report(patient, study.study_id).splitlines()[1:])  # without the line that names the study
    return Study(instance, rows, {"study_id": study.study_uid, "text": told}, captions)


def decorate(cine: Cine, labels: Labels, view: str, vendor: int) -> list[Picture]:
    """RGB frames with names, scale and ECG around the fan."""
    height, width = cine.frames.shape[1:]
    still = np.zeros((height, width, 3), np.uint8)
    stamp(still, cine.screen, labels, view, vendor, cine.fps)
    fan = cine.screen.sector()
    still[fan] = 0
    frames = []
    for number, frame in enumerate(cine.frames):
        picture = still.copy()
        picture[fan] = frame[fan][:, None]
        draw_ecg(picture, cine.screen, cine.phases, number)
        frames.append(picture)
    return frames


def _write_extras(
    folder: Path,
    study: dicom_out.Study,
    labels: Labels,
    patient: Patient,
    rng: np.random.Generator,
    instance: int,
    number: int,
) -> int:
    """What else lies in a study: a still, colour Doppler, M-mode, damaged files. Returns the last instance number."""
    cine = render_cine("A4C", patient, rng, beats=1.0)
    frames = decorate(cine, labels, "A4C", patient.vendor)
    tissue = dicom_out.region(cine.screen, 1, 1)
    instance += 1
    dicom_out.write(folder / f"IM_{instance:04d}.dcm", frames[:1], study, instance, fps=cine.fps, regions=[tissue])
    if rng.random() < 0.33:
        instance += 1
        flow = [colour_box(frame, cine, phase) for frame, phase in zip(frames, cine.phases, strict=True)]
        regions = [tissue, dicom_out.region(cine.screen, 1, 2)]
        dicom_out.write(
            folder / f"IM_{instance:04d}.dcm", flow, study, instance, fps=cine.fps, regions=regions, colour_flow=True
        )
    if rng.random() < 0.25:
        instance += 1
        line = np.stack([frame[:, frame.shape[1] // 2 : frame.shape[1] // 2 + 4] for frame in frames], axis=1).reshape(
            frames[0].shape[0], -1, 3
        )
        sweep = cv2.resize(line, frames[0].shape[1::-1], interpolation=cv2.INTER_LINEAR)
        dicom_out.write(
            folder / f"IM_{instance:04d}.dcm",
            [sweep],
            study,
            instance,
            fps=cine.fps,
            regions=[dicom_out.region(cine.screen, 2, 1)],
        )
    if number % 8 == 3:
        instance += 1
        whole = (folder / "IM_0001.dcm").read_bytes()
        (folder / f"IM_{instance:04d}.dcm").write_bytes(whole[: 600 + len(whole) // 400])
        instance += 1
        (folder / f"IM_{instance:04d}.dcm").write_text("This is no DICOM file.\n", encoding="utf-8")
    return instance


def colour_box(picture: Picture, cine: Cine, phase: float) -> Picture:
    """Colour flow through the mitral valve: red towards the probe in diastole, blue jets away from it in systole."""
    x, y = cine.screen.grid()
    phase = float(np.mod(phase, 1.0))
    towards = phase > 0.38
    speed = (
        np.exp(-(((x - 0.3) / 1.1) ** 2)) * np.exp(-(((y - 9.0) / 2.6) ** 2)) * (0.5 + 0.5 * np.sin(6 * y + 25 * phase))
    )
    shown = (speed > 0.18) & cine.screen.sector()
    out = picture.copy()
    strength = np.clip(90 + 165 * speed[shown], 0, 255)
    weak = np.clip(120 * speed[shown], 0, 255)
    none = np.zeros_like(strength)
    out[shown] = np.stack([strength, weak, none] if towards else [none, weak, strength], axis=-1).astype(np.uint8)
    x0, x1 = (round(cine.screen.apex[0] + side * cine.screen.scale) for side in (-2.4, 3.0))
    y0, y1 = (round(cine.screen.apex[1] + depth * cine.screen.scale) for depth in (5.0, 13.0))
    cv2.polylines(out, [np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.int32)], True, (230, 230, 230), 1)
    return out


def function_of(patient: Patient) -> str:
    """How well the left ventricle ejects, in a reader's words."""
    return (
        "normal left ventricular systolic function" if patient.ef >= 53
        else "mildly reduced left ventricular systolic function" if patient.ef >= 41
        else "moderately reduced left ventricular systolic function" if patient.ef >= 30
        else "severely reduced left ventricular systolic function"
    )  # fmt: skip


def caption(view: str, patient: Patient, rng: np.random.Generator) -> str:
    """What the examiner noted beside one cine: the view, and now and then what is seen in it."""
    said = str(rng.choice(SPOKEN[view]))
    if rng.random() < 0.5:
        said += f", {function_of(patient)}"
    if rng.random() < 0.3:
        said += ", dilated left ventricle" if patient.edv > 160 else ", left ventricle of normal size"
    return f"{said[0].upper()}{said[1:]}."


def report(patient: Patient, study_id: str) -> str:
    """A short report in the words of a reader; nothing in it names the patient."""
    words = function_of(patient)
    dilated = "The left ventricle is dilated. " if patient.edv > 160 else "The left ventricle is of normal size. "
    thick = "The walls are thickened." if patient.wall > 1.15 else "Wall thickness is normal."
    return (
        f"Study {study_id}\nViews: apical four chamber, apical two chamber, parasternal long axis, parasternal short axis.\n"
        f"Findings: {dilated}{thick} Heart rate {patient.heart_rate:.0f} per minute.\n"
        f"Conclusion: {words[0].upper()}{words[1:]}, ejection fraction {patient.ef:.0f} %.\n"
    )
