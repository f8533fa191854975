"""Several evaluations of one encoder that share their features, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domains.store.annotated import labels_of, task_of
from domains.store.labels import read_labels
from domains.store.prepared import Prepared
from recipes.evaluate.baselines import BASELINES
from recipes.evaluate.evaluation import Evaluation
from recipes.evaluate.features import ReadProgress
from recipes.jobs.evaluate import evaluate, gather
from recipes.report.contents import Contents
from recipes.report.page import write_report
from recipes.runs.metrics import METRICS


def evaluate_and_report(
    asked: Sequence[tuple[str, str]],
    encoder: str | Path,
    data: str | Path,
    labels: Path | None,
    page: Path,
    *,
    title: str,
    baselines: tuple[str, ...] = BASELINES,
    folds: int = 5,
    split: str = "",
    clips: int = 3,
    seed: int = 0,
    key: bytes | None = None,
    domain: str | None = None,
    out: Path | None = None,
    online: bool = False,
    phantom: bool = False,
    notes: Sequence[str] = (),
    progress: ReadProgress | None = None,
) -> list[Evaluation]:
    """Run every (protocol, task) of `asked` on the same features and write the report to `page`.

    out: each evaluation's predictions go to `out/<protocol>-<task>`; a single one's to `out`. The other arguments are
    those of `recipes.jobs.evaluate.evaluate`.
    """
    prepared = Prepared.open(data)
    settings = {task: task_of(prepared, domain or prepared.domain, task) for _, task in asked}
    gathered = gather(encoder, prepared, baselines=baselines, clips=clips, online=online, progress=progress)
    found = []
    for protocol, task in asked:
        folder = out / f"{protocol}-{task}" if out and len(asked) > 1 else out
        found.append(
            evaluate(
                protocol, encoder, prepared, labels, task, baselines=baselines, folds=folds, split=split, clips=clips, seed=seed,
                key=key, domain=domain, out=folder, online=online, gathered=gathered,
            )
        )  # fmt: skip
    run = Path(encoder)
    contents = Contents(
        prepared=prepared,
        title=title,
        run=run if (run / METRICS).is_file() else None,
        evaluations=found,
        features=gathered.features,
        titles=gathered.titles,
        labels={task: read_labels(labels_of(prepared, labels), one, prepared, key) for task, one in settings.items()},
        units={task: one.unit for task, one in settings.items()},
        phantom=phantom,
        notes=list(notes),
        seed=seed,
    )
    write_report(page, contents)
    return found
