"""What runs of benchmarks/alignment.py say of procedures that they were never asked about: more of them, and so narrower intervals.

    python benchmarks/alignment_again.py --work /tmp/alignment --groups few-anchored few-asr_a few-asr_b --seeds 3 --procedures 40 --phantom-seed 79

--work: where alignment.py left its runs; the new procedures are made beside them and kept. Zero-shot phases, tools and kinds of operations of all of
them, seeds averaged; bootstraps over procedures, paired differences of the first group against each other one.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from alignment_answers import TOOL, read_moments, read_tool, show
from alignment_data import Folder, make_procedures

from domains.prepare.privacy import load_key
from recipes.evaluate.phases import PHASES
from recipes.evaluate.scored import lines_of
from recipes.evaluate.statistics import DRAWS
from recipes.evaluate.zero_shot import mean_of
from recipes.jobs.zero_shot import Rules, zero_shot


@dataclass(frozen=True)
class Question:
    """One run, asked. data: the prepared procedures; out: what it said."""

    run: Path
    data: Path
    out: Path
    every: float
    several: bool

    def ask(self) -> None:
        """Phases and tools, and of several kinds of operations which one it is; what is there already is kept."""
        torch.set_num_threads(1)
        for task in ("phase", "tool", *(("operation",) if self.several else ())):
            if not (self.out / task / "predictions.csv").is_file():
                rules = Rules(baselines=(), draws=2, every=self.every)
                zero_shot(self.run, self.data, None, task, rules, out=self.out / task)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--groups", nargs="+", required=True, help="the first is compared with each of the others")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--procedures", type=int, default=40)
    parser.add_argument("--phantom-seed", type=int, required=True, help="another than alignment.py had")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    folder = Folder(asked.work.absolute(), asked.seeds)
    settings = json.loads((folder.work / "settings.json").read_text(encoding="utf-8"))
    if settings["phantom_seed"] == asked.phantom_seed:
        raise SystemExit("these are the procedures that the runs learned from: use another --phantom-seed")
    place = folder.work / f"again-{asked.phantom_seed}"
    data = place / "prepared"
    if not (data / "prepared.json").is_file():
        key = load_key(folder.work / "key", create=True)
        pace, size = settings["pace"], settings["size"]
        make_procedures(
            place,
            asked.procedures,
            asked.phantom_seed,
            settings["operations"],
            settings["narrated"],
            pace,
            size,
            key,
            asked.workers,
        )
    several = len(settings["operations"]) > 1
    names = {group: [f"{group}-{seed}" for seed in range(asked.seeds)] for group in asked.groups}
    questions = [
        Question(folder.run(name), data, place / "runs" / name, settings["every"], several)
        for each in names.values()
        for name in each
    ]
    with ProcessPoolExecutor(asked.workers) as pool:
        list(pool.map(Question.ask, questions))
    first, *others = asked.groups
    asked_of = [("phase", read_moments, PHASES[:2]), ("tool", read_tool, (TOOL,))]
    if several:
        asked_of.append(("operation", partial(read_moments, task="operation"), PHASES[:2]))
    for title, reader, metrics in asked_of:
        read = {group: [reader(place / "runs" / name) for name in each] for group, each in names.items()}
        who = read[first][0].patients
        scorers = {group: (group, mean_of([one.scorer for one in each])) for group, each in read.items()}
        for other in others:
            print(f"\nzero-shot {title} ({len(who)} procedures; differences against {other})")
            pair = {group: scorers[group] for group in (other, first)}
            lines = lines_of(pair, metrics, who, other, draws=DRAWS, seed=0)
            show(lines, metrics, {group: range(asked.seeds) for group in pair})


if __name__ == "__main__":
    main()
