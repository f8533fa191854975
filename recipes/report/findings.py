"""The page of a draft: what similar studies' reports say alike, and the clips that make them similar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import cv2
import numpy as np

from domains.store.frames import Frames
from recipes.evaluate.findings import Finding
from recipes.evaluate.similar import Neighbour
from recipes.report.html import card, count, section, table
from recipes.report.page import framed
from recipes.report.pictures import data_uri

DRAFT = "Research draft. Not a diagnosis, not a medical report, not for the care of any patient."
SIDE = 112
PAIRS = 8  # shown of a neighbour, the most alike first
Shown = Sequence[tuple[Frames | None, Frames | None]]


def draft_page(
    study: str,
    findings: Sequence[Finding],
    neighbours: Sequence[Neighbour],
    shown: Sequence[Shown],
    withheld: Mapping[str, int],
    *,
    domain: str,
    strangers: bool,
) -> str:
    """The page as HTML. shown: of each neighbour, the frames of each of its pairs of clips. strangers: the two folders have different keys."""
    warning = (
        f"<strong>{DRAFT}</strong><p>Nobody has read this study. The sentences below were copied from reports of other patients whose recordings "
        "look similar to a model; a thing that only this patient has cannot be among them, and similar pictures may have different findings.</p>"
    )
    if strangers:
        warning += "<p>The two folders have different pseudonym keys: whether an earlier study of the same patient is among them is not known.</p>"
    of = len(neighbours)
    rows = [
        [
            escape(one.section),
            escape(one.words),
            f"{len(one.reports)} of {of}",
            ", ".join(f'<a href="#near{place + 1}">{place + 1}</a>' for place in one.reports),
        ]
        for one in findings
    ]
    said = table(["", "statement", "said by", "studies"], rows) if rows else "<p>They say nothing alike.</p>"
    kept = "".join(
        f"<p class='lead'>Not repeated: {count(n, 'statement')}, {escape(why)}.</p>"
        for why, n in sorted(withheld.items())
    )
    lead = (
        f"What the reports of the {of} most similar studies say alike. Numbers are the range that those reports have. "
        "Statements that contradict each other are all shown, with how many say each."
    )
    evidence = [
        _neighbour(place, one, pairs) for place, (one, pairs) in enumerate(zip(neighbours, shown, strict=True), 1)
    ]
    why = (
        "Of each recording of this study (left) the clip of the other study (right) that is most like it, by the cosine of what the model says "
        "of both. A study's similarity is the mean over these pairs."
    )
    body = section("findings", "Retrieved statements", lead, card(said, kept)) + section(
        "evidence", "Evidence", why, *evidence
    )
    navigation = {"findings": "Retrieved statements", "evidence": "Evidence"}
    badge = ' <span class="badge phantom">research draft</span>'
    opening = f'<div class="verdicts"><div class="verdict bad">{warning}</div></div>'
    return framed(f"Study {study}", domain, body, navigation, opening=opening, badge=badge)


def _neighbour(place: int, one: Neighbour, pairs: Shown) -> str:
    order = sorted(range(len(one.pairs)), key=lambda at: -one.pairs[at].hit.similarity)[:PAIRS]
    cells = [
        f'<img src="{_side_by_side(*pairs[at])}" alt="two clips"><small>similarity {one.pairs[at].hit.similarity:.3f}</small>'
        for at in order
    ]
    rows = [cells[first : first + 4] for first in range(0, len(cells), 4)]
    heading = f'<h3 id="near{place}">{place}: study {escape(one.study)}, similarity {one.similarity:.3f}</h3>'
    return card(heading, table([], rows))


def _side_by_side(mine: Frames | None, theirs: Frames | None) -> str:
    """Two frames as one picture; black: what cannot be read."""
    picture = np.zeros((SIDE, 2 * SIDE + 4, 3), np.uint8)
    for frame, start in ((mine, 0), (theirs, SIDE + 4)):
        if frame is not None:
            picture[:, start : start + SIDE] = cv2.resize(np.repeat(frame, 3 // frame.shape[-1], axis=-1), (SIDE, SIDE))
    _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return data_uri(png.tobytes(), "png")
