"""What a reader must know before repeating a figure of the page."""

from __future__ import annotations

from html import escape

from recipes.report.contents import Contents
from recipes.report.html import card, count, section

FEW_PATIENTS = 50  # below this a percentile interval is noticeably too narrow


def caveats(contents: Contents) -> str:
    """Synthetic data, few patients, what the intervals leave out, what was seen before, what is missing."""
    said = [*_of_data(contents), *_of_figures(contents)]
    told = {note for evaluation in contents.evaluations for note in evaluation.notes}
    said += [note.rstrip(".") + "." for note in contents.notes if note not in told]
    if not said:
        return ""
    listed = "".join(f"<li>{escape(line)}</li>" for line in said)
    return section("trust", "How far to trust this", "", card(f'<ul class="plain">{listed}</ul>'))


def _of_data(contents: Contents) -> list[str]:
    if not contents.phantom:
        return []
    return [
        "The recordings are a phantom, drawn by vfm with known labels. The figures show that the software works from "
        "end to end; they say nothing about patients."
    ]


def _of_figures(contents: Contents) -> list[str]:
    evaluations = contents.evaluations
    if not evaluations:
        return []
    fewest = min(evaluation.patients for evaluation in evaluations)
    said = [
        f"The intervals hold the predictions fixed and draw patients (at least {count(fewest, 'patient')}): they say "
        "what other patients would change, not what another training run or another centre would."
    ]
    if fewest < FEW_PATIENTS:
        said.append(
            f"With {count(fewest, 'patient')} a bootstrap interval is somewhat too narrow; a difference whose interval "
            "ends near 0 is not settled."
        )
    if any(evaluation.beaten_by_pixels for evaluation in evaluations):
        said.append(
            "Pixel statistics predict better than the encoder somewhere above: there the task can be read off "
            "brightness and its change over time, and the encoder adds nothing yet."
        )
    if contents.run is not None and any(evaluation.protocol != "finetune" for evaluation in evaluations):
        said.append(
            "Probed recordings that were also pretrained on (without labels) are recordings that the encoder has seen; "
            "for new ones, hold patients out of pretraining."
        )
    if excluded := {failure.video_id for evaluation in evaluations for failure in evaluation.excluded}:
        said.append(f"{count(len(excluded), 'labelled video')} could not be read and are in no figure.")
    if unmatched := max(evaluation.unmatched for evaluation in evaluations):
        said.append(f"{count(unmatched, 'row')} of the labels match no recording.")
    return said
