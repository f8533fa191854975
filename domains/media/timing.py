"""Frames a second of a DICOM cine. Four tags may say it, and may disagree."""

from __future__ import annotations

from typing import Any

import numpy as np


def frame_rate(
    header: Any, stream: float | None = None, measured: tuple[float, str] | None = None
) -> tuple[float | None, str, str]:
    """(fps or None, the tag it is from or "unknown", a note where tags disagree by more than a tenth).

    Precedence: what the times of the frames themselves say (`measured`: rate and keyword); FrameTimeVector where FrameIncrementPointer names
    it (the median, so that one pause does not count), FrameTime (how it was acquired), CineRate, RecommendedDisplayFrameRate (how it is to
    be shown), FrameTimeVector; last the rate of the video inside (`stream`), which may be that of a recorder.
    """
    said: dict[str, float] = {} if measured is None else {measured[1]: measured[0]}
    vector = _vector(header)
    pointed = "FrameIncrementPointer" in header and "(0018,1065)" in str(header.get("FrameIncrementPointer")).replace(
        " ", ""
    )
    if vector and pointed:
        said["FrameTimeVector"] = vector
    if time := _number(header, "FrameTime"):
        said["FrameTime"] = 1000.0 / time
    for keyword in ("CineRate", "RecommendedDisplayFrameRate"):
        if rate := _number(header, keyword):
            said[keyword] = rate
    if vector:
        said.setdefault("FrameTimeVector", vector)
    if stream:
        said["the video stream"] = stream
    sane = {keyword: rate for keyword, rate in said.items() if 0.5 <= rate <= 1000}
    if not sane:
        return None, "unknown", ""
    source, fps = next(iter(sane.items()))
    others = [f"{keyword} {rate:.4g}" for keyword, rate in sane.items() if abs(rate - fps) > 0.1 * fps]
    return fps, source, f"{source} says {fps:.4g} frames a second, {' and '.join(others)}" if others else ""


def _number(header: Any, keyword: str) -> float | None:
    try:
        value = float(header.get(keyword) or 0)
    except (TypeError, ValueError):
        return None
    return value if value > 0 else None


def _vector(header: Any) -> float | None:
    try:
        steps = [float(step) for step in header.get("FrameTimeVector") or []][1:]
    except (TypeError, ValueError):
        return None
    middle = float(np.median(steps)) if steps else 0.0
    return 1000.0 / middle if middle > 0 else None
