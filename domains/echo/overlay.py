"""What machines draw around the picture: names, numbers and the ECG. All of it is identity or distraction, and must be gone after `prepare`."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from domains.echo.imaging import Picture, Screen

TEXT = (210, 200, 120)  # RGB of annotations


@dataclass(frozen=True)
class Labels:
    """Texts that are burned into the pixels."""

    name: str
    identifier: str
    date: str
    place: str


def stamp(picture: Picture, screen: Screen, labels: Labels, view: str, vendor: int, rate: float) -> None:
    """Draw the still overlay into an RGB frame (H, W, 3), in place; outside the fan only."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    lines = [labels.name, labels.identifier, labels.date]
    for number, line in enumerate(lines):
        cv2.putText(picture, line, (5, 14 + 13 * number), font, 0.36, TEXT, 1, cv2.LINE_AA)
    right = [labels.place, f"{screen.depth:.0f} cm", f"{rate:.0f} Hz", ("MI 1.2", "TIS 0.8", "P 100%")[vendor]]
    for number, line in enumerate(right):
        size = cv2.getTextSize(line, font, 0.34, 1)[0][0]
        cv2.putText(picture, line, (screen.width - size - 6, 14 + 13 * number), font, 0.34, TEXT, 1, cv2.LINE_AA)
    x, y = round(screen.apex[0]), round(screen.apex[1])
    if vendor == 1:
        cv2.circle(picture, (x - 14, y + 2), 3, (90, 160, 255), -1)
    else:
        cv2.putText(
            picture, ("V", "", "GE")[vendor] or "o", (x - 22, y + 6), font, 0.38, (90, 160, 255), 1, cv2.LINE_AA
        )
    for centimetre in range(int(screen.depth) + 1):  # depth scale at the right edge
        row = round(y + centimetre * screen.scale)
        cv2.line(picture, (screen.width - 8 - 4 * (centimetre % 5 == 0), row), (screen.width - 6, row), TEXT, 1)


def ecg(phase: np.ndarray) -> np.ndarray:
    """Millivolts at each phase of the beat; the R wave at end-diastole."""
    phase = np.mod(phase + 0.5, 1.0) - 0.5  # centred on the R wave
    waves = (
        (-0.14, 0.025, 0.15),
        (-0.025, 0.010, -0.12),
        (0.0, 0.011, 1.1),
        (0.028, 0.011, -0.22),
        (0.26, 0.045, 0.28),
    )
    return np.sum([height * np.exp(-(((phase - at) / width) ** 2)) for at, width, height in waves], axis=0)


def draw_ecg(picture: Picture, screen: Screen, phases: np.ndarray, frame: int) -> None:
    """The trace of all frames with a moving sweep up to `frame`, in the strip below the fan, in place."""
    height, width = screen.height, screen.width
    base, gain = height - 9, 16
    left, right = 30, width - 30
    columns = np.linspace(left, right, 6 * len(phases)).astype(int)
    values = ecg(np.interp(np.linspace(0, len(phases) - 1, 6 * len(phases)), np.arange(len(phases)), phases))
    points = np.stack([columns, np.round(base - gain * values).astype(int)], axis=1)
    cv2.polylines(picture, [points[: 6 * (frame + 1)].astype(np.int32)], False, (70, 230, 90), 1, cv2.LINE_AA)
    column = int(columns[min(6 * (frame + 1), len(columns)) - 1])
    cv2.line(picture, (column, height - 28), (column, height - 4), (230, 230, 80), 1)
