"""The page of a head over studies: how it does, and what it looked at in each."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from domains.store.prepared import Prepared
from recipes.evaluate.attention import PICTURES, Seen, in_words
from recipes.evaluate.evaluation import Evaluation
from recipes.report.comparison import compared_in, verdicts
from recipes.report.html import card, count, section
from recipes.report.page import framed, write_page
from recipes.report.pictures import contact_sheet

SHOWN = 40  # studies on the page


def write_study_report(
    evaluation: Evaluation,
    shown: Sequence[Seen],
    of: int,
    prepared: Prepared,
    run: Path,
    *,
    title: str,
    adapted: bool = False,
) -> Path:
    """`run`/report.html: the comparison, and of some test studies, of so many, their clips with their weights. adapted: the encoder learned with the
    head. Raises StorageError."""
    features = "features that the encoder gave before it was adapted" if adapted else "the same features"
    lead = (
        "Every study is predicted by a head that saw none of its patients. It is measured against single clips, and against the mean of "
        f"what the clips say, by linear probes of {features}. Brackets are 95% intervals from a bootstrap over patients."
    )
    chosen = f"{len(shown)} of {of} studies" if len(shown) < of else count(of, "study", "studies")
    looked = (
        f"{chosen}, the worst predicted first. The middle frame of each clip, the largest weight first; the weights of a study add up to "
        "100%. A weight says how much a clip counts in the answer. It does not say why, nor that what is seen in it is abnormal."
    )
    body = (
        verdicts([evaluation])
        + section("comparison", "Comparison", lead, compared_in(evaluation))
        + section("studies", "What was looked at", looked, *(_one(one, evaluation, run) for one in shown))
    )
    navigation = {"comparison": "Comparison", "studies": "What was looked at"}
    return write_page(run / "report.html", framed(title, prepared.domain, body, navigation))


def _one(one: Seen, evaluation: Evaluation, run: Path) -> str:
    unit = f" {evaluation.unit}" if evaluation.unit else ""
    classes = evaluation.labelled.classes
    said = in_words(one.answer.prediction, classes)
    said = said if classes else f"{float(said):.1f}{unit}"
    truth = one.truth if classes else f"{float(one.truth):.1f}{unit}"
    picture = contact_sheet(run / PICTURES / f"{one.study}.png") or ""
    return card(
        f"<h3>study {escape(one.study)}</h3>",
        f'<p class="lead">said {escape(said)}, true {escape(truth)}</p>',
        f'<img src="{picture}" alt="clips and their weights">',
    )
