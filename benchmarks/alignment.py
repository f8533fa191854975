"""What alignment with words gains on the phantoms, in answers that no label taught: phases, tools, views, retrieval; and what temporal heads add.

    python benchmarks/alignment.py --work /tmp/alignment --workers 2 --json figures.json
    python benchmarks/alignment.py --work /tmp/alignment --workers 16 --limit 230 --json figures.json       # keeps what is finished by then

Makes a surgical phantom (an official part of its procedures is tested) and two echo phantoms (one teaches, one is tested), and aligns `vfm-tiny` and
`vfm-tiny-text` with their texts, a trial for each recipe and seed:

    start      both towers and projections as they begin: unaligned
    clip       all texts: two transcripts, key steps, abstracts
    hecvl, peskavlp     the same, by levels
    surgvlp    narrations alone: both transcripts, each the anchor of its own texts; both, anchored at asr_a as in the paper; asr_a alone;
               asr_b alone (the same loss, whose third term then has nothing to compare)
    few        the same four, of a third of the procedures
    ophclip    texts of a third of the procedures (or --narrated); with the others as silent videos beside them (silent), the same samples, of which
               the silent ones do not count (off), and as many narrations and titles without them (narrated)
    captions, reports   of the echo phantom, by clip

and asks each on the tested procedures or patients. `heads` are trained over frozen descriptions: causal and offline, classes balanced or not. Trials
run beside each other, each one thread of a process of its own, on a GPU if there is one; those that are finished are not made again. Seeds are
averaged; intervals are bootstraps over procedures (patients) of that average, differences are paired. --only NAME ...: these groups alone.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from alignment_data import DONE, Plan, check_settings, make_data


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/vfm-alignment"))
    parser.add_argument("--procedures", type=int, default=64)
    parser.add_argument(
        "--operations",
        nargs="+",
        default=["cholecystectomy"],
        help="of several, ophclip learns titles, and kinds are asked",
    )
    parser.add_argument(
        "--narrated", type=int, default=0, help="procedures of each kind that few and ophclip have words of; 0: a third"
    )
    parser.add_argument("--pace", type=float, default=18.0, help="of the procedures; 18: about two minutes")
    parser.add_argument("--patients", type=int, default=64, help="echo: that teach; half as many are tested")
    parser.add_argument("--phantom-seed", type=int, default=41)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--every", type=float, default=2.0, help="zero-shot: seconds from one moment to the next")
    parser.add_argument("--set", action="append", default=[], help="key=value for every alignment")
    parser.add_argument("--only", nargs="*", default=[], help="groups by the beginnings of their names")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds for everything but the answers")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    asked = parser.parse_args()
    began = time.monotonic()
    plan = Plan(asked.work.absolute(), asked.seeds, asked)
    check_settings(plan)
    make_data(plan)
    from alignment_answers import questions  # what loads torch comes after: not in every process that makes phantoms
    from alignment_trials import carry_out_all, trials_of

    from recipes.bench.trial import device_name

    print(f"data are ready after {time.monotonic() - began:.0f} s", flush=True)
    carry_out_all(trials_of(plan), plan, began + asked.limit)
    figures = [found for one in questions(plan) if (found := one.answer(plan)) is not None]
    print(f"\n{time.monotonic() - began:.0f} s in all")
    if asked.json is not None:
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(asked).items()}
        runs = sorted(path.name for path in (plan.work / "runs").glob("*") if plan.done(path.name))
        seconds = {name: json.loads((plan.run(name) / DONE).read_text(encoding="utf-8"))["seconds"] for name in runs}
        found = {"settings": settings, "device": device_name(), "trial_seconds": seconds, "answers": figures}
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
