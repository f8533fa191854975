"""What went in and what was set aside."""

from __future__ import annotations

from collections import Counter, defaultdict
from html import escape
from typing import Any

from domains.store.labels import Labels
from domains.store.manifest import CONTACT_SHEET
from recipes.report.contents import Contents, read_excluded
from recipes.report.html import card, count, section, span, table, task_name
from recipes.report.pictures import contact_sheet
from recipes.runs.metrics import read_metrics

REASONS = 3  # of a category, before the rest is only counted


def tiles(contents: Contents) -> str:
    """The counts at the top."""
    summary = contents.prepared.summary()
    shown = [
        (f"{summary['videos']:,}", "videos"),
        (f"{summary['patients']:,}", "patients"),
        (f"{summary['frames']:,}", "frames"),
        (f"{len(read_excluded(contents.prepared)):,}", "files set aside"),
    ]
    rows = read_metrics(contents.run) if contents.run else []
    if rows and "step" in rows[-1]:
        shown.append((f"{int(rows[-1]['step']):,}", "training steps"))
        if "seconds" in rows[-1]:
            shown.append((_duration(float(rows[-1]["seconds"])), "of training"))
    boxes = "".join(f'<div class="tile"><b>{figure}</b><span>{what}</span></div>' for figure, what in shown)
    return f'<div class="tiles">{boxes}</div>'


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def went_in(contents: Contents) -> str:
    """Counts, ranges and the contact sheet."""
    prepared, summary = contents.prepared, contents.prepared.summary()
    side = summary["size"]
    videos, patients = count(summary["videos"], "video"), count(summary["patients"], "patient")
    rows = [
        ["recordings", f"{videos} of {patients} in {count(summary['studies'], 'study', 'studies')}"],
        [
            "frames",
            f"{summary['frames']:,}; {span(*summary['frames_per_video'])} a video, stored at {side} × {side} px",
        ],
        ["frame rate", _frame_rate(summary)],
        ["codecs", ", ".join(f"{escape(str(name))} ({n})" for name, n in summary["codecs"].items())],
    ]
    for task, labels in contents.labels.items():
        of = f"{len(labels)} of {videos}: {_spread(labels, escape(contents.units.get(task, '')))}"
        rows.append([f"labels, {escape(task_name(task))}", of])
    sheet = contact_sheet(prepared.folder / CONTACT_SHEET)
    picture = ""
    if sheet:
        picture = f'<h3>Contact sheet</h3><img class="sheet" alt="one frame of each of some videos" src="{sheet}">'
    lead = "As stored for training: what lies outside the picture region is blanked before anything is written."
    return section("data", "What went in", lead, card(table([], rows, look="facts"), picture))


def _frame_rate(summary: dict[str, Any]) -> str:
    if not summary["fps"]:
        return "unknown for all videos"
    unknown = summary["fps_unknown"]
    also = f"; unknown for {count(unknown, 'video')}" if unknown else ""
    return f"{span(*summary['fps'])} frames a second{also}"


def _spread(labels: Labels, unit: str) -> str:
    """Counts of classes, or range and mean of values."""
    if labels.classes:
        found = Counter(labels.values.tolist())
        return ", ".join(f"{escape(name)} {found.get(number, 0)}" for number, name in enumerate(labels.classes))
    values = labels.values
    return f"{values.min():.3g} to {values.max():.3g} {unit}, mean {values.mean():.3g}"


def set_aside(contents: Contents) -> str:
    """Every file that was not used, by category, with what is said of them."""
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for row in read_excluded(contents.prepared):
        reasons[row.get("category", "")][row.get("reason", "")] += 1
    unread = {failure.video_id: failure.reason for e in contents.evaluations for failure in e.excluded}
    for reason in unread.values():
        reasons["unreadable at evaluation"][reason] += 1
    if not reasons:
        return section("aside", "What was set aside", "", card("Nothing: every file found was used."))
    most = max(sum(found.values()) for found in reasons.values())
    rows = []
    for category, found in sorted(reasons.items(), key=lambda item: -sum(item[1].values())):
        n = sum(found.values())
        said = "; ".join(f"{escape(reason)} ({times})" for reason, times in found.most_common(REASONS))
        more = f"; and {len(found) - REASONS} other reasons" if len(found) > REASONS else ""
        bar = f'<div style="width:130px"><div class="bar" style="width:{100 * n / most:.0f}%"></div></div>'
        rows.append([escape(category.replace("_", " ")), str(n), bar, said + more])
    lead = "Nothing is dropped in silence. Each file is listed in excluded.csv under its pseudonym."
    shown = table(["category", "files", "", "reasons"], rows, look="bars")
    return section("aside", "What was set aside", lead, card(shown))
