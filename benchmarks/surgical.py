"""What of the room and of the border is left in a prepared folder, against what the surgical phantom knows of itself.

    python benchmarks/surgical.py --procedures 12 --out /tmp/surgical_check

makes the phantom, prepares it with `--domain surgical`, and prints: of the frames outside of the body, the share that is withheld; of those inside,
the share that is withheld with them; how well the border is found (intersection over union with the circle that was drawn), and how many pixels of
what is written into it are kept. With --clips FILE ... it tells of real recordings how many frames would be withheld.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

from domains.base import load_domain
from domains.layouts import open_layout
from domains.media import open_reader
from domains.prepare import region
from domains.prepare.ingest import prepare
from domains.prepare.outside import INSIDE, MARGIN, OUTSIDE, tissue_share
from domains.store import annotated
from domains.store.clips import hidden_frames
from domains.store.prepared import Prepared
from domains.surgical.phantom import make, name_of, synthesise

SEED = 7


def withheld(prepared: Prepared) -> dict[str, float]:
    """Shares of stored frames that are withheld, by where the endoscope is; "near": in the body, within the margin of a stretch outside."""
    seen, hidden = Counter[str](), Counter[str]()
    spans: dict[int, list[tuple[float, float, str]]] = {}
    for row, start, end, value, _ in annotated.spans(prepared, "out_of_body"):
        spans.setdefault(row, []).append((start, end, value))
    for row in range(len(prepared)):
        away = hidden_frames(prepared.outside(row), prepared.length(row))
        rate = prepared.fps(row) or 1.0
        for frame, gone in enumerate(away):
            time = frame / rate
            inside = [value for start, end, value in spans.get(row, []) if start <= time < end]
            close = any(start - MARGIN - 1 <= time < end + MARGIN + 1 for start, end, _ in spans.get(row, []))
            where = inside[0] if inside else "near" if close else "body"
            seen[where] += 1
            hidden[where] += bool(gone)
    return {f"{where}: {count} frames, withheld": hidden[where] / count for where, count in sorted(seen.items())}


def border(folder: Path, procedures: int, pace: float) -> dict[str, float]:
    """Mean and least intersection over union of the picture found with that drawn, and the largest share of drawn letters that is kept."""
    found = []
    letters = []
    for number in range(procedures):
        glass = make(SEED, number, pace)[1].glass
        with open_reader(folder / name_of(number)) as reader:
            at = np.linspace(0, len(reader) - 1, 32).round().astype(int)
            mask = region.endoscope(reader.frames(at.tolist()), 0.1).mask
        found.append((mask & glass.picture).sum() / (mask | glass.picture).sum())
        if glass.letters.any():
            letters.append((mask & glass.letters).sum() / glass.letters.sum())
    return {
        "border: mean intersection over union": float(np.mean(found)),
        "border: least": float(min(found)),
        f"letters in the border ({len(letters)} videos): share kept, at most": float(max(letters, default=0.0)),
    }


def clips(paths: list[Path]) -> dict[str, float]:
    """Of real recordings or pictures, the share of seconds that is surely inside, doubtful, surely outside."""
    told: dict[str, float] = {}
    for path in paths:
        with open_reader(path) as reader:
            times = reader.times()
            step = 1 if times is None else max(1, round(len(reader) / max(1.0, float(times[-1]))))
            shares = [tissue_share(reader.frames([index])[0]) for index in range(0, len(reader), step)]
        kinds = Counter("inside" if one >= INSIDE else "outside" if one < OUTSIDE else "doubtful" for one in shares)
        told |= {f"{path.name}: {kind}, of {len(shares)} frames": count / len(shares) for kind, count in kinds.items()}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--procedures", type=int, default=12)
    parser.add_argument("--pace", type=float, default=9.0, help="of the phantom: times faster than an operation")
    parser.add_argument("--out", type=Path, default=Path("/tmp/surgical_check"))
    parser.add_argument("--clips", type=Path, nargs="*", default=[])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.clips:
        figures = clips(asked.clips)
    else:
        source, out = asked.out / "phantom", asked.out / "prepared"
        if not (source / "spans.csv").exists():
            synthesise(source, asked.procedures, seed=SEED, pace=asked.pace)
        prepare(source, out, load_domain("surgical"), key=b"k" * 32, overwrite=True, layout=open_layout(source))
        figures = withheld(Prepared.open(out)) | border(source, asked.procedures, asked.pace)
    if asked.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, value in figures.items():
            print(f"{value:8.2%}  {name}")


if __name__ == "__main__":
    main()
