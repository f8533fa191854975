"""What adaptation gains on the echo phantom: DISCOVR (or any recipe) against the same encoder unadapted, on held-out patients.

    python benchmarks/adaptation.py --patients 96 --out /tmp/adaptation            # about 20 minutes on two CPU cores
    python benchmarks/adaptation.py --patients 96 --recipe videomae --out /tmp/adaptation

Synthesises a phantom, prepares it, continues the training of `vfm-tiny` on all of its cines without labels, and probes frozen features by
patient-grouped cross-validation: kNN and linear, EF and view, with patient-level bootstrap intervals and paired differences. Prints the
tables and writes adaptation.json. Every further `key=value` is a setting of the run.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from domains.base import load_domain
from domains.echo.phantom import synthesise
from domains.prepare.ingest import prepare
from domains.prepare.privacy import load_key
from domains.store.prepared import Prepared
from recipes.config import Layer, parse_assignments, recipe_yaml, resolve, yaml_layer
from recipes.jobs.evaluate import evaluate, gather
from recipes.jobs.pretrain import pretrain
from recipes.training.reporter import SilentReporter, StepInfo


class Lines(SilentReporter):
    """A line every hundred steps."""

    def step(self, info: StepInfo) -> None:
        """See Reporter."""
        if info.step % 100 == 0 or info.step == info.total:
            losses = " ".join(f"{name} {value:.3g}" for name, value in info.losses.items())
            print(
                f"  step {info.step}/{info.total}  {info.clips_per_second:.1f} clips/s  wait {info.data_wait:.0%}  {losses}",
                flush=True,
            )

    def warn(self, text: str) -> None:
        """See Reporter."""
        print(f"  warning: {text}", flush=True)


def make_data(folder: Path, patients: int, seed: int) -> tuple[Path, Path, bytes]:
    """(prepared folder, labels, key) of a phantom; kept for the next call with the same arguments."""
    studies, prepared = folder / "studies", folder / "prepared"
    key = load_key(folder / "key", create=True)
    if not (prepared / "prepared.json").exists():
        began = time.perf_counter()
        synthesise(studies, patients, seed, workers=2)
        print(f"synthesised {patients} patients in {time.perf_counter() - began:.0f} s", flush=True)
        began = time.perf_counter()
        result = prepare(studies, prepared, load_domain("echo"), key=key, workers=2, overwrite=True)
        print(
            f"prepared {result.videos} cines, set {len(result.excluded)} files aside, in {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    return prepared, studies / "labels.csv", key


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=96)
    parser.add_argument("--phantom-seed", type=int, default=0)
    parser.add_argument("--recipe", default="discovr")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default=None, help="name of the run's folder; default: the recipe")
    parser.add_argument("settings", nargs="*", help="key=value")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    prepared, labels, key = make_data(
        asked.out / f"phantom-{asked.patients}-{asked.phantom_seed}", asked.patients, asked.phantom_seed
    )

    domain = load_domain("echo")
    layers = [
        yaml_layer(recipe_yaml(asked.recipe)),
        Layer("domain echo", domain.run_layer()),
        Layer("command line", parse_assignments([f"data.path={prepared}", *asked.settings])),
    ]
    run = asked.out / (asked.name or asked.recipe)
    began = time.perf_counter()
    pretrain(resolve(layers), run, overwrite=True, reporter=Lines())
    seconds = time.perf_counter() - began
    print(f"pretrained in {seconds / 60:.1f} min", flush=True)

    store = Prepared.open(prepared)
    gathered = gather(run, store)
    results: dict[str, Any] = {
        "recipe": asked.recipe,
        "patients": asked.patients,
        "minutes": seconds / 60,
        "settings": asked.settings,
    }
    for protocol, task in (("linear", "ef"), ("knn", "view"), ("knn", "ef"), ("linear", "view")):
        found = evaluate(protocol, run, store, labels, task, key=key, gathered=gathered)
        head, lines = found.table()
        widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
        print(f"\n{protocol} {task}")
        for line in [head, *lines]:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
        print("  " + found.verdict(), flush=True)
        results[f"{protocol} {task}"] = found.to_dict()
    (run / "adaptation.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
