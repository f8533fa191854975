"""One answer to all clips of a study against the best single clip, on the echo phantom: every patient is tested once, over the folds of a split.

    python benchmarks/studies.py --patients 120 --out /tmp/studies

Makes and prepares a phantom, learns a head over studies in each fold (`vfm finetune --level study`) and scores the test predictions of all folds
together: mean absolute error with intervals over patients, and paired differences against the best single clip, which is chosen in each fold by its
own teaching patients. With --views none the head is not told views. Prints the table and writes studies.json. Every further `key=value` is a setting
of the run.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
from adaptation import make_data

from domains.base import load_domain
from domains.store.prepared import Prepared
from recipes.config import Layer, parse_assignments, resolve
from recipes.evaluate.compare import Labelled, score
from recipes.evaluate.evaluation import Evaluation
from recipes.evaluate.statistics import DRAWS
from recipes.finetune import defaults
from recipes.jobs.finetune import finetune
from recipes.training.reporter import SilentReporter

FOLDS = 5
TITLES = {
    "constant": "training median",
    "single": "best single clip",
    "mean": "mean of clips, one probe",
    "views": "mean of clips, a probe a view",
    "study": "attention over clips",
}


def tested(folder: Path, settings: list[str], key: bytes, fold: int) -> list[dict[str, str]]:
    """Lines of predictions.csv of one fold."""
    values = parse_assignments([f"task.fold={fold}", f"task.folds={FOLDS}", *settings])
    layers = [defaults(of_studies=True), Layer("domain echo", load_domain("echo").run_layer()), Layer("here", values)]
    finetune(resolve(layers), folder / f"fold{fold}", key=key, overwrite=True, reporter=SilentReporter())
    with (folder / f"fold{fold}" / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def together(lines: list[dict[str, str]], task: str, unit: str, reference: str, recordings: int) -> Evaluation:
    """The test predictions of all folds as one evaluation; differences against `reference`. recordings: of all these studies."""
    names = [name for name in TITLES if any(line["encoder"] == name for line in lines)]
    own = {name: {line["study"]: line for line in lines if line["encoder"] == name} for name in names}
    studies = sorted(own["study"])
    first = [own["study"][study] for study in studies]
    patients = tuple(line["patient"] for line in first)
    truth = np.array([float(line["truth"]) for line in first])
    fold = np.array([int(line["fold"]) for line in first])
    labelled = Labelled("regression", truth, (), patients, tuple(studies), fold)
    said = {name: np.array([float(own[name][study]["prediction"]) for study in studies]) for name in names}
    rows = score(labelled, said, reference, titles=TITLES, dimensions=dict.fromkeys(names, 0))
    return Evaluation(
        protocol="study", task=task, unit=unit, labelled=labelled, video_ids=tuple(studies), rows=tuple(rows), reference=reference, folds=FOLDS,
        clips=0, seed=0, draws=DRAWS, recordings=recordings,
    )  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=120)
    parser.add_argument("--phantom-seed", type=int, default=0)
    parser.add_argument("--encoder", default="vfm-tiny")
    parser.add_argument("--tasks", nargs="+", default=["ef"], help="of the domain, with a number")
    parser.add_argument("--views", nargs="+", default=["probe", "none"], help="as task.study.views")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("settings", nargs="*", help="key=value")
    asked = parser.parse_args()
    data, labels, key = make_data(
        asked.out / f"phantom-{asked.patients}-{asked.phantom_seed}", asked.patients, asked.phantom_seed
    )
    results = {}
    for task in asked.tasks:
        for views in asked.views:
            began = time.perf_counter()
            settings = [
                f"data.path={data}", f"task.labels={labels}", f"task.name={task}", f"task.study.views={views}", f"encoder.name={asked.encoder}",
                f"task.study.features={asked.out / 'features'}", *asked.settings,
            ]  # fmt: skip
            runs = asked.out / f"{task}-{views}"
            lines = [line for fold in range(FOLDS) for line in tested(runs, settings, key, fold)]
            unit = load_domain("echo").task(task).unit
            for reference in ("single", "mean"):
                found = together(lines, task, unit, reference, len(Prepared.open(data)))
                head, table = found.table()
                print(f"\n{task}, views: {views}, {time.perf_counter() - began:.0f} s")
                widths = [max(len(line[i]) for line in [head, *table]) for i in range(len(head))]
                for line in [head, *table]:
                    print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
                print("  " + found.verdict(), flush=True)
                results[f"{task}, views {views}, against {reference}"] = found.to_dict()
    (asked.out / "studies.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
