"""Whom an encoder has met: kept with every run, so that an evaluation can say whether it asks about strangers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domains.errors import StorageError
from domains.store.prepared import Prepared
from recipes.jobs.start import start_of
from recipes.runs.run import SEEN


@dataclass(frozen=True)
class Looked:
    """Labels that were looked at while a run trained, and not learned from: of which task, of whom (pseudonyms)."""

    task: str
    patients: frozenset[str]


def write_seen(
    run: Path,
    prepared: Prepared,
    rows: Iterable[int],
    task: str = "",
    looked: Looked | None = None,
    also: Iterable[tuple[Prepared, Iterable[int], str]] = (),
) -> None:
    """Keep the pseudonyms of the patients in `rows` with a run. task: whose labels were learned from, "" for none. looked: others that were looked
    at; what an earlier part of the same run has looked at stays. also: of further folders, their rows and task.

    Raises StorageError.
    """
    met = met_in(prepared, rows, task)
    if others := [met_in(*other) for other in also]:
        met["also"] = others
    if labels := [*([looked] if looked is not None else []), *looked_at(run)]:
        met["looked"] = [
            {"task": name, "patients": sorted(set().union(*(one.patients for one in labels if one.task == name)))}
            for name in sorted({one.task for one in labels})
        ]
    try:
        (run / SEEN).write_text(json.dumps(met) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror})", where=run, do="Free some space") from None


def met_in(prepared: Prepared, rows: Iterable[int], task: str) -> dict[str, Any]:
    """Whom a run has met in one folder."""
    patients = prepared.patients
    return {"key": prepared.info.get("key"), "task": task, "patients": sorted({patients[row] for row in rows})}


def looked_at(run: Path) -> list[Looked]:
    """Labels that a run has looked at so far; none where nothing is recorded."""
    try:
        met = json.loads((run / SEEN).read_text(encoding="utf-8"))
        return [Looked(str(one["task"]), frozenset(one["patients"])) for one in met.get("looked", [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def meetings(encoder: str | Path, prepared: Prepared, tested: Iterable[str]) -> tuple[str, ...]:
    """A sentence for every run behind `encoder` (itself, those whose weights it took, their teachers and text towers) that has met tested patients.

    Pseudonyms are the same across prepared folders as long as their key is; where it is not, that is said.
    """
    people, said = set(tested), []
    behind: set[str] = set()
    waiting = [str(encoder)]
    while waiting:
        here = waiting.pop(0)
        if not here or here in behind:
            continue
        behind.add(here)
        start = start_of(here)
        if start is None:
            continue
        if sentence := meeting(Path(here), start.task, prepared, people):
            said.append(sentence)
        waiting += [start.init_from or start.name, start.teacher, start.text]
    return tuple(said)


def meeting(run: Path, task: str, prepared: Prepared, people: set[str]) -> str:
    """Whether one run has met `people`, in words; "" where it has not, or never recorded whom, having seen no label."""
    whom = who(prepared)
    try:
        met = json.loads((run / SEEN).read_text(encoding="utf-8"))
        folders = [
            (set(one["patients"]), one["key"], str(one.get("task", task))) for one in (met, *met.get("also", []))
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return (
            f"{run.name} was fine-tuned on labels of {task}; whether of the tested {whom} is not recorded"
            if task
            else ""
        )
    said = []
    for patients, key, taught in folders:
        if key != prepared.info.get("key"):
            what = f"{run.name} was trained on recordings prepared with another key"
            said.append(f"{what}: whether it has met the tested {whom} cannot be told")
        elif both := len(patients & people):
            labels = f"with their labels of {taught}, which flatters it" if taught else "without their labels"
            said.append(f"{run.name} was trained on recordings of {both} of the {len(people)} tested {whom}, {labels}")
    for one in looked_at(run):
        if known := len(one.patients & people):
            said.append(
                f"the labels of {one.task} of {known} of the {len(people)} tested {whom} were looked at while {run.name} trained (online kNN): "
                "what was chosen by them flatters it"
            )
    return "; ".join(dict.fromkeys(said))


def who(prepared: Prepared) -> str:
    """What a patient of the manifest is: patients, procedures, participants, ..."""
    return str(prepared.info.get("layout", {}).get("grouped_by", "patients"))
